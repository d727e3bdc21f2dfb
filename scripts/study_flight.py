"""What makes a world model learn how eggs fall: variants fitted to one run's replay, judged on other environments.

    python scripts/study_flight.py checkpoint=runs/ShadowHandOver/... [updates=1500] [seed=0]

The replay should hold exploring episodes (agent.explore.share > 0): a policy that keeps the egg in its hand shows no
flight. Environments 0 to 5 are held out. Columns: the egg's position error (1, 5 and 15 steps) over that of a linear
model fitted on the same rows; in free fall, the change of the egg's vertical velocity in one step (m/s) and the error
of its height after five steps (mm); and the seconds of one thread.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from dima_isaac.cli.main import guarded
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import study, table
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import restore
from dima_isaac.tools.study import dreamt, part, windows
from dima_isaac.train import probes
from dima_isaac.types import Window
from dima_isaac.world_model.config import WorldModelConfig
from dima_isaac.world_model.world_model import WorldModel

HELD, HORIZON, FALL = 6, 15, 5
X, Z, VZ = 374, 376, 383  # the egg's place, height and vertical velocity in ShadowHandOver's state
FLYING, LANDED = 0.45, 0.21  # m: below the fingers, above the height that ends the episode


def variants(cfg: WorldModelConfig) -> dict[str, tuple[WorldModelConfig, int]]:
    """Name -> configuration and batch; each adds one thing to the one before."""
    slow = replace(cfg.denoiser.optim, lr=3e-4, weight_decay=0.0)
    plain = replace(cfg, history=3, unroll=3, value_weight=0.0, doubt=0.0, denoiser=replace(cfg.denoiser, optim=slow))
    weighted = replace(plain, value_weight=0.7)
    wide = replace(weighted, unroll=1)
    fast = replace(wide, denoiser=replace(cfg.denoiser, optim=replace(slow, lr=1e-3)))
    decay = replace(fast.denoiser.optim, weight_decay=0.1)
    small = replace(fast, history=2, denoiser=replace(fast.denoiser, optim=decay))
    return {
        "three passes over 64 windows": (plain, 64),
        "+ weights from the value": (weighted, 64),
        "+ one pass over 192 windows": (wide, 192),
        "+ learning rate 1e-3": (fast, 192),
        "+ history 2, weight decay 0.1": (small, 192),
    }


@torch.no_grad()
def judged(world: WorldModel, linear: probes.LinearModel, held: ReplayBuffer) -> list[str]:
    """The table's cells for one fitted world model."""
    h = world.history
    window = windows(held, h + HORIZON, 1500)
    true = world.space.z(window.state)[:, h - 1 :]
    fitted = study.linear(linear, true[:, 0], window.action[:, h - 1 : h - 1 + HORIZON])
    errors = [(guess - true)[:, :, X : X + 3] for guess in (dreamt(world, window, HORIZON), fitted)]
    ratios = [float(errors[0][:, t].norm() / errors[1][:, t].norm()) for t in (1, 5, 15)]
    window = windows(held, h + FALL)
    height = window.state[:, h - 1 :, Z]
    falling = (height.amax(1) < FLYING) & (height.amin(1) > LANDED)
    window = Window(**{name: column[falling] for name, column in vars(window).items()})
    mean, std = world.space._scale()
    guess, true = dreamt(world, window, FALL) * std + mean, window.state[:, h - 1 :]
    change = [float((s[:, 1, VZ] - s[:, 0, VZ]).mean()) for s in (guess, true)]
    miss = 1e3 * float((guess[:, FALL, Z] - true[:, FALL, Z]).square().mean().sqrt())
    return [*(f"{ratio:.2f}" for ratio in ratios), f"{change[0]:.3f} of {change[1]:.3f}", f"{miss:.0f}"]


def compare(where: str, updates: int, seed: int) -> list[list[str]]:
    """One row per variant."""
    restored = restore(where, Catalog(), EvaluateConfig(checkpoint=where))
    build.set_global_state(restored.cfg)
    env = restored.build_env(4, seed)
    agent, replay = restored.agent(env.spec), restored.replay(env.spec)
    held, train = part(replay, slice(0, HELD)), part(replay, slice(HELD, None))
    rows = []
    for name, (cfg, batch) in variants(restored.cfg.world_model).items():
        torch.manual_seed(seed)
        world = WorldModel(cfg, env.spec.dims, env.task.observe, env.spec.last_action_index, env.spec.output_only).to(
            restored.device
        )
        seconds = study.fit(world, agent, train, held, updates, batch)
        rows.append([name, *judged(world, probes.LinearModel(world, train), held), f"{seconds:.0f}"])
        print(rows[-1], flush=True)
    return rows


def main(words: list[str]) -> int:
    """Study what the command line names."""
    given = study.asked(words, __doc__, "study_flight.py checkpoint=RUN [updates=1500] [seed=0]")
    if given is None:
        return 0
    found = compare(given["checkpoint"], int(given.get("updates", 1500)), int(given.get("seed", 0)))
    head = ["1,500 updates", "1 step", "5 steps", "15 steps", "fall in a step", "height after 5", "s"]
    print(table.markdown([head[0] if given.get("updates", "1500") == "1500" else "variant", *head[1:]], found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
