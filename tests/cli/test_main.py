"""The command line as a user meets it: fresh processes, real exit codes, the toy game as a stranger's plug-in."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from dima_isaac.cli import compose, train
from dima_isaac.cli import main as cli
from dima_isaac.cli.args import parse
from dima_isaac.errors import UsageError
from dima_isaac.run.checkpoint import FORMAT
from dima_isaac.run.sealed import load, save

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "cfg"), "task=Toy", "engine=toy", "preset=smoke"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "SECRET_API_KEY": "canary-93b0"}


def script(*words, cwd, name="train", **kw) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=ENV, stdin=subprocess.DEVNULL, **kw)


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


ERRORS = [
    (["task=ShadowHandOvr"], 2, "unknown task 'ShadowHandOvr'; did you mean ShadowHandOver?"),
    (["task=ShadowHandOver", "engine=mujco"], 2, "did you mean mujoco?"),
    (["task=ShadowHandOver", "preset=papr"], 2, "did you mean paper?"),
    (["task=ShadowHandOver", "agent.gama=1"], 2, "did you mean agent.gamma?"),
    (["task=ShadowHandOver", "task.episode_lenght=1"], 2, "did you mean task.episode_length?"),
    (["task=ShadowHandOver", "agent.gamma=2"], 2, "agent.gamma=2.0 is not between 0.0 and 1.0"),
    (["task=ShadowHandOver", "seed=-1"], 2, "seed=-1 is not between 0 and"),
    (["task=ShadowHandOver", "agent.actor.hidden=3"], 2, "agent.actor.hidden"),
    (["task=ShadowHandOver", "agent.gamma=[1"], 2, "agent.gamma"),
    (["task=ShadowHandOver", "checkpoint=auto", "run_dir=/dev/null/x"], 2, "is a file"),
    (["task=ShadowHandOver", "train.learn.round=0"], 2, "train.learn.round=0 is not between 1 and"),
    (["task=ShadowHandOver", "test=True"], 2, "test=True needs checkpoint="),
    (["task=ShadowHandOver", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
    (["task=ShadowHandOver", "test=True", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
    (["task=ShadowHandOver", "checkpoint=~nobody/x"], 3, "there is no checkpoint ~nobody/x"),
    (["task=ShadowHandOver", "checkpoint=x.pt", "algo=ppo"], 2, "algo=ppo cannot continue checkpoint=x.pt"),
    (["task=ShadowHandOver", "-m", "seed=1,2", "--cfg"], 2, "leave -m out"),
    ([], 2, "no task was given"),
]


@pytest.mark.parametrize(("words", "code", "said"), ERRORS, ids=lambda value: str(value)[:40])
def test_a_wrong_word_costs_one_sentence_and_no_torch(words, code, said, tmp_path):
    program = (
        "import sys; from dima_isaac.cli.main import main; "
        "code = main(['train', *sys.argv[1:]]); print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, *words]
    env = {**ENV, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.stdout.split() == [str(code), "False"], done.stderr
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing may be created"


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


def test_help_lists_tasks_and_keys(tmp_path):
    done = script("--help", cwd=tmp_path)
    assert done.returncode == 0 and "ShadowHandOver" in done.stdout
    for key in ("num_envs=auto", "algo=dima", "seed=0", "checkpoint=", "max_env_steps=1000000", "capture_video="):
        assert key in done.stdout


def test_cfg_prints_the_whole_tree(tmp_path):
    done = script(*TOY, "--cfg", "seed=7", cwd=tmp_path)
    printed = yaml.safe_load(done.stdout)
    assert (
        printed["seed"] == 7 and printed["world_model"]["denoiser"]["width"] == 32 and printed["task"]["fence"] == 3.0
    )


def test_a_missing_dependency_is_one_line(tmp_path):
    (tmp_path / "hydra.py").write_text("raise ModuleNotFoundError(\"No module named 'hydra'\", name='hydra')")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**ENV, "PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (2, "missing: hydra -> pip install -e .\n")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139 GiB",
        "Failed to allocate 8589934592 bytes on device 'cuda:0'",
    ],
)
def test_a_full_gpu_is_one_line(said, monkeypatch, capsys):
    def full(words):
        raise RuntimeError(said)

    monkeypatch.setattr(cli, "_dispatch", full)
    assert cli.main([]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "memory is full" in told and "lower num_envs" in told


@pytest.mark.parametrize("said", ["a mistake of ours", "Failed to allocate memory during graph capture"])
def test_other_errors_keep_their_traceback(said, monkeypatch):
    def wrong(words):
        raise RuntimeError(said)

    monkeypatch.setattr(cli, "_dispatch", wrong)
    with pytest.raises(RuntimeError, match=said):
        cli.main([])


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full(words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/config.yaml")

    monkeypatch.setattr(cli, "_dispatch", full)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "error: No space left on device (runs/config.yaml); make room, or choose another folder.\n"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One complete toy run, recorded offline by wandb too."""
    place = tmp_path_factory.mktemp("whole")
    done = script(*TOY, "run_dir=a", "wandb_activate=True", "train.checkpoint.keep=9", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "a"


@pytest.mark.slow
def test_the_end_says_what_to_do_next(tmp_path, capsys):
    assert cli.main(["train", *TOY, f"run_dir={tmp_path}/run"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-2:]
    assert last[0].startswith("finished") and last[0].endswith(f" checkpoint={tmp_path}/run")
    assert "evaluate" in last[0] and "play" in last[1]


def test_steps_that_do_not_fit_the_agents_are_refused_before_a_folder_is_made(tmp_path, capsys):
    assert cli.main(["train", *TOY, f"run_dir={tmp_path}/run", "world_model.denoiser.steps=3"]) == 2
    assert "choose a multiple of 2" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_leaves_what_the_contract_says(whole):
    written = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all({"env_steps", "wall_time"} <= set(row) for row in written)
    names = set().union(*written)
    assert {"train/return", "eval/return", "eval/success", "world/denoise", "world/reward", "agent/entropy"} <= names
    assert {"time/env_steps_per_s", "time/imagined_steps_per_s"} <= names
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
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_signals_save_and_exit(tmp_path, name, code):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, "run_dir=r", "max_env_steps=10_000_000"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if " / 10,000,000" in line:
            break
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "saved" in out and "run_dir=r checkpoint=auto" in out
    assert load(tmp_path / "r" / "checkpoints" / "last.pt")["env_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
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
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, "run_dir=r", "max_env_steps=10_000_000"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=pipe, stderr=pipe, text=True)
    for line in process.stdout:
        if " / 10,000,000" in line:
            break
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (5_000, 5_000))  # no file beyond 5 kB: a full disk
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3 and "could not be saved there" in err and "Traceback" not in err
    assert "saved. Continue" not in out and "run_dir=r checkpoint=auto" in err
    assert not list((tmp_path / "r" / "checkpoints").glob("replay_*"))


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agent.gamma=0.9,2"], "agent.gamma=2.0 is not between 0.0 and 1.0"),
        (["algo=dima,foo"], "unknown value of algo: 'foo'. Known: dima, mappo, ppo."),
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


def test_make_checks_names_and_overrides():
    from dima_isaac import make

    for words, said in (
        ({"task": "ShadowHandOvr"}, "did you mean ShadowHandOver"),
        ({"task": "ShadowHandOver", "engine": "mojoco"}, "did you mean mujoco"),
        ({"task": "ShadowHandOver", "episode_lenght": 3}, "did you mean episode_length"),
        ({"task": "ShadowHandOver", "device": "cuda:7"}, "cuda:7"),
    ):
        with pytest.raises(UsageError, match=said):
            make(**words, num_envs=1)


def test_make_s_overrides_reach_the_task():
    from dima_isaac import make

    env = make("ShadowHandOver", num_envs=2, engine="mujoco", seed=0, episode_length=9)
    assert env.spec.episode_length == 9 and env.reset().obs.shape == (2, 2, env.spec.dims.obs)
    env.close()
