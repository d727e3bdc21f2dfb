"""What the machine refuses is one sentence with the cure; a mistake of ours keeps its traceback."""

import errno
import os
import resource
import subprocess
import sys
from types import ModuleType

import pytest

from dima_isaac.cli import main as cli
from dima_isaac.cli.explain import explain
from tests.cli.program import ENV, ROOT, TOY


def raised(error: Exception, package: str) -> Exception:
    """``error`` as raised by a function of ``package``."""
    try:
        exec("def fail(error):\n raise error\nfail(error)", {"__name__": package, "error": error})
    except type(error) as caught:
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "package", "said"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "x", "(CUDA out of memory)"),
        (
            RuntimeError("Failed to allocate 8589934592 bytes on device 'cuda:0'"),
            "x",
            "lower num_envs, replay.capacity",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. CPUAllocator: can't allocate memory: 9 bytes."),
            "dima_isaac.replay.ring",
            "memory is full (CPUAllocator: can't allocate memory: 9 bytes.); lower replay.capacity",
        ),
        (ValueError("Could not allocate memory"), "dima_isaac.sim.mujoco.engine", "lower num_envs or train.eval"),
        (MemoryError("std::bad_alloc"), "dima_isaac.agent.sac", "(std::bad_alloc); lower train.learn.dreams or scale."),
        (MemoryError(), "dima_isaac.world_model.world_model", "memory is full (MemoryError); lower train.learn."),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "x", "memory is full ("),
        (RuntimeError("can't start new thread"), "x", "lower threads or engine.threads."),
        (ValueError("thread constructor failed: Resource temporarily unavailable"), "x", "lower threads or engine."),
    ],
)
def test_too_little_memory_names_the_keys_to_lower(error, package, said):
    sentence = explain(raised(error, package))
    assert said in sentence and "\n" not in sentence


def test_the_innermost_package_decides_what_to_lower():
    inner = "def fail():\n raise MemoryError\n"
    names = {"__name__": "dima_isaac.replay.ring"}
    exec(inner, names)
    outer = {"__name__": "dima_isaac.sim.base", "fail": names["fail"]}
    with pytest.raises(MemoryError) as caught:
        exec("fail()", outer)
    assert "replay.capacity" in explain(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a mistake of ours"),
        RuntimeError("Failed to allocate memory during graph capture"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        AttributeError("no such thing", name="x", obj=os),
        ImportError("no such thing", name="dima_isaac.sim"),
    ],
)
def test_other_errors_keep_their_traceback(error, monkeypatch):
    def wrong(words):
        raise error

    monkeypatch.setattr(cli, "_dispatch", wrong)
    with pytest.raises(type(error)):
        cli.main([])


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "make room, or choose another folder"),
        (errno.EFBIG, "make room, or choose another folder"),
        (errno.ENAMETOOLONG, "choose another path"),
        (errno.EEXIST, "choose another path"),
        (errno.EIO, "see whether its disk is there"),
    ],
)
def test_a_full_disk_and_a_wrong_path_are_one_line(number, cure, monkeypatch, capsys):
    def full(words):
        raise OSError(number, os.strerror(number), "runs/config.yaml")

    monkeypatch.setattr(cli, "_dispatch", full)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == f"error: {os.strerror(number)} (runs/config.yaml); {cure}.\n"


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("module 'mujoco' has no attribute 'mjtStage'", name="mjtStage", obj=ModuleType("mujoco")),
        ModuleNotFoundError("No module named 'mujoco.batch'", name="mujoco.batch"),
        ImportError("cannot import name 'MjModel' from 'mujoco' (unknown location)", name="mujoco"),
    ],
)
def test_an_upgrade_of_mujoco_that_left_half_of_it_is_named(error):
    assert "pip uninstall -y mujoco mujoco-core && pip install -e ." in explain(error)


@pytest.mark.slow
def test_an_opengl_backend_that_is_not_there_is_named_with_its_cure(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "task=ShadowHandOver", "preset=smoke", "run_dir=r"]
    env = ENV | {"MUJOCO_GL": "nonsense"}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ended.returncode == 2 and "error: MUJOCO_GL=nonsense cannot be used here (" in ended.stderr
    assert "; unset it, which is fine" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["run_dir={0}"], ["run_dir=r", "checkpoint={0}"], ["--config-dir", "/tmp/{0}"]])
def test_an_overlong_path_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *TOY, *(word.format("x" * 5000) for word in words)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: File name too long (") and err.count("\n") == 1 and len(err) < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["replay.capacity=1e12"], "lower replay.capacity"),
        (["agent.critic.hidden=[1048576,1048576]"], "lower train.learn.dreams or scale"),
        (["task=HalfCheetah", "engine=mujoco", "num_envs=1e5", "engine.persistent=True"], "lower num_envs"),
    ],
)
def test_a_run_that_needs_more_memory_than_there_is_says_so(words, said, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, *words, "run_dir=r"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENV, preexec_fn=limit, timeout=100)
    assert done.returncode == 2 and done.stderr.startswith("error: memory is full ("), done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_paths_in_any_encoding_can_be_printed(tmp_path):
    for encoding, name in (("ascii", "hände".encode()), ("utf-8:strict", b"h\xffnde")):
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, b"run_dir=" + name, "max_env_steps=8"]
        env = {**ENV, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=env, timeout=100)
        assert done.returncode == 0 and b"run_dir=h\\" in done.stdout, done.stderr.decode()
