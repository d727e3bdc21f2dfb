"""The baseline repeats the very steps that it is compared with."""

from __future__ import annotations

import numpy as np
import torch

from dima_isaac.bench.engine import bench_engine
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig


def make(envs: int, length: int) -> VecEnv:
    task = Catch(CatchConfig(episode_length=length))
    return VecEnv(MujocoEngine(task.scene(), envs, MujocoConfig(threads=2)), task, seed=0)


def test_a_replay_ends_where_the_engine_ended() -> None:
    env = make(3, length=5)
    env.reset()
    bare = env.engine.bare_physics()
    bare.record()
    generator = torch.Generator().manual_seed(0)
    for _ in range(9):  # five steps, a reset, three steps
        step = env.step(torch.randn(3, 2, 20, generator=generator))
    assert bare.replay() > 0.0
    bare.close()
    assert not step.first.any()
    for data, qpos in zip(bare._data, env.engine.batch.bind("qpos"), strict=True):
        assert np.array_equal(data.qpos, qpos)


def test_the_bench_reports_rates_and_their_ratio() -> None:
    out = bench_engine(make(2, length=75), seconds=0.0, steps=2)
    assert out["rounds"] == 3 and out["num_envs"] == 2 and out["substeps"] == 4
    assert out["env_steps_per_s"] > 0.0 and out["ratio"] > 0.0
    assert out["stats"] == {"nonfinite": 0, "contact_overflow": 0}
