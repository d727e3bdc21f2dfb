"""Centralised critics that predict the distribution of the return (C51, Bellemare et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dima_isaac.nn.layers import normed_mlp
from dima_isaac.nn.moments import Moments
from dima_isaac.types import Dims

ATOMS = 101
LIMIT = 10.0
"""Returns are predicted on ``ATOMS`` values from -LIMIT to LIMIT, in units of ``ReturnScale``."""


class CategoricalCritics(nn.Module):
    """Two critics, each state s (B, D) and joint action (B, N, A) -> logits (B, ATOMS).

    Every layer is batch-normalised (XQC, Palenicek et al. 2026; CrossQ, Bhatt et al. 2024): in training mode with the
    moments of the batch, so current and next states belong into one call; in evaluation mode with running ones. A rank
    normalises with its own part of the batch, and running moments are averaged.
    """

    atoms: Tensor

    def __init__(self, dims: Dims, hidden: Sequence[int]) -> None:
        super().__init__()
        self.moments = Moments(dims.state)
        inputs = dims.state + dims.agents * dims.action
        self.register_buffer("atoms", torch.linspace(-LIMIT, LIMIT, ATOMS), persistent=False)
        self.nets = nn.ModuleList(
            nn.Sequential(_batch_norm(inputs), *normed_mlp(inputs, hidden, ATOMS, _batch_norm)) for _ in range(2)
        )
        for net in self.nets:
            assert isinstance(net, nn.Sequential)
            head = net[-1]
            assert isinstance(head, nn.Linear)
            with torch.no_grad():  # at first a narrow distribution round 0
                head.weight.mul_(0.1)
                head.bias.copy_(-0.5 * (self.atoms / 0.5).square())

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """Logits (2, B, ATOMS)."""
        mean, scale = self.moments.mean.float(), (self.moments.var + 1e-6).rsqrt().float()
        inputs = torch.cat([((state - mean) * scale).clamp(-10.0, 10.0), action.flatten(-2)], -1)
        return torch.stack([net(inputs).float() for net in self.nets])

    def mean(self, logits: Tensor) -> Tensor:
        """Expected return (...,) of logits (..., ATOMS)."""
        return (logits.softmax(-1) * self.atoms).sum(-1)

    # C51, algorithm 1; of the two critics the one with the smaller mean (TD3, Fujimoto et al. 2018)
    def target(self, logits: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The distribution (B, ATOMS) of ``reward`` + ``discount`` Z, (B,) each, for next logits (2, B, ATOMS)."""
        both = logits.softmax(-1)
        smaller = (both * self.atoms).sum(-1).argmin(0)
        chance = both.gather(0, smaller[None, :, None].expand(1, *logits.shape[1:]))[0]
        value = (reward.unsqueeze(1) + discount.unsqueeze(1) * self.atoms).clamp(-LIMIT, LIMIT)
        place = (value + LIMIT) / (2.0 * LIMIT / (ATOMS - 1))
        lower = place.floor().clamp(0, ATOMS - 2)
        upper_share = place - lower
        index, out = lower.long(), torch.zeros_like(chance)
        out.scatter_add_(1, index, chance * (1.0 - upper_share))
        return out.scatter_add_(1, index + 1, chance * upper_share)


def _batch_norm(size: int) -> nn.Module:
    return nn.BatchNorm1d(size, momentum=0.01)
