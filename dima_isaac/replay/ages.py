"""Which rows to draw: the replay in equal-count quarters by age, each with its own probability mass."""

from __future__ import annotations

import torch
from torch import Tensor


def age_edges(weights: list[float]) -> Tensor:
    """Where the newest part ends, the two newest, ...; ``weights`` go from the oldest part to the newest."""
    return torch.tensor(weights).flip(0).cumsum(0)


def draw_ages(batch: int, size: int, edges: Tensor, generator: torch.Generator) -> Tensor:
    """Ages (B,) in [0, ``size``), 0 the newest row; ``edges`` are ``age_edges`` on the generator's device.

    Parts have equal lengths up to rounding. With fewer rows than parts the draw is uniform.
    """
    parts = edges.shape[0]
    u = torch.rand(2, batch, device=edges.device, generator=generator)
    if size < parts:
        return (u[0] * size).long().clamp_max(size - 1)
    part = torch.bucketize(u[0] * edges[-1], edges).clamp_max(parts - 1)
    return ((part + u[1]) * (size / parts)).long().clamp_max(size - 1)
