"""Which agents' current actions the denoiser sees: at each reverse step, and in training (DIMA equations 6 and 9).

Every mode is a mask, 1 where an agent's current action is visible.
"""

import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.world_model.config import Order, Reveal

FULL_FRACTION = 0.5  # cumulative training: how often every agent is visible; with subsets alone the last one fades


def steps_for(agents: int, steps: int, reveal: Reveal) -> int:
    """K: ``steps``, or N (2 N for N <= 2) when that is 0.

    Raises:
        UsageError: a K by which agents cannot be revealed equally often.
    """
    steps = steps or (agents if agents > 2 else 2 * agents)
    if steps < 1 or (reveal is not Reveal.joint and steps % agents):
        raise UsageError(
            f"world_model.denoiser.steps={steps} cannot reveal {agents} agents equally often; "
            f"choose a multiple of {agents}, 0, or world_model.denoiser.reveal=joint."
        )
    return steps


def draw_order(order: Order, batch: int, agents: int, generator: torch.Generator) -> Tensor:
    """(batch, N) agents in the order in which they are revealed."""
    if order is Order.per_sample:
        return torch.rand(batch, agents, device=generator.device, generator=generator).argsort(1)
    return torch.arange(agents, device=generator.device).flip(0).expand(batch, agents)


# DIMA eq. 6
def stages(reveal: Reveal, order: Tensor) -> Tensor:
    """(S, B, N) float masks, one for each distinct stage of the reverse process; S is 1 for ``joint``, else N."""
    # not one_hot, which reads its argument's values on a CPU
    visible = order.T.unsqueeze(-1) == torch.arange(order.shape[1], device=order.device)
    if reveal is Reveal.joint:
        visible = visible.sum(0, keepdim=True)
    elif reveal is Reveal.cumulative:
        visible = visible.cumsum(0)  # of integers: a GPU's sums of floats have no fixed order
    return visible.float()


def stage_of(step: int, steps: int, count: int) -> int:
    """Which of ``count`` stages reverse step ``step`` of ``steps`` uses: each is held equally long."""
    return step * count // steps


# DIMA eq. 9
def draw_mask(reveal: Reveal, batch: int, agents: int, generator: torch.Generator) -> Tensor:
    """(batch, N) float training masks: a uniform agent, a subset of uniform size (half of the time all), or all."""
    device = generator.device
    if reveal is Reveal.joint:
        return torch.ones(batch, agents, device=device)
    rank = torch.rand(batch, agents, device=device, generator=generator).argsort(1)
    if reveal is Reveal.sequential:
        return (rank == 0).float()
    size = torch.randint(1, agents + 1, (batch, 1), device=device, generator=generator)
    full = torch.rand(batch, 1, device=device, generator=generator) < FULL_FRACTION
    return ((rank < size) | full).float()
