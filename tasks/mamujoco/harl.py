"""Protocol ``harl``: what the programs of HARL, MARIE and DIMA played, where it differs from Gymnasium's -v5 robots.

Every agent sees the whole state and its own number, standardised sample by sample; actions are neither clipped nor
shared out by joint names, but flat; rewards are those of Gym's -v2 on MuJoCo 2.1.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dima_isaac.errors import UsageError


@dataclass(frozen=True)
class Harl:
    """How one robot of Gym's -v2 differs from Gymnasium's -v5."""

    state_fields: dict[str, int] | None = None  # None: as in v5
    zeros: int = 0  # columns at the state's end that were always zero, and that the standardisation counts
    asset: str = ""  # another file
    constants: dict[str, float] = field(default_factory=dict)


def in_order(parts: list[list[int]], scenario: str) -> list[list[int]]:
    """Agents of equal size in actuator order: what a flat concatenation of actions makes of any partition.

    Raises:
        UsageError: agents of unequal size.
    """
    size = len(parts[0])
    if any(len(part) != size for part in parts):
        raise UsageError(f"protocol=harl shares {scenario} out in equal parts only; use task.protocol=v5.")
    return [list(range(i * size, (i + 1) * size)) for i in range(len(parts))]


def standardised(state: Tensor, agents: int) -> Tensor:
    """Observations (..., N, D + N) of states (..., D): z([s; one-hot_i]).

    z subtracts the mean of this one vector and divides by its population standard deviation. The one-hot adds 1 to the
    sum and to the sum of squares for every agent, so all agents have the same mean and deviation.
    """
    width = state.shape[-1] + agents
    mean = (state.sum(-1, keepdim=True) + 1.0) / width
    centred = state - mean
    # of the one-hot: one entry at 1 - mean, the others at -mean
    spread = centred.square().sum(-1, keepdim=True) + (1.0 - mean).square() + (agents - 1) * mean.square()
    scale = (spread / width).rsqrt()
    one_hot = torch.eye(agents, dtype=state.dtype, device=state.device)
    own = (one_hot - mean.unsqueeze(-1)) * scale.unsqueeze(-1)
    shared = (centred * scale).unsqueeze(-2).expand(*state.shape[:-1], agents, state.shape[-1])
    return torch.cat([shared, own], -1)
