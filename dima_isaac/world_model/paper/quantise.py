"""A discrete bottleneck: an EMA codebook (van den Oord et al. 2017).

Returns (quantised tokens with a straight-through gradient, commitment loss, fraction of codes used by the batch).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _hits(index: Tensor, codes: int) -> Tensor:
    """(M,) code numbers -> (M, codes) bool; torch's own one_hot looks at its argument on a CPU."""
    return index.unsqueeze(-1) == torch.arange(codes, device=index.device)


class VectorQuantiser(nn.Module):
    """The nearest of ``codes`` vectors, which follow the tokens by exponential moving averages, not by gradients.

    As published no unused code is ever replaced, so for thousands of updates the one that tokens happen to lie nearest
    to takes them all.
    """

    codebook: Tensor
    size: Tensor
    total: Tensor

    def __init__(self, codes: int, dim: int, decay: float, smoothing: float = 1e-5) -> None:
        super().__init__()
        self.decay, self.smoothing = decay, smoothing
        codebook = torch.empty(codes, dim)
        nn.init.kaiming_uniform_(codebook)
        self.register_buffer("codebook", codebook)
        # one token each to begin with: a size of 0 would throw every code that the first batch leaves out to infinity
        self.register_buffer("size", torch.ones(codes))
        self.register_buffer("total", codebook.clone())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (..., dim). In training mode, with gradients enabled, the codebook moves after it was used."""
        flat = tokens.flatten(0, -2)
        learning = self.training and torch.is_grad_enabled()
        index = torch.cdist(flat.detach().float(), self.codebook).argmin(-1)
        hit = _hits(index, self.codebook.shape[0]).to(flat.dtype)  # (M, codes)
        chosen = self.codebook[index].view_as(tokens)
        if learning:
            self._follow(flat.detach(), hit)
        commitment = F.mse_loss(tokens, chosen)
        used = (hit.sum(0) > 0).float().mean()
        return tokens + (chosen - tokens).detach(), commitment, used

    @torch.no_grad()
    def _follow(self, flat: Tensor, hit: Tensor) -> None:
        self.size.lerp_(hit.sum(0), 1.0 - self.decay)
        self.total.lerp_(hit.T @ flat, 1.0 - self.decay)
        number = self.size.sum()
        smooth = (self.size + self.smoothing) / (number + self.size.shape[0] * self.smoothing) * number  # Laplace
        self.codebook.copy_(self.total / smooth.unsqueeze(1))
