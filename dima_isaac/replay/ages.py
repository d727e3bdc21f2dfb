"""Which rows to draw: the replay in equal-count quarters by age, each with its own probability mass."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTS = (0.7, 0.1, 0.1, 0.1)  # probability mass of the newest to the oldest quarter of what is stored (DIMA's)


def age_edges(device: torch.device) -> Tensor:
    """The cumulative mass (4,) up to the end of each quarter, from the newest on."""
    return torch.tensor(WEIGHTS).cumsum(0).to(device)


def draw_ages(batch: int, size: int, edges: Tensor, generator: torch.Generator) -> Tensor:
    """Ages (B,) in [0, ``size``), 0 the newest row; ``edges`` are ``age_edges`` of the generator's device.

    Quarters have equal lengths up to rounding. With fewer rows than quarters the draw is uniform.
    """
    quarters = edges.shape[0]
    u = torch.rand(2, batch, device=edges.device, generator=generator)
    if size < quarters:
        return (u[0] * size).long().clamp_max(size - 1)
    quarter = torch.bucketize(u[0] * edges[-1], edges).clamp_max(quarters - 1)
    return ((quarter + u[1]) * (size / quarters)).long().clamp_max(size - 1)
