"""Environments from a task's name, and the process's global state."""

import numpy as np
import pytest
import torch

from dima_isaac import make
from dima_isaac.config import Algo, RunConfig
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


def test_make_checks_names_and_overrides():
    for words, said in (
        ({"task": "ShadowHandOvr"}, "did you mean ShadowHandOver"),
        ({"task": "ShadowHandOver", "engine": "mojoco"}, "did you mean mujoco"),
        ({"task": "ShadowHandOver", "episode_lenght": 3}, "did you mean episode_length"),
        ({"task": "ShadowHandOver", "device": "cuda:7"}, "cuda:7"),
    ):
        with pytest.raises(UsageError, match=said):
            make(**words, num_envs=1)


def test_agents_with_equal_observations_and_no_id_are_refused():
    own = {"agent_conf": "2x3"}
    alike, apart, local = (
        build.build_env_by_name("HalfCheetah", 1, "mujoco", 0, "cpu", {**own, **more})
        for more in ({}, {"protocol": "harl"}, {"agent_obsk": "0"})
    )
    for algo in Algo:
        cfg = RunConfig(algo=algo)
        build.check_fit(cfg, alike)
        cfg.agent.actor.agent_id = False
        for env in (apart, local):
            build.check_fit(cfg, env)
        if algo in (Algo.ppo, Algo.mappo):
            build.check_fit(cfg, alike)
            continue
        with pytest.raises(UsageError, match="all 2 agents of HalfCheetah observe the same numbers"):
            build.check_fit(cfg, alike)


def test_make_s_overrides_reach_the_task():
    env = make("ShadowHandOver", num_envs=2, engine="mujoco", seed=0, episode_length=9)
    assert env.spec.episode_length == 9 and env.reset().obs.shape == (2, 2, env.spec.dims.obs)
    env.close()
