"""The denoiser: what it may see, what it starts as, what its loss counts."""

from dataclasses import replace

import pytest
import torch

from dima_isaac.world_model import karras
from dima_isaac.world_model.config import Backbone, Reveal, TargetKind
from dima_isaac.world_model.denoiser import Denoiser
from tests.world_model.worlds import DIMS, Linear, build, paper, shaken, small, without_regression


@pytest.fixture(params=list(Backbone))
def denoiser(request) -> Denoiser:
    return shaken(build(small(backbone=request.param))).denoiser


@torch.no_grad()
def test_a_hidden_current_action_cannot_move_D_and_a_past_one_can(denoiser):
    history, actions = torch.randn(5, 3, 4), torch.randn(5, 3, 2, 2)
    mask = torch.tensor([1.0, 0.0]).expand(1, 5, 2)
    noisy, sigma, every = torch.randn(5, 4), torch.rand(5, 1), torch.ones(4)

    def result(actions):
        return denoiser(noisy, sigma, denoiser.encode(history, actions, mask)[0], every)

    base, hidden, visible, past = result(actions), actions.clone(), actions.clone(), actions.clone()
    hidden[:, 2, 1] += 3.0
    visible[:, 2, 0] += 3.0
    past[:, 1, 1] += 3.0
    assert torch.equal(base, result(hidden))
    assert (base - result(visible)).abs().amax(1).min() > 1e-4
    assert (base - result(past)).abs().amax(1).min() > 1e-4


@torch.no_grad()
def test_all_stages_at_once_equal_one_by_one(denoiser):
    history, actions, masks = torch.randn(5, 3, 4), torch.randn(5, 3, 2, 2), torch.eye(2).unsqueeze(1).expand(2, 5, 2)
    noisy, sigma, every = torch.randn(5, 4), torch.rand(5, 1), torch.ones(4)
    together = denoiser.encode(history, actions, masks)
    alone = [denoiser.encode(history, actions, masks[stage : stage + 1])[0] for stage in range(2)]
    first, second = (denoiser(noisy, sigma, condition, every) for condition in together)
    for clean, condition in zip((first, second), alone, strict=True):
        assert torch.allclose(clean, denoiser(noisy, sigma, condition, every), atol=1e-5)
    assert (first - second).abs().amax(1).min() > 1e-4


@torch.no_grad()
def test_at_first_D_is_the_skip_connection_plus_the_bias():
    world = build(paper())
    denoiser, noisy = world.denoiser, torch.randn(3, 4)
    condition = denoiser.encode(torch.randn(3, 3, 4), torch.randn(3, 3, 2, 2), torch.ones(1, 3, 2))[0]
    for sigma in (5.0, 0.002):
        scales = karras.precondition(torch.tensor(sigma))
        expected = scales.skip * noisy + scales.out * denoiser.backbone.output.bias
        assert torch.allclose(denoiser(noisy, torch.tensor(sigma), condition, torch.ones(4)), expected, atol=1e-6)


def test_the_unroll_trains_on_predictions_and_the_targets_stay_true():
    world, game = build(small(target=TargetKind.state, unroll=3)), Linear()
    window = game.window(8, 6)
    world.track(window.state)
    inputs, targets = [], []
    x, encode = world.target.x, world.target.encode
    world.target.x = lambda s: (inputs.append(s.detach()), x(s))[1] if s.shape[1:] == (3, 4) else x(s)
    world.target.encode = lambda state, after, linear: (targets.append(after), encode(state, after, linear))[1]
    world.fit_dynamics(window)
    state = window.state
    assert torch.equal(inputs[0], state[:, :3])
    assert torch.equal(inputs[1][:, :2], state[:, 1:3]) and not torch.allclose(inputs[1][:, 2], state[:, 3])
    assert torch.equal(inputs[2][:, 1], inputs[1][:, 2]) and not torch.allclose(inputs[2][:, 2], state[:, 4])
    assert all(torch.equal(target, state[:, 3 + j]) for j, target in enumerate(targets))


def test_padding_and_first_rows_are_no_targets():
    world, window = build(small(unroll=3)), Linear().window(4, 6)
    world.track(window.state)
    world.target.track(window)
    valid = window.valid.clone()
    valid[0, :4] = False

    def loss(state, valid=valid):
        world.generator.manual_seed(0)
        return world._dynamics_loss(replace(window, state=state, valid=valid))

    before = loss(window.state)
    for row, matters in ((0, False), (3, False), (4, True), (5, True)):
        state = window.state.clone()
        state[0, row] += 1.0
        assert bool((loss(state) - before).abs() > 1e-6) is matters, row
    assert loss(window.state, torch.zeros_like(valid)) == 0


def test_a_window_at_the_start_of_an_episode_has_padding_at_zero():
    world, window = build(small()), Linear().window(4, 3)
    world.track(window.state)
    valid = window.valid.clone()
    valid[0, :2] = False
    context = world.context(replace(window, state=window.state * valid.unsqueeze(-1), valid=valid))
    assert context.x[0, :2].abs().max() == 0 and context.action[0].abs().max() == 0
    assert context.x[0, 2].abs().max() > 0 and context.x[1].abs().amax(1).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("reveal", list(Reveal))
def test_a_linear_system_is_learnt(reveal):
    world, game = without_regression(build(small(reveal=reveal))), Linear()
    world.track(game.window(256, 6).state)
    losses = [world.update_dynamics(game.window(64, 6))["world/denoise"] for _ in range(200)]
    first, last = torch.stack(losses[:5]).mean(), torch.stack(losses[-20:]).mean()
    # one agent alone cannot tell the change: a sequential model keeps what the hidden agents do as noise
    assert last < (0.6 if reveal is Reveal.sequential else 0.35) * first, (first, last)
    assert DIMS.agents == 2
