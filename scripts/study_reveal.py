"""Fit world models to one run's replay, one for each way of revealing agents, and hold them against the simulator.

    python scripts/study_reveal.py checkpoint=runs/ShadowHandOver/... updates=3000

For each reveal mode, with our constants and with the published ones (target and sampler; the network stays ours, since
what is compared is who is seen when), the table gives the open-loop error beside both baselines and the sensitivity of
the next state to each agent's action, dreamt beside true. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from dima_isaac.cli.main import guarded
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import study
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import restore
from dima_isaac.train import probes
from dima_isaac.world_model.config import Order, Reveal, Target, WorldModelConfig
from dima_isaac.world_model.world_model import WorldModel


def variants(cfg: WorldModelConfig) -> dict[str, WorldModelConfig]:
    """Name -> configuration: three reveal modes with our constants and with the published ones.

    Two more take apart what cumulative reveal needs: training on random subsets alone, and no noise floor.
    """
    denoiser = replace(cfg.denoiser, order=Order.descending, temperature=1.0)
    published = replace(cfg, target=Target.state, copy_last_action=False, z_clamp=0.0, denoiser=denoiser)
    cumulative = replace(denoiser, reveal=Reveal.cumulative)
    apart = {
        "published/cumulative, subsets only": replace(published, denoiser=replace(cumulative, full_fraction=0.0)),
        "published/cumulative, no noise floor": replace(published, denoiser=replace(cumulative, offset=0.0)),
    }
    return apart | {
        f"{name}/{reveal.value}": replace(base, denoiser=replace(base.denoiser, reveal=reveal))
        for name, base in (("ours", cfg), ("published", published))
        for reveal in Reveal
    }


def compare(where: str, updates: int, horizon: int = 15, seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """Train every variant on the replay of ``where`` for ``updates`` updates and probe it."""
    restored = restore(where, Catalog(), EvaluateConfig(checkpoint=where))
    build.set_global_state(restored.cfg)
    env = restored.build_env(32, seed)
    actor, rows = restored.agent(env.spec).actor, {}
    for name, cfg in variants(restored.cfg.world_model).items():
        torch.manual_seed(seed)
        replay = restored.replay(env.spec)
        world = WorldModel(cfg, env.spec.dims, env.task.observe, env.spec.last_action_index, env.spec.output_only).to(
            restored.device
        )
        world.track(replay.state[: replay.size])
        for _ in range(updates):
            loss = world.update_dynamics(replay.sample(restored.cfg.train.learn.dynamics_batch, world.window))
        unseen = probes.record(env, actor, episode=3, ticks=3 * horizon, seed=seed + 1)
        world.update_held_out(unseen.newest(unseen.size, world.history + 1))
        held_out = probes.record(env, actor, episode=1, ticks=3 * horizon, seed=seed)
        error = probes.open_loop(world, held_out, probes.LinearModel(world, replay), horizon)
        moved = probes.sensitivity(world, env, actor, episode=2)
        rows[name] = {
            "model": error.model.tolist(), "repeat": error.repeat.tolist(), "linear": error.linear.tolist(),
            "dreamt": moved.dreamt.tolist(), "true": moved.true.tolist(), "loss": [float(loss["world/denoise"])],
        }  # fmt: skip
        print(name, {key: [round(value, 3) for value in values] for key, values in rows[name].items()}, flush=True)
    return rows


def main(words: list[str]) -> int:
    """Study what the command line names."""
    given = study.asked(words, __doc__, "study_reveal.py checkpoint=RUN [updates=3000] [seed=0]")
    if given is None:
        return 0
    print(json.dumps(compare(given["checkpoint"], int(given.get("updates", 3000)), seed=int(given.get("seed", 0)))))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
