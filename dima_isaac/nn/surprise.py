"""What a predictor missed on steps it had not learnt from, kept as whole vectors to be drawn from again."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Surprise(nn.Module):
    """The newest ``rows`` misses; a draw has their heavy tails and the dependence between their dimensions."""

    miss: Tensor

    def __init__(self, size: int, rows: int) -> None:
        """All misses are 0 until there are others."""
        super().__init__()
        self.register_buffer("miss", torch.zeros(rows, size))

    @torch.no_grad()
    def update(self, miss: Tensor) -> None:
        """Take in (B, size) misses; the oldest make room. Shapes are constant and nothing synchronises."""
        self.miss.copy_(torch.cat([self.miss, miss])[-self.miss.shape[0] :])

    @torch.no_grad()
    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """``batch`` of them, with replacement: (batch, size)."""
        return self.miss[torch.randint(self.miss.shape[0], (batch,), device=self.miss.device, generator=generator)]
