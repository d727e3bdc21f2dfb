"""The files of a run folder, and the commands that continue and show a run."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from dima_isaac.config import RunConfig
from dima_isaac.run.folder import RunFolder, find, read_config
from dima_isaac.schema import as_dict

ROOT = Path(__file__).resolve().parents[2]


def run_config(**kw) -> RunConfig:
    return RunConfig(task={"name": "Toy", "fence": 3.0}, **kw)


def made(path: str, **kw) -> Path:
    """The folder of a run that has logged a row."""
    with RunFolder(Path(path)) as run:
        run.write_config(run_config(**{"num_envs": 4, **kw}), {"num_envs": "4: because"})
        run.metrics.write_text('{"env_steps": 4, "wall_time": 1.0}\n')
    return Path(path)


def test_config_file_is_the_whole_configuration_with_reasons():
    folder = made("r")
    text = (folder / "config.yaml").read_text()
    assert "# num_envs: 4: because" in text
    assert yaml.safe_load(text) == as_dict(run_config(num_envs=4)) == read_config(folder)


def test_two_fresh_runs_never_share_a_folder():
    first, second = RunFolder.fresh(Path("runs/Toy/x")), RunFolder.fresh(Path("runs/Toy/x"))
    assert (first.path.name, second.path.name) == ("x", "x-1")
    first.close()
    second.close()


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
def test_other_tools_are_named_as_this_one_was_called(program, told, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "task=Toy"])
    with RunFolder(tmp_path / "run") as run:
        assert run.command("play") == f"{told}{tmp_path}/run"


def test_resume_command_replaces_what_it_must(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "task=Toy", "checkpoint=x", "experiment=e", "seed=3"])
    with RunFolder(Path("my run")) as run:
        assert run.resume_command == "python scripts/train.py task=Toy seed=3 'run_dir=my run' checkpoint=auto"


def test_without_a_last_checkpoint_the_newest_step_is_found():
    checkpoints = made("r") / "checkpoints"
    checkpoints.mkdir()
    for name in ("step_9.pt", "step_10.pt", "step_x.pt"):
        (checkpoints / name).touch()
    assert find("r") == find("r/checkpoints") == checkpoints / "step_10.pt"
    (checkpoints / "last.pt").touch()
    assert find("r") == checkpoints / "last.pt"
