"""A still and a short clip of every two-handed task, drawn offscreen.

    python scripts/gallery.py                         all tasks into docs/gallery/
    python scripts/gallery.py ShadowHandPen --steps 0 one still

The agent wanders: its actions are a random walk, slow enough for the eye.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import imageio.v3 as imageio
import numpy as np
import torch
from PIL import Image

from dima_isaac import make
from dima_isaac.cli.main import guarded
from dima_isaac.run.catalog import Catalog

STILL = (480, 360)
CLIP = (320, 240)
EVERY = 3  # control steps per frame of a clip: 20 frames per second


def picture(task: str, out: Path, steps: int, settle: int) -> None:
    """Write ``out/task.png`` and, if there are ``steps``, ``out/task.gif``."""
    env = make(task, num_envs=1, engine="mujoco", seed=1, device="cpu")
    dims, generator = env.spec.dims, torch.Generator().manual_seed(0)
    env.reset()
    action = torch.zeros(1, dims.agents, dims.action)
    for _ in range(settle):
        env.step(action)
    still = Image.fromarray(env.engine.render(0, *STILL)).quantize(192, dither=Image.Dither.NONE)
    still.save(out / f"{task}.png", optimize=True)
    frames: list[np.ndarray] = []
    for step in range(steps):
        action = (0.95 * action + 0.12 * torch.randn(action.shape, generator=generator)).clamp(-1.0, 1.0)
        env.step(action)
        if step % EVERY == 0:
            frames.append(env.engine.render(0, *CLIP))
    if frames:
        imageio.imwrite(out / f"{task}.gif", np.stack(frames), duration=1000 * EVERY / 60, loop=0)
    env.close()


def main() -> int:
    """Parse the command line and draw."""
    known = [name for name in Catalog().names("task") if name.startswith("ShadowHand")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=known, help="names of tasks; all two-handed ones by default")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"))
    parser.add_argument("--steps", type=int, default=90, help="control steps of a clip; 0 draws none")
    parser.add_argument("--settle", type=int, default=5, help="control steps before the still")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for task in args.tasks:
        picture(task, args.out, args.steps, args.settle)
        print(f"{args.out / task}.png")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda _: main()))
