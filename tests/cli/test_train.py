"""Training as a user meets it: folders, exit codes, signals, continuation."""

import contextlib
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dima_isaac.cli import main as cli
from dima_isaac.cli import train
from dima_isaac.run.checkpoint import FORMAT
from dima_isaac.run.sealed import load, save
from tests.cli.program import ENV, ROOT, TOY, script


def rows(folder: Path) -> list[dict]:
    """metrics.jsonl without what the clock decides."""
    parsed = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not re.match("wall_time|time/", key)} for row in parsed]


def same(a, b) -> bool:
    """Equality of nested dictionaries of tensors, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.slow
def test_values_that_only_the_task_knows_are_refused_without_a_folder(tmp_path):
    done = script("task=ShadowHandOver", "task.profile=fxed", cwd=tmp_path)
    assert done.returncode == 2 and "profile" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_task_is_refused_without_a_folder(tmp_path):
    save(tmp_path / "step_1.pt", {"format": FORMAT, "config": {"task": {"name": "ShadowHandPen"}}})
    done = script(*TOY, "checkpoint=step_1.pt", "run_dir=mine", cwd=tmp_path)
    assert done.returncode == 3 and "was made on task ShadowHandPen, not Toy" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_cfg_prints_the_whole_tree(tmp_path):
    done = script(*TOY, "--cfg", "seed=7", cwd=tmp_path)
    printed = yaml.safe_load(done.stdout)
    assert (
        printed["seed"] == 7 and printed["world_model"]["denoiser"]["width"] == 32 and printed["task"]["fence"] == 3.0
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One complete toy run, recorded offline by wandb too."""
    place = tmp_path_factory.mktemp("whole")
    done = script(*TOY, "run_dir=a", "wandb_activate=True", "train.checkpoint.keep=9", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "a"


@pytest.mark.slow
def test_the_last_lines_name_the_next_commands(tmp_path, capsys):
    assert cli.main(["train", *TOY, f"run_dir={tmp_path}/run"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-2:]
    assert last[0].startswith("finished") and last[0].endswith(f" checkpoint={tmp_path}/run")
    assert "evaluate" in last[0] and "play" in last[1]


def test_steps_that_do_not_fit_the_agents_are_refused_before_a_folder_is_made(tmp_path, capsys):
    assert cli.main(["train", *TOY, f"run_dir={tmp_path}/run", "world_model.denoiser.steps=3"]) == 2
    assert "choose a multiple of 2" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_leaves_the_files_of_the_contract(whole):
    written = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all({"env_steps", "wall_time"} <= set(row) for row in written)
    names = set().union(*written)
    assert {"train/return", "eval/return", "eval/success", "world/denoise", "world/reward", "agent/entropy"} <= names
    assert {"time/env_steps_per_s", "world/horizon", "agent/dream_share"} <= names
    assert written[-1]["env_steps"] == 512
    stored = yaml.safe_load((whole / "config.yaml").read_text())
    assert stored["num_envs"] == 4 and stored["sim_device"] == "cpu" and stored["threads"] == 1
    assert "auto" not in {stored["sim_device"], stored["rl_device"], stored["engine"]["name"]}
    state = torch.load(whole / "checkpoints" / "last.pt", weights_only=True)
    assert state["env_steps"] == 512 and state["config"]["task"]["name"] == "Toy"


@pytest.mark.slow
def test_no_secret_reaches_the_run_folder(whole):
    assert (whole / "wandb").is_dir()
    for path in whole.rglob("*"):
        if path.is_file():
            assert b"canary-93b0" not in path.read_bytes(), path


@pytest.mark.slow
def test_killed_and_continued_equals_uninterrupted(whole, tmp_path):
    """SIGKILL after the checkpoint at 256, then the same command: the same bits at 512."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        *TOY,
        "run_dir=b",
        "checkpoint=auto",
        "train.checkpoint.keep=9",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=subprocess.DEVNULL)
    folder, began = tmp_path / "b", time.monotonic()
    while not (folder / "checkpoints" / "step_256.pt").exists():
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.005)
    process.kill()
    process.wait()
    for late in ("step_512.pt", "last.pt"):  # in case the kill came late
        (folder / "checkpoints" / late).unlink(missing_ok=True)
    done = script(*TOY, "run_dir=b", "checkpoint=auto", "train.checkpoint.keep=9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load(place / "checkpoints" / "step_512.pt") for place in (folder, whole))
    for state in (ours, theirs):
        state.pop("config")  # run_dir and wandb differ
        segments = state["replay"].pop("segments")
        assert segments[-1]["stop"] == 128
    assert same(ours, theirs)
    assert rows(folder) == rows(whole)


@pytest.mark.slow
def test_a_run_without_a_world_model_continues_and_is_measured(tmp_path):
    """The same bits in one go and in two; no tool asks it for a world model's dreams in vain."""
    for folder, steps in (("whole", (512,)), ("parts", (256, 512))):
        for most in steps:
            words = (*TOY, "algo=sac", f"run_dir={folder}", "checkpoint=auto", f"max_env_steps={most}")
            done = script(*words, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    ours, theirs = (load(tmp_path / name / "checkpoints" / "step_512.pt") for name in ("parts", "whole"))
    assert same(ours["agent"], theirs["agent"]) and ours["schedule"] == theirs["schedule"]
    assert ours["schedule"]["agent"] > 10 and "world" not in ours
    done = script(
        "--config-dir", ROOT / "tests" / "cfg", "checkpoint=parts", "episodes=2", cwd=tmp_path, name="evaluate"
    )
    assert done.returncode == 0 and "trained" in done.stdout, done.stderr
    done = script(
        "--config-dir", ROOT / "tests" / "cfg", "checkpoint=parts", "probe=True", cwd=tmp_path, name="evaluate"
    )
    assert done.returncode == 2 and "algo=sac, which has no world model" in done.stderr


def started(folder, until: str, *words: str, **environment: str) -> subprocess.Popen:
    """A run in ``folder``/r that has printed a line with ``until``."""
    command, pipe = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, "run_dir=r", *words], subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, env={**ENV, **environment}, stdout=pipe, stderr=pipe, text=True)
    assert any(until in line for line in process.stdout)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_signals_save_and_exit(tmp_path, name, code):
    process = started(tmp_path, " / 10,000,000", "max_env_steps=10_000_000")
    process.send_signal(getattr(signal, name))
    assert any(f"{name}: saved" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)  # a scheduler that asks twice
    assert any("run_dir=r checkpoint=auto" in line for line in process.stdout)
    assert process.wait(timeout=60) == code
    assert load(tmp_path / "r" / "checkpoints" / "last.pt")["env_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("gpus=2", "rl_device=cpu")])
def test_a_signal_while_wandb_waits_for_its_server_ends_the_start(tmp_path, words):
    (tmp_path / "wandb.py").write_text(
        "import time\n\ndef Settings(**settings): pass\n\n"
        "def init(**settings):\n    print('no answer yet', flush=True)\n    time.sleep(100)\n"
    )
    process = started(tmp_path, "no answer yet", "wandb_activate=True", *words, PYTHONPATH=str(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 75 and "SIGTERM: stopped with nothing to save." in err


@pytest.mark.slow
def test_an_evaluation_is_left_at_the_first_step_after_a_signal(tmp_path):
    process = started(tmp_path, "Ctrl-C saves", "task.episode_length=1_000_000", "task.fence=1e9")
    time.sleep(2.0)  # the first evaluation goes on for minutes
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "SIGINT: saving after this step; Ctrl-C leaves unsaved." in err
    assert "saved" in out and load(tmp_path / "r" / "checkpoints" / "last.pt")["evaluations"] == 0


@pytest.mark.slow
def test_a_terminal_that_closes_ends_a_run_saved(tmp_path):
    """The kernel sends SIGHUP, and whatever the run writes to the terminal from then on fails."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, "run_dir=r", "max_env_steps=10_000_000"]
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execve(command[0], command, {**ENV, "TERM": "xterm"})
    checkpoints, began = tmp_path / "r" / "checkpoints", time.monotonic()
    while not (tmp_path / "r" / "metrics.jsonl").exists() or not (tmp_path / "r" / "metrics.jsonl").stat().st_size:
        os.set_blocking(terminal, False)
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 65536)
        assert time.monotonic() - began < 100
        time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert load(checkpoints / "last.pt")["env_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGINT", 130)])
def test_signals_before_training_are_one_line(tmp_path, name, code):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, "run_dir=r", "max_env_steps=10_000_000"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "starting ...\n"
    time.sleep(0.3)  # into the imports, where an exception would be swallowed
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"{name}: stopped with nothing to save.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_last_save_that_fails_is_an_error(tmp_path):
    process = started(tmp_path, " / 10,000,000", "max_env_steps=10_000_000")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5_000, 5_000))  # no file beyond 5 kB: a full disk
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3 and "could not be saved there" in err and "Traceback" not in err
    assert "saved. Continue" not in out and "run_dir=r checkpoint=auto (from the beginning: nothing could" in err
    assert not list((tmp_path / "r" / "checkpoints").glob("replay_*"))
    again = script(*TOY, "run_dir=r", "checkpoint=auto", "max_env_steps=64", cwd=tmp_path)
    assert "there is no checkpoint: the run begins anew" in again.stdout and again.returncode == 0


@pytest.mark.slow
def test_refusals_have_their_exit_codes(whole, tmp_path):
    busy = script(*TOY, f"run_dir={whole}", cwd=tmp_path)
    assert busy.returncode == 2 and "add checkpoint=auto" in busy.stderr
    other = script(*TOY, f"run_dir={whole}", "checkpoint=auto", "agent.gamma=0.5", cwd=tmp_path)
    assert other.returncode == 2 and "agent.gamma 0.99 -> 0.5" in other.stderr
    torn = tmp_path / "torn.pt"
    torn.write_bytes((whole / "checkpoints" / "last.pt").read_bytes()[:-100])
    named = script(*TOY, f"checkpoint={torn}", cwd=tmp_path)
    assert named.returncode == 3 and "truncated" in named.stderr and "Traceback" not in named.stderr
    sizes = script(*TOY, f"checkpoint={whole}", "agent.actor.hidden=[8]", cwd=tmp_path)
    assert sizes.returncode == 3 and "does not fit" in sizes.stderr and "Traceback" not in sizes.stderr


@pytest.mark.slow
def test_test_measures_the_named_folder_and_not_a_newer_run(whole, tmp_path):
    newer = tmp_path / "runs" / "Toy" / "newer" / "checkpoints"
    newer.mkdir(parents=True)
    (newer / "last.pt").write_bytes(b"of another run")
    done = script(*TOY, "test=True", "checkpoint=auto", f"run_dir={whole}", "num_envs=128", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["checkpoint"] == str(whole / "checkpoints" / "last.pt")


@pytest.mark.slow
def test_a_run_made_meanwhile_in_the_planned_folder_is_left_alone(whole, tmp_path, monkeypatch, capsys):
    from dima_isaac.run.plan import Plan

    monkeypatch.setattr(train, "plan", lambda cfg: Plan(Path(cfg.run_dir), None))
    before = (whole / "config.yaml").read_bytes()
    assert cli.main(["train", *TOY, f"run_dir={whole}"]) == 2
    assert "another process has made a run" in capsys.readouterr().err
    assert (whole / "config.yaml").read_bytes() == before
