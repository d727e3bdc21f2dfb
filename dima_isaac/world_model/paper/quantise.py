"""Discrete bottlenecks: an EMA codebook (van den Oord et al. 2017), finite scalar quantisation (Mentzer et al. 2023).

Both return (quantised tokens with a straight-through gradient, commitment loss, fraction of codes used by the batch).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _hits(index: Tensor, codes: int) -> Tensor:
    """(M,) code numbers -> (M, codes) bool; torch's own one_hot looks at its argument on a CPU."""
    return index.unsqueeze(-1) == torch.arange(codes, device=index.device)


class VectorQuantiser(nn.Module):
    """The nearest of ``codes`` vectors, which follow the tokens by exponential moving averages, not by gradients.

    A code that on average fewer than ``revive`` tokens of a batch have found becomes one of the batch's tokens
    (SoundStream, Zeghidour et al. 2021), the whole codebook with the first batch. With 0, as published, codes start
    from noise, and for thousands of updates the one that tokens happen to lie nearest to takes them all.
    """

    codebook: Tensor
    size: Tensor
    total: Tensor

    def __init__(self, codes: int, dim: int, decay: float, revive: float = 0.0, smoothing: float = 1e-5) -> None:
        super().__init__()
        self.decay, self.revive, self.smoothing = decay, revive, smoothing
        codebook = torch.empty(codes, dim)
        nn.init.kaiming_uniform_(codebook)
        self.register_buffer("codebook", codebook)
        # one token each to begin with: a size of 0 would throw every code that the first batch leaves out to infinity
        self.register_buffer("size", torch.full((codes,), 0.0 if revive else 1.0))
        self.register_buffer("total", codebook.clone())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (..., dim). In training mode, with gradients enabled, the codebook moves after it was used."""
        flat = tokens.flatten(0, -2)
        learning = self.training and torch.is_grad_enabled()
        if learning and self.revive:
            self._revive(flat.detach())
        index = torch.cdist(flat.detach().float(), self.codebook).argmin(-1)
        hit = _hits(index, self.codebook.shape[0]).to(flat.dtype)  # (M, codes)
        chosen = self.codebook[index].view_as(tokens)
        if learning:
            self._follow(flat.detach(), hit)
        commitment = F.mse_loss(tokens, chosen)
        used = (hit.sum(0) > 0).float().mean()
        return tokens + (chosen - tokens).detach(), commitment, used

    @torch.no_grad()
    def _revive(self, flat: Tensor) -> None:
        codes, tokens = self.codebook.shape[0], flat.shape[0]
        each = torch.arange(codes, device=flat.device)
        # spread over the batch; the shift by one takes turns among the places of a sample's tokens
        donors = flat[(each * (tokens // codes) + each) % tokens].float()
        dead = (self.size < self.revive).unsqueeze(1)
        self.codebook.copy_(torch.where(dead, donors, self.codebook))
        self.total.copy_(torch.where(dead, donors, self.total))
        self.size.masked_fill_(dead.squeeze(1), 1.0)

    @torch.no_grad()
    def _follow(self, flat: Tensor, hit: Tensor) -> None:
        self.size.lerp_(hit.sum(0), 1.0 - self.decay)
        self.total.lerp_(hit.T @ flat, 1.0 - self.decay)
        number = self.size.sum()
        smooth = (self.size + self.smoothing) / (number + self.size.shape[0] * self.smoothing) * number  # Laplace
        self.codebook.copy_(self.total / smooth.unsqueeze(1))


class FiniteScalarQuantiser(nn.Module):
    """Every dimension is squashed and rounded to one of its ``levels``: prod(levels) codes, nothing learned."""

    reach: Tensor
    place: Tensor
    offset: Tensor
    shift: Tensor
    width: Tensor

    def __init__(self, levels: list[int], margin: float = 1e-3) -> None:
        super().__init__()
        self.codes = math.prod(levels)
        count = torch.tensor(levels, dtype=torch.float32)
        half = (count - 1.0) * (1.0 + margin) / 2.0
        offset = torch.where(count % 2 == 0, 0.5, 0.0)
        place = torch.tensor([1, *levels[:-1]]).cumprod(0)
        for name, value in {
            "reach": half,
            "offset": offset,
            "shift": (offset / half).atanh(),
            "width": torch.div(count, 2.0, rounding_mode="floor"),
            "place": place,
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (..., len(levels)) -> the same, in [-1, 1]."""
        bounded = (tokens + self.shift).tanh() * self.reach - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        with torch.no_grad():
            index = self.index(rounded / self.width).flatten()
            used = _hits(index, self.codes).any(0).float().mean()
        return rounded / self.width, torch.zeros((), device=tokens.device), used

    def index(self, quantised: Tensor) -> Tensor:
        """(..., len(levels)) quantised tokens -> (...) code numbers in [0, prod(levels))."""
        digit = (quantised * self.width + self.width).round().long()
        return (digit * self.place).sum(-1)
