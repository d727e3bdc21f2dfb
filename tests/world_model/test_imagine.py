"""Imagined rollouts: alignment of observations, actions and rewards."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dima_isaac.world_model.config import Precision
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.karras import SIGMA_DATA
from tests.world_model.worlds import DIMS, Linear, build, small


def dream():
    world, game = build(small()), Linear()
    world.track(game.window(64, 6).state)
    rng, calls = torch.Generator().manual_seed(0), []

    def policy(obs):
        calls.append(obs)
        action = 3.0 * torch.randn(7, DIMS.agents, DIMS.action, generator=rng)
        return action, action.sum(-1)

    window = game.window(7, 3)
    return world, window, calls, imagine(world, policy, window, 5)


def test_shapes():
    shapes = {name: tuple(value.shape) for name, value in vars(dream()[3]).items()}
    assert shapes == {
        "obs": (7, 5, 2, 6),
        "state": (7, 6, 4),
        "last_action": (7, 6, 2, 2),
        "action": (7, 5, 2, 2),
        "logp": (7, 5, 2),
        "reward": (7, 5),
        "cont": (7, 5),
    }


def test_it_starts_at_the_end_of_the_window():
    world, window, _, rollout = dream()
    assert torch.equal(rollout.state[:, 0], world.target.x(window.state[:, -1]))
    assert torch.equal(rollout.last_action[:, 0], window.action[:, 1])


def test_the_rollout_keeps_drawn_actions_and_the_model_clips_them():
    _, _, _, rollout = dream()
    assert rollout.action.abs().max() > 1
    assert torch.equal(rollout.last_action[:, 1:], rollout.action.clamp(-1, 1))
    assert torch.equal(rollout.logp, rollout.action.sum(-1))


def test_observations_are_those_of_the_rollouts_states():
    world, _, calls, rollout = dream()
    assert torch.equal(torch.stack(calls, 1), rollout.obs)
    seen = rollout.obs[:, :, 0, :4]
    assert torch.allclose(world.target.x(seen), rollout.state[:, :-1], atol=1e-5)


def test_rewards_are_those_of_the_whole_trajectory_at_once():
    world, _, _, rollout = dream()
    mean, std = world.target.state_scale()
    states = mean + std * rollout.state / SIGMA_DATA
    reward, cont = world.predict_reward(states, rollout.action)
    assert torch.allclose(reward, rollout.reward, atol=1e-4) and torch.allclose(cont, rollout.cont, atol=1e-4)
    assert not any(value.requires_grad for value in vars(rollout).values())


def test_weights_are_cast_once_for_a_rollout():
    class Casts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and isinstance(args[0], nn.Parameter):
                self.seen.append(id(args[0]))
            return func(*args, **(kwargs or {}))

    for ema in (0.0, 0.9):
        world, game = build(small(precision=Precision.bf16, ema=ema)), Linear()
        window = game.window(7, 3)
        world.track(window.state)
        with Casts() as casts:
            imagine(world, lambda obs: (torch.zeros(7, 2, 2), torch.zeros(7, 2)), window, 4)
        assert len(casts.seen) == len(set(casts.seen)) > 5, "each weight once"
