"""The policies that the tools run: a checkpoint's, zero actions, or random ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dima_isaac.agent.learner import Learner
from dima_isaac.envs.task import TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.tools.config import Agent, PolicyConfig
from dima_isaac.tools.restore import Restored
from dima_isaac.types import Controller

RANDOM_STD = 0.64  # about what the untrained policy explores with


def controller(cfg: PolicyConfig, restored: Restored | None, env: VecEnv) -> Controller:
    """What ``cfg.agent`` names; the trained policy is that of ``restored``."""
    if cfg.agent is Agent.zero:
        return zero(env.spec, env.device)
    if cfg.agent is Agent.random:
        return random(env.spec, env.device, cfg.seed)
    assert restored is not None, "PolicyConfig.validate asks for a checkpoint"
    return trained(restored.agent(env), cfg.explore)


def zero(spec: TaskSpec, device: torch.device) -> Controller:
    """Every action 0."""
    return lambda obs: torch.zeros(obs.shape[0], spec.dims.agents, spec.dims.action, device=device)


def random(spec: TaskSpec, device: torch.device, seed: int) -> Controller:
    """Actions N(0, 0.64^2), clipped to [-1, 1]."""
    generator = torch.Generator(device).manual_seed(seed)

    def act(obs: Tensor) -> Tensor:
        shape = (obs.shape[0], spec.dims.agents, spec.dims.action)
        return (RANDOM_STD * torch.randn(shape, device=device, generator=generator)).clamp(-1.0, 1.0)

    return act


def trained(agent: Learner, explore: bool) -> Controller:
    """The mode of the agents' policy, or with ``explore`` actions drawn from it as in training."""
    if not explore:
        return agent.mode
    return lambda obs: agent.act(obs)[0].clamp(-1.0, 1.0)
