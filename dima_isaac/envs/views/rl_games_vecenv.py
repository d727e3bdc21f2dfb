"""A ``VecEnv`` as rl-games' ``IVecEnv``: one row per agent and environment, torch tensors throughout.

rl-games resets within the step, and a finished episode's last observation is lost. Its bootstrap at time limits, which
``infos["time_outs"]`` asks for, uses the value before the step.
"""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from rl_games.common.ivecenv import IVecEnv
from torch import Tensor

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.types import Step


def rows(obs: Tensor) -> Tensor:
    """Observations (E, N, O) as rl-games' rows (E * N, O + N), each with the one-hot of its agent."""
    envs, agents = obs.shape[:2]
    one_hot = torch.eye(agents, device=obs.device).expand(envs, -1, -1)
    return torch.cat([obs.float(), one_hot], -1).flatten(0, 1)


class RlGamesView(IVecEnv):
    """Rows are environments' agents in turn (``rows``). With ``central`` the critic is given the state (E, D).

    ``row`` is what was seen last.
    """

    def __init__(self, env: VecEnv, central: bool = False) -> None:
        self.env, self.central = env, central
        self.frames = 0
        self.row: Step

    def reset(self) -> Tensor | dict[str, Tensor]:
        self.row = self.env.reset()
        return self.current()

    def current(self) -> Tensor | dict[str, Tensor]:
        """What ``reset`` or ``step`` showed last."""
        obs = rows(self.row.obs)
        return {"obs": obs, "states": self.row.state.float()} if self.central else obs

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Tensor]]:
        """One environment step: (E * N, A) -> observations, rewards (E * N,), dones (E * N,), infos."""
        dims = self.env.spec.dims
        row = self.env.step(actions.view(self.env.num_envs, dims.agents, dims.action).clamp(-1.0, 1.0))
        self.frames += self.env.num_envs
        cut = row.cut_short
        infos = {"time_outs": self._by_agent(cut)}
        self.row = self.env.reset_where(row.last) if bool(row.last.any()) else row
        return self.current(), self._by_agent(row.reward.float()), self._by_agent(row.terminal | cut), infos

    def get_number_of_agents(self) -> int:
        return self.env.spec.dims.agents

    def get_env_info(self) -> dict[str, Any]:
        """Spaces of one row, and of the state where a central critic reads it."""
        dims = self.env.spec.dims
        info: dict[str, Any] = {
            "observation_space": Box(-np.inf, np.inf, (dims.obs + dims.agents,), np.float32),
            "action_space": Box(-1.0, 1.0, (dims.action,), np.float32),
            "agents": dims.agents,
            "value_size": 1,
        }
        if self.central:
            info["state_space"] = Box(-np.inf, np.inf, (dims.state,), np.float32)
        return info

    def _by_agent(self, value: Tensor) -> Tensor:
        return value.repeat_interleave(self.env.spec.dims.agents)
