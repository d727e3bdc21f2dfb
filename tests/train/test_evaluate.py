"""Evaluation counts first episodes only, and depends on nothing that came before."""

from types import SimpleNamespace

import torch

from dima_isaac.train.evaluate import episodes, evaluate
from tests.toy import toy_env


def test_return_is_the_first_episode_of_each_environment():
    env = toy_env(num_envs=3, episode_length=5)
    steps = [env.restart(7)]
    for _ in range(5):
        steps.append(env.step(torch.zeros(3, 2, 1)))
    expected = sum(step.reward for step in steps)
    metrics = evaluate(env, lambda obs: torch.zeros(3, 2, 1), episode=7)
    torch.testing.assert_close(metrics["return"], expected.mean())
    assert metrics["length"] == 5


def test_early_ends_stop_counting():
    env = toy_env(num_envs=2, episode_length=60, fence=1.2)
    metrics = evaluate(env, lambda obs: torch.ones(2, 2, 1), episode=1)
    assert metrics["length"] < 60 and metrics["return"] <= metrics["length"]


def test_independent_of_history():
    env = toy_env(num_envs=4)
    push = lambda obs: 0.3 * torch.ones(4, 2, 1)
    first = evaluate(env, push, episode=3)
    evaluate(env, push, episode=4)
    env.step(torch.rand(4, 2, 1))
    again, other = evaluate(env, push, episode=3), evaluate(env, push, episode=5)
    assert first["return"] == again["return"] != other["return"]


def test_success_is_latched():
    env = toy_env(num_envs=4)
    steer = lambda obs: (0.5 - obs[:, 0, :2] - 0.5 * obs[:, 0, 2:4]).clamp(-1, 1).unsqueeze(-1)
    assert evaluate(env, steer, episode=1)["success"] == 1
    assert evaluate(env, lambda obs: -torch.ones(4, 2, 1), episode=1)["success"] == 0


class Told:
    """Two environments that say what they are told to: rows of (first, last, success, reward) per environment."""

    num_envs, device, spec = 2, torch.device("cpu"), SimpleNamespace(episode_length=3)

    def __init__(self, *rows: tuple) -> None:
        self.rows = iter(rows)

    def restart(self, episode: int) -> SimpleNamespace:
        return SimpleNamespace(obs=None)

    def step(self, action: None) -> SimpleNamespace:
        first, last, self.success, reward = (torch.tensor(column) for column in next(self.rows))
        return SimpleNamespace(obs=None, first=first.bool(), last=last.bool(), reward=reward)


def test_what_follows_the_first_episode_is_not_counted():
    """The first environment ends and is solved only in its next episode; the second is put back amid its first."""
    env = Told(
        ((0, 0), (1, 0), (False, True), (1.0, 1.0)),
        ((1, 1), (0, 0), (False, False), (10.0, 10.0)),
        ((0, 0), (0, 0), (True, False), (100.0, 100.0)),
    )
    seen = episodes(env, lambda obs: None, episode=1)
    assert seen.total.tolist() == [1.0, 1.0] and seen.length.tolist() == [1.0, 1.0]
    assert seen.success.tolist() == [False, True]
