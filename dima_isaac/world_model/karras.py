"""Noise levels and preconditioning of a diffusion model (Karras et al. 2022, "EDM", table 1 and equation 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Scales:
    """D(x; sigma) = skip * x + out * F(inp * x; noise)."""

    inp: Tensor
    skip: Tensor
    out: Tensor
    noise: Tensor


# EDM eq. 7 and table 1, with the training's extra noise folded into sigma
def precondition(sigma: Tensor, data: float = 0.5, offset: float = 0.3) -> Scales:
    """The four scales at noise level ``sigma``, for data of standard deviation ``data``."""
    var = sigma.square() + offset**2
    total = var + data**2
    return Scales(inp=total.rsqrt(), skip=data**2 / total, out=data * (var / total).sqrt(), noise=var.log() / 8.0)


# EDM eq. 5
def grid(steps: int, low: float = 0.002, high: float = 5.0, rho: float = 7.0) -> Tensor:
    """(steps + 1,) noise levels from ``high`` down to ``low``, then 0. One step uses ``high`` alone."""
    ramp = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    first, last = high ** (1.0 / rho), low ** (1.0 / rho)
    sigma = (first + ramp * (last - first)) ** rho
    return torch.cat([sigma, torch.zeros(1, dtype=torch.float64)]).float()


# EDM table 1, "noise distribution"
def draw(batch: int, mean: float, std: float, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(batch, 1) training noise levels: log-normal, clipped."""
    normal = torch.randn(batch, 1, device=generator.device, generator=generator)
    return (mean + std * normal).exp().clamp(low, high)
