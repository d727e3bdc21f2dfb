"""rl-games' PPO on our environments: the same folder, the same names, the same clock."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dima_isaac.cli.main import main
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import WorkerError
from dima_isaac.types import Dims, Step

pytestmark = pytest.mark.slow

pytest.importorskip("rl_games")
from dima_isaac.train.baselines import _Observer, parameters


@pytest.mark.parametrize("algo", ["ppo", "mappo"])
def test_one_round_is_logged_as_the_trainer_logs(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["task=HalfCheetah", "engine=mujoco", f"algo={algo}", "num_envs=32", "max_env_steps=1000", f"run_dir={run}"]
    words += ["task.episode_length=40", "train.eval.episodes=2", "threads=1"]
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    assert "2,048 / 1,000 | return" in said and "a baseline cannot be continued" in said and "fps step" not in said
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # 64 ticks of 32 environments, not times two agents
    assert [row["env_steps"] for row in rows] == [2048]
    assert {"wall_time", "train/return", "eval/return", "eval/length"} <= rows[0].keys()
    assert not any("success" in name for name in rows[0])  # a cheetah has no goal
    assert rows[0]["train/episodes"] == 32.0 and rows[0]["eval/length"] == 40.0
    saved = torch.load(run / "checkpoints" / "rl_games_last.pth", weights_only=True)
    assert any(value.shape == (256, 19) for value in saved.values() if value.ndim == 2)
    # the same words again would begin anew over these networks
    assert main(["train", *words, "checkpoint=auto"]) == 2 and f"algo={algo} cannot continue" in capsys.readouterr().err


def test_no_evaluation_but_the_last_where_none_was_asked_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["task=HalfCheetah", "engine=mujoco", "algo=ppo", "num_envs=32", "max_env_steps=4096", f"run_dir={run}"]
    assert (
        main(["train", *words, "task.episode_length=40", "train.eval.episodes=2", "train.eval.every=0", "threads=1"])
        == 0
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ["eval/return" in row for row in rows] == [False, True]


def test_a_lost_worker_leaves_the_networks_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, left = VecEnv.step, [200]

    def lost(env: VecEnv, action: torch.Tensor) -> Step:
        left[0] -= 1
        if not left[0]:
            raise WorkerError("worker 0 died")
        return step(env, action)

    monkeypatch.setattr(VecEnv, "step", lost)
    run = tmp_path / "run"
    words = ["task=HalfCheetah", "engine=mujoco", "algo=ppo", "num_envs=32", "max_env_steps=9000", f"run_dir={run}"]
    assert main(["train", *words, "task.episode_length=20", "train.eval.episodes=1", "threads=1"]) == 6
    assert torch.load(run / "checkpoints" / "rl_games_last.pth", weights_only=True)


def test_the_evaluated_policy_is_the_mode_of_the_one_that_learns() -> None:
    """It sees each agent's observation and number, in the model's own normalisation, and acts within [-1, 1]."""

    class Model(torch.nn.Module):
        def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            assert not self.training and not batch["is_train"]
            return {"mus": batch["obs"]}

    observer = _Observer(RunConfig(), None, None, None, None, None)  # type: ignore[arg-type]
    observer.after_init(SimpleNamespace(model=Model()))
    obs = torch.tensor([[[0.5], [-3.0]], [[2.0], [0.25]]])
    assert observer.policy(obs).tolist() == [
        [[0.5, 1.0, 0.0], [-1.0, 0.0, 1.0]],
        [[1.0, 1.0, 0.0], [0.25, 0.0, 1.0]],
    ]
    assert observer.algo.model.training


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_four_minibatches_fill_a_round_of_any_number_of_environments(agents: int) -> None:
    for envs in (1, 3, 5, 8, 63, 2050):
        dims = Dims(agents=agents, state=3, obs=3, action=1)
        env = SimpleNamespace(num_envs=envs, device="cpu", spec=SimpleNamespace(dims=dims))
        view, run = SimpleNamespace(env=env), SimpleNamespace(path=Path("run"))
        config = parameters(RunConfig(), True, run, view)["config"]  # type: ignore[arg-type]
        ticks = config["horizon_length"]
        assert 4 * config["minibatch_size"] == ticks * envs * agents
        assert 4 * config["central_value_config"]["minibatch_size"] == ticks * envs
