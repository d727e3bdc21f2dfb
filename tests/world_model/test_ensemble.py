"""Several denoisers: whose row is whose, what they learn, and that a dream keeps its member."""

from __future__ import annotations

import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.types import Window
from tests.world_model.worlds import build, shaken, small


def window(rows: int, batch: int = 7) -> Window:
    torch.manual_seed(3)
    state, action = torch.randn(batch, rows, 4), torch.rand(batch, rows, 2, 2)
    return Window(
        state=state,
        action=action,
        reward=torch.randn(batch, rows),
        terminal=torch.zeros(batch, rows, dtype=torch.bool),
        first=torch.zeros(batch, rows, dtype=torch.bool),
        valid=torch.ones(batch, rows, dtype=torch.bool),
    )


@torch.no_grad()
def test_every_row_is_its_own_members_work():
    ensemble = shaken(build(small(members=3))).denoiser
    history, actions, noisy = torch.randn(7, 3, 4), torch.randn(7, 3, 2, 2), torch.randn(7, 4)
    seen, sigma, free = torch.eye(2).unsqueeze(1).expand(2, 7, 2), torch.tensor(0.7), torch.ones(4)
    for stage, condition in enumerate(ensemble.encode(history, actions, seen)):
        got = ensemble(noisy, sigma, condition, free)
        for member, rows in zip(ensemble.members, (slice(0, 3), slice(3, 5), slice(5, 7)), strict=True):
            alone = member.encode(history, actions, seen)[stage]
            torch.testing.assert_close(got[rows], member(noisy, sigma, alone, free)[rows], atol=1e-5, rtol=1e-5)


def test_members_differ_from_the_start_and_learn_from_every_window():
    world = build(small(members=2))
    first, second = world.denoiser.members
    assert not torch.equal(first.net.enter.weight, second.net.enter.weight)
    before = [[p.clone() for p in member.parameters()] for member in (first, second)]
    world.update_dynamics(window(world.window))
    for member, old in zip((first, second), before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(member.parameters(), old, strict=True))
    seen = window(world.window)
    rng = torch.Generator().manual_seed(5)
    each = [member.loss(world.space, seen, 1, rng) for member in (first, second)]
    whole = world.denoiser.loss(world.space, seen, 1, torch.Generator().manual_seed(5))
    torch.testing.assert_close(whole, (each[0] + each[1]) / 2)


@torch.no_grad()
def test_a_dream_keeps_its_member():
    world = shaken(build(small(members=2, ema=0.0)))

    def dream() -> torch.Tensor:
        context, rng = world.context(window(world.history)), torch.Generator().manual_seed(1)
        for _ in range(4):
            context = world.step(context, torch.zeros(7, 2, 2), rng)
        return context.state

    before = dream()
    for parameter in world.denoiser.members[1].parameters():
        parameter.mul_(1.5)
    after = dream()
    assert torch.equal(before[:4], after[:4])
    assert (before[4:] - after[4:]).abs().amax(1).min() > 1e-4


def test_no_members_is_refused():
    with pytest.raises(UsageError, match="members=0"):
        build(small(members=0))
