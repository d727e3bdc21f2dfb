"""The policies that the tools run: a checkpoint's, zero actions, or random ones; and a checkpoint's as a module."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dima_isaac.agent.learner import Learner
from dima_isaac.config import typed
from dima_isaac.envs.task import Task, TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run.build import build_task
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools.config import Agent, PolicyConfig
from dima_isaac.tools.restore import Restored, read_run
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
    assert restored is not None, "PolicyConfig.validate requires a checkpoint"
    agent = restored.agent(env.task)
    return (lambda obs: agent.act(obs)[0].clamp(-1.0, 1.0)) if cfg.explore else agent.mode


class Policy(nn.Module):
    """A trained team without its run: obs (..., N, O) -> the deterministic action (..., N, A), as environments take it.

    An agent's action depends on its own observation alone.
    """

    def __init__(self, actor: nn.Module, spec: TaskSpec, clip_actions: bool) -> None:
        """``actor`` of a learner; ``spec`` of the task that it was trained on."""
        super().__init__()
        self.actor, self.spec, self.clip_actions = actor, spec, clip_actions

    def forward(self, obs: Tensor) -> Tensor:
        """As ``agent.learner.Learner.mode``."""
        action: Tensor = self.actor.mode(obs)  # type: ignore[operator]  # what an nn.Module has is a Tensor or a Module
        return action.clamp(-1.0, 1.0) if self.clip_actions else action

    @torch.no_grad()
    def act(self, obs: Tensor | np.ndarray) -> Tensor:
        """The same without gradients, for observations on any device."""
        device = next(self.parameters()).device
        action: Tensor = self(torch.as_tensor(obs, dtype=torch.float32, device=device))
        return action


def policy_of(restored: Restored, task: Task) -> Policy:
    """The policy of a checkpoint for the ``task`` that it was trained on."""
    agent = restored.agent(task)
    actor = agent.actor if isinstance(agent, Learner) else agent
    return Policy(actor, task.spec, restored.cfg.world_model.clip_actions).eval()


def load_policy(where: str, device: str = "cpu") -> Policy:
    """``dima_isaac.load_policy``: what ``checkpoint=`` takes, as a module; nothing global is touched."""
    catalog = Catalog()
    path, state, stored = read_run(where, catalog)
    cfg = replace(typed(stored), rl_device=device)
    with torch.random.fork_rng(devices=[]):  # the networks are built with random weights before theirs are read
        return policy_of(Restored(path, cfg, state), build_task(cfg)).requires_grad_(False)
