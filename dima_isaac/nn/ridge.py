"""Linear regression on a stream: exponentially weighted normal equations in float64, solved on request."""

import torch
from torch import Tensor, nn

from dima_isaac import ranks


class Ridge(nn.Module):
    """targets ~ [inputs, 1] @ weight, by least squares with a small ridge penalty.

    ``decay`` multiplies the weight of all earlier rows at each update; ``penalty`` is added to the diagonal of the mean
    Gram matrix.
    """

    gram: Tensor
    cross: Tensor
    square: Tensor
    count: Tensor
    weight: Tensor
    residual_rms: Tensor

    def __init__(self, inputs: int, targets: int, decay: float, penalty: float) -> None:
        super().__init__()
        self.decay, self.penalty = decay, penalty
        self.register_buffer("gram", torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(inputs + 1, targets, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(targets, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(inputs + 1, targets))
        self.register_buffer("residual_rms", torch.ones(targets))  # root-mean-square residual at the last solution

    @torch.no_grad()
    def update(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> None:
        """Add rows (M, inputs), (M, targets) where ``mask`` (M,) is 1, and every other rank's."""
        # float64 before the product: with TF32 products the normal equations may lose definiteness
        keep = mask.unsqueeze(1).double()
        rows, targets = torch.cat([inputs.double() * keep, keep], 1), targets.double() * keep
        sums = ranks.total(rows.T @ rows, rows.T @ targets, targets.square().sum(0), keep.sum())
        for own, new in zip((self.gram, self.cross, self.square, self.count), sums, strict=True):
            own.mul_(self.decay).add_(new)

    @torch.no_grad()
    def solve(self) -> None:
        """Set ``weight`` and ``residual_rms`` from the rows so far. No synchronisation.

        Should the equations be singular in spite of the penalty, the previous solution stays.
        """
        count = self.count.clamp_min(1.0)
        eye = torch.eye(self.gram.shape[0], dtype=torch.float64, device=self.gram.device)
        factor, failed = torch.linalg.cholesky_ex(self.gram / count + self.penalty * eye, check_errors=False)
        weight = torch.cholesky_solve(self.cross / count, factor)
        # |y - f w|^2 = y'y - 2 w'f'y + w'f'f w
        squares = self.square - 2.0 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        good = (failed == 0) & weight.isfinite().all()
        self.weight.copy_(torch.where(good, weight.float(), self.weight))
        rms = (squares / count).clamp_min(0.0).sqrt().float()
        self.residual_rms.copy_(torch.where(good, rms, self.residual_rms))

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., inputs) -> (..., targets), by the last solution."""
        # TF32 products lose three digits, and what is left to predict may be smaller than that
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return inputs @ self.weight[:-1] + self.weight[-1]
        finally:
            torch.set_float32_matmul_precision(precision)
