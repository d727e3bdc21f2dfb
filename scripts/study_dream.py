"""Hold dreams against the simulator under the policy itself: what it is promised beside what it gets.

    python scripts/study_dream.py checkpoint=RUN [steps=30] [envs=64] [after=5,30] [seed=0] [doubt=0.6,1.0]

From the same states, reached after 5 and after 30 control steps, the exploring policy acts on in the simulator and in
the world model. The table gives the mean reward per step so far, the share of episodes that have failed (reward of the
last five steps below half of the simulator's median: a robot on its back) and the share that still runs. A dream that
pays more than the simulator, or fails less, is one that policies will learn to exploit. ``doubt`` dreams with other
values of world_model.doubt than the run's own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from dima_isaac.agent.returns import survival
from dima_isaac.cli.main import guarded
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import study, table
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import Restored, restore
from dima_isaac.train import probes
from dima_isaac.types import Policy
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel


@torch.no_grad()
def lived(env: VecEnv, policy: Policy, action: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Reward (E, steps) of the episodes that run on from ``action`` (E, N, A), and whether they still run."""
    alive = torch.ones(env.num_envs, dtype=torch.bool, device=action.device)
    rewards, running = [], []
    for _ in range(steps):
        step = env.step(action.clamp(-1.0, 1.0))
        alive = alive & ~step.first
        rewards.append(step.reward * alive)
        running.append(alive.float())
        alive = alive & ~step.last
        action, _ = policy(step.obs)
    return torch.stack(rewards, 1), torch.stack(running, 1)


def _late(reward: Tensor, length: int) -> Tensor:
    """What the last five of the first ``length`` steps of (E, steps) brought each episode, (E,)."""
    return reward[:, max(0, length - 5) : length].mean(1)


def _worlds(restored: Restored, env: VecEnv, doubts: list[float]) -> dict[str, WorldModel]:
    """The run's world model, or one of each doubt."""
    if not doubts:
        return {"dream": restored.world(env)}
    cfg = restored.cfg
    if not all(doubt > 0.0 for doubt in [*doubts, cfg.world_model.doubt]):
        raise UsageError("doubt= compares values above 0, of a run that had one above 0: else no misses were kept.")
    made = {}
    for doubt in doubts:
        model = replace(cfg.world_model, doubt=doubt)
        made[f"doubt={doubt:g}"] = replace(restored, cfg=replace(cfg, world_model=model)).world(env)
    return made


def compare(where: str, steps: int, envs: int, after: list[int], seed: int, doubts: list[float]) -> list[list[str]]:
    """For each start and length one row of the simulator and one of each doubt's dream."""
    restored = restore(where, Catalog(), EvaluateConfig(checkpoint=where))
    build.set_global_state(restored.cfg)
    env = restored.build_env(envs, seed)
    agent = restored.agent(env.spec)
    worlds = _worlds(restored, env, doubts)
    history = restored.cfg.world_model.history
    rows = []
    for start in after:
        kept = probes.record(env, agent.actor, episode=start, ticks=start, seed=seed)
        newest = torch.zeros(envs, dtype=torch.int64, device=kept.device)
        window = kept.gather(newest, torch.arange(envs, device=kept.device), history)
        seen = {}
        for name, world in worlds.items():
            rng = torch.Generator(kept.device).manual_seed(seed)
            dream = imagine(world, agent.act, window, steps, rng)
            chance = survival(dream.cont)
            seen[name] = dream.reward * chance, chance
        seen = {"simulator": lived(env, agent.act, window.action[:, -1], steps), **seen}
        for length in sorted({1, 5, 10, 20, steps}):
            for name, (reward, running) in seen.items() if length <= steps else ():
                mean = float(reward[:, :length].mean())
                usual = _late(seen["simulator"][0], length).median()
                failed = float((_late(reward, length) < 0.5 * usual).float().mean())
                share = float(running[:, length - 1].mean())
                rows.append([str(start), str(length), name, f"{mean:.4f}", f"{failed:.4f}", f"{share:.2f}"])
    return rows


def main(words: list[str]) -> int:
    """Study what the command line names."""
    usage = "study_dream.py checkpoint=RUN [steps=30] [envs=64] [after=5,30] [seed=0] [doubt=0.6,1.0]"
    given = study.asked(words, __doc__, usage)
    if given is None:
        return 0
    steps, envs, seed = (int(given.get(name, value)) for name, value in (("steps", 30), ("envs", 64), ("seed", 0)))
    starts = [int(value) for value in given.get("after", "5,30").split(",")]
    doubts = [float(value) for value in given["doubt"].split(",")] if "doubt" in given else []
    found = compare(given["checkpoint"], steps, envs, starts, seed, doubts)
    head = ["after", "steps", "where", "reward", "failed", "running"]
    print(table.text(head, found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
