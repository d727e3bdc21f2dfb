"""Shake every two-handed task with random actions and report what breaks.

    python scripts/sanity.py                          2,000 control steps x 64 environments of every task
    python scripts/sanity.py ShadowHandPen --steps 200 --envs 16

Half of the environments get fresh uniform actions every step, half bang-bang ones held for five steps. Columns:
environment steps per second, environments found non-finite or too fast, contact buffers overflown, the fastest joint
(rad/s or m/s), and the lowest that any free prop was above the ground while its episode ran (m). Exits 1 when
something broke.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import torch

from dima_isaac import make
from dima_isaac.catalog import Catalog


def shake(task: str, envs: int, steps: int, seed: int) -> tuple[str, bool]:
    """One row of the table, and whether the task is sound."""
    env = make(task, num_envs=envs, engine="mujoco", seed=seed, device="cpu")
    engine, dims, generator = env.engine, env.spec.dims, torch.Generator().manual_seed(seed)
    props = [engine.actor_names.index(p.actor.name) for p in env.task.props if not (p.actor.fixed or p.actor.ghost)]
    shape = (envs, dims.agents, dims.action)
    fastest, lowest, finite = torch.zeros(()), torch.tensor(float("inf")), True
    held = torch.zeros(shape)
    start = time.perf_counter()
    env.reset()
    for step in range(steps):
        action = 2.0 * torch.rand(shape, generator=generator) - 1.0
        if step % 5 == 0:
            held = action.sign()
        action[: envs // 2] = held[: envs // 2]
        row = env.step(action)
        finite &= bool(torch.isfinite(row.state).all() & torch.isfinite(row.reward).all())
        fastest = torch.maximum(fastest, engine.dof_vel.abs().max())
        if props:
            lowest = torch.minimum(lowest, engine.root_state[:, props, 2].min())
    rate = envs * steps / (time.perf_counter() - start)
    stats = {name: int(value) for name, value in engine.stats().items()}
    env.close()
    sound = finite and not any(stats.values()) and bool(lowest > -0.05)
    cells = [f"{rate:.0f}", stats["nonfinite"], stats["contact_overflow"], f"{fastest:.0f}", f"{lowest:.3f}"]
    return f"| {task} | " + " | ".join(map(str, cells)) + f" | {'yes' if sound else 'NO'} |", sound


def main() -> int:
    """Print the table; 1 if a task broke."""
    known = [name for name in Catalog().names("task") if name.startswith("ShadowHand")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=known)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | steps/s | non-finite | overflow | fastest joint | lowest prop | sound |")
    print("|---|---|---|---|---|---|---|")
    good = True
    for task in args.tasks:
        line, sound = shake(task, args.envs, args.steps, args.seed)
        print(line, flush=True)
        good &= sound
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
