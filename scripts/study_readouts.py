"""What contact forces in the state cost a world model: one fitted to a run's replay with them as readouts, one without.

    python scripts/study_readouts.py checkpoint=runs/Ant/... [updates=1500] [seed=0]

A quarter of the environments is held out. Columns: the error over everything that is no output_only after 1, 5 and 15
steps, in standard deviations, and the seconds of one thread.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from dima_isaac.cli.main import guarded
from dima_isaac.errors import UsageError
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import study, table
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import restore
from dima_isaac.tools.study import dreamt, part, windows
from dima_isaac.train import probes
from dima_isaac.world_model.world_model import WorldModel

HORIZON, SHOWN = 15, (1, 5, 15)


def compare(where: str, updates: int, seed: int) -> list[list[str]]:
    """One row per model."""
    restored = restore(where, Catalog(), EvaluateConfig(checkpoint=where))
    build.set_global_state(restored.cfg)
    env = restored.build_env(4, seed)
    spec = env.spec
    if spec.output_only is None:
        raise UsageError(f"{spec.name} has no readouts; the Ants and Humanoids have them under protocol=v5.")
    agent, replay = restored.agent(spec), restored.replay(spec)
    few = max(1, replay.num_envs // 4)
    held, train = part(replay, slice(0, few)), part(replay, slice(few, None))
    judged, cfg = ~spec.output_only, replace(restored.cfg.world_model, doubt=0.0)
    rows = []
    for name, output_only in (("forces as any other number", None), ("forces as readouts", spec.output_only)):
        torch.manual_seed(seed)
        world = WorldModel(cfg, spec.dims, env.task.observe, spec.last_action_index, output_only).to(restored.device)
        seconds = study.fit(world, agent, train, held, updates, restored.cfg.train.learn.dynamics_batch)
        window = windows(held, world.history + HORIZON, 1000)
        with torch.no_grad():
            true = world.space.z(window.state)[:, world.history - 1 :]
            action = window.action[:, world.history - 1 : world.history - 1 + HORIZON]
            fitted = study.linear(probes.LinearModel(world, train), true[:, 0], action)
            for label, guess in (("linear model", fitted), (name, dreamt(world, window, HORIZON))):
                miss = (guess - true)[:, :, judged].square().mean((0, 2)).sqrt()
                if label == name or not rows:
                    cells = [f"{float(miss[t]):.3f}" for t in SHOWN]
                    rows.append([label, *cells, f"{seconds:.0f}" if label == name else ""])
                    print(rows[-1], flush=True)
    return rows


def main(words: list[str]) -> int:
    """Study what the command line names."""
    given = study.asked(words, __doc__, "study_readouts.py checkpoint=RUN [updates=1500] [seed=0]")
    if given is None:
        return 0
    found = compare(given["checkpoint"], int(given.get("updates", 1500)), int(given.get("seed", 0)))
    print(table.markdown(["", *(f"{h} step{'s' * (h > 1)}" for h in SHOWN), "s"], found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
