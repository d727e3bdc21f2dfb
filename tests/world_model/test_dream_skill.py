"""The skill of dreams: 1 for those that come true, 0 for the mean, and none of it from rows of another episode."""

from __future__ import annotations

import pytest
import torch

from dima_isaac.types import Window
from dima_isaac.world_model import dream_skill
from dima_isaac.world_model.config import WorldModelConfig
from dima_isaac.world_model.dream_skill import HORIZONS, DreamSkill
from dima_isaac.world_model.world_model import WorldModel
from tests.world_model.worlds import DIMS, game


def window(rows: int, length: int) -> Window:
    no = torch.zeros(rows, length, dtype=torch.bool)
    state, action = torch.randn(rows, length, DIMS.state), torch.zeros(rows, length, DIMS.agents, DIMS.action)
    ends = torch.rand(rows, length) < 0.3
    return Window(state, action, torch.randn(rows, length), terminal=ends, last=ends, valid=~no)


def skill_of(monkeypatch, foresee, change=lambda w: None) -> torch.Tensor:
    torch.manual_seed(0)
    world = WorldModel(WorldModelConfig(), game())
    windows = [window(500, world.history + h) for h in HORIZONS]
    for w in windows:
        change(w)
    monkeypatch.setattr(dream_skill, "dream_along", lambda world, w, steps: foresee(w))
    skill = DreamSkill(torch.device("cpu"))
    skill.update(world, windows)
    return skill()


def truth(w: Window):
    return w.reward[:, -1], (~w.terminal[:, -1]).float()


def test_a_perfect_dream_has_skill_1(monkeypatch):
    torch.testing.assert_close(skill_of(monkeypatch, truth), torch.ones(3))


def test_the_mean_has_skill_0(monkeypatch):
    mean = lambda w: tuple(value.mean().expand_as(value) for value in truth(w))
    torch.testing.assert_close(skill_of(monkeypatch, mean), torch.zeros(3), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_worse_of_reward_and_survival_counts(monkeypatch, wrong):
    def half(w):
        values = list(truth(w))
        values[wrong] = values[wrong].roll(1)  # as spread as the truth, and independent of it: skill -1
        return values

    torch.testing.assert_close(skill_of(monkeypatch, half), torch.full((3,), -1.0), atol=0.35, rtol=0.0)


def test_rows_across_a_start_do_not_count(monkeypatch):
    def restart(w: Window) -> None:
        w.valid[:250, 0] = False

    def foresee(w: Window):
        reward, alive = (value.clone() for value in truth(w))
        reward[:250] += 100.0
        return reward, alive

    torch.testing.assert_close(skill_of(monkeypatch, foresee, restart), torch.ones(3))


def test_survival_where_nothing_ends_is_held_against_a_fixed_error(monkeypatch):
    def endless(w: Window) -> None:
        w.terminal[:] = False

    for dreamt, expected in ((1.0, 1.0), (0.95, 0.75), (0.8, -3.0)):
        foresee = lambda w, dreamt=dreamt: (truth(w)[0], torch.full((500,), dreamt))
        torch.testing.assert_close(skill_of(monkeypatch, foresee, endless), torch.full((3,), expected))


def test_a_dream_along_a_window_takes_its_actions(monkeypatch):
    """With a model that adds the action to the state and pays the state's first number."""
    torch.manual_seed(0)
    world = WorldModel(WorldModelConfig(), game())
    w = window(8, world.history + 5)
    w.action.copy_(torch.rand_like(w.action))

    def step(context, action, generator=None, errors=True):
        return type(context)(context.state + action.sum((1, 2))[:, None], context.x, context.action, context.valid)

    monkeypatch.setattr(world, "step", step)
    survival = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.9]).expand(8, 5)
    paid = lambda states, actions: (states[:, 1:, 0], survival)
    monkeypatch.setattr(world, "predict_reward", paid)
    reward, alive = dream_skill.dream_along(world, w, 5)
    h = world.history
    torch.testing.assert_close(reward, w.state[:, h - 1, 0] + w.action[:, h - 1 : h + 4].sum((1, 2, 3)))
    torch.testing.assert_close(alive, torch.full((8,), 0.9))
