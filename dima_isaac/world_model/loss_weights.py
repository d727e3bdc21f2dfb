"""Which dimensions the denoiser's accuracy is spent on: those that can be predicted and that decide the value.

Of 398 numbers of two hands and an egg the egg's velocity decides the value; of the 105 of an ant 78 are contact forces.
"""

import torch
from torch import Tensor, nn

DECAY = 0.9  # of the value weights of earlier rounds
LEAST = 0.1  # weight of a dimension that is not predicted at all yet, relative to one that is predicted fully


class LossWeights(nn.Module):
    """Weights (D,) of mean 1, of which a share of ``value_weight`` follows the value (0, published: all equal)."""

    value: Tensor

    def __init__(self, size: int, value_weight: float) -> None:
        super().__init__()
        self.value_weight = value_weight
        self.register_buffer("value", torch.ones(size))

    # VaGraM (Voelcker et al. 2022, eq. 5), with one mean gradient in place of each sample's own
    @torch.no_grad()
    def update(self, squared_gradient: Tensor) -> None:
        """Learn from the mean of (dV/dy)^2 over all ranks' states, (D,)."""
        self.value.lerp_(squared_gradient / squared_gradient.mean().clamp_min(1e-30), 1.0 - DECAY)

    def forward(self, denoised: Tensor, gain: Tensor | None) -> Tensor:
        """The weights: 0 where nothing is ``denoised`` (D,), less where held-out steps give a low ``gain`` (D,)."""
        weight = denoised if gain is None else denoised * (LEAST + (1.0 - LEAST) * gain)
        weight = weight * ((1.0 - self.value_weight) + self.value_weight * self.value)
        return weight / weight.mean().clamp_min(1e-12)
