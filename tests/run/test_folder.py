"""One run, one folder: who may write there, and what continues what."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run import folder as run_folder
from dima_isaac.run.folder import RunFolder, changes, plan, read_config
from dima_isaac.schema import as_dict

ROOT = Path(__file__).resolve().parents[2]


def run_config(**kw) -> RunConfig:
    return RunConfig(task={"name": "Toy", "fence": 3.0}, **kw)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(path: str, **kw) -> Path:
    """A finished run's folder."""
    with RunFolder(Path(path)) as run:
        run.write_config(run_config(**{"num_envs": 4, **kw}), {"num_envs": "4: because"})
    return Path(path)


def test_plan_creates_nothing():
    place = plan(run_config(experiment="pilot", seed=3))
    assert place.path.parent == Path("runs/pilot") and place.path.name.endswith("seed3")
    assert not Path("runs").exists()


def test_without_an_experiment_the_task_names_the_folder():
    assert plan(run_config()).path.parent == Path("runs/Toy")


def test_config_file_is_the_whole_configuration_with_reasons():
    folder = made("r")
    text = (folder / "config.yaml").read_text()
    assert "# num_envs: 4: because" in text
    assert yaml.safe_load(text) == as_dict(run_config(num_envs=4)) == read_config(folder)


def test_a_second_process_is_refused_and_a_dead_one_is_not():
    code = "import sys, time; from pathlib import Path; from dima_isaac.run.folder import RunFolder\n"
    code += "run = RunFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "shared"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: plan(run_config(run_dir="shared")), lambda: RunFolder(Path("shared"))):
            with pytest.raises(UsageError, match=f"in use by process {other.pid} on {socket.gethostname()}"):
                attempt()
    finally:
        other.kill()
        other.communicate()
    with RunFolder(Path("shared")):  # the lock died with its process
        pass


def test_without_locks_the_process_number_decides(monkeypatch):
    def flock(*words):
        raise OSError(errno.ENOLCK, "no locks on this file system")

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    Path("shared").mkdir()
    for number, host, free in (
        (os.getpid(), socket.gethostname(), False),
        (dead.pid, "elsewhere", False),
        (dead.pid, socket.gethostname(), True),
    ):
        Path("shared/lock").write_text(f"process {number} on {host}")
        if free:
            RunFolder(Path("shared")).close()
        else:
            with pytest.raises(UsageError, match=f"in use by process {number} on {host}"):
                RunFolder(Path("shared"))
    assert Path("shared/lock").read_text() == ""  # whoever leaves takes its number along


def test_a_named_folder_that_holds_a_run_asks_for_auto():
    made("r")
    with pytest.raises(UsageError, match="add checkpoint=auto"):
        plan(run_config(run_dir="r"))
    assert plan(run_config(run_dir="r", checkpoint="auto")).stored["num_envs"] == 4


def test_other_settings_are_listed():
    made("r", seed=1)
    with pytest.raises(UsageError, match="seed 1 -> 2"):
        plan(run_config(run_dir="r", checkpoint="auto", seed=2))
    cfg = run_config(run_dir="r", checkpoint="auto", seed=1, max_env_steps=5)
    cfg.train.eval.every = 7
    assert plan(cfg).stored is not None  # these two may change


def test_another_task_is_a_change():
    stored = as_dict(run_config())
    other = RunConfig(task={"name": "Ant"})
    assert changes(stored, other) == {"task.name": ("Toy", "Ant")}
    assert not changes(stored, run_config(num_envs="auto"))


def test_auto_continues_the_newest_run_that_agrees():
    made("runs/pilot/a", seed=1)
    newest = made("runs/pilot/b", seed=1)
    made("runs/pilot/c", seed=2)
    later = time.time() + 5
    os.utime(newest / "config.yaml", (later, later))
    assert plan(run_config(experiment="pilot", checkpoint="auto", seed=1)).path == newest
    assert plan(run_config(experiment="pilot", checkpoint="auto", seed=9)).stored is None
    with RunFolder(newest):
        assert plan(run_config(experiment="pilot", checkpoint="auto", seed=1)).path.name == "a"


def test_auto_passes_over_a_run_whose_configuration_is_garbled(capsys):
    good, torn = made("runs/pilot/good", seed=1), made("runs/pilot/torn", seed=1)
    (torn / "config.yaml").write_text("task: [")
    later = time.time() + 5
    os.utime(torn / "config.yaml", (later, later))
    assert plan(run_config(experiment="pilot", checkpoint="auto", seed=1)).path == good
    said = capsys.readouterr().out
    assert "torn/config.yaml cannot be read" in said and said.count("\n") == 1


def test_two_fresh_runs_never_share_a_folder():
    first, second = RunFolder.fresh(Path("runs/Toy/x")), RunFolder.fresh(Path("runs/Toy/x"))
    assert (first.path.name, second.path.name) == ("x", "x-1")
    first.close()
    second.close()


def test_a_file_in_the_way_and_a_torn_config():
    Path("file").write_text("")
    with pytest.raises(UsageError, match="file is a file"):
        plan(run_config(run_dir="file/run"))
    Path("torn").mkdir()
    Path("torn/config.yaml").write_text("task: [")
    with pytest.raises(CheckpointError, match="cannot be read"):
        plan(run_config(run_dir="torn", checkpoint="auto"))


def test_no_permission_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(run_folder.os, "access", lambda place, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match="no permission to write to"):
        plan(run_config())


def test_versions_hold_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-7a1f")
    folder = made("r")
    stored = json.loads((folder / "versions.json").read_text())
    assert stored["packages"]["torch"] and stored["python"].count(".") == 2
    assert not any("canary-7a1f" in path.read_text() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("program", "told"),
    [("scripts/train.py", "python scripts/play.py checkpoint="), ("/usr/bin/dima", "dima play checkpoint=")],
)
def test_other_tools_are_told_as_this_one_was_called(program, told, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "task=Toy"])
    with RunFolder(tmp_path / "run") as run:
        assert run.command("play") == f"{told}{tmp_path}/run"


def test_resume_command_replaces_what_it_must(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "task=Toy", "checkpoint=x", "experiment=e", "seed=3"])
    with RunFolder(Path("my run")) as run:
        assert run.resume_command == "python scripts/train.py task=Toy seed=3 'run_dir=my run' checkpoint=auto"


def test_latest_demands_a_run_where_auto_would_start_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="auto would start one"):
        plan(RunConfig(task={"name": "Toy"}, checkpoint="latest"))
    with pytest.raises(CheckpointError, match="holds no run"):
        plan(RunConfig(task={"name": "Toy"}, checkpoint="latest", run_dir=str(tmp_path / "new")))
    assert plan(RunConfig(task={"name": "Toy"}, checkpoint="auto")).stored is None
