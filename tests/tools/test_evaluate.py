"""``evaluate`` end to end on tiny runs of the toy game."""

import shutil

import pytest

from dima_isaac.cli import main as cli
from dima_isaac.world_model.config import Reveal
from tests.tools.toy_runs import TOY, last_json

pytestmark = pytest.mark.slow


def test_evaluate_reports_policy_baselines_and_probe(runs, capsys):
    words = [f"checkpoint={runs}/0", "num_envs=4", "episodes=10", "baseline=True", "probe=True", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    output = capsys.readouterr().out
    line = last_json(output)
    assert list(line["policies"]) == ["trained", "zero", "random"] and line["env_steps"] == 384
    for result in line["policies"].values():
        assert result["return_min"] <= result["return_iqm_low"] <= result["return_iqm"] <= result["return_iqm_high"]
        assert 0.0 <= result["success"] <= 1.0 and 1.0 <= result["length"] <= 20.0
    probe = line["probe"]
    assert len(probe["model"]) == len(probe["repeat"]) == len(probe["linear"]) == 15
    assert len(probe["sensitivity_true"]) == 2 and "open-loop error" in output
    assert len(probe["pushes"]["reward"]) == len(probe["pushes"]["place"]) == 3 and "what a push of 0.5" in output
    assert probe["reveal"] in Reveal.__members__ and f"reveal={probe['reveal']}" in output


def test_repeated_measurements_are_equal(runs, capsys):
    answers = []
    for count in (2, 8):  # more environments at once, the same episodes numbered otherwise
        for _ in range(2):
            cli.main(["evaluate", *TOY, f"checkpoint={runs}/0", f"num_envs={count}", "episodes=8", "threads=1"])
            answers.append(last_json(capsys.readouterr().out)["policies"])
    assert answers[0] == answers[1] and answers[2] == answers[3] != answers[0]


def test_doing_nothing_needs_no_checkpoint(capsys):
    words = ["task=Toy", "engine=toy", "agent=zero", "num_envs=3", "episodes=3", "task.episode_length=5", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    line = last_json(capsys.readouterr().out)
    assert line["policies"]["zero"]["length"] == 5.0 and line["checkpoint"] is None


def test_without_a_goal_no_success_is_reported(capsys):
    words = ["task=HalfCheetah", "engine=mujoco", "agent=zero", "num_envs=2", "episodes=2", "task.episode_length=5"]
    assert cli.main(["evaluate", *words, "threads=1"]) == 0
    output = capsys.readouterr().out
    assert last_json(output)["policies"]["zero"]["length"] == 5.0 and "length" in output and "success" not in output


def test_train_test_true_evaluates(runs, capsys):
    words = ["task=Toy", "engine=toy", "test=True", f"checkpoint={runs}/1", "num_envs=4", "threads=1"]
    assert cli.main(["train", *TOY, *words]) == 0
    assert last_json(capsys.readouterr().out)["env_steps"] == 384
    assert cli.main(["train", *TOY, *words, "task.episode_length=1e1"]) == 0
    assert last_json(capsys.readouterr().out)["policies"]["trained"]["length"] == 10.0


def test_a_torn_last_checkpoint_gives_way_to_an_intact_one(runs, tmp_path, capsys):
    shutil.copytree(runs / "0" / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"torn")
    words = [f"checkpoint={tmp_path}", "num_envs=2", "episodes=2", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    output = capsys.readouterr().out
    assert "Taking step_384.pt." in output and last_json(output)["checkpoint"].endswith("step_384.pt")
