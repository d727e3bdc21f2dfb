"""How far a predictor may be believed, one number per dimension, from data it has not learnt from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Trust(nn.Module):
    """gain = the least-squares factor from predictions to the truth, clamped to [0, 1] and forgetting old evidence.

    A dimension that cannot be predicted gets a gain near 0 however well the training data are known by heart.
    """

    agree: Tensor
    power: Tensor
    gain: Tensor

    def __init__(self, size: int, decay: float) -> None:
        """``decay`` is what a batch keeps of its weight at the next one; the gain is 1 before any."""
        super().__init__()
        self.decay = decay
        self.register_buffer("agree", torch.zeros(size))
        self.register_buffer("power", torch.zeros(size))
        self.register_buffer("gain", torch.ones(size))

    @torch.no_grad()
    def update(self, predicted: Tensor, truth: Tensor, counts: Tensor) -> None:
        """Learn from (B, size) predictions and what came true, in the rows that ``counts`` (B,). No synchronisation."""
        mask = counts.unsqueeze(1).to(predicted.dtype)
        self.agree.mul_(self.decay).add_((predicted * truth * mask).sum(0))
        self.power.mul_(self.decay).add_((predicted.square() * mask).sum(0))
        known = self.power > 0
        self.gain.copy_(torch.where(known, (self.agree / self.power.clamp_min(1e-30)).clamp(0.0, 1.0), 1.0))
