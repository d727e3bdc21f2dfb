"""A ``VecEnv`` as Gymnasium's ``VectorEnv``: NumPy arrays, the team as one agent.

Autoreset is NEXT_STEP, as ``VecEnv`` resets; ``autoreset="same_step"`` resets within the step and returns the last
observation in ``infos["final_obs"]``.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import unknown

_MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}


class GymnasiumVectorView(VectorEnv):
    """Observations (E, N, O), actions (E, N, A) in [-1, 1], the team's reward (E,); the state in ``infos["state"]``."""

    def __init__(self, env: VecEnv, autoreset: str = "next_step") -> None:
        """Wrap ``env``.

        Raises:
            UsageError: an autoreset mode other than next_step and same_step.
        """
        if autoreset not in _MODES:
            raise unknown("autoreset", autoreset, _MODES)
        self.env, self.num_envs = env, env.num_envs
        self.metadata = {"autoreset_mode": _MODES[autoreset], "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self._same_step = autoreset == "same_step"
        self._over = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)  # the next tick is their reset
        dims = env.spec.dims
        self.single_observation_space = Box(-np.inf, np.inf, (dims.agents, dims.obs), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (dims.agents, dims.action), np.float32)
        self.observation_space: gymnasium.Space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space: gymnasium.Space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start new episodes: after ``seed`` the same ones every time.

        With Gymnasium's ``options={"reset_mask": mask}`` only where ``mask`` (E,) bool is set.
        """
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask")
        if seed is not None:
            self.env.seed = seed
        if mask is not None:
            chosen = torch.as_tensor(mask, dtype=torch.bool, device=self.env.device)
            row, self._over = self.env.reset_where(chosen), self._over & ~chosen
        else:
            row = self.env.reset(None if seed is None else 1)
            self._over = torch.zeros_like(row.last)
        return _array(row.obs), {"state": _array(row.state)}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One tick of every environment."""
        row = self.env.step(torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self.env.device))
        infos: dict[str, Any] = {"state": _array(row.state)}
        obs, truncated = _array(row.obs), _array(row.cut_short & ~self._over)
        if self._same_step and bool(row.last.any()):
            infos |= {"final_obs": obs, "_final_obs": _array(row.last), "final_state": infos["state"]}
            fresh = self.env.reset_where(row.last)
            obs, infos["state"] = _array(fresh.obs), _array(fresh.state)
        else:
            self._over = row.last
        return obs, _array(row.reward), _array(row.terminal), truncated, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """One picture per environment."""
        return tuple(self.env.engine.render(i, 320, 240) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close()


def _array(value: Tensor) -> np.ndarray:
    """As the spaces say: float32, whatever the task's precision; flags stay flags."""
    return np.array((value.float() if value.is_floating_point() else value).cpu())
