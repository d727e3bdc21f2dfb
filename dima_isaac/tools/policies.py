"""The policies that the tools run: a checkpoint's, zero actions, or random ones."""

import torch

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.tools.config import Agent, PolicyConfig
from dima_isaac.tools.restore import Restored
from dima_isaac.types import Controller

RANDOM_STD = 0.64  # about what the untrained policy explores with


def controller(cfg: PolicyConfig, restored: Restored | None, env: VecEnv) -> Controller:
    """What ``cfg.agent`` names: the mode of the trained policy, or with ``explore`` actions drawn as in training."""
    shape, device = (env.num_envs, env.spec.dims.agents, env.spec.dims.action), env.device
    if cfg.agent is Agent.zero:
        return lambda obs: torch.zeros(shape, device=device)
    if cfg.agent is Agent.random:
        draws = torch.Generator(device).manual_seed(cfg.seed)
        return lambda obs: (RANDOM_STD * torch.randn(shape, device=device, generator=draws)).clamp(-1.0, 1.0)
    assert restored is not None, "PolicyConfig.validate asks for a checkpoint"
    agent = restored.agent(env)
    return (lambda obs: agent.act(obs)[0].clamp(-1.0, 1.0)) if cfg.explore else agent.mode
