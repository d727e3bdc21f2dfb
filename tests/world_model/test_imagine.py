"""Imagined rollouts: alignment of observations, actions and rewards."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dima_isaac.world_model.config import Precision
from dima_isaac.world_model.imagine import imagine
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
        "x": (7, 6, 4),
        "last_action": (7, 6, 2, 2),
        "action": (7, 5, 2, 2),
        "logp": (7, 5, 2),
        "reward": (7, 5),
        "cont": (7, 5),
    }


def test_it_starts_at_the_end_of_the_window():
    world, window, _, rollout = dream()
    assert torch.equal(rollout.state[:, 0], window.state[:, -1])
    assert torch.equal(rollout.x, world.target.x(rollout.state))
    assert torch.equal(rollout.last_action[:, 0], window.action[:, 1])


def test_the_rollout_keeps_drawn_actions_and_the_model_clips_them():
    _, _, _, rollout = dream()
    assert rollout.action.abs().max() > 1
    assert torch.equal(rollout.last_action[:, 1:], rollout.action.clamp(-1, 1))
    assert torch.equal(rollout.logp, rollout.action.sum(-1))


def test_observations_are_those_of_the_rollouts_states():
    _, _, calls, rollout = dream()
    assert torch.equal(torch.stack(calls, 1), rollout.obs)
    assert torch.equal(rollout.obs[:, :, 0, :4], rollout.state[:, :-1])


def test_rewards_are_those_of_the_whole_trajectory_at_once():
    world, _, _, rollout = dream()
    reward, cont = world.predict_reward(rollout.state, rollout.action)
    assert torch.equal(reward, rollout.reward) and torch.equal(cont, rollout.cont)
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
