"""rl-games' PPO on our environments: the same folder, the same names, the same clock."""

from __future__ import annotations

import copy
import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dima_isaac import load_policy
from dima_isaac.agent.rl_games_actor import RlGamesActor
from dima_isaac.cli.main import main
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.envs.views.rl_games_vecenv import rows
from dima_isaac.errors import WorkerError
from dima_isaac.run.checkpoint import steps_in
from dima_isaac.run.sealed import load
from dima_isaac.types import Dims, Step
from tests.cli.test_train import same

pytestmark = pytest.mark.slow

pytest.importorskip("rl_games")
from rl_games.algos_torch.a2c_continuous import A2CAgent

from dima_isaac.training.baselines import _Observer, parameters


@pytest.mark.parametrize("algo", ["ppo", "mappo"])
def test_one_round_is_logged_as_the_trainer_logs(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["task=HalfCheetah", "engine=mujoco", f"algo={algo}", "num_envs=32", "max_env_steps=1000", f"run_dir={run}"]
    words += ["task.episode_length=40", "train.eval.episodes=2", "threads=1"]
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    assert "2,048 / 1,000 | return" in said and "continue with: " in said and "fps step" not in said
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # 64 ticks of 32 environments, not times two agents
    assert [row["env_steps"] for row in rows] == [2048]
    assert {"wall_time", "train/return", "eval/return", "eval/length"} <= rows[0].keys()
    assert not any("success" in name for name in rows[0])  # a cheetah has no goal
    assert rows[0]["train/episodes"] == 32.0 and rows[0]["eval/length"] == 40.0
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert any(value.shape == (256, 19) for value in saved["rl_games"]["model"].values() if value.ndim == 2)
    assert main(["evaluate", f"checkpoint={run}", "num_envs=2", "episodes=2", "explore=True"]) == 0
    assert main(["evaluate", f"checkpoint={run}", "num_envs=2", "episodes=2", "task.agent_conf=3x2"]) == 3
    assert "does not fit task HalfCheetah" in capsys.readouterr().err
    assert main(["play", f"checkpoint={run}", "world=dream", "num_envs=1", f"out={tmp_path}/x.gif"]) == 2
    assert f"algo={algo}, which has no world model" in capsys.readouterr().err
    assert main(["train", *words[:2], "algo=sac", f"checkpoint={run}", f"run_dir={tmp_path}/other", "threads=1"]) == 3
    said = capsys.readouterr().err
    assert "does not fit this run: it was made with other settings (" in said and f"algo {algo} -> sac" in said


CHEETAH = ["task=HalfCheetah", "engine=mujoco", "num_envs=32", "task.episode_length=40", "train.eval.episodes=2"]
CHEETAH += ["threads=1", "train.checkpoint.every=2048"]


@pytest.mark.parametrize("algo", ["ppo", "mappo"])
def test_continued_equals_uninterrupted_bit_for_bit(algo: str, tmp_path: Path) -> None:
    for name, ends in (("whole", (6144,)), ("parts", (2048, 6144))):
        for end in ends:
            words = [*CHEETAH, f"algo={algo}", f"run_dir={tmp_path}/{name}", "checkpoint=auto", f"max_env_steps={end}"]
            assert main(["train", *words, "train.eval.every=0"]) == 0
    ours, theirs = (load(tmp_path / name / "checkpoints" / "last.pt") for name in ("parts", "whole"))
    for state in (ours, theirs):
        state.pop("config")
    assert ours["env_steps"] == 6144 and same(ours, theirs)


def test_a_signal_saves_and_a_path_is_continued_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, left = _Observer.log, [2]

    def log(observer: _Observer, env_steps: int) -> None:
        policy(observer, env_steps)
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(_Observer, "log", log)
    assert main(["train", *CHEETAH, "algo=ppo", f"run_dir={tmp_path}/a", "train.checkpoint.every=0"]) == 75
    assert [path.name for path in steps_in(tmp_path / "a" / "checkpoints")] == ["step_4096.pt"]
    words = [*CHEETAH, "algo=ppo", f"run_dir={tmp_path}/b", f"checkpoint={tmp_path}/a", "max_env_steps=6144"]
    assert main(["train", *words]) == 0
    assert [path.name for path in steps_in(tmp_path / "b" / "checkpoints")] == ["step_4096.pt", "step_6144.pt"]
    assert main(["train", *words[:-2], "checkpoint=auto", "algo=sac"]) == 2  # another learner's run


@pytest.mark.parametrize("name", ["env_step", "train_actor_critic", "mode"])
def test_a_signal_undoes_a_round_and_a_continuation_makes_it_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second round, or in the evaluation after it: what is saved computes what an uninterrupted run does."""
    owner = RlGamesActor if name == "mode" else A2CAgent
    act, calls = getattr(owner, name), [0]
    words = [*CHEETAH, "algo=ppo", "max_env_steps=6144", "train.eval.every=4096", "checkpoint=auto"]
    assert main(["train", *words, f"run_dir={tmp_path}/whole"]) == 0

    def signalled(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] == {"env_step": 70, "train_actor_critic": 29, "mode": 60}[name]:
            signal.raise_signal(signal.SIGTERM)
        return act(*given)

    monkeypatch.setattr(owner, name, signalled)
    assert main(["train", *words, f"run_dir={tmp_path}/parts"]) == 75
    files = [path.name for path in steps_in(tmp_path / "parts" / "checkpoints")]
    assert files == (["step_2048.pt", "step_4096.pt"] if name == "mode" else ["step_2048.pt"])
    assert main(["train", *words, f"run_dir={tmp_path}/parts"]) == 0
    ours, theirs = (load(tmp_path / run / "checkpoints" / "last.pt") for run in ("parts", "whole"))
    for state in (ours, theirs):
        state.pop("config")
    assert same(ours, theirs)


@pytest.mark.parametrize(("times", "code"), [(1, 0), (2, 5)])
def test_networks_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, code: int
) -> None:
    log, left = _Observer.log, [times]

    def spoil(observer: _Observer, env_steps: int) -> None:
        log(observer, env_steps)
        if env_steps == 4096 and left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(observer.algo.model.parameters()).fill_(torch.nan)

    monkeypatch.setattr(_Observer, "log", spoil)
    words = [*CHEETAH, "algo=ppo", f"run_dir={tmp_path}", "max_env_steps=6144", "train.eval.every=0"]
    assert main(["train", *words]) == code
    kept = load(tmp_path / "checkpoints" / "last.pt")
    assert kept["env_steps"] == (2048 if code else 6144)
    assert all(value.isfinite().all() for value in kept["rl_games"]["model"].values())


def test_without_an_interval_only_the_last_evaluation_is_made(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["task=HalfCheetah", "engine=mujoco", "algo=ppo", "num_envs=32", "max_env_steps=4096", f"run_dir={run}"]
    assert (
        main(["train", *words, "task.episode_length=40", "train.eval.episodes=2", "train.eval.every=0", "threads=1"])
        == 0
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["env_steps"], "eval/return" in row) for row in rows] == [(2048, False), (4096, False), (4096, True)]


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
    assert load(run / "checkpoints" / "last.pt")["env_steps"] > 2 * 2048  # in the midst of a round


@pytest.mark.parametrize("algo", ["ppo", "mappo"])
def test_the_evaluated_policy_is_the_mode_of_the_one_that_learns(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees each agent's observation and number, in the model's own normalisation, and acts within [-1, 1]."""
    seen: list[tuple[Any, RlGamesActor]] = []
    evaluate = _Observer.evaluate

    def kept(observer: _Observer, env_steps: int) -> bool:
        done = evaluate(observer, env_steps)
        seen.append((copy.deepcopy(observer.algo.model), copy.deepcopy(observer.actor)))
        return done

    monkeypatch.setattr(_Observer, "evaluate", kept)
    assert main(["train", *CHEETAH, f"algo={algo}", f"run_dir={tmp_path}", "max_env_steps=4096"]) == 0
    model, actor = seen[-1]
    obs = 40.0 * torch.randn(5, 2, 17)
    given = {"is_train": False, "prev_actions": None, "obs": rows(obs), "rnn_states": None}
    with torch.no_grad():
        mean = model.eval()(given)["mus"].view(5, 2, 3)
        assert torch.equal(actor.mode(obs), mean.clamp(-1.0, 1.0)) and not bool((mean.abs() <= 1.0).all())
        actions, density = actor.act(obs[:1].expand(40_000, -1, -1), torch.Generator().manual_seed(0))
        deviation = model.a2c_network.sigma.exp().expand(2, -1)
        torch.testing.assert_close(actions.std(0), deviation, rtol=0.02, atol=0.0)
        torch.testing.assert_close(actions.mean(0), mean[0], rtol=0.0, atol=0.03)
        assert density.shape == actions.shape
    restored = load_policy(str(tmp_path))
    assert torch.equal(restored.act(obs), mean.clamp(-1.0, 1.0))


def test_evaluations_leave_the_random_numbers_of_training_alone(tmp_path: Path) -> None:
    for every in (0, 2048):
        words = [*CHEETAH, "algo=ppo", f"run_dir={tmp_path}/{every}", "max_env_steps=6144"]
        assert main(["train", *words, f"train.eval.every={every}"]) == 0
    ours, theirs = (load(tmp_path / str(every) / "checkpoints" / "last.pt") for every in (0, 2048))
    assert same(ours["rl_games"]["model"], theirs["rl_games"]["model"]) and same(ours["generator"], theirs["generator"])


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_four_minibatches_fill_a_round_of_any_number_of_environments(agents: int) -> None:
    for envs in (1, 3, 5, 8, 63, 2050):
        dims = Dims(agents=agents, state=3, obs=3, action=1)
        env = SimpleNamespace(num_envs=envs, device="cpu", spec=SimpleNamespace(dims=dims))
        view, run = SimpleNamespace(env=env), SimpleNamespace(path=Path("run"))
        config = parameters(RunConfig(threads=1), True, run, view)["config"]  # type: ignore[arg-type]
        ticks = config["horizon_length"]
        assert 4 * config["minibatch_size"] == ticks * envs * agents
        assert 4 * config["central_value_config"]["minibatch_size"] == ticks * envs
