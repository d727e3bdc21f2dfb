"""Slow noise on the actions of training's episodes, so that replay holds more than the policy does alone."""

import math

import torch
from torch import Tensor

from dima_isaac.agent.config import ExploreConfig
from dima_isaac.types import Dims, restore_generator

CORRELATION = 0.9  # of the noise from one control step to the next


class Explorer:
    """An AR(1) process per environment and action; each episode draws its deviation, uniform from 0 to ``max_std``."""

    def __init__(self, cfg: ExploreConfig, dims: Dims, num_envs: int, device: torch.device, seed: int) -> None:
        self.cfg = cfg
        self.noise = torch.zeros(num_envs, dims.agents, dims.action, device=device)  # of unit variance
        self.std = torch.zeros(num_envs, device=device)  # of this episode's
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, action: Tensor, first: Tensor) -> Tensor:
        """``action`` (E, N, A) and its environment's noise; ``first`` (E,) marks new episodes."""
        if self.cfg.max_std <= 0.0:
            return action
        fresh = torch.randn(self.noise.shape, device=action.device, generator=self._generator)
        drawn = self.cfg.max_std * torch.rand(first.shape, device=action.device, generator=self._generator)
        self.std = torch.where(first, drawn, self.std)
        innovation = math.sqrt(1.0 - CORRELATION**2)
        self.noise = torch.where(first[:, None, None], fresh, CORRELATION * self.noise + innovation * fresh)
        return action + self.noise * self.std[:, None, None]

    def state_dict(self) -> dict[str, Tensor]:
        """The noise, its deviations, and the random state."""
        return {"noise": self.noise, "std": self.std, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``."""
        self.noise, self.std = state["noise"].to(self.noise.device), state["std"].to(self.std)
        restore_generator(self._generator, state["generator"])
