"""A ``VecEnv`` as Stable-Baselines3's ``VecEnv``: the team as one agent, resets within the step."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv as SB3VecEnv

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.envs.views.gymnasium_vector import GymnasiumVectorView


class SB3View(SB3VecEnv):
    """Observations (E, N, O), actions (E, N, A) in [-1, 1], the team's reward (E,)."""

    def __init__(self, env: VecEnv) -> None:
        self.vector = GymnasiumVectorView(env, autoreset="same_step")
        super().__init__(env.num_envs, self.vector.single_observation_space, self.vector.single_action_space)

    def reset(self) -> np.ndarray:
        """New episodes everywhere; after ``seed`` the same ones every time."""
        obs, _ = self.vector.reset(seed=self._seeds[0])  # the library's ``seed(s)`` left s + e for environment e
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One tick; an episode that ends leaves its last observation in ``infos[e]["terminal_observation"]``."""
        obs, reward, terminated, truncated, seen = self.vector.step(self._actions)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": cut} for cut in truncated.tolist()]
        for e in np.flatnonzero(seen.get("_final_obs", [])):
            infos[e]["terminal_observation"] = seen["final_obs"][e]
        return obs, reward, terminated | truncated, infos

    def get_images(self) -> list[np.ndarray]:
        return list(self.vector.render())

    def close(self) -> None:
        self.vector.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector's attribute, which all environments share."""
        return [getattr(self.vector, attr_name) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("environments share one object: set the attribute on view.vector")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("environments share one object: call the method on view.vector")
