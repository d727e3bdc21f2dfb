"""Deterministic episodes on environments of their own, with seeds of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.types import Metrics


@dataclass
class Episodes:
    """What came of one episode in each environment."""

    total: Tensor  # (E,) the return
    success: Tensor  # (E,) bool, at any time of the episode
    length: Tensor  # (E,) control steps


@torch.no_grad()
def episodes(env: VecEnv, policy: Callable[[Tensor], Tensor], episode: int) -> Episodes:
    """The first episode of every environment under ``policy`` (obs (E, N, O) -> action (E, N, A)).

    ``episode`` numbers the starts, so that the outcome depends on nothing that happened before it.
    """
    step = env.restart(episode)
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    total = torch.zeros(env.num_envs, device=env.device)
    length, success = torch.zeros_like(total), torch.zeros_like(running)
    for _ in range(env.spec.episode_length):
        step = env.step(policy(step.obs))
        running = running & ~step.first  # a first row means that the quarantine restarted it
        total += step.reward.masked_fill(~running, 0.0)
        length += running
        success = torch.where(running, env.success, success)
        running = running & ~step.last
    return Episodes(total, success, length)


def evaluate(env: VecEnv, policy: Callable[[Tensor], Tensor], episode: int) -> Metrics:
    """Means over ``episodes``: ``return``, ``return_std``, ``length`` and, where the task has a goal, ``success``."""
    seen = episodes(env, policy, episode)
    means = {"return": seen.total.mean(), "return_std": seen.total.std(correction=0), "length": seen.length.mean()}
    return means | ({"success": seen.success.float().mean()} if env.spec.goal else {})
