"""The reverse process, as a function of a denoiser (EDM algorithm 1 without churn and second-order correction)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

C = TypeVar("C")


# EDM eqs. 1 and 3
def sample(
    denoise: Callable[[Tensor, Tensor, C], Tensor], noise: Tensor, sigmas: Tensor, conditions: Sequence[C]
) -> Tensor:
    """Carry ``noise`` (B, D) down ``sigmas`` (K + 1,), under one condition per step.

    ``denoise(x, sigma, condition)`` estimates the clean x. The step to sigma = 0 returns that estimate itself.
    """
    x = sigmas[0] * noise
    for sigma, lower, condition in zip(sigmas[:-1], sigmas[1:], conditions, strict=True):
        slope = (x - denoise(x, sigma, condition)) / sigma
        x = x + (lower - sigma) * slope
    return x
