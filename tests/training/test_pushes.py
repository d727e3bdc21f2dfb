"""The push test against a world that is the simulator itself, and against worlds that are blind to actions."""

import copy
from dataclasses import replace

import pytest
import torch

from dima_isaac.agent.actor import Actor
from dima_isaac.agent.config import ActorConfig
from dima_isaac.training.pushes import HELD, STARTS, Pushes, _compare, pushes
from tests.toy import toy_env
from tests.training.test_probes import Oracle

OBJECTS = torch.tensor([[0, 1]])  # the toy's masses, as if they were free objects


def pushed(world: Oracle, objects=None, **task) -> Pushes:
    torch.manual_seed(0)
    env = toy_env(6, 3, **task)
    env.task.spec = replace(env.spec, object_columns=objects)
    return pushes(world, env, Actor(ActorConfig(hidden=[8]), env.spec.dims).act, episode=1, seed=0)


@pytest.mark.parametrize("objects", [None, OBJECTS])
def test_a_world_that_is_the_simulator_agrees_in_everything_ends_included(objects):
    found = pushed(Oracle(), objects, episode_length=60, fence=3.0)
    for measured in (found.reward, found.place, found.reward_size, found.place_size):
        torch.testing.assert_close(measured, torch.ones(len(HELD), dtype=torch.float64), rtol=1e-3, atol=0)
    assert (found.number > STARTS * 6).all(), "twelve pushes from each start, but of episodes that were over"


def test_correlation_is_0_for_a_world_without_actions_and_root_of_half_for_one_with_half_of_the_agents():
    blind = pushed(Oracle(blind=(0, 1)), OBJECTS, episode_length=60, fence=99.0)
    for measured in (blind.reward, blind.place, blind.reward_size, blind.place_size):
        assert not measured.any()
    half = pushed(Oracle(blind=(1,)), OBJECTS, episode_length=60, fence=99.0)
    for measured in (half.place, half.place_size):
        torch.testing.assert_close(
            measured, torch.full((len(HELD),), 0.5, dtype=torch.float64).sqrt(), rtol=0.1, atol=0
        )


def test_episodes_that_the_clock_ends_are_not_compared():
    found = pushed(Oracle(), episode_length=20, fence=99.0)  # every start is ten steps before the end
    assert found.number.tolist() == [STARTS * 12, STARTS * 12, 0] and found.reward[2] == 0.0
    torch.testing.assert_close(found.place[:2], torch.ones(2, dtype=torch.float64), rtol=1e-3, atol=0)


def test_correlation_and_size_by_hand():
    """Of the changes (1, 2, 3) and (2, 4, 5); a fourth is not counted."""
    true = torch.tensor([1.0, 2.0, 3.0, 100.0]).reshape(4, 1, 1)
    dreamt = torch.tensor([2.0, 4.0, 5.0, -7.0]).reshape(4, 1, 1)
    r, size = _compare(true, dreamt, torch.tensor([[True], [True], [True], [False]]))
    torch.testing.assert_close(r, torch.tensor([3.0 / (2.0 * 14.0 / 3.0) ** 0.5], dtype=torch.float64))
    torch.testing.assert_close(size, torch.tensor([(45.0 / 14.0) ** 0.5], dtype=torch.float64))


def test_numbers_are_the_same_again_and_wherever_the_environment_was():
    torch.manual_seed(0)
    env = toy_env(6, 3, episode_length=60)
    actor = Actor(ActorConfig(hidden=[8]), env.spec.dims)
    first = pushes(Oracle(noise=0.01), env, actor.act, episode=1, seed=0)
    stream = copy.deepcopy(torch.get_rng_state())
    again = pushes(Oracle(noise=0.01), env, actor.act, episode=1, seed=0)
    assert torch.equal(stream, torch.get_rng_state())
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert torch.equal(one, other)
    assert (first.place > 0.999).all(), "a dream and its pushed twin draw the same noise"
