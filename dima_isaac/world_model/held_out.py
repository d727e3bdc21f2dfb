"""Held-out error: prediction errors on steps not learnt from yet, and how imagined steps use them.

A round's new rows are predicted before anything is learnt from them. A model that fits its replay closely is more
certain than it is accurate, and a policy exploits that; two corrections follow:

- shrinkage: y <- g y with the gain g (D,), the least-squares factor from predictions to outcomes. A dimension that
  cannot be predicted gets one near 0, however well it is fitted.
- error bootstrap: every imagined step adds ``error_scale`` times a whole error vector drawn from the newest ones, with
  their heavy tails and the dependence between dimensions.
"""

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.types import Metrics

ROWS = 4096  # errors kept: about four rounds
DECAY = 0.9  # of older evidence for the factors, per round


class HeldOut(nn.Module):
    """Shrinkage factors and the newest errors, both in the units of the target y."""

    scale: Tensor
    errors: Tensor
    agree: Tensor
    power: Tensor
    gain: Tensor

    def __init__(self, scale: Tensor) -> None:
        """``scale`` (D,) multiplies the errors that are drawn. Before any evidence factors are 1 and errors 0."""
        super().__init__()
        size = scale.shape[0]
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("errors", torch.zeros(ROWS, size))
        self.register_buffer("agree", torch.zeros(size))  # decayed sum of prediction * outcome
        self.register_buffer("power", torch.zeros(size))  # decayed sum of prediction^2
        self.register_buffer("gain", torch.ones(size))

    def shrink(self, y: Tensor) -> Tensor:
        """g y, for predictions y (B, D)."""
        return y * self.gain

    @torch.no_grad()
    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Scaled errors (batch, D), drawn with replacement."""
        row = torch.randint(self.errors.shape[0], (batch,), device=self.errors.device, generator=generator)
        return self.scale * self.errors[row]

    @torch.no_grad()
    def update(
        self, prediction: Tensor, outcome: Tensor, counted: Tensor, uncertain: Tensor, denoised: Tensor
    ) -> Metrics:
        """Update with (B, D) predictions and outcomes of rows that ``counted`` (B,), and every other rank's.

        The errors are those of the predictions as they were shrunk until now, where a step is ``uncertain`` (D,).
        ``world/explained`` is the share of the outcomes' power that these account for, over ``denoised`` (D,)
        dimensions: above 0 the denoiser improves on the target's own mean, for a residual on the regression.
        ``world/shrinkage`` is the mean gain: at 1 nothing is shrunk.
        """
        mask = counted.unsqueeze(1)
        error = (outcome - self.shrink(prediction)) * mask * uncertain
        self.errors.copy_(torch.cat([self.errors, ranks.concatenated(error)])[-ROWS:])
        keep = mask * denoised
        unexplained, outcomes, agree, power = ranks.total(
            (error * keep).square().sum(),
            (outcome * keep).square().sum(),
            (prediction * outcome * mask).sum(0),
            (prediction.square() * mask).sum(0),
        )
        self.agree.mul_(DECAY).add_(agree)
        self.power.mul_(DECAY).add_(power)
        factor = (self.agree / self.power.clamp_min(1e-30)).clamp(0.0, 1.0)
        self.gain.copy_(torch.where(self.power > 0, factor, 1.0))
        return {
            "world/explained": 1.0 - unexplained / outcomes.clamp_min(1e-12),
            "world/shrinkage": (self.gain * denoised).sum() / denoised.sum().clamp_min(1.0),
        }
