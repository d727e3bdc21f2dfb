"""One environment as a PettingZoo ``ParallelEnv``: dictionaries by agent, each with its own sizes."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.types import Step

Named = dict[str, Any]


class PettingZooView(ParallelEnv):
    """Observations (O,) padded to the longest agent's, actions (A_i,) in [-1, 1], every agent's reward the team's."""

    def __init__(self, env: VecEnv) -> None:
        """Wrap ``env``, which must have exactly one environment.

        Raises:
            ValueError: it has more.
        """
        if env.num_envs != 1:
            raise ValueError(f"a ParallelEnv is one environment, not {env.num_envs}; make it with num_envs=1")
        self.env = env
        name = f"dima_isaac/{env.spec.name}"
        self.metadata = {"name": name, "is_parallelizable": True, "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.possible_agents = list(env.spec.agent_names)
        self.agents: list[str] = []
        dims, used = env.spec.dims, env.spec.action_mask
        sizes = [dims.action] * dims.agents if used is None else used.sum(1).tolist()
        box = Box(-np.inf, np.inf, (dims.obs,), np.float32)
        self.observation_spaces = {name: box for name in self.possible_agents}
        self.action_spaces = {
            name: Box(-1.0, 1.0, (size,), np.float32) for name, size in zip(self.possible_agents, sizes, strict=True)
        }
        self.state_space = Box(-np.inf, np.inf, (dims.state,), np.float32)
        self._state = np.zeros(dims.state, dtype=np.float32)

    def observation_space(self, agent: str) -> Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Named | None = None) -> tuple[Named, Named]:
        """A new episode; after ``seed`` the same one every time."""
        if seed is not None:
            self.env.seed = seed
        row = self.env.reset(None if seed is None else 1)
        self.agents = list(self.possible_agents)
        return self._observe(row), {name: {} for name in self.agents}

    def step(self, actions: Named) -> tuple[Named, Named, Named, Named, Named]:
        """One tick; all agents leave together at the episode's end."""
        if not self.agents:
            return {}, {}, {}, {}, {}
        dims = self.env.spec.dims
        joint = torch.zeros(1, dims.agents, dims.action)
        for i, name in enumerate(self.possible_agents):
            own = np.asarray(actions[name], dtype=np.float32)
            joint[0, i, : len(own)] = torch.from_numpy(own)
        row = self.env.step(joint.to(self.env.device))
        reward, terminal, truncated = float(row.reward[0]), bool(row.terminal[0]), bool(row.cut_short[0])
        out: tuple[Named, Named, Named, Named, Named] = (
            self._observe(row),
            {name: reward for name in self.agents},
            {name: terminal for name in self.agents},
            {name: truncated for name in self.agents},
            {name: {} for name in self.agents},
        )
        if terminal or truncated:
            self.agents = []
        return out

    def state(self) -> np.ndarray:
        """(D,) the global state last seen."""
        return self._state

    def render(self) -> np.ndarray:
        """A picture (240, 320, 3)."""
        return self.env.engine.render(0, 320, 240)

    def close(self) -> None:
        self.env.close()

    def _observe(self, row: Step) -> Named:
        self._state = np.array(row.state[0].cpu(), dtype=np.float32)
        obs = np.array(row.obs[0].cpu(), dtype=np.float32)
        return {name: obs[i] for i, name in enumerate(self.possible_agents)}
