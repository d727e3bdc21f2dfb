"""Dreams against the simulator under the policy itself: the reward promised beside the reward earned.

    python scripts/study_dream.py RUN [--steps 30] [--envs 64] [--after 5 30] [--seed 0] [--error-scale 0.6 1.0]

From the same states, reached after so many control steps, the exploring policy acts on in the simulator and in the
world model. The table gives the mean reward per step so far, the share of episodes that have failed (reward of the
last five steps below half of the simulator's median: a robot on its back) and the share that still runs. Policies
learn to exploit a dream that pays more than the simulator, or fails less. --error-scale dreams with other values
of world_model.error_scale than the run's own.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import torch
from torch import Tensor

from dima_isaac.agent.returns import survival
from dima_isaac.cli.main import guarded
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import table
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import Restored, restore
from dima_isaac.training import probes
from dima_isaac.types import Policy
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel


@torch.no_grad()
def simulate(env: VecEnv, policy: Policy, action: Tensor, steps: int) -> tuple[Tensor, Tensor]:
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


def world_models(restored: Restored, env: VecEnv, scales: list[float]) -> dict[str, WorldModel]:
    """The run's world model, or one for each of ``scales``.

    Raises:
        UsageError: a run whose error scale is 0, which has kept no errors to add.
    """
    if not scales:
        return {"dream": restored.world(env)}
    cfg = restored.cfg
    if min([*scales, cfg.world_model.error_scale]) <= 0.0:
        raise UsageError("--error-scale compares values above 0, of a run whose world_model.error_scale is above 0.")
    configs = {f"error_scale={scale:g}": replace(cfg.world_model, error_scale=scale) for scale in scales}
    return {name: replace(restored, cfg=replace(cfg, world_model=model)).world(env) for name, model in configs.items()}


def rows(lengths: list[int], seen: dict[str, tuple[Tensor, Tensor]]) -> list[list[str]]:
    """The table's rows: for each length one of the simulator and one of each dream, from reward and running (E, T)."""
    out = []
    for length in lengths:
        late = {name: reward[:, max(0, length - 5) : length].mean(1) for name, (reward, _) in seen.items()}
        usual = late["simulator"].median()
        for name, (reward, running) in seen.items():
            failed = float((late[name] < 0.5 * usual).float().mean())
            share = float(running[:, length - 1].mean())
            out.append([str(length), name, f"{float(reward[:, :length].mean()):.4f}", f"{failed:.4f}", f"{share:.2f}"])
    return out


def compare(run: str, steps: int, envs: int, after: list[int], seed: int, scales: list[float]) -> list[list[str]]:
    """The table of all starts."""
    restored = restore(EvaluateConfig(checkpoint=run), Catalog())
    env = restored.build_env(envs, seed)
    agent, worlds = restored.agent(env.task), world_models(restored, env, scales)
    out = []
    for start in after:
        recorded = probes.record(env, agent.act, episode=start, ticks=start, seed=seed)
        newest = torch.zeros(envs, dtype=torch.int64, device=recorded.device)
        window = recorded.gather(newest, torch.arange(envs, device=recorded.device), restored.cfg.world_model.history)
        dreamt = {}
        for name, world in worlds.items():
            generator = torch.Generator(recorded.device).manual_seed(seed)
            rollout = imagine(world, agent.act, window, steps, generator)
            running = survival(rollout.cont)
            dreamt[name] = (rollout.reward * running, running)
        seen = {"simulator": simulate(env, agent.act, window.action[:, -1], steps), **dreamt}
        lengths = [length for length in sorted({1, 5, 10, 20, steps}) if length <= steps]
        out += [[str(start), *row] for row in rows(lengths, seen)]
    return out


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, a .pt file, or latest")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--after", type=int, nargs="+", default=[5, 30])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--error-scale", type=float, nargs="+", default=[])
    args = parser.parse_args(words)
    found = compare(args.run, args.steps, args.envs, args.after, args.seed, args.error_scale)
    print(table.text(["after", "steps", "where", "reward", "failed", "running"], found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
