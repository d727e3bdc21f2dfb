"""The task that newcomers copy: what a test of a new task looks like."""

from __future__ import annotations

import pytest
import torch

from tests.tasks.bidexhands.stage import Stage, everyone


def test_dimensions():
    dims = Stage("template").env.spec.dims
    assert (dims.agents, dims.state, dims.obs, dims.action) == (2, 417, 218, 26)


def test_reward_ends_and_success_by_hand():
    stage = Stage("template").put("cube", (0.0, 0.0, 0.625))
    for height, success in ((0.0, False), (0.099, False), (0.101, True)):
        stage.put("cube", (0.0, 0.0, 0.625 + height))
        right, left = stage.task.points()[0].tolist()
        stage.tips(0, tuple(right), 0.4).tips(1, tuple(left), 0.3)
        outcome = stage.compute_reward()
        assert float(outcome.reward) == pytest.approx(1.0 - 0.7 + 5.0 * height, abs=1e-4)
        assert float(sum(outcome.terms.values())) == pytest.approx(float(outcome.reward), abs=1e-5)
        assert stage.success() is success
        assert not stage.ends()
    assert not stage.tips(0, tuple(right), 1.999).ends()
    assert stage.tips(0, tuple(right), 2.001).ends()


def test_solved_in_physics_and_at_rest_at_the_start():
    stage = Stage("template")
    before = stage.engine.root_state[0, 2, :3].clone()
    for _ in range(10):
        stage.env.step(torch.zeros(1, 2, 26))
    assert torch.allclose(stage.engine.root_state[0, 2, :3], before, atol=2e-3)
    assert not stage.success()
    lifted = stage.engine.root_state[:, 2].clone()
    lifted[:, 2] += 0.2
    stage.engine.set_root_state(everyone(stage.env), 2, lifted)
    stage.engine.refresh(everyone(stage.env))
    assert stage.success()
