"""What the pretended device cannot show: the same on a real GPU, graphs and all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from dima_isaac import make
from dima_isaac.cli import main as cli
from tests.guard import no_synchronisation
from tests.pretend_gpu_cases import run, runs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
    pytest.mark.timeout(1200),  # the first run on a machine compiles Warp's kernels
]


@pytest.mark.parametrize("name", runs())
@pytest.mark.parametrize("played", [False, True], ids=["eager", "captured"])
def test_a_run_is_continued(name: str, played: bool) -> None:
    run(replace(runs()[name], compile=played), torch.device("cuda:0"))


def test_a_run_beside_physics_on_the_host_is_continued() -> None:
    run(runs()["default"], torch.device("cuda:0"), sim=torch.device("cpu"))


@pytest.mark.parametrize("name", ["ShadowHandOver", "Walker2d", "Reacher", "Pusher"])
def test_a_task_steps_and_never_waits(name: str) -> None:
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    env = make(name, num_envs=64, engine="mujoco_warp", seed=0, device="cuda:0")
    dims = env.spec.dims
    action = torch.rand(64, dims.agents, dims.action, device=env.device) * 2.0 - 1.0
    env.reset()
    env.step(action)
    with no_synchronisation(env.device):
        for _ in range(20):
            step = env.step(action)
    assert all(value.device == env.device for value in vars(step).values())
    assert bool(step.state.isfinite().all()) and int(env.engine.stats()["contact_overflow"]) == 0
    env.close()


def test_the_command_line_trains_continues_and_evaluates(tmp_path, capsys) -> None:
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    words = ["train", "task=ShadowHandOver", "preset=smoke", "engine=mujoco_warp", "sim_device=cuda", "num_envs=64"]
    words += [f"run_dir={tmp_path}/run", "checkpoint=auto"]
    for steps in (512, 1024):
        assert cli.main([*words, f"max_env_steps={steps}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["env_steps"] >= 1024 and rows[-1]["engine/nonfinite"] == 0
    for device in ("auto", "cpu"):
        asked = [f"checkpoint={tmp_path}/run", "num_envs=2", "episodes=2"]
        asked += [f"sim_device={device}", f"rl_device={device}"]
        assert cli.main(["evaluate", *asked]) == 0
