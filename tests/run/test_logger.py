"""What is written is what was added: means, rates, one line per row, whatever happens to wandb."""

import errno
import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
import torch

from dima_isaac.config import RunConfig
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        yield folder


def logger(run, **kw) -> Logger:
    return Logger(run, RunConfig(task={"name": "Toy"}, **kw), total_steps=100)


def rows(run) -> list[dict]:
    return [json.loads(text) for text in run.metrics.read_text().splitlines()]


def test_means_since_the_last_row(run):
    log = logger(run)
    log.add({"world/denoise": torch.tensor(1.0), "agent/entropy": 4.0})
    log.add({"world/denoise": torch.tensor(3.0)})
    log.add({"return": torch.tensor(7.0)}, "eval/")
    log.write(10)
    log.add({"world/denoise": torch.tensor(5.0)})
    log.write(20)
    log.close()
    first, second = rows(run)
    assert (first["world/denoise"], first["agent/entropy"], first["eval/return"]) == (2.0, 4.0, 7.0)
    assert second["world/denoise"] == 5.0 and "agent/entropy" not in second and "eval/return" not in second
    assert (first["env_steps"], second["env_steps"]) == (10, 20) and 0 <= first["wall_time"] <= second["wall_time"]


def test_a_flush_writes_what_is_pending_and_leaves_the_rate_alone(run, capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("dima_isaac.run.logger.time.monotonic", lambda: clock[0])
    log = logger(run)
    log.write(10)
    capsys.readouterr()
    clock[0] += 1.0
    log.flush(12)
    log.add({"eval/return": 7.0})
    log.flush(12)
    assert capsys.readouterr().out == ""
    clock[0] += 1.0
    log.write(20)
    log.close()
    _, flushed, last = rows(run)
    assert flushed["eval/return"] == 7.0 and flushed["env_steps"] == 12
    assert not any(name.startswith("time/") for name in flushed)
    assert last["time/env_steps_per_s"] == 5.0, "10 steps in the 2 s since the row before the flush"
    assert "eval/return" not in last


def test_a_sample_is_taken_when_it_is_added(run):
    log, live = logger(run), torch.tensor(1.0)
    log.add({"engine/nonfinite": live})
    live.add_(5)
    assert log.write(1)["engine/nonfinite"] == 1.0
    log.close()


def test_not_a_number_becomes_null(run):
    log = logger(run)
    log.add({"train/return": torch.tensor(float("nan")), "world/reward": float("inf")})
    log.write(1)
    log.close()
    assert rows(run)[0]["train/return"] is None and rows(run)[0]["world/reward"] is None
    assert "NaN" not in run.metrics.read_text()


def test_the_rate_is_steps_over_time(run, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("dima_isaac.run.logger.time.monotonic", lambda: clock[0])
    log = logger(run)
    log.write(0)
    clock[0] += 2.0
    row = log.write(10)
    assert row["time/env_steps_per_s"] == 5.0 and row["wall_time"] == 2.0
    assert "time/env_steps_per_s" not in log.write(10)
    log.close()


def test_the_time_left_follows_from_the_last_rows_after_the_warm_up(run, monkeypatch):
    clock, left = [0.0], []
    monkeypatch.setattr("dima_isaac.run.logger.time.monotonic", lambda: clock[0])
    cfg = RunConfig(task={"name": "Toy"})
    cfg.train.learn.behaviour_start = 20
    log = Logger(run, cfg, total_steps=200)
    monkeypatch.setattr(log._display, "show", lambda latest, progress: left.append(progress.left))
    for steps in range(10, 180, 10):
        clock[0] += {20: 1.0, 100: 50.0}.get(steps, 10.0)  # s
        log.write(steps)
    log.close()
    assert left[:2] == [None, None], "a second for ten steps foretells nothing"
    assert left[2:9] == [170.0, 160.0, 150.0, 140.0, 130.0, 120.0, 110.0]
    assert left[9] == pytest.approx(100 * 120 / 80), "eight rows, one of 50 s"
    assert left[-1] == pytest.approx(30 * 140 / 100), "ten rows"


def test_a_wall_clock_that_jumps_by_a_day_changes_nothing(run, monkeypatch):
    clock, days, left = [0.0], cycle([86_400.0, -86_400.0]), []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.time", lambda: 1e9 + next(days))
    log = Logger(run, RunConfig(task={"name": "Toy"}, algo="ppo"), total_steps=50)
    monkeypatch.setattr(log._display, "show", lambda latest, progress: left.append(progress.left))
    for steps in (10, 20, 30):
        clock[0] += 2.0
        log.write(steps)
    log.close()
    assert left == [None, 6.0, 4.0] and [row["wall_time"] for row in rows(run)] == [2.0, 4.0, 6.0]


def test_rewind_drops_later_rows_and_damaged_ones(run):
    text = "".join(json.dumps({"env_steps": n, "wall_time": n / 10}) + "\n" for n in (10, 20, 30))
    damaged = '7\n{"env_steps": null, "wall_time": 1}\n{"env_steps": 5, "wall_time": "x"}\n' + "[" * 100_000 + "\n"
    damaged += '{"env_steps": 1e400, "wall_time": 1}\n{"env_steps": 6, "wall_time": 1, "eval/return": [1]}\n'
    run.metrics.write_text(damaged + text + '{"env_steps": 20, "wall_time": NaN}\n{"env_steps": 40, "wal')
    log = logger(run)
    log.rewind(20)
    row = log.write(30)
    log.close()
    assert [row["env_steps"] for row in rows(run)] == [10, 20, 30]
    assert 2.0 <= row["wall_time"] < 10.0  # goes on from the second row's


def test_a_full_disk_or_a_lost_terminal_never_stops_a_run(run, monkeypatch):
    class Lost:
        def __getattr__(self, name):
            raise OSError(errno.ENOSPC, "No space left on device")

        def isatty(self):
            return False

    log = logger(run)
    log.write(10)
    log._file.close()
    log._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", Lost())
    log.write(20)
    log.note("unheard")
    log.close()
    assert [row["env_steps"] for row in rows(run)] == [10]


BROKEN = """
import sys, types
from pathlib import Path
wandb = types.ModuleType("wandb")
class Settings:
    def __init__(self, **kw): pass
class Run:
    def log(self, *a, **k): raise OSError("No space left on device")
    def finish(self): raise RuntimeError("gone")
calls = []
def init(mode, **kw):
    calls.append(mode)
    if mode == "online" or sys.argv[2] == "never": raise RuntimeError("cannot reach the server")
    return Run()
wandb.Settings, wandb.init, wandb.teardown = Settings, init, lambda: calls.append("teardown")
sys.modules["wandb"] = wandb
from dima_isaac.config import RunConfig, WandbMode
from dima_isaac.run.logger import Logger
from dima_isaac.run.folder import RunFolder
cfg = RunConfig(task={"name": "Toy"}, wandb_activate=True)
cfg.wandb.mode = WandbMode.online
with RunFolder(Path(sys.argv[1])) as run:
    log = Logger(run, cfg, 10)
    for n in range(3):
        log.add({"train/return": 1.0})
        log.write(n)
    log.close()
print(calls)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "said"), [("never", "wandb is off: cannot reach the server"), ("midway", "recording offline")]
)
def test_trouble_with_wandb_never_stops_a_run(tmp_path, when, said):
    command = [sys.executable, "-c", BROKEN, tmp_path / "run", when]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout and "['online', 'teardown', 'offline']" in done.stdout
    assert ("wandb is off" if when == "never" else "wandb stopped: No space left") in done.stdout
    assert done.stdout.count("wandb stopped") <= 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_progress_is_shown_a_minute_after_anything_else(run, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("dima_isaac.run.logger.time.monotonic", lambda: clock[0])
    log = logger(run)
    for at in (10.0, 61.0, 100.0, 122.0):
        clock[0] = at
        log.progress(f"at {at:.0f}")
    log.write(10)
    clock[0] = 150.0
    log.progress("after a row")
    log.close()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith(("at", "after"))] == [
        "at 61",
        "at 122",
    ]
