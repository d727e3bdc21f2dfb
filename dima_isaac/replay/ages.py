"""Which rows to draw: the replay in equal-count quarters by age, each with its own probability mass."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_ages(batch: int, size: int, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Ages (B,) in [0, ``size``), 0 the newest row; ``weights`` go from the oldest part to the newest.

    Parts have equal lengths up to rounding. With fewer rows than parts the draw is uniform.
    """
    device = weights.device
    parts = weights.shape[0]
    u = torch.rand(2, batch, device=device, generator=generator)
    if size < parts:
        return (u[0] * size).long().clamp_max(size - 1)
    edges = torch.cumsum(weights.flip(0), 0)  # newest part first
    part = torch.bucketize(u[0] * edges[-1], edges).clamp_max(parts - 1)
    return ((part + u[1]) * (size / parts)).long().clamp_max(size - 1)
