"""``play``: windows and films, and one look at real hands."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dima_isaac.cli import main as cli
from dima_isaac.errors import UsageError
from dima_isaac.sim.render import Controls, Viewer
from dima_isaac.tools import play
from dima_isaac.tools.config import Agent, PlayConfig, World
from dima_isaac.training.video import number
from tests.toy import toy_env


class Pane:
    """A window that counts what it is shown, and is closed by its user after ``life`` pictures."""

    def __init__(self, life: int = 10**6) -> None:
        self.life, self.shown, self.closed = life, 0, False

    def show(self) -> bool:
        self.shown += 1
        return self.shown <= self.life

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("life", [10**6, 3])
def test_training_in_a_window_is_the_same_training(monkeypatch, life, capsys):
    pane = Pane(life)
    monkeypatch.setattr("dima_isaac.sim.render.Viewer", lambda engine: pane)
    monkeypatch.setattr(play, "PERIOD", 0.0)
    env, alone = toy_env(3), toy_env(3)
    env.engine.capabilities = replace(env.engine.capabilities, viewer=True)
    actions = [torch.rand(3, 2, 1) for _ in range(8)]
    with play.training_window(env, True):
        seen = [env.reset(), *(env.step(action) for action in actions)]
    rows = [alone.reset(), *(alone.step(action) for action in actions)]
    assert all(torch.equal(a.state, b.state) for a, b in zip(seen, rows, strict=True))
    assert pane.shown == min(life + 1, 9) and pane.closed and "training goes on" in capsys.readouterr().out


def test_a_window_is_refused_where_there_is_none_and_not_opened_unasked(monkeypatch):
    monkeypatch.setattr("dima_isaac.sim.render.Viewer", lambda engine: pytest.fail("nobody asked"))
    with play.training_window(toy_env(2), False):
        pass
    with pytest.raises(UsageError, match="no live viewer"), play.training_window(toy_env(2), True):
        pass


class Remote(Pane):
    """A window whose user pauses, goes on and restarts."""

    def __init__(self, engine, *rest) -> None:
        super().__init__(life=8)
        self.controls, self.env, self.texts, self.address = Controls(speed=1e6), 0, [], "here"

    def show(self) -> bool:
        self.controls.paused = self.shown in (2, 3)
        self.controls.restart = self.shown == 6
        return super().show()

    def set_text(self, text: str) -> None:
        self.texts.append(text)


def test_a_watched_policy_pauses_and_restarts(monkeypatch):
    panes = []
    monkeypatch.setattr("dima_isaac.sim.render.Viewer", lambda engine: panes.append(Remote(engine)) or panes[0])
    env = toy_env(2)
    env.engine.capabilities = replace(env.engine.capabilities, viewer=True)
    rewards, resets, plain_step, plain_reset = [], [], env.step, env.reset
    env.step = lambda action: rewards.append(row := plain_step(action)) or row
    env.reset = lambda episode=None: resets.append(episode) or plain_reset(episode)
    play.watch(env, lambda obs: 0 * obs[:, :, :1], PlayConfig(headless=False, episode=3))
    [pane] = panes
    rewards = [row for row in rewards if not row.first.any()]  # a reset takes a tick
    assert resets == [3, None] and len(rewards) == 5 and pane.closed
    returns = np.cumsum([float(row.reward[0]) for row in rewards[:4]])
    shown = [f"return {number(value)}" for value in (returns[0], returns[1], returns[1], returns[1], *returns[2:])]
    assert pane.texts == [*shown, "return 0", f"return {number(float(rewards[4].reward[0]))}"]


def test_every_policy_of_a_zoo_entry_has_a_film_of_its_own(tmp_path):
    restored = SimpleNamespace(path=tmp_path / "Game" / "weights.pt")
    names = {
        play._default_path(toy_env(2), PlayConfig(checkpoint="zoo:Game", agent=agent), restored) for agent in Agent
    }
    assert len(names) == len(Agent)


def test_a_dream_is_not_shown_in_a_window():
    env = toy_env(2)
    env.engine.capabilities = replace(env.engine.capabilities, viewer=True)
    with pytest.raises(UsageError, match="viewer=web"):
        play.watch(env, lambda obs: obs, PlayConfig(world=World.dream, headless=False), object())


def test_without_a_display_the_page_is_offered(monkeypatch):
    monkeypatch.setattr("dima_isaac.sim.render.display_problem", lambda: "DISPLAY is not set")
    with pytest.raises(UsageError, match="DISPLAY is not set; play viewer=web shows a policy in a browser"):
        Viewer(toy_env(2).engine)


def test_play_films_real_hands(tmp_path, monkeypatch, capsys):
    out = tmp_path / "hands.gif"
    words = ["task=ShadowHandOver", "agent=random", "num_envs=2", "steps=2", "width=64", "height=64", f"out={out}"]
    if cli.main(["play", *words, "threads=1"]) == 2:
        assert "no offscreen renderer works here" in capsys.readouterr().err
        pytest.skip("no renderer on this machine")
    film = Image.open(out)
    assert film.n_frames == 3 and film.size == (2 * 68 + 4, 72)
    assert str(out) in capsys.readouterr().out
    assert len(np.unique(np.asarray(film.convert("L")))) > 10
