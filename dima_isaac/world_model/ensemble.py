"""Several denoisers that learn from the same windows; every dream follows one of them to its end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dima_isaac.types import Dims, Window
from dima_isaac.world_model.config import DenoiserConfig, Precision
from dima_isaac.world_model.denoiser import Condition, Denoiser
from dima_isaac.world_model.target import Space


class Ensemble(nn.Module):
    """``cfg.members`` denoisers in place of one (trajectory sampling, Chua et al. 2018, section 5).

    Rows of a batch are dealt to members in equal runs, so a dream, which keeps its row, keeps its member. Members
    differ by where they began and by the noise that they were trained with. Fitting costs ``cfg.members`` times as
    much, dreaming what it costs with one.
    """

    def __init__(self, cfg: DenoiserConfig, dims: Dims, history: int, precision: Precision) -> None:
        super().__init__()
        self.members = nn.ModuleList(Denoiser(cfg, dims, history, precision) for _ in range(cfg.members))

    def encode(self, history: Tensor, actions: Tensor, seen: Tensor) -> list[Condition]:
        """As ``Denoiser.encode``; each condition holds one of every member."""
        count = len(self.members)
        parts = zip(history.tensor_split(count), actions.tensor_split(count), seen.tensor_split(count, 1), strict=True)
        shown = [member.encode(*part) for member, part in zip(self.members, parts, strict=True)]  # type: ignore[operator]
        return [Condition(stage, None) for stage in zip(*shown, strict=True)]

    def forward(self, noisy: Tensor, sigma: Tensor, condition: Condition, free: Tensor) -> Tensor:
        """As ``Denoiser.forward``, for one noise level ()."""
        parts = zip(self.members, noisy.tensor_split(len(self.members)), condition.given, strict=True)
        return torch.cat([member(part, sigma, given, free) for member, part, given in parts])

    def loss(self, space: Space, window: Window, unroll: int, generator: torch.Generator) -> Tensor:
        """Mean over members, each of which sees every window."""
        losses = [member.loss(space, window, unroll, generator) for member in self.members]  # type: ignore[operator]
        return torch.stack(losses).mean()
