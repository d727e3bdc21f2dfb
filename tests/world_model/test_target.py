"""Conversions between raw, normalised and diffused states."""

import pytest
import torch

from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.types import Dims, Step, Window
from dima_isaac.world_model.config import TargetKind, WorldModelConfig
from dima_isaac.world_model.target import CHANGE_CLAMP, ResidualTarget, StateTarget, Target, build_target
from tests.world_model.worlds import game

DIMS = Dims(agents=2, state=5, obs=5, action=1)
ACTION = torch.zeros(2, 1)
COPY = torch.tensor([[4], [-1]])  # agent 0's action is state 4
ZERO = torch.zeros(300, 5)
KINDS = list(TargetKind)


def fresh(kind=TargetKind.residual, last_action_index=None, output_only=None, **settings) -> Target:
    return build_target(WorldModelConfig(target=kind, **settings), game(DIMS, last_action_index, output_only).spec)


def seen(*args, **settings) -> tuple[Target, torch.Tensor]:
    """A target that has seen walks of very different scales; dimension 3 differs between episodes but never moves."""
    rng = torch.Generator().manual_seed(0)
    out = fresh(*args, **settings)
    steps = torch.randn(300, 6, 5, generator=rng) * torch.tensor([1.0, 1e-3, 100.0, 0.0, 0.1])
    walk = steps.cumsum(1) + torch.randn(300, 1, 5, generator=rng) * torch.tensor([1.0, 1.0, 1.0, 5.0, 0.0])
    out.state.update(walk)
    yes = torch.ones(300, 6, dtype=torch.bool)
    out.track(Window(walk, ACTION.expand(300, 6, 2, 1), torch.zeros(300, 6), ~yes, yes, ~yes))
    return out, walk


def fitted(*args, **settings) -> tuple[ResidualTarget, torch.Tensor]:
    """The same after the regression's first solution."""
    target, walk = seen(*args, **settings)
    target.regression.solve()
    return target, walk


@pytest.mark.parametrize(
    ("kind", "make"), [(TargetKind.state, seen), (TargetKind.residual, seen), (TargetKind.residual, fitted)]
)
def test_advance_undoes_encode(kind, make):
    target, walk = make(kind)
    state, after = walk[:, 1], walk[:, 2]
    linear = target.linear(target.x(state), torch.zeros(300, 3, 2, 1))
    back = target.advance(state, target.encode(state, after, linear), linear, torch.zeros(300, 2, 1))
    assert ((back - after).abs() / target.state.var.sqrt().float()).max() < 1e-4


def test_x_has_the_data_deviation_and_z_twice_that():
    target, walk = seen()
    x = target.x(walk).flatten(0, 1)
    assert torch.allclose(x.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(x.std(0, correction=0), torch.full((5,), 0.5), atol=1e-3)
    assert torch.allclose(target.z(walk), 2 * target.x(walk))


def test_change_has_the_data_deviation_whatever_its_scale():
    target, walk = seen()
    d = target.normalised_change(walk[:, :-1], walk[:, 1:]).flatten(0, 1)
    assert torch.allclose(d.std(0, correction=0), torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5]), atol=1e-3)
    assert torch.equal(target.encode(walk[:, 0], walk[:, 1], ZERO), target.normalised_change(walk[:, 0], walk[:, 1]))


def test_the_residual_has_the_data_deviation_and_no_linear_part():
    target, walk = fitted()
    x, actions = target.x(walk[:, -2]), torch.zeros(300, 3, 2, 1)
    y = target.encode(walk[:, -2], walk[:, -1], target.linear(x, actions))
    moving = [0, 1, 2, 4]
    assert torch.allclose(y.square().mean(0).sqrt()[moving], torch.full((4,), 0.5), atol=1e-3)
    assert ((y * x).mean(0)[moving].abs() < 2e-3).all()


def test_the_regression_is_solved_now_and_then():
    target, _ = seen()
    for updates in (0, 1, 49, 51):
        target.refit(updates)
    assert target.regression.weight.eq(0).all()
    target.refit(50)
    assert target.regression.weight.abs().max() > 0


