"""Lambda-returns over a dream."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    reward: Tensor, next_value: Tensor, cont: Tensor, gamma: float, lam: float, gamma_twice: bool = False
) -> Tensor:
    """R_t = r_t + gamma c_t [(1 - lam) V_{t+1} + lam R_{t+1}], with V_{H} after the last step.

    ``reward``, ``cont`` and ``next_value`` are (B, H); ``next_value[:, t]`` is V of the state that step t leads to.
    ``gamma_twice`` reproduces the released DIMA, whose (1 - lam) term carries gamma a second time.
    """
    discount = gamma * cont
    bootstrap = (gamma if gamma_twice else 1.0) * (1.0 - lam) * next_value
    after = next_value[:, -1]
    out = []
    for t in range(reward.shape[1] - 1, -1, -1):
        after = reward[:, t] + discount[:, t] * (bootstrap[:, t] + lam * after)
        out.append(after)
    return torch.stack(out[::-1], dim=1)


def survival(cont: Tensor) -> Tensor:
    """The probability (B, H) that the episode still runs when step t is taken: the product of earlier ``cont``."""
    return torch.cat([torch.ones_like(cont[:, :1]), cont[:, :-1].cumprod(1)], dim=1)
