"""Linear regression on a stream: exponentially forgetting normal equations in float64, solved now and then."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ridge(nn.Module):
    """targets ~ [inputs, 1] @ weight, by least squares with a small penalty.

    ``decay`` is what a batch keeps of its weight at the next one; ``penalty`` is relative to the mean row.
    """

    gram: Tensor
    cross: Tensor
    square: Tensor
    count: Tensor
    weight: Tensor
    miss: Tensor

    def __init__(self, inputs: int, targets: int, decay: float, penalty: float) -> None:
        super().__init__()
        self.decay, self.penalty = decay, penalty
        self.register_buffer("gram", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(inputs + 1, targets, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(targets, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(inputs + 1, targets))
        self.register_buffer("miss", torch.ones(targets))  # root-mean-square residual at the last solution

    @torch.no_grad()
    def update(self, inputs: Tensor, targets: Tensor, counts: Tensor) -> None:
        """Add rows (M, inputs), (M, targets), each ``counts`` (M,) times (0 or 1)."""
        # float64 before the product: in the GPU's shortened float32 the normal equations may lose definiteness
        mask = counts.unsqueeze(1).double()
        rows, targets = torch.cat([inputs.double() * mask, mask], 1), targets.double() * mask
        self.gram.mul_(self.decay).add_(rows.T @ rows)
        self.cross.mul_(self.decay).add_(rows.T @ targets)
        self.square.mul_(self.decay).add_(targets.square().sum(0))
        self.count.mul_(self.decay).add_(mask.sum())

    @torch.no_grad()
    def solve(self) -> None:
        """Make ``weight`` and ``miss`` those of the rows so far. No synchronisation.

        Should the equations be singular in spite of the penalty, the previous solution stays.
        """
        count = self.count.clamp_min(1.0)
        eye = torch.eye(self.gram.shape[0], dtype=torch.float64, device=self.gram.device)
        factor, failed = torch.linalg.cholesky_ex(self.gram / count + self.penalty * eye, check_errors=False)
        weight = torch.cholesky_solve(self.cross / count, factor)
        # |y - f w|^2 = y'y - 2 w'f'y + w'f'f w
        left = self.square - 2.0 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        good = (failed == 0) & weight.isfinite().all()
        self.weight.copy_(torch.where(good, weight.float(), self.weight))
        self.miss.copy_(torch.where(good, (left / count).clamp_min(0.0).sqrt().float(), self.miss))

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., inputs) -> (..., targets), by the last solution."""
        # a GPU's shortened products lose three digits, and what is left to predict may be smaller than that
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return inputs @ self.weight[:-1] + self.weight[-1]
        finally:
            torch.set_float32_matmul_precision(precision)
