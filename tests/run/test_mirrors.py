"""Rows and videos elsewhere: what arrives there, and that no failure reaches the run."""

import os
import sys
import types

import pytest

from dima_isaac.cli import main as cli
from dima_isaac.config import RunConfig, WandbMode
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from tests.tools.toy_runs import TOY


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that notes what it is sent."""
    module = types.ModuleType("wandb")
    module.sent = []
    run = module.run = types.SimpleNamespace(log=lambda row, step: module.sent.append((step, row)), finish=lambda: None)
    module.init, module.Settings = lambda **settings: run, lambda **settings: None
    module.Video = lambda path, format: ("video", path, format)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_finite_values_and_videos(tmp_path, wandb):
    with RunFolder(tmp_path / "run") as run:
        log = Logger(run, RunConfig(task={"name": "Toy"}, wandb_activate=True), total_steps=100)
        log.add({"eval/return": 3.0, "world/denoise": float("nan")})
        log.video(run.videos / "step_20.mp4", 20)
        log.write(20)
        log.close()
    (step, video), (_, row) = wandb.sent
    assert step == 20 and video == {"eval/video": ("video", str(tmp_path / "run/videos/step_20.mp4"), "mp4")}
    assert row["eval/return"] == 3.0 and "world/denoise" not in row


def test_a_slow_server_does_not_hold_the_end_up(tmp_path, wandb, monkeypatch, capsys):
    for name in ("WANDB_FINISH_TIMEOUT", "WANDB_FINISH_TIMEOUT_RAISES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def slow():
        raise TimeoutError("timed out after 30 s")

    wandb.run.finish = slow
    with RunFolder(tmp_path / "run") as run:
        log = Logger(run, RunConfig(task={"name": "Toy"}, wandb_activate=True), total_steps=100)
        settings = {name: os.environ[name] for name in os.environ if name.startswith("WANDB_FINISH")}
        assert settings == {"WANDB_FINISH_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT_RAISES": "true"}
        log.close()
    assert "wandb stopped: timed out after 30 s" in capsys.readouterr().out


def test_a_server_that_cannot_be_reached_leaves_an_offline_recording(tmp_path, wandb, capsys):
    """The first attempt holds the run's id until wandb's service is gone, as wandb 0.31 does."""
    held = []

    def init(mode, **settings):
        if mode == "online" or held:
            held.append(mode)
            raise RuntimeError("no answer" if mode == "online" else "the id is in use")
        return wandb.run

    wandb.init, wandb.teardown = init, held.clear
    cfg = RunConfig(task={"name": "Toy"}, wandb_activate=True)
    cfg.wandb.mode = WandbMode.online
    with RunFolder(tmp_path / "run") as run:
        log = Logger(run, cfg, total_steps=100)
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "wandb cannot be reached (no answer) and is recording offline" in said
        log.write(20)
        log.close()
    assert len(wandb.sent) == 1


@pytest.mark.slow
def test_tensorboard_shows_every_row_once_after_a_kill(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = RunConfig(task={"name": "Toy"}, tensorboard=True)
    with RunFolder(tmp_path / "run") as run:
        for first, last in ((10, 40), (30, 50)):  # killed at 40, continued from a checkpoint at 20
            log = Logger(run, cfg, total_steps=100)
            for steps in range(first, last + 1, 10):
                log.add({"eval/return": 100.0 * first + steps})
                log.write(steps)
            log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("eval/return")}
    assert shown == {10: 1010.0, 20: 1020.0, 30: 3030.0, 40: 3040.0, 50: 3050.0}


def test_a_missing_tensorboard_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dima_isaac.cli.train.find_spec", lambda name: None)
    words = [*TOY, "task=Toy", "engine=toy", "tensorboard=True", f"run_dir={tmp_path}/run"]
    assert cli.main(["train", *words]) == 2
    wanted = "error: tensorboard=True needs tensorboard: pip install 'dima-isaac[tensorboard]'.\n"
    assert capsys.readouterr().err == wanted and not (tmp_path / "run").exists()
