"""Returns: lambda-returns over a dream, and the scale of real ones."""

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.nn.moments import Moments


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


# SimbaV2 (Lee et al. 2025), section 4.3
class ReturnScale(nn.Module):
    """max(deviation of the discounted return so far, largest return / ``limit``): rewards over it fit +-``limit``."""

    largest: Tensor

    def __init__(self, gamma: float, limit: float) -> None:
        super().__init__()
        self.gamma, self.limit = gamma, limit
        self.moments = Moments(1)
        self.register_buffer("largest", torch.zeros(()))
        self.running = torch.zeros(0)  # (E,), made by the first ``update``

    @torch.no_grad()
    def update(self, reward: Tensor, first: Tensor) -> None:
        """One tick of E environments: ``reward`` (E,), ``first`` (E,) where an episode starts."""
        if self.running.shape != reward.shape:
            self.running = torch.zeros_like(reward)
        self.running = torch.where(first, 0.0, self.gamma * self.running + reward)
        self.moments.update(self.running.unsqueeze(-1))
        self.largest.copy_(torch.maximum(self.largest, ranks.maximum(self.running.abs().max())))

    def forward(self) -> Tensor:
        """The scale, 0-dimensional."""
        return torch.maximum(self.moments.var.sqrt().float()[0], self.largest / self.limit).clamp_min(1e-6)
