"""Running mean and variance in float64, merged batch by batch (Chan, Golub and LeVeque 1979) and saved with the run."""

import torch
from torch import Tensor, nn

from dima_isaac import ranks


class Moments(nn.Module):
    """Per-dimension mean and variance of every row seen so far.

    ``prior`` is the weight, in rows, of a standard normal assumed before any data; with 0 the moments are those
    of the data, and (0, 1) before the first row.
    """

    count: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, size: int, prior: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("count", torch.full((), prior, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square", torch.full((size,), prior, dtype=torch.float64))  # sum of squared deviations

    @torch.no_grad()
    def update(self, rows: Tensor, weight: Tensor | None = None) -> None:
        """Merge ``rows`` (..., size), each counted ``weight`` (...) times (once if None), and every other rank's."""
        rows = rows.detach().reshape(-1, self.mean.shape[0]).double()
        if weight is None:
            weight = torch.ones_like(rows[:, 0])
        weight = weight.reshape(-1, 1).double()
        number, sums = ranks.total(weight.sum(), (rows * weight).sum(0))
        mean = sums / number.clamp_min(1e-12)
        (square,) = ranks.total(((rows - mean).square() * weight).sum(0))
        total = (self.count + number).clamp_min(1e-12)
        delta = mean - self.mean
        self.square += square + delta.square() * (self.count * number / total)
        self.mean += delta * (number / total)
        self.count += number

    @property
    def var(self) -> Tensor:
        """(size,) float64; 1 before the first row."""
        return torch.where(self.count > 0, self.square / self.count.clamp_min(1e-12), 1.0)