def test_what_is_constant_stays_exactly_where_it_is():
    target, walk = seen()
    assert target.denoised().tolist() == [1, 1, 1, 0, 1]
    after = target.advance(walk[:, 0], torch.full((300, 5), 3.0), ZERO, torch.zeros(300, 2, 1))
    assert torch.equal(after[:, 3], walk[:, 0, 3])
    assert target.encode(walk[:, 0], walk[:, 0] + 9.0, ZERO)[:, 3].abs().max() == 0


def test_gradients_pass_constant_dimensions_unharmed():
    target, walk = seen()
    state = walk[:, 0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(target.normalised_change(state, walk[:, 1]).sum(), state)
    assert grad.isfinite().all() and grad[:, 3].eq(0).all() and grad[:, 0].ne(0).all()


def test_output_only_dimensions_are_the_regressions_alone():
    force = torch.tensor([False, False, True, False, False])
    target, walk = fitted(output_only=force)
    assert target.denoised().tolist() == [1, 1, 0, 0, 1] and target.uncertain().tolist() == [1, 1, 1, 0, 1]
    valid = torch.ones(300, 3, dtype=torch.bool)
    features = target.features(target.x(walk[:, :3]), valid)
    assert features[:, :, 2].abs().max() == 0 and features[:, :, 0].abs().max() > 0
    state = walk[:, 0]
    linear = target.linear(target.x(state), torch.zeros(300, 3, 2, 1))
    after = target.advance(state, ZERO, linear, torch.zeros(300, 2, 1))
    assert not torch.equal(after[:, 2], state[:, 2])  # it moves as the regression says
    published, _ = seen(TargetKind.state, output_only=force)  # nothing else would predict them
    assert published.denoised().tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_yet_is_harmless(kind):
    target, s = fresh(kind), torch.randn(3, 5)
    assert torch.allclose(target.z(s), s, atol=1e-6)
    y = target.encode(s, s + 1, torch.zeros(3, 5))
    assert target.advance(s, y, torch.zeros(3, 5), torch.zeros(3, 2, 1)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_copied_actions_are_written_exactly(kind):
    target, walk = seen(kind, COPY)
    action = torch.linspace(-1, 1, 600).view(300, 2, 1)
    after = target.advance(walk[:, 0], torch.randn(300, 5), ZERO, action)
    assert torch.equal(after[:, 4], action[:, 0, 0]) and target.denoised()[4] == 0
    off, _ = seen(kind, COPY, copy_last_action=False)
    assert (
        not torch.equal(off.advance(walk[:, 0], ZERO, ZERO, action)[:, 4], action[:, 0, 0]) and off.denoised()[4] == 1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_states_cannot_leave_but_are_not_pulled_inwards(kind):
    target, walk = seen(kind, z_clamp=10.0)
    mean, std = target.state_scale()
    inside = walk[:, 0] * 0 + mean
    for side in (1.0, -1.0):
        far = target.advance(inside, torch.full((300, 5), side * 1e6), ZERO, torch.zeros(300, 2, 1))
        assert torch.allclose(target.z(far)[:, :3], torch.full((300, 3), side * 10.0), atol=1e-3)
        outside = (mean + side * 12 * std).expand(300, 5)
        kept = target.advance(outside, target.encode(outside, outside, ZERO), ZERO, torch.zeros(300, 2, 1))
        assert (side * target.z(kept) > 11.5).all()


def test_features_show_changes_and_the_newest_state():
    target, walk = seen()
    valid = torch.ones(300, 3, dtype=torch.bool)
    valid[0, 0] = False
    features = target.features(target.x(walk[:, :3]) * valid.unsqueeze(-1), valid)
    assert torch.allclose(features[:, 2], target.x(walk[:, 2]))
    mean, spread = target.change_scale()
    change = target.normalised_change(walk[:, 1], walk[:, 2]) + 0.5 * torch.where(spread > 0, mean / spread, 0.0)
    assert torch.allclose(features[:, 1], change, atol=1e-3)
    assert features[0, 0].abs().max() == 0 and features[1, 0].abs().max() > 0


def test_features_of_the_published_target_are_the_states():
    target, walk = seen(TargetKind.state)
    assert torch.equal(target.features(walk[:, :3], torch.ones(300, 3, dtype=torch.bool)), walk[:, :3])


def test_the_first_touch_of_a_thing_is_a_jump_of_known_size():
    target, walk = seen()
    rounding = 1e-9 * torch.randn(300, 6, 5, generator=torch.Generator().manual_seed(1))
    target.change.square[3] = rounding[..., 3].double().square().sum()  # it has moved by rounding alone
    target.state.square[3] = target.change.square[3]
    touched = walk[:1, :4].clone()
    touched[:, 1:, 3] += 0.1
    state, after = touched[:, 0], touched[:, 1]
    assert target.encode(state, after, torch.zeros(1, 5))[0, 3] == 0.5 * CHANGE_CLAMP
    assert torch.equal(target.normalised_change(state, after)[0, :3], seen()[0].normalised_change(state, after)[0, :3])
    features = target.features(target.x(touched[:, :3]), torch.ones(1, 3, dtype=torch.bool))
    assert features[:, :-1].abs().max() <= 0.5 * CHANGE_CLAMP


@pytest.mark.parametrize(("kind", "make"), [(TargetKind.state, seen), (TargetKind.residual, fitted)])
def test_dx_dy_is_the_derivative_of_x_after_a_step(kind, make):
    target, walk = make(kind, z_clamp=0.0)
    state, action = walk[:, 0], torch.zeros(300, 2, 1)
    moved, base = (target.x(target.advance(state, y, ZERO, action)) for y in (ZERO + 1.0, ZERO))
    torch.testing.assert_close((moved - base)[0] * target.uncertain(), target.dx_dy(), atol=2e-3, rtol=2e-3)


def test_a_row_that_no_action_led_to_is_no_target():
    """A first row comes after padding, which is zero: the change from there is not one of the dynamics."""
    target = fresh()
    state = 50.0 + torch.randn(8, 5, 5)
    valid = torch.ones(8, 5, dtype=torch.bool)
    valid[:4, 0], state[:4, 0] = False, 0.0
    valid[4:6, :4], state[4:6, :4] = False, 0.0
    rows = Window(state, torch.randn(8, 5, 2, 1), torch.zeros(8, 5), torch.zeros(8, 5).bool(), valid, ~valid)
    target.track(rows)
    moves = torch.cat([state[:4, 2:] - state[:4, 1:-1], state[6:, 2:] - state[6:, 1:-1]]).flatten(0, 1)
    moves = torch.cat([moves, state[6:, 1] - state[6:, 0]])
    assert target.change.count == len(moves)
    assert torch.allclose(target.change.mean.float(), moves.mean(0), atol=1e-4)
    once = fresh()
    once.change.load_state_dict(target.change.state_dict())
    one_step = [*range(4), 6, 7]  # for which the newest step counts
    inputs = torch.cat([once.x(state[one_step, -2]), rows.action[one_step, 1:4].flatten(1)], 1)
    change = once.normalised_change(state[one_step, -2], state[one_step, -1])
    once.regression.update(inputs, change, torch.ones(6, dtype=torch.bool))
    for name, mine in target.regression.state_dict().items():
        torch.testing.assert_close(mine, once.regression.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_replay_that_is_full_gives_the_moments_of_one_that_is_not():
    """The oldest row that is kept follows rows that have been overwritten, which are no state to come from."""
    rng, found = torch.Generator().manual_seed(0), []
    for kept in (400, 40):
        replay, target = ReplayBuffer(ReplayConfig(capacity=4 * kept), DIMS, 4, torch.device("cpu")), fresh()
        state, no = 50.0 + torch.randn(4, DIMS.state, generator=rng), torch.zeros(4, dtype=torch.bool)
        for _ in range(200):
            replay.add(Step(state, state, no.float(), no, no, no), torch.zeros(4, 2, 1))
            state = state + 0.01 * torch.randn(4, DIMS.state, generator=rng)
        for _ in range(20):
            target.track(replay.sample(64, 5))
        found.append(target.change.var.sqrt())
    torch.testing.assert_close(found[0], found[1], rtol=0.2, atol=0.0)


def test_the_published_moments_begin_with_a_prior():
    assert fresh(TargetKind.state).state.count == 1e-4 and fresh().state.count == 0.0
    assert isinstance(fresh(TargetKind.state), StateTarget) and isinstance(fresh(), ResidualTarget)
