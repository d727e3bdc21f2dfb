"""The denoiser: what it may see, what it starts as, what its loss counts."""

from dataclasses import replace

import pytest
import torch

from dima_isaac.world_model import karras
from dima_isaac.world_model.config import ActionEncoder, Backbone, Reveal, Target
from dima_isaac.world_model.world_model import WorldModel
from tests.world_model.worlds import DIMS, Linear, build, paper, shaken, small


def models() -> dict[str, WorldModel]:
    narrow = {"backbone": Backbone.unet, "actions": ActionEncoder.perceiver, "channels": 32, "cond": 32}
    return {"light": build(small()), "published": build(small(**narrow))}


@torch.no_grad()
@pytest.mark.parametrize("name", ["light", "published"])
def test_a_hidden_current_action_cannot_move_D_and_a_past_one_can(name):
    denoiser = shaken(models()[name]).denoiser
    history, actions = torch.randn(5, 3, 4), torch.randn(5, 3, 2, 2)
    seen = torch.tensor([1.0, 0.0]).expand(1, 5, 2)
    noisy, sigma, free = torch.randn(5, 4), torch.rand(5, 1), torch.ones(4)

    def result(actions):
        return denoiser(noisy, sigma, denoiser.encode(history, actions, seen)[0], free)

    base, hidden, visible, past = result(actions), actions.clone(), actions.clone(), actions.clone()
    hidden[:, 2, 1] += 3.0
    visible[:, 2, 0] += 3.0
    past[:, 1, 1] += 3.0
    assert torch.equal(base, result(hidden))
    assert (base - result(visible)).abs().amax(1).min() > 1e-4
    assert (base - result(past)).abs().amax(1).min() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["light", "published"])
def test_all_stages_at_once_equal_one_by_one(name):
    denoiser = shaken(models()[name]).denoiser
    history, actions, seen = torch.randn(5, 3, 4), torch.randn(5, 3, 2, 2), torch.eye(2).unsqueeze(1).expand(2, 5, 2)
    noisy, sigma, free = torch.randn(5, 4), torch.rand(5, 1), torch.ones(4)
    together = denoiser.encode(history, actions, seen)
    alone = [denoiser.encode(history, actions, seen[stage : stage + 1])[0] for stage in range(2)]
    first, second = (denoiser(noisy, sigma, condition, free) for condition in together)
    for clean, condition in zip((first, second), alone, strict=True):
        assert torch.allclose(clean, denoiser(noisy, sigma, condition, free), atol=1e-5)
    assert (first - second).abs().amax(1).min() > 1e-4


@torch.no_grad()
def test_at_first_D_is_the_skip_connection_plus_the_bias():
    world = build(paper())
    denoiser, noisy = world.denoiser, torch.randn(3, 4)
    condition = denoiser.encode(torch.randn(3, 3, 4), torch.randn(3, 3, 2, 2), torch.ones(1, 3, 2))[0]
    for sigma in (5.0, 0.002):
        scales = karras.precondition(torch.tensor(sigma))
        expected = scales.skip * noisy + scales.out * denoiser.net.leave.bias
        assert torch.allclose(denoiser(noisy, torch.tensor(sigma), condition, torch.ones(4)), expected, atol=1e-6)


def test_the_unroll_trains_on_predictions_and_the_targets_stay_true():
    world, game = build(small(target=Target.state)), Linear()
    window = game.window(8, 6)
    world.track(window.state)
    inputs, targets = [], []
    x, y = world.space.x, world.space.y
    world.space.x = lambda s: (inputs.append(s.detach()), x(s))[1] if s.shape[1:] == (3, 4) else x(s)
    world.space.y = lambda now, after, base: (targets.append(after), y(now, after, base))[1]
    world.denoiser.loss(world.space, window, 3, torch.Generator().manual_seed(0))
    state = window.state
    assert torch.equal(inputs[0], state[:, :3])
    assert torch.equal(inputs[1][:, :2], state[:, 1:3]) and not torch.allclose(inputs[1][:, 2], state[:, 3])
    assert torch.equal(inputs[2][:, 1], inputs[1][:, 2]) and not torch.allclose(inputs[2][:, 2], state[:, 4])
    assert all(torch.equal(target, state[:, 3 + j]) for j, target in enumerate(targets))


def test_padding_and_first_rows_are_no_targets():
    world, window = build(small()), Linear().window(4, 6)
    world.track(window.state)
    world.space.track(window, 3)
    valid, first = window.valid.clone(), window.first.clone()
    valid[0, :4], first[0, 4] = False, True

    def loss(state):
        rng = torch.Generator().manual_seed(0)
        return world.denoiser.loss(world.space, replace(window, state=state, valid=valid, first=first), 3, rng)

    before = loss(window.state)
    for row, matters in ((0, False), (3, False), (4, True), (5, True)):
        state = window.state.clone()
        state[0, row] += 1.0
        assert bool((loss(state) - before).abs() > 1e-6) is matters, row
    nothing = replace(window, valid=torch.zeros_like(valid))
    assert world.denoiser.loss(world.space, nothing, 3, torch.Generator().manual_seed(0)) == 0


def test_a_window_at_the_start_of_an_episode_remembers_padding_as_zero():
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
    world, game = build(small(reveal=reveal, linear_every=1000)), Linear()  # nothing is left to the regression
    window = game.window(256, 6)
    world.track(window.state)
    losses = [world.update_dynamics(game.window(64, 6))["world/denoise"] for _ in range(200)]
    first, last = torch.stack(losses[:5]).mean(), torch.stack(losses[-20:]).mean()
    # one agent alone cannot tell the change: a sequential model keeps what the hidden agents do as noise
    assert last < (0.6 if reveal is Reveal.sequential else 0.35) * first, (first, last)
    assert DIMS.agents == 2
