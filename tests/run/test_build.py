"""Environments from a task's name, and the process's global state."""

import numpy as np
import pytest
import torch

from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import build


def test_a_gpu_named_by_no_index_is_the_learners(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for quiet in ("set_num_threads", "manual_seed", "set_float32_matmul_precision"):
        monkeypatch.setattr(torch, quiet, lambda *_: None)
    for device in ("cpu", "cuda:1"):
        build.set_global_state(RunConfig(rl_device=device, threads=1))
    assert chosen == ["cuda:1"]


def test_make_takes_numpys_whole_numbers():
    starts = []
    for number in (np.int64, int):
        env = build.build_env_by_name("HalfCheetah", number(2), "mujoco", number(91), "cpu", {})
        starts.append(env.reset().state)
    assert torch.equal(*starts)


@pytest.mark.parametrize(
    ("num_envs", "seed", "own", "said"),
    [
        (0, 0, {}, "num_envs=0 is not between 1 and"),
        ("4", 0, {}, "num_envs='4'"),
        (2.5, 0, {}, "num_envs=2.5"),
        (1, -1, {}, "seed=-1 is not between 0 and"),
        (1, 0, {"target": "os:system"}, "target says which code"),
    ],
)
def test_make_refuses_what_the_command_line_would(num_envs, seed, own, said):
    with pytest.raises(UsageError, match=said):
        build.build_env_by_name("HalfCheetah", num_envs, "mujoco", seed, "cpu", own)
