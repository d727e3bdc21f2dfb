"""Evaluation counts first episodes only, and depends on nothing that came before."""

from types import SimpleNamespace

import torch

from dima_isaac.config import RunConfig
from dima_isaac.training.evaluate import Evaluator, episodes, evaluate
from tests.toy import toy_env


def test_return_is_the_first_episode_of_each_environment():
    env = toy_env(num_envs=3, episode_length=5)
    steps = [env.reset(7)]
    for _ in range(5):
        steps.append(env.step(torch.zeros(3, 2, 1)))
    expected = sum(step.reward for step in steps)
    metrics = evaluate(env, lambda obs: torch.zeros(3, 2, 1), episode=7)
    torch.testing.assert_close(metrics["return"], expected.mean())
    torch.testing.assert_close(metrics["return_std"], expected.std(correction=0))
    assert metrics["length"] == 5


def test_early_ends_stop_counting():
    env = toy_env(num_envs=2, episode_length=60, fence=1.2)
    metrics = evaluate(env, lambda obs: torch.ones(2, 2, 1), episode=1)
    assert metrics["length"] < 60 and metrics["return"] <= metrics["length"]


def test_no_step_is_made_once_every_episode_has_ended():
    asked = []
    seen = episodes(toy_env(2, fence=1.2), lambda obs: asked.append(1) or torch.ones(2, 2, 1), 1)
    assert seen.length.max() == len(asked) < 60


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


def test_success_is_latched_until_the_next_episode():
    """All reach the goal; all but the first then leave the field, and fail in every episode after that."""
    env = toy_env(num_envs=4, episode_length=150)
    done = torch.zeros(4, dtype=torch.bool)

    def policy(obs):
        done[1:] |= env.success[1:]
        steer = (0.5 - obs[:, 0, :2] - 0.5 * obs[:, 0, 2:4]).clamp(-1, 1)
        return torch.where(done[:, None], 1.0, steer).unsqueeze(-1)

    seen = episodes(env, policy, episode=1)
    assert seen.success.all() and seen.length[1:].max() < 150 and not env.success[1:].any()


def test_what_follows_a_quarantine_is_another_episode():
    env = toy_env(num_envs=3)
    ticks = []

    def policy(obs):
        ticks.append(0)
        env.engine.poison[1] = len(ticks) == 4
        return torch.zeros(3, 2, 1)

    seen = episodes(env, policy, episode=1)
    assert seen.length.tolist() == [20, 3, 20]
    whole = episodes(env, lambda obs: torch.zeros(3, 2, 1), episode=1).total
    assert torch.equal(seen.total[[0, 2]], whole[[0, 2]]) and 0 < seen.total[1] < whole[1]


def test_videos_keep_their_interval_and_length(tmp_path, monkeypatch):
    made, shown = [], []
    clip = lambda env, policy, folder, env_steps, steps, note: (
        made.append((env_steps, steps)) or folder / str(env_steps)
    )
    monkeypatch.setattr("dima_isaac.training.evaluate.clip", clip)
    logger = SimpleNamespace(
        add=lambda *row: None, note=None, video=lambda path, steps: shown.append((path.name, steps))
    )
    cfg = RunConfig(capture_video=True, capture_video_freq=20, capture_video_len=7)
    cfg.train.eval.every = 10
    run = SimpleNamespace(videos=tmp_path)
    evaluator = Evaluator(cfg, run, toy_env(num_envs=1, episode_length=2), logger)
    for env_steps in (4, 14, 24, 34, 44):
        evaluator.evaluate(lambda obs: torch.zeros(1, 2, 1), env_steps)
    assert made == [(4, 7), (24, 7), (44, 7)] and shown == [("4", 4), ("24", 24), ("44", 44)]
