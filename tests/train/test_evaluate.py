"""Evaluation counts first episodes only, and depends on nothing that came before."""

import torch

from dima_isaac.train.evaluate import evaluate
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
