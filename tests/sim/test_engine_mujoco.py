"""What only the CPU engine promises: bits, whatever the threads; raw rows; the viewer's message."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.render import Viewer
from tests.sim.toss import TOSS, drive, views


def toss(envs: int = 4, **cfg) -> MujocoEngine:
    return MujocoEngine(TOSS, envs, MujocoConfig(**{"threads": 1, **cfg}))


@pytest.mark.parametrize(("threads", "persistent"), [(2, True), (3, False)])
def test_thread_count_and_memory_mode_change_no_bit(threads: int, persistent: bool) -> None:
    reference, other = toss(7, persistent=True), toss(7, threads=threads, persistent=persistent)
    for engine in (reference, other):
        drive(engine, 30)
    for mine, theirs in zip(views(other), views(reference), strict=True):
        assert torch.equal(mine, theirs)


class TestBrokenEnvironments:
    """An environment made non-finite in MuJoCo's own arrays is flagged and touches no other."""

    @pytest.mark.parametrize("field", ["qpos", "qvel", "xfrc_applied"])
    def test_a_nan_stays_where_it_is(self, field: str) -> None:
        broken, control = toss(8), toss(8)
        for engine in (broken, control):
            drive(engine, 20)
        broken.batch.bind(field)[3] = float("nan")
        for engine in (broken, control):
            drive(engine, 1, seed=5)
        assert broken.bad.tolist() == [env == 3 for env in range(8)]
        assert int(broken.stats()["nonfinite"]) == 1
        sound = ~broken.bad
        for mine, theirs in zip(views(broken), views(control), strict=True):
            assert torch.equal(mine[sound], theirs[sound])
        assert all(torch.isfinite(view).all() for view in views(broken))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_saved_state_continues_bit_for_bit(persistent: bool) -> None:
    straight = toss(4, persistent=persistent)
    drive(straight, 25)
    saved = {name: value.clone() for name, value in straight.state_dict().items()}
    resumed = toss(4, persistent=persistent, threads=2)
    drive(resumed, 3, seed=8)
    resumed.load_state_dict(saved)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert torch.equal(mine, theirs)
    for engine in (straight, resumed):
        drive(engine, 25, seed=2)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert torch.equal(mine, theirs)


def test_a_viewer_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match="DISPLAY is not set"):
        Viewer(toss(1))


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland name their display")
def test_a_display_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UsageError, match=r"Failed to open display :987.*headless=True needs no display"):
        Viewer(toss(1))


@pytest.mark.parametrize(
    ("chosen", "broken", "said"),
    [
        ("disable", False, "MUJOCO_GL=disable forbids pictures"),
        ("glfw", True, r"no offscreen renderer works here \(glfw: DISPLAY is not set; egl: no \w+; osmesa: no \w+\)"),
        ("", True, r"no offscreen renderer works here \(egl: no \w+; osmesa: no \w+\); install libegl1 or libosmesa6"),
    ],
)
def test_no_renderer_is_one_sentence(monkeypatch: pytest.MonkeyPatch, chosen: str, broken: bool, said: str) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", chosen)
    real = importlib.import_module

    def without_libraries(name: str) -> object:
        if broken and name in ("mujoco.egl", "mujoco.osmesa", "mujoco.glfw"):
            raise ImportError(f"no {name.partition('.')[2]}")
        return real(name)

    monkeypatch.setattr("dima_isaac.sim.render.importlib.import_module", without_libraries)
    engine = toss(1)
    with pytest.raises(UsageError, match=said):
        engine.render(0, 64, 48)
    engine.close()
