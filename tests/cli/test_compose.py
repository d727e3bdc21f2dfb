"""Several runs from one command line."""

import os
import re
import signal
import sys
from types import SimpleNamespace

import pytest
import yaml

from dima_isaac.cli import compose, train
from dima_isaac.cli import main as cli
from dima_isaac.cli.args import parse
from dima_isaac.errors import UsageError
from tests.cli.program import TOY, script


@pytest.mark.slow
def test_multirun_makes_one_folder_per_run(tmp_path):
    done = script(*TOY, "-m", "seed=1,2", "max_env_steps=64", "experiment=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seeds = {yaml.safe_load(path.read_text())["seed"] for path in tmp_path.glob("runs/sweep/*/config.yaml")}
    assert seeds == {1, 2}
    again = [line for line in done.stdout.splitlines() if "continue with" in line]
    assert len(again) == 2 and not any(" -m " in line or "1,2" in line for line in again)
    assert [re.search(r" seed=(\d) ", line)[1] for line in again] == ["1", "2"]
    assert all("train.py --config-dir " in line for line in again)


def test_a_job_of_another_program_continues_with_what_was_typed(monkeypatch):
    words = SimpleNamespace(overrides=SimpleNamespace(task=["task=Toy", "seed=1"]))
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: words)
    monkeypatch.setattr(train, "structured", lambda cfg: cfg)
    monkeypatch.setattr(train, "run", lambda cfg, catalog: 0)
    monkeypatch.delenv("DIMA_CONFIG_DIR", raising=False)
    for typed, start in (("scripts/train.py", []), ("/venv/bin/dima", ["train"])):
        monkeypatch.setenv(compose.PROGRAM, typed)
        monkeypatch.setattr(sys, "argv", ["/venv/lib/submitit/core/_submit.py", "multirun/.submitit/1"])
        assert train.job(None) == 0
        assert sys.argv == [typed, *start, "task=Toy", "seed=1"]


def test_a_job_of_another_program_obeys_sigterm_before_its_run_listens(monkeypatch):
    codes, words = [], SimpleNamespace(overrides=SimpleNamespace(task=[]))
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: words)
    monkeypatch.setattr(train, "structured", lambda cfg: cfg)
    monkeypatch.setattr(train, "run", lambda cfg, catalog: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(sys, "argv", sys.argv)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as submitit does
    try:
        train.job(None)
        assert codes == [75] and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agent.gamma=0.9,2"], "agent.gamma=2.0 is not between 0.0 and 1.0"),
        (["algo=dima,foo"], "unknown value of algo: 'foo'. Known: dima, mappo, ppo, sac."),
        (["task.fence=3,x"], "task.fence=x: expected a number"),
        (["agent.gamma=range(1,2"], "no viable alternative at input 'range(1,2'"),
        (["agent.gamma=interval(0,1)"], "does not support sweep type : INTERVAL_SWEEP"),
        (["hydra/launcher=nosuch"], "Could not find 'hydra/launcher/nosuch'; known: basic"),
        (["run_dir=r"], "run_dir=r is one run's; experiment=NAME gives"),
        (["test=True", "checkpoint=x"], "leave -m out"),
    ],
)
def test_a_sweep_is_refused_before_its_first_run(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *TOY, "-m", "seed=1,2", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_submitit_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["train", *TOY, "-m", "seed=1,2", "hydra/launcher=submitit_slurm"]) == 2
    said = "error: hydra/launcher=submitit_slurm needs submitit: pip install 'dima-isaac[slurm]'.\n"
    assert capsys.readouterr().err == said


def test_another_sweeper_expands_its_own_values(monkeypatch):
    monkeypatch.setattr(compose, "compose", lambda *words: pytest.fail("not ours to expand"))
    compose.check_sweep(parse("train", ["-m", "hydra/sweeper=optuna", "seed=interval(1,2)"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=ppo", "agent.gamma=0.9"], "agent.gamma changes nothing here: algo=ppo is rl-games with"),
        (["algo=sac", "world_model.history=2"], "algo=sac is SAC without a world model. Leave"),
        (["algo=sac", "agent.learner=ppo"], "agent.learner changes nothing here"),
        (["algo=sac", "train.learn.horizon=5"], "train.learn.horizon changes nothing here"),
        (
            ["agent.learner=sac", "agent.ppo.lr=0.1"],
            "agent.learner=sac. Leave agent.ppo.lr out, or take agent",
        ),
        (
            ["agent.learner=ppo", "agent.sac.lr=0.1"],
            "changes nothing here: policies learn by agent.learner=ppo",
        ),
    ],
)
def test_a_key_that_is_not_read_is_refused(words, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        compose.compose(parse("train", [*TOY, *words]))


def test_what_is_read_is_taken():
    for words in (["algo=sac", "agent.learner=sac"], ["agent.learner=ppo", "agent.ppo.lr=0.1"], ["agent.sac.lr=0.1"]):
        compose.compose(parse("train", [*TOY, *words]))


def test_a_sweep_is_refused_for_a_key_that_one_of_its_runs_does_not_read():
    sweep = ["-m", *TOY, "agent.gamma=0.9"]
    compose.check_sweep(parse("train", [*sweep, "algo=sac,dima"]))
    with pytest.raises(UsageError, match=r"agent\.gamma changes nothing here: algo=ppo"):
        compose.check_sweep(parse("train", [*sweep, "algo=sac,ppo"]))
