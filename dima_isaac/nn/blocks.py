"""Layers modulated by a condition vector: Fourier features, adaptive layer norm, adaptive group norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FourierFeatures(nn.Module):
    """A number as ``size`` waves: [cos 2 pi w c, sin 2 pi w c], with fixed w ~ N(0, 1)."""

    frequency: Tensor

    def __init__(self, size: int) -> None:
        """``size`` is even."""
        super().__init__()
        self.register_buffer("frequency", torch.randn(size // 2))

    def forward(self, value: Tensor) -> Tensor:
        """(...,) -> (..., size)."""
        angle = 2.0 * math.pi * value.unsqueeze(-1) * self.frequency
        return torch.cat([angle.cos(), angle.sin()], -1)


class AdaLayerNorm(nn.Module):
    """Layer norm whose scale and shift are linear in the condition."""

    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.width = width
        self.modulate = nn.Linear(cond, 2 * width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, width), cond (B or 1, cond)."""
        scale, shift = self.modulate(cond).chunk(2, -1)
        return F.layer_norm(x, (self.width,)) * (1.0 + scale) + shift


class AdaGroupNorm(nn.Module):
    """Group norm over channels (32 per group) whose scale and shift are linear in the condition."""

    def __init__(self, channels: int, cond: int) -> None:
        super().__init__()
        self.groups = max(1, channels // 32)
        self.modulate = nn.Linear(cond, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, channels, L), cond (B, cond)."""
        scale, shift = self.modulate(cond).unsqueeze(-1).chunk(2, 1)
        return F.group_norm(x, self.groups, eps=1e-5) * (1.0 + scale) + shift


class GEGLU(nn.Module):
    """Half of the input, gated by the GELU of the other half (Shazeer 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)
