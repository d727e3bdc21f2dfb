"""Who is visible when."""

import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.world_model.config import Order, Reveal
from dima_isaac.world_model.reveal import draw_mask, draw_order, stage_of, stages, steps_for


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def shown(reveal: Reveal, agents: int, order: Order = Order.descending) -> list[list[int]]:
    """The visible agents at every reverse step."""
    steps = steps_for(agents, 0, reveal)
    masks = stages(reveal, draw_order(order, 1, agents, rng()))[:, 0]
    picked = [masks[stage_of(k, steps, len(masks))] for k in range(steps)]
    return [mask.nonzero().flatten().tolist() for mask in picked]


@pytest.mark.parametrize(("agents", "steps"), [(1, 2), (2, 4), (3, 3), (4, 4), (6, 6)])
def test_steps(agents, steps):
    assert steps_for(agents, 0, Reveal.sequential) == steps


@pytest.mark.parametrize(
    ("agents", "order"), [(1, [0, 0]), (2, [1, 1, 0, 0]), (3, [2, 1, 0]), (4, [3, 2, 1, 0]), (6, [5, 4, 3, 2, 1, 0])]
)
def test_sequential_shows_one_agent_in_descending_order(agents, order):
    assert shown(Reveal.sequential, agents) == [[agent] for agent in order]


def test_cumulative_keeps_agents_visible():
    assert shown(Reveal.cumulative, 2) == [[1], [1], [0, 1], [0, 1]]
    assert shown(Reveal.cumulative, 3) == [[2], [1, 2], [0, 1, 2]]


def test_joint_shows_all_always():
    assert shown(Reveal.joint, 3) == [[0, 1, 2]] * 3


def test_steps_must_be_fair():
    assert steps_for(3, 6, Reveal.cumulative) == 6 and steps_for(3, 4, Reveal.joint) == 4
    with pytest.raises(UsageError, match="multiple of 3"):
        steps_for(3, 4, Reveal.sequential)


def test_random_orders_are_permutations_uniform_over_samples():
    order = draw_order(Order.per_sample, 6000, 3, rng())
    assert torch.equal(order.sort(1).values, torch.arange(3).expand(6000, 3))
    codes = (order * torch.tensor([9, 3, 1])).sum(1)
    assert len(codes.unique()) == 6 and (codes.unique(return_counts=True)[1] - 1000).abs().max() < 150


def test_training_masks():
    one = draw_mask(Reveal.sequential, 9000, 3, rng())
    assert (one.sum(1) == 1).all() and (one.mean(0) - 1 / 3).abs().max() < 0.02
    assert draw_mask(Reveal.joint, 5, 3, rng()).all()
    some = draw_mask(Reveal.cumulative, 9000, 3, rng()).sum(1)
    share = [(some == size).float().mean().item() for size in range(4)]
    assert share == pytest.approx([0, 1 / 6, 1 / 6, 4 / 6], abs=0.02)
