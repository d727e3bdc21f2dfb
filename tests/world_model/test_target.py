"""Conversions between raw, normalised and diffused states."""

import pytest
import torch

from dima_isaac.types import Dims, Window
from dima_isaac.world_model.config import Target, WorldModelConfig
from dima_isaac.world_model.target import Space

DIMS = Dims(agents=2, state=5, obs=5, action=1)
ACTION = torch.zeros(2, 1)
ECHO = torch.tensor([[4], [-1]])  # agent 0's action is state 4


def space(
    last_action_index=None, target=Target.residual, output_only=None, solve=False, **settings
) -> tuple[Space, torch.Tensor]:
    """A space that has seen walks of very different scales; dimension 3 differs between episodes but never moves."""
    rng = torch.Generator().manual_seed(0)
    out = Space(WorldModelConfig(target=target, **settings), DIMS, last_action_index, output_only)
    steps = torch.randn(300, 6, 5, generator=rng) * torch.tensor([1.0, 1e-3, 100.0, 0.0, 0.1])
    walk = steps.cumsum(1) + torch.randn(300, 1, 5, generator=rng) * torch.tensor([1.0, 1.0, 1.0, 5.0, 0.0])
    out.state.update(walk)
    yes = torch.ones(300, 6, dtype=torch.bool)
    nothing = torch.zeros(300, 6)
    out.track(Window(walk, ACTION.expand(300, 6, 2, 1), nothing, ~yes, ~yes, yes), 3)
    if solve:
        out.linear.solve()
    return out, walk


@pytest.mark.parametrize("target", list(Target))
def test_advance_undoes_y(target):
    model, walk = space(target=target, solve=target is Target.residual)
    now, after = walk[:, 1], walk[:, 2]
    base = model.base(model.x(now), torch.zeros(300, 3, 2, 1))
    back = model.advance(now, model.y(now, after, base), base, torch.zeros(300, 2, 1))
    spread = model.state.var.sqrt().float()
    assert ((back - after).abs() / spread).max() < 1e-4


def test_x_has_the_data_deviation_and_z_twice_that():
    model, walk = space()
    x = model.x(walk).flatten(0, 1)
    assert torch.allclose(x.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(x.std(0, correction=0), torch.full((5,), 0.5), atol=1e-3)
    assert torch.allclose(model.z(walk), 2 * model.x(walk))


def test_change_has_the_data_deviation_whatever_its_scale():
    model, walk = space()
    y = model.moved(walk[:, :-1], walk[:, 1:]).flatten(0, 1)
    assert torch.allclose(y.std(0, correction=0), torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5]), atol=1e-3)


def test_what_never_moves_stays_exactly_where_it_is():
    model, walk = space()
    assert model.diffused().tolist() == [1, 1, 1, 0, 1]
    after = model.advance(walk[:, 0], torch.full((300, 5), 3.0), torch.zeros(300, 5), torch.zeros(300, 2, 1))
    assert torch.equal(after[:, 3], walk[:, 0, 3])
    assert model.y(walk[:, 0], walk[:, 0] + 9.0, torch.zeros(300, 5))[:, 3].abs().max() == 0


def test_a_readout_is_the_regressions_alone():
    force = torch.tensor([False, False, True, False, False])
    model, walk = space(output_only=force, solve=True)
    assert model.diffused().tolist() == [1, 1, 0, 0, 1] and model.loss_weights()[2] == 0
    assert model.open().tolist() == [1, 1, 1, 0, 1]
    now, actions = walk[:, 0], torch.zeros(300, 3, 2, 1)
    base, valid = model.base(model.x(now), actions), torch.ones(300, 3, dtype=torch.bool)
    guesses = torch.randn(2, 300, 5, generator=torch.Generator().manual_seed(3))
    one, other = (model.advance(now, model.shrunk(y), base, torch.zeros(300, 2, 1)) for y in guesses)
    assert torch.equal(one[:, 2], other[:, 2]) and not torch.equal(one[:, 0], other[:, 0])
    assert not torch.equal(one[:, 2], now[:, 2])  # it moves as the regression says
    x = model.x(walk[:, :3])
    assert model.features(x, valid)[:, :, 2].abs().max() == 0 and model.features(x, valid)[:, :, 0].abs().max() > 0
    plain, _ = space(target=Target.state, output_only=force)  # nothing else would predict it
    assert plain.diffused().tolist() == [1, 1, 1, 1, 1]


def test_nothing_seen_yet_is_harmless():
    model = Space(WorldModelConfig(), DIMS, None)
    s, base = torch.randn(3, 5), torch.zeros(3, 5)
    assert torch.allclose(model.z(s), s)
    assert model.advance(s, model.y(s, s + 1, base), base, torch.zeros(3, 2, 1)).isfinite().all()


def test_echoes_are_written_exactly():
    model, walk = space(ECHO)
    action = torch.linspace(-1, 1, 600).view(300, 2, 1)
    after = model.advance(walk[:, 0], torch.randn(300, 5), torch.zeros(300, 5), action)
    assert torch.equal(after[:, 4], action[:, 0, 0])
    assert model.diffused().tolist() == [1, 1, 1, 0, 0]
    off, _ = space(ECHO, copy_last_action=False)
    still = torch.zeros(300, 5)
    assert not torch.equal(off.advance(walk[:, 0], still, still, action)[:, 4], action[:, 0, 0])


