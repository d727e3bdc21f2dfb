"""Runs read back and grouped."""

from pathlib import Path

import numpy as np
import pytest

from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.tools import runs as run_folders
from dima_isaac.tools.runs import Group, Run


def run_of(values: list[float], at: list[int], **config) -> Run:
    rows = [{"env_steps": x, "wall_time": 10.0 * x, "eval/return": y} for x, y in zip(at, values, strict=True)]
    return Run(Path("x"), {"task": {"name": "Toy"}, **config}, rows)


def test_runs_are_grouped_by_what_they_differ_in():
    runs = [run_of([1.0], [0], seed=seed, agent={"gamma": gamma}) for gamma in (0.9, 0.99) for seed in (0, 1, 2)]
    groups = run_folders.group(runs)
    assert [(one.label, len(one.runs)) for one in groups] == [("Toy, gamma=0.9", 3), ("Toy, gamma=0.99", 3)]
    assert run_folders.group(runs[:3])[0].label == "Toy"
    of_three, again = run_folders.group(runs[:3])[0], run_folders.group([*runs[:3], runs[0]])[0]
    assert (of_three.size(), again.size()) == ("3 seeds", "4 runs of 3 seeds")
    assert (
        run_folders.group([runs[0]] * 2)[0].size() == "2 runs of 1 seed"
        and run_folders.group(runs[:1])[0].size() == "1 run"
    )


def test_a_setting_that_older_runs_lack_separates_no_groups():
    old, new, other = ({"gamma": 0.9}, {"gamma": 0.9, "new": 1}, {"gamma": 0.9, "new": 2})
    pair = run_folders.group([run_of([1.0], [0], agent=agent) for agent in (old, new)])
    assert [(one.label, len(one.runs)) for one in pair] == [("Toy", 2)]
    all_three = run_folders.group([run_of([1.0], [0], agent=agent) for agent in (old, new, other)])
    assert [one.label for one in all_three] == ["Toy", "Toy, new=1", "Toy, new=2"]


def test_groups_that_differ_in_much_go_by_their_folders():
    runs = [run_of([1.0], [0], agent={"a": n, "b": n, "c": n, "d": n}) for n in range(2)]
    for n, run in enumerate(runs):
        run.path = Path(f"runs/try{n}")
    assert [one.label for one in run_folders.group(runs)] == ["Toy, try0", "Toy, try1"]


def test_settings_that_follow_from_a_preset_do_not_label_a_group():
    runs = [run_of([1.0], [0], preset=preset, agent={"gamma": gamma}) for preset, gamma in (("a", 0.9), ("b", 0.99))]
    assert [one.label for one in run_folders.group(runs)] == ["Toy, preset=a", "Toy, preset=b"]


def test_a_learner_implied_by_the_algorithm_is_not_in_the_label():
    pairs = [("dima", "ppo"), ("sac", "sac"), ("dima", "sac")]
    runs = [run_of([1.0], [0], algo=algo, agent={"learner": learner}) for algo, learner in pairs]
    assert [one.label for one in run_folders.group(runs[:2])] == ["Toy, algo=dima", "Toy, algo=sac"]
    assert run_folders.group(runs)[2].label == "Toy, algo=dima, learner=sac"


def test_what_an_algorithm_leaves_unused_does_not_tell_it_from_another():
    settings = [("dima", 0.002), ("ppo", 0.005), ("dima", 0.01)]
    runs = [run_of([1.0], [0], algo=algo, train={"learn": {"rollouts_per_step": rate}}) for algo, rate in settings]
    assert [one.label for one in run_folders.group(runs[:2])] == ["Toy, algo=dima", "Toy, algo=ppo"]
    assert run_folders.group(runs)[0].label == "Toy, algo=dima, rollouts_per_step=0.002"


def test_labels_name_partition_and_protocol():
    tasks = [{"name": "Ant", "agent_conf": conf, "protocol": way} for conf, way in (("4x2", "v5"), ("2x4", "harl"))]
    groups = run_folders.group([run_of([1.0], [0], task=task) for task in tasks])
    assert [one.label for one in groups] == ["Ant-4x2 (v5)", "Ant-2x4 (harl)"]


def test_the_root_of_all_runs_is_split_by_task(tmp_path):
    for place, task in (
        ("a/1", "Toy"),
        ("a/2", "Toy"),
        ("a/b/c/1", "Toy"),
        ("b/1", "Ant"),
        ("c", "Toy"),
        ("b/1/wandb/x", "None"),
    ):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "metrics.jsonl").write_text('{"env_steps": 2, "wall_time": 1, "eval/return": 5.0}\n')
        (tmp_path / place / "config.yaml").write_text(f"task: {{name: {task}}}")
    found = run_folders.by_task(run_folders.load([str(tmp_path)]))
    names = {task: [str(run.path.relative_to(tmp_path)) for run in runs] for task, runs in found.items()}
    assert names == {"Toy": ["a/1", "a/2", "a/b/c/1", "c"], "Ant": ["b/1"]}


def test_bands_cover_the_common_stretch():
    """y = x and y = 3 x on grids that differ: on 1 .. 3 the mean is 2 x, between x and 3 x."""
    one = Group("", [run_of([0.0, 3.0], [0, 3]), run_of([3.0, 6.0, 12.0], [1, 2, 4])])
    band = one.band("eval/return", "env_steps")
    np.testing.assert_allclose(band.x, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(band.mean, [2.0, 4.0, 6.0])
    assert (band.low == band.x).all() and (band.high == 3 * band.x).all()
    assert Group("", one.runs[:1]).band("eval/return", "env_steps") is None


def test_broken_lines_and_missing_numbers_are_skipped(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"env_steps": 1, "wall_time": 1, "eval/return": null}\n{"env_steps": 2, "wall_time": 1, "eval/return": 5.0}\n'
        b'{"odd": 1}\n\xff\n{"env_steps": 3, "wall_time": 1, "eval/return": "5"}\n{"env_st'
    )
    [run] = run_folders.load([str(tmp_path)])
    x, y = run.curve("eval/return", "env_steps")
    assert x.tolist() == [2.0] and y.tolist() == [5.0] and len(run.rows) == 2


def test_a_garbled_configuration_costs_the_other_runs_nothing(tmp_path, capsys):
    for name, config in (("good", "task: {name: Toy}"), ("torn", "task: ["), ("undated", "a: 2026-99-99")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"env_steps": 2, "wall_time": 1, "eval/return": 5.0}\n')
        (tmp_path / name / "config.yaml").write_text(config)
    (tmp_path / "unreadable" / "metrics.jsonl").mkdir(parents=True)
    assert [run.path.name for run in run_folders.load([str(tmp_path)])] == ["good"]
    assert capsys.readouterr().out.count(". That run is passed over.") == 3
    with pytest.raises(CheckpointError, match=r"torn/config\.yaml cannot be read"):  # it was named
        run_folders.load([f"{tmp_path}/good", f"{tmp_path}/torn"])
    assert len(run_folders.load([str(tmp_path), f"{tmp_path}/good"])) == 1, "a seed counts once, however it is named"
    (tmp_path / "good" / "config.yaml").write_text("- 3")
    with pytest.raises(UsageError, match="nothing has been logged yet in any run that can be read"):
        run_folders.load([str(tmp_path)])
