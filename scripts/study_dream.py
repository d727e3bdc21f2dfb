"""Hold dreams against the simulator under the policy itself: what it is promised beside what it gets.

    python scripts/study_dream.py checkpoint=runs/ShadowHandOver/... [steps=30] [envs=64] [after=5,30] [seed=0]

From the same states, reached after 5 and after 30 control steps, the exploring policy acts on in the simulator and in
the world model. The table gives the mean reward per step so far and the share of episodes that still run. A dream that
pays more than the simulator is one that policies will learn to exploit.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from dima_isaac.agent.returns import survival
from dima_isaac.catalog import Catalog
from dima_isaac.cli import guarded
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.train import build, probes, study, table
from dima_isaac.train.options import EvaluateConfig
from dima_isaac.train.restore import restore
from dima_isaac.types import Policy
from dima_isaac.world_model.imagine import imagine


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


def compare(where: str, steps: int, envs: int, after: list[int], seed: int) -> list[list[str]]:
    """One row per start and length: mean reward and survival, real and dreamt."""
    restored = restore(where, Catalog(), EvaluateConfig(checkpoint=where))
    build.set_global_state(restored.cfg)
    env = restored.build_env(envs, seed)
    world, agent = restored.world(env), restored.agent(env.spec)
    rows = []
    for start in after:
        kept = probes.record(env, agent.actor, episode=start, ticks=start, seed=seed)
        newest = torch.zeros(envs, dtype=torch.int64, device=kept.device)
        window = kept.gather(newest, torch.arange(envs, device=kept.device), world.history)
        dream = imagine(world, agent.act, window, steps, torch.Generator(kept.device).manual_seed(seed))
        chance = survival(dream.cont)
        real, running = lived(env, agent.act, window.action[:, -1], steps)
        for length in sorted({1, 5, 10, 20, steps}):
            if length <= steps:
                mean = [float(reward[:, :length].mean()) for reward in (real, dream.reward * chance)]
                share = [float(alive[:, length - 1].mean()) for alive in (running, chance)]
                cells = [*(f"{value:.4f}" for value in mean), *(f"{value:.2f}" for value in share)]
                rows.append([str(start), str(length), *cells])
    return rows


def main(words: list[str]) -> int:
    """Study what the command line names."""
    given = study.asked(words, __doc__, "study_dream.py checkpoint=RUN [steps=30] [envs=64] [after=5,30] [seed=0]")
    if given is None:
        return 0
    starts = [int(value) for value in given.get("after", "5,30").split(",")]
    found = compare(
        given["checkpoint"], int(given.get("steps", 30)), int(given.get("envs", 64)), starts, int(given.get("seed", 0))
    )
    head = ["after", "steps", "reward", "dreamt reward", "running", "dreamt running"]
    print(table.text(head, found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
