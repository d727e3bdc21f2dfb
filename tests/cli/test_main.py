"""Which command runs, and what a user reads when it cannot."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from dima_isaac.cli import main as cli
from tests.cli.program import ENV, ROOT, TOY, script

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
    (["task=ShadowHandOver", "train.learn.round=0"], 2, "train.learn.round=0 is not at least 1."),
    (["task=ShadowHandOver", "test=True"], 2, "test=True needs checkpoint="),
    (["task=ShadowHandOver", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
    (["task=ShadowHandOver", "test=True", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
    (["task=ShadowHandOver", "checkpoint=~nobody/x"], 3, "there is no checkpoint ~nobody/x"),
    (["task=ShadowHandOver", "checkpoint=x.pt", "algo=ppo"], 3, "there is no checkpoint x.pt"),
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


def test_help_lists_tasks_and_keys(tmp_path):
    done = script("--help", cwd=tmp_path)
    assert done.returncode == 0 and "ShadowHandOver" in done.stdout
    for key in ("num_envs=auto", "algo=dima", "seed=0", "checkpoint=", "max_env_steps=1000000", "capture_video="):
        assert key in done.stdout


def test_a_missing_dependency_is_one_line(tmp_path):
    (tmp_path / "hydra.py").write_text("raise ModuleNotFoundError(\"No module named 'hydra'\", name='hydra')")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**ENV, "PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (2, "missing: hydra -> pip install -e .\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian", "task=Toy"], 2, "error: unknown command 'trian'; did you mean train? Known: bench, evaluate,"),
        (["--version"], 0, "dima-isaac 0."),
        (["play", "--version"], 0, "dima-isaac 0."),
        (["--help"], 0, "usage: dima {train,play,evaluate,export,plot,bench}"),
        ([], 2, "usage: dima {train,play,evaluate,export,plot,bench}"),
    ],
)
def test_a_command_is_needed(words, code, said, capsys):
    assert cli.main(words) == code
    out, err = capsys.readouterr()
    assert (out + err).startswith(said) and (out + err).count("\n") == 1


def test_an_import_that_fails_after_ctrl_c_is_the_interruption(monkeypatch, capsys):
    """The import that met it has swallowed it; what fails is another one."""

    def tool(*words):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise AttributeError("module 'numpy' has no attribute 'matrix'")

    monkeypatch.setattr("dima_isaac.tools.plot.main", tool)
    assert cli.main(["plot", "."]) == 130
    assert capsys.readouterr().err == "interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
