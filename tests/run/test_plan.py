"""Which run a configuration starts or continues."""

import os
import time
from pathlib import Path

import pytest

from dima_isaac.config import Algo, RunConfig
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run.folder import RunFolder, read_config
from dima_isaac.run.plan import Plan, changes, plan
from dima_isaac.schema import as_dict
from tests.run.test_folder import made, run_config


def test_plan_creates_nothing():
    place = plan(run_config(experiment="pilot", seed=3))
    assert place.path.parent == Path("runs/pilot") and place.path.name.endswith("seed3")
    assert not Path("runs").exists()


def test_without_an_experiment_the_task_names_the_folder():
    assert plan(run_config()).path.parent == Path("runs/Toy")


def test_a_named_folder_that_holds_a_run_asks_for_auto():
    made("r")
    with pytest.raises(UsageError, match="add checkpoint=auto"):
        plan(run_config(run_dir="r"))
    assert plan(run_config(run_dir="r", checkpoint="auto")).stored["num_envs"] == 4


def test_a_start_that_failed_is_no_run():
    folder = made("r", seed=1)
    (folder / "metrics.jsonl").write_text("")
    for checkpoint in ("", "auto"):
        assert plan(run_config(run_dir="r", checkpoint=checkpoint, seed=2)) == Plan(folder, None)
    with pytest.raises(CheckpointError, match="r holds no run"):
        plan(run_config(run_dir="r", checkpoint="latest"))


@pytest.mark.parametrize("left", ["metrics.jsonl", "checkpoints/step_8.pt", "checkpoints/last.pt"])
@pytest.mark.parametrize("checkpoint", ["", "auto", "latest"])
def test_a_run_that_has_lost_its_configuration_is_not_taken_for_an_empty_folder(left, checkpoint):
    Path("r/checkpoints").mkdir(parents=True)
    Path("r", left).write_text("{}\n")
    with pytest.raises(UsageError, match=r"r holds checkpoints or metrics, but no config\.yaml"):
        plan(run_config(run_dir="r", checkpoint=checkpoint))


def test_other_settings_are_listed():
    made("r", seed=1)
    with pytest.raises(
        UsageError, match=r"seed 1 -> 2\. Continue it with seed=1, or choose another run_dir; checkpoint=r "
    ):
        plan(run_config(run_dir="r", checkpoint="auto", seed=2))
    cfg = run_config(run_dir="r", checkpoint="auto", seed=1, max_env_steps=5)
    cfg.train.eval.every = 7
    assert plan(cfg).stored is not None  # these two may change


def test_threads_and_what_describes_the_code_may_change():
    made("r", engine={"name": "toy", "target": "a:B", "requires": {"cure": "old"}, "threads": 1, "drag": 0.1})
    now = {"name": "toy", "target": "c:D", "requires": {"cure": "new"}, "threads": 4, "drag": 0.1}
    assert plan(run_config(run_dir="r", checkpoint="auto", engine=now)).stored is not None
    with pytest.raises(UsageError, match=r"other settings: engine\.drag 0\.1 -> 0\.2\."):
        plan(run_config(run_dir="r", checkpoint="auto", engine={**now, "drag": 0.2}))


def test_what_an_algorithm_does_not_read_may_change():
    """Also where another version had another default for it."""
    made("r", algo=Algo.ppo)
    for algo, changed in ((Algo.ppo, set()), (Algo.dima, {"algo", "agent.gamma", "world_model.history"})):
        cfg = run_config(num_envs=4, algo=algo)
        cfg.agent.gamma, cfg.world_model.history = 0.5, 7
        assert changes(read_config(Path("r")), cfg).keys() == changed


def test_switches_are_named_as_they_are_typed():
    made("r")
    cfg = run_config(run_dir="r", checkpoint="auto", num_envs=5)
    cfg.world_model.clip_actions = False
    with pytest.raises(UsageError, match=r"Continue it with num_envs=4 world_model\.clip_actions=true, or"):
        plan(cfg)


def test_no_command_line_is_offered_that_would_be_wrong_or_long():
    made("r")
    other_task = run_config(run_dir="r", checkpoint="auto")
    other_task.task["name"] = "Ant"
    four = run_config(run_dir="r", checkpoint="auto", seed=9, num_envs=9)
    four.agent.gamma, four.agent.sac.lr = 0.5, 0.5
    for cfg in (other_task, four):
        with pytest.raises(UsageError, match=r"\. Choose another run_dir;"):
            plan(cfg)


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


def test_a_file_in_the_way_and_a_torn_config():
    Path("file").write_text("")
    with pytest.raises(UsageError, match="file is a file"):
        plan(run_config(run_dir="file/run"))
    Path("torn").mkdir()
    Path("torn/config.yaml").write_text("task: [")
    Path("torn/metrics.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match="cannot be read"):
        plan(run_config(run_dir="torn", checkpoint="auto"))
    for text in ("", "task: {name: Toy}", "task: {name: Toy}\nengine: {name: toy}\nnum_envs: many"):
        Path("torn/config.yaml").write_text(text)
        with pytest.raises(CheckpointError, match=r"is not a run's (whole )?configuration"):
            plan(run_config(run_dir="torn", checkpoint="auto"))


def test_a_folder_without_permission_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match="no permission to write to"):
        plan(run_config())


def test_latest_demands_a_run_where_auto_would_start_one(tmp_path):
    with pytest.raises(CheckpointError, match="auto would start one"):
        plan(RunConfig(task={"name": "Toy"}, checkpoint="latest"))
    with pytest.raises(CheckpointError, match="holds no run"):
        plan(RunConfig(task={"name": "Toy"}, checkpoint="latest", run_dir=str(tmp_path / "new")))
    assert plan(RunConfig(task={"name": "Toy"}, checkpoint="auto")).stored is None


@pytest.mark.parametrize("name", ["../../x", "..", ".", "/tmp/x", "a/../../x"])
def test_an_experiment_stays_among_the_runs(name):
    with pytest.raises(UsageError, match="run_dir=PATH"):
        plan(run_config(experiment=name))
    assert plan(run_config(experiment="a/b")).path.parent == Path("runs/a/b")


def test_the_home_of_an_unknown_user_is_no_folder_of_that_name():
    with pytest.raises(UsageError, match="there is no user nobody-here;"):
        plan(run_config(run_dir="~nobody-here/run"))
    assert plan(run_config(run_dir="./~nobody-here/run")).path == Path("~nobody-here/run")
