"""Rewards of an untrained policy: what every two-handed task pays before anything is learned.

    python scripts/untrained.py                       a table of all tasks, profile=compat
    python scripts/untrained.py ShadowHandPen --profile fixed

Actions are drawn from N(0, 0.64^2) and clipped to [-1, 1]; the mean team reward per control step after a fresh
reset over all environments, in three spans of control steps. The first control step is the benchmark's own reset
step, with actions 0.01 (1 - 2 u); the spans are three rollouts of eight steps after it. An environment whose episode
ends goes on with its next one, as in a training log; the rows of resets, which pay nothing, are left out.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import torch

from dima_isaac import make
from dima_isaac.cli.main import guarded
from dima_isaac.run.catalog import Catalog

SPANS = ((2, 9), (10, 17), (18, 25))
STD = 0.64


def rewards(task: str, profile: str, envs: int, seed: int) -> tuple[list[float], float]:
    """Mean reward of each span, and the share of environments still in their first episode at the end."""
    env = make(task, num_envs=envs, engine="mujoco", seed=seed, device="cpu", profile=profile)
    dims, generator = env.spec.dims, torch.Generator().manual_seed(seed)
    env.reset()
    alive = torch.ones(envs, dtype=torch.bool)
    rows, weights = [], []
    shape = (envs, dims.agents, dims.action)
    tiny = 0.01 * (1.0 - 2.0 * torch.rand(shape, generator=generator))
    for index in range(SPANS[-1][1]):
        action = STD * torch.randn(shape, generator=generator) if index else tiny
        step = env.step(action.clamp(-1.0, 1.0))
        alive &= ~step.first
        rows.append(torch.where(step.first, 0.0, step.reward))
        weights.append(1.0 - step.first.float())
    env.close()
    reward, weight = torch.stack(rows), torch.stack(weights)
    means = [(reward[a - 1 : b].sum() / weight[a - 1 : b].sum()).tolist() for a, b in SPANS]
    return means, alive.float().mean().tolist()


def main() -> int:
    """Print the table."""
    known = [name for name in Catalog().names("task") if name.startswith("ShadowHand")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=known)
    parser.add_argument("--profile", default="compat", choices=("compat", "fixed"))
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | " + " | ".join(f"steps {a}-{b}" for a, b in SPANS) + " | still in first episode |")
    print("|---|" + "---|" * (len(SPANS) + 1))
    for task in args.tasks:
        means, alive = rewards(task, args.profile, args.envs, args.seed)
        print(f"| {task} | " + " | ".join(f"{mean:.4g}" for mean in means) + f" | {alive:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda _: main()))
