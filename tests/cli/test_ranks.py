"""One run on two ranks as a user meets it: ``gpus=``, torchrun, signals, a rank that is killed, continuation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dima_isaac.cli import launch, main
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.sealed import load
from tests.cli.program import ENV, ROOT, TOY, script

TWO = [*TOY, "gpus=2", "rl_device=cpu", "train.eval.every=0"]


def same(a, b) -> bool:
    """Equality of nested dictionaries and lists of tensors, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def done(*words, cwd: Path) -> subprocess.CompletedProcess:
    finished = script(*words, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished


def saved(folder: Path) -> dict:
    """The newest checkpoint, with the replay's rows of all environments."""
    state = load(folder / "checkpoints" / "last.pt")
    parts = [load(folder / "checkpoints" / segment["file"]) for segment in state["replay"]["segments"]]
    state["replay"]["segments"] = {name: torch.cat([rows[name] for rows in parts]) for name in parts[0]}
    del state["config"]
    return state


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["env_steps"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_continued_equals_uninterrupted_and_other_numbers_of_ranks_continue_too(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done(*TWO, "run_dir=whole", "max_env_steps=256", cwd=tmp_path)
    done(*TWO, "run_dir=parts", "max_env_steps=136", cwd=tmp_path)
    done(*TWO, "run_dir=parts", "max_env_steps=256", "checkpoint=auto", cwd=tmp_path)
    two = saved(parts)
    assert same(saved(whole), two)
    assert len(two["ranks"]) == 2 and not same(*(own["env"] for own in two["ranks"]))
    assert two["replay"]["segments"]["state"].shape[:2] == (64, 4)

    done(*TWO, "gpus=1", "run_dir=parts", "max_env_steps=256", "checkpoint=auto", cwd=tmp_path)
    one = saved(parts)
    assert "ranks" not in one and one["env"]["time"].shape == (4,)
    for name in ("agent", "world", "schedule", "env_steps", "fitted_steps"):
        assert same(one[name], two[name]), name
    assert same(one["replay"]["segments"], two["replay"]["segments"])
    assert same(one["agent_optim"]["actor"], two["agent_optim"]["actor"])

    done(*TWO, "gpus=1", "run_dir=parts", "max_env_steps=320", "checkpoint=auto", cwd=tmp_path)
    again = done(*TWO, "run_dir=parts", "max_env_steps=384", "checkpoint=auto", cwd=tmp_path)
    assert again.stdout.count("continuing at 320") == 1 and "gpus=2" in again.stdout
    state = saved(parts)
    assert state["env_steps"] == 384 and state["replay"]["segments"]["state"].shape[:2] == (96, 4)
    first_after = state["replay"]["segments"]["first"][80]
    assert first_after.all()  # new episodes in every environment
    assert steps(parts) == sorted(steps(parts))


def start(log: Path, *words: str) -> tuple[subprocess.Popen, list[int]]:
    """A run without an end on two ranks that has begun to learn, and its ranks' process numbers."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TWO, "max_env_steps=1000000", *words]
    with log.open("w") as file:
        launcher = subprocess.Popen(command, cwd=log.parent, stdout=file, stderr=subprocess.STDOUT, env=ENV)
    give_up = time.monotonic() + 120
    while "denoise" not in log.read_text() and launcher.poll() is None and time.monotonic() < give_up:
        time.sleep(0.2)
    assert "denoise" in log.read_text(), log.read_text()
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return launcher, [int(pid) for pid in children]


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_and_a_killed_rank_costs_no_more_than_its_newest_rows(tmp_path):
    launcher, (_, second) = start(tmp_path / "a.log", "run_dir=a")
    os.kill(second, signal.SIGTERM)
    assert launcher.wait(60) == 75 and "SIGTERM: saved" in (tmp_path / "a.log").read_text()
    before = saved(tmp_path / "a")
    for killed in (1, 0):
        launcher, pids = start(tmp_path / f"{killed}.log", "run_dir=a", "checkpoint=auto")
        os.kill(pids[killed], signal.SIGKILL)
        assert launcher.wait(30) == 6
        assert f"rank {1 - killed} has lost another rank" in (tmp_path / f"{killed}.log").read_text()
        after = saved(tmp_path / "a")
        assert after["env_steps"] > before["env_steps"] and after["ranks"] == []
        assert after["replay"]["segments"]["state"].shape[:2] == (after["env_steps"] // 4, 4)
        kept = len(before["replay"]["segments"]["state"])
        assert torch.equal(after["replay"]["segments"]["state"][:kept], before["replay"]["segments"]["state"])
        before = after


@pytest.mark.slow
def test_torchrun_starts_the_ranks_of_one_run(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words = [*TOY, "max_env_steps=128", "run_dir=a", "algo=sac"]
    ended = subprocess.run([*command, str(ROOT / "scripts" / "train.py"), *words], cwd=tmp_path, env=ENV,
                           capture_output=True, text=True)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("finished") == 1 and "torchrun --nproc-per-node=2" in ended.stdout
    state = saved(tmp_path / "a")
    assert state["env_steps"] == 128 and len(state["ranks"]) == 2
    assert state["replay"]["segments"]["state"].shape[:2] == (32, 4)


@pytest.mark.slow
def test_environments_that_cannot_be_shared_equally_are_refused_once(tmp_path):
    ended = script(*TWO, "num_envs=5", cwd=tmp_path)
    assert ended.returncode == 2 and not (tmp_path / "runs").exists()
    assert ended.stderr.count("num_envs=5 is over all 2 ranks and cannot be shared equally; take num_envs=6") == 1


def test_what_learns_in_one_process_is_refused_on_several(monkeypatch, capsys):
    for words in (["algo=ppo", "gpus=2"], ["test=True", "checkpoint=x", "gpus=2"]):
        assert main.main(["train", *TOY, *words]) == 2
        assert "in one process: gpus=1" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main.main(["train", *TOY, "-m", "seed=1,2"]) == 2
    assert "gpus=N" in capsys.readouterr().err


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert launch.number(RunConfig(gpus="all")) == 3 and launch.number(RunConfig(gpus=2)) == 2
    assert launch.number(RunConfig()) == 1 and launch.number(RunConfig(gpus=5, rl_device="cpu")) == 5
    with pytest.raises(UsageError, match="gpus=4, but torch sees 3"):
        launch.number(RunConfig(gpus=4))


@pytest.mark.parametrize(("text", "said"), [("0", "not between 1 and 1_024"), ("some", "a whole number or all"),
                                            ("auto", "a whole number or all"), ("all", "")])  # fmt: skip
def test_the_number_of_gpus_is_a_number_or_all(text, said, capsys):
    assert main.main(["train", *TOY, f"gpus={text}", "--cfg"]) == (2 if said else 0)
    assert said in capsys.readouterr().err


SRUN = """#!/usr/bin/env bash
while [ "$1" != bash ]; do shift; done
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids="$pids $!"; done
echo $pids > pids
worst=0
for pid in $pids; do wait $pid; code=$?; [ $code -gt $worst ] && worst=$code; done
exit $worst
"""


@pytest.mark.slow
def test_the_batch_script_starts_the_ranks_and_goes_back_into_the_queue(tmp_path):
    """With stand-ins for SLURM's programs: two tasks on this machine, signalled as SLURM does before the time is up."""
    for name, text in {
        "srun": SRUN,
        "scontrol": '#!/usr/bin/env bash\n[ "$1" = show ] && echo 127.0.0.1 || echo "$@"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    slurm = {"JOB_ID": "71", "NTASKS": "2", "NTASKS_PER_NODE": "2", "CPUS_PER_TASK": "1", "JOB_NODELIST": "here"}
    env = {**ENV, **{f"SLURM_{key}": value for key, value in slurm.items()}, "PYTHON": sys.executable}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    log, words = tmp_path / "log", [*TOY, "max_env_steps=1000000", "rl_device=cpu"]
    command = ["bash", str(ROOT / "scripts" / "cluster" / "train.sbatch"), *words]
    with log.open("w") as file:
        job = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=file, stderr=subprocess.STDOUT)
    give_up = time.monotonic() + 120
    while "denoise" not in log.read_text() and job.poll() is None and time.monotonic() < give_up:
        time.sleep(0.2)
    for pid in (tmp_path / "pids").read_text().split():
        os.kill(int(pid), signal.SIGUSR1)
    assert job.wait(60) == 75, log.read_text()
    assert "requeue 71" in log.read_text()
    assert len(saved(tmp_path / "runs" / "cluster" / "71")["ranks"]) == 2