def test_dreams_cannot_leave_but_are_not_yanked_back():
    model, walk = space(z_clamp=10.0)
    mean, std = model._scale()
    inside = walk[:, 0] * 0 + mean
    for side in (1.0, -1.0):
        far = model.advance(inside, torch.full((300, 5), side * 1e6), torch.zeros(300, 5), torch.zeros(300, 2, 1))
        assert torch.allclose(model.z(far)[:, :3], torch.full((300, 3), side * 10.0), atol=1e-3)
        outside = mean + side * 12 * std
        kept = model.advance(outside, torch.zeros(5), torch.zeros(5), torch.zeros(2, 1))
        assert (side * model.z(kept) > 11.5).all()


def test_features_show_changes_and_the_newest_state():
    model, walk = space()
    valid = torch.ones(300, 3, dtype=torch.bool)
    valid[0, 0] = False
    seen = model.features(model.x(walk[:, :3]) * valid.unsqueeze(-1), valid)
    assert torch.allclose(seen[:, 2], model.x(walk[:, 2]))
    mean, spread = model._change_scale()
    moved = model.moved(walk[:, 1], walk[:, 2]) + 0.5 * torch.where(spread > 0, mean / spread, 0.0)
    assert torch.allclose(seen[:, 1], moved, atol=1e-3)
    assert seen[0, 0].abs().max() == 0 and seen[1, 0].abs().max() > 0


def test_the_first_touch_of_a_thing_is_a_jump_of_known_size():
    def at_rest(clamp: float) -> tuple[Space, torch.Tensor]:
        model, walk = space(change_clamp=clamp)
        rounding = 1e-9 * torch.randn(300, 6, 5, generator=torch.Generator().manual_seed(1))
        model.change.square[3] = rounding[..., 3].double().square().sum()  # it has moved by rounding alone
        model.state.square[3] = model.change.square[3]
        touched = walk[:1, :4].clone()
        touched[:, 1:, 3] += 0.1
        return model, touched

    bounded, touched = at_rest(30.0)
    now, after = touched[:, 0], touched[:, 1]
    assert bounded.y(now, after, torch.zeros(1, 5))[0, 3] == 15.0  # 30 deviations of 0.5
    assert torch.equal(bounded.moved(now, after)[0, :3], space()[0].moved(now, after)[0, :3])
    features = bounded.features(bounded.x(touched[:, :3]), torch.ones(1, 3, dtype=torch.bool))
    assert features[:, :-1].abs().max() <= 15.0
    assert at_rest(0.0)[0].y(now, after, torch.zeros(1, 5))[0, 3] > 1e6


def test_features_of_states_are_the_states():
    model, walk = space(target=Target.state)
    valid = torch.ones(300, 3, dtype=torch.bool)
    assert torch.equal(model.features(walk[:, :3], valid), walk[:, :3])


def test_accuracy_is_spent_where_the_value_has_a_slope():
    model, _ = space(value_weight=0.5, trust_decay=0.0)
    even = model.loss_weights()
    assert torch.allclose(even, torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]) * 1.25)
    slope = torch.tensor([0.0, 4.0, 1.0, 9.0, 0.0])  # (dV/dx)^2; dimension 3 never moves
    for _ in range(100):
        model.weigh_by_value(slope)
    std, change = model._scale()[1], model._change_scale()[1]
    per_y = slope * (change / std) ** 2 * torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])  # (dV/dy)^2
    assert torch.allclose(model.value_weights, per_y / per_y.mean(), rtol=1e-3, atol=1e-3)
    weight = even * (0.5 + 0.5 * model.value_weights)
    assert torch.allclose(model.loss_weights(), weight / weight.mean(), rtol=1e-4)
    assert model.loss_weights()[0] > 0, "what has no value today still counts"


def test_what_cannot_be_predicted_yet_keeps_a_tenth_of_its_weight():
    model, _ = space(value_weight=0.0, trust_decay=0.5)
    model.trust.gain.copy_(torch.tensor([1.0, 0.0, 0.5, 1.0, 1.0]))
    weight = model.loss_weights()
    assert torch.allclose(weight / weight[0], torch.tensor([1.0, 0.1, 0.55, 0.0, 1.0]))


def test_a_row_that_no_action_led_to_teaches_no_change():
    """A first row comes after padding, which is zero: a jump from there is none of the world's."""
    model = Space(WorldModelConfig(target=Target.residual), DIMS, None)
    state = 50.0 + torch.randn(8, 5, 5)
    first, valid = torch.zeros(8, 5, dtype=torch.bool), torch.ones(8, 5, dtype=torch.bool)
    first[:4, 1], valid[:4, 0], state[:4, 0] = True, False, 0.0
    first[4:6, 4], valid[4:6, :4], state[4:6, :4] = True, False, 0.0
    rows = Window(state, torch.randn(8, 5, 2, 1), torch.zeros(8, 5), torch.zeros(8, 5).bool(), first, valid)
    model.track(rows, 3)
    moves = torch.cat([state[:4, 2:] - state[:4, 1:-1], state[6:, 2:] - state[6:, 1:-1]]).flatten(0, 1)
    moves = torch.cat([moves, state[6:, 1] - state[6:, 0]])
    assert model.change.count == len(moves)
    assert torch.allclose(model.change.mean.float(), moves.mean(0), atol=1e-4)
    once = Space(WorldModelConfig(target=Target.residual), DIMS, None)
    once.change.load_state_dict(model.change.state_dict())
    one_step = [*range(4), 6, 7]  # of whom the newest step counts
    inputs = torch.cat([once.x(state[one_step, -2]), rows.action[one_step, 1:4].flatten(1)], 1)
    once.linear.update(inputs, once.moved(state[one_step, -2], state[one_step, -1]), torch.ones(6, dtype=torch.bool))
    for name, mine in model.linear.state_dict().items():
        torch.testing.assert_close(mine, once.linear.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
