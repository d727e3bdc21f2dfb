"""Noise levels and preconditioning of a diffusion model (Karras et al. 2022, "EDM", table 1 and equation 5).

The constants are those of the released DIMA program; nothing was gained by changing one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SIGMA_DATA = 0.5  # standard deviation of what is diffused
OFFSET = 0.3  # standard deviation of white noise added to every training sample, whatever its sigma
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 5.0, 7.0  # of the reverse process
TRAIN_MEAN, TRAIN_STD, TRAIN_MAX = -0.4, 1.2, 20.0  # of ln sigma in training, and sigma's upper bound


@dataclass
class Scales:
    """D(y; sigma) = skip * y + out * F(inp * y; noise)."""

    inp: Tensor
    skip: Tensor
    out: Tensor
    noise: Tensor


# EDM eq. 7 and table 1, with the training's offset noise folded into sigma
def precondition(sigma: Tensor, data: float = SIGMA_DATA, offset: float = OFFSET) -> Scales:
    """The four scales at noise level ``sigma``, for data of standard deviation ``data``."""
    var = sigma.square() + offset**2
    total = var + data**2
    return Scales(inp=total.rsqrt(), skip=data**2 / total, out=data * (var / total).sqrt(), noise=var.log() / 8.0)


# EDM eq. 5
def grid(steps: int, low: float = SIGMA_MIN, high: float = SIGMA_MAX, rho: float = RHO) -> Tensor:
    """(steps + 1,) noise levels from ``high`` down to ``low``, then 0. One step uses ``high`` alone."""
    ramp = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    first, last = high ** (1.0 / rho), low ** (1.0 / rho)
    sigma = (first + ramp * (last - first)) ** rho
    return torch.cat([sigma, torch.zeros(1, dtype=torch.float64)]).float()


# EDM table 1, "noise distribution"
def draw_sigma(batch: int, generator: torch.Generator) -> Tensor:
    """(batch, 1) training noise levels: log-normal, clipped."""
    normal = torch.randn(batch, 1, device=generator.device, generator=generator)
    return (TRAIN_MEAN + TRAIN_STD * normal).exp().clamp(SIGMA_MIN, TRAIN_MAX)


def add_noise(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """A training sample at noise levels ``sigma`` (B, 1): ``clean`` (B, D) + OFFSET * white + sigma * white."""
    noise = torch.randn(2, *clean.shape, device=clean.device, generator=generator)
    return clean + OFFSET * noise[0] + sigma * noise[1]
