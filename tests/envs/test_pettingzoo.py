"""Other people's environments in worker processes: what arrives, what ends, and what happens to lost workers."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from dima_isaac import make
from dima_isaac.envs.pettingzoo.worker import action_size, decode_action
from dima_isaac.errors import SimulationError, UsageError, WorkerError

pytestmark = pytest.mark.slow

TOY = "tests.envs.parallel_toy:make"


def toy(
    num_envs: int, workers: int = 1, patience: float = 5.0, seed: int = 0, env_id: str = TOY, **arguments: Any
) -> Any:
    options = {"env_id": env_id, "env_args": arguments, "workers": workers, "patience": patience}
    return make("pettingzoo", num_envs=num_envs, engine="mujoco", seed=seed, **options)


def test_every_number_reaches_its_column() -> None:
    env = toy(3, workers=2)
    assert (env.spec.dims.agents, env.spec.dims.state, env.spec.dims.obs, env.spec.dims.action) == (2, 5, 3, 3)
    assert env.spec.action_mask.tolist() == [[True, True, False], [True, True, True]]
    row = env.reset()
    seeds = row.state[:, 0]
    assert len(set(seeds.tolist())) == 3 and bool(row.first.all())
    action = torch.zeros(3, 2, 3)
    action[:, 0, 1] = torch.tensor([-1.0, 0.0, 2.0])  # a's second number: 10, 15, 20 (clipped)
    action[:, 1] = torch.eye(3)  # b's choice: environment i takes i
    row = env.step(action)
    assert row.state.tolist() == [[float(seeds[i]), 1.0, (10.0, 15.0, 20.0)[i], float(i), 1.0] for i in range(3)]
    assert row.obs[1].tolist() == [[float(seeds[1]), 1.0, 0.0], [15.0, 1.0, 1.0]]
    assert row.reward.tolist() == [1.5] * 3
    env.close()


def test_every_action_of_a_box_can_be_taken() -> None:
    signs = np.array([-1.0, 0.0, 1.0], dtype=np.float32)
    whole = Box(-128, 127, (3,), np.int8)
    assert decode_action(whole, signs).tolist() == [-128, 0, 127] and decode_action(whole, signs).dtype == np.int8
    few = Box(0, 3, (1,), np.int64)
    assert [int(decode_action(few, np.array([x]))[0]) for x in (-1.0, -0.3, 0.3, 0.9)] == [0, 1, 2, 3]
    shaped = decode_action(Box(0.0, 2.0, (3, 1), np.float32), 2.0 * signs)
    assert shaped.tolist() == [[0.0], [1.0], [2.0]] and shaped.dtype == np.float32


def test_a_discrete_space_may_start_anywhere() -> None:
    assert (
        action_size(Discrete(3, start=5)) == 3 and decode_action(Discrete(3, start=5), np.array([0.1, 0.9, 0.2])) == 6
    )


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Box(-np.inf, np.inf, (2,)), "without bounds"),
        (MultiBinary(3), "neither Box nor Discrete"),
        (MultiDiscrete([2, 3]), "neither Box nor Discrete"),
    ],
)
def test_action_spaces_without_a_vector_of_bounded_numbers_are_refused(space: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        action_size(space)


def test_terminations_and_time_limits_are_distinguished() -> None:
    ends = toy(1)
    clock = toy(1, limit=3)
    for env, tick, terminal in ((ends, 4, True), (clock, 3, False)):
        env.reset()
        rows = [env.step(torch.zeros(1, 2, 3)) for _ in range(tick + 1)]
        assert [bool(row.last[0]) for row in rows] == [False] * (tick - 1) + [True, False]
        assert bool(rows[tick - 1].terminal[0]) == terminal
        assert bool(rows[tick].first[0]) and float(rows[tick].state[0, 1]) == 0.0
        env.close()


@pytest.mark.parametrize("end", ["clock", "terminal"])
def test_agents_may_leave_one_after_the_other(end: str) -> None:
    """Who has left sees zeros, acts no more and is paid no more; the episode ends with the last one, and as he did."""
    env = toy(1, env_id="tests.envs.parallel_toy:leaving", end=end)
    seed = float(env.reset().state[0, 0])
    rows = [env.step(torch.zeros(1, 2, 3)) for _ in range(5)]
    assert [row.state[0].tolist() for row in rows[:4]] == [
        [seed, 1.0, 7.0, 8.0, 1.0],
        [seed, 2.0, 7.0, 8.0, 2.0],
        [0.0, 0.0, 7.0, 8.0, 3.0],
        [0.0, 0.0, 7.0, 8.0, 4.0],
    ]
    assert [float(row.reward[0]) for row in rows] == [1.5, 1.5, 2.0, 2.0, 0.0]
    assert [bool(row.last[0]) for row in rows] == [False, False, False, True, False]
    assert [bool(row.terminal[0]) for row in rows] == [False] * 3 + [end == "terminal", False]
    assert int(env.engine.stats()["restarts"]) == 0
    env.close()


def test_a_worker_lost_in_a_reset_loses_its_other_episodes_too(tmp_path: Path) -> None:
    env = toy(2, env_id="tests.envs.parallel_toy:fragile", only_once=str(tmp_path / "done"))
    env.reset()
    action = torch.zeros(2, 2, 3)
    env.step(action)
    begun = env.reset_where(torch.tensor([True, False]))
    assert float(begun.state[0, 1]) == 0.0 and int(env.engine.stats()["restarts"]) == 1
    row = env.step(action)
    assert row.first.tolist() == [False, True] and row.state[:, 1].tolist() == [1.0, 0.0]
    row = env.step(action)
    assert row.first.tolist() == [False, False] and row.state[:, 1].tolist() == [2.0, 1.0]
    env.close()


def test_a_continued_run_starts_anew() -> None:
    env = toy(2)
    env.reset()
    env.step(torch.zeros(2, 2, 3))
    env.load_state_dict(copy.deepcopy(env.state_dict()))
    row = env.step(torch.zeros(2, 2, 3))
    assert bool(row.first.all()) and row.state[:, 1].tolist() == [0.0, 0.0]
    env.close()


def test_closing_ends_the_workers_and_may_be_done_twice() -> None:
    env = toy(2, workers=2)
    processes = [worker.process for worker in env.engine.workers]
    env.close(), env.close()
    assert not any(process.is_alive() for process in processes)


def test_a_start_depends_on_its_seed_alone() -> None:
    one, other, third = toy(2), toy(3, workers=2), toy(2, seed=1)
    a, b, c = (env.reset().state for env in (one, other, third))
    assert torch.equal(a, b[:2]) and not torch.equal(a, c)
    for env in (one, other, third):
        env.close()


@pytest.mark.parametrize(("fault", "said"), [("die_at", "died with exit code 9"), ("hang_at", "gave no answer")])
def test_a_lost_worker_is_replaced_once(
    fault: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = toy(2, workers=2, patience=1.0, only_once=str(tmp_path / "done"), **{fault: 2})
    env.reset()
    rows = [env.step(torch.zeros(2, 2, 3)) for _ in range(3)]
    firsts = torch.stack([row.first for row in rows])
    # one environment was lost at the second tick and begins there; the other never noticed
    assert firsts.sum(0).sort().values.tolist() == [0, 1] and bool(firsts[1].any())
    assert said in caplog.text and "worker " in caplog.text
    assert int(env.quarantined) == 1 and int(env.engine.stats()["restarts"]) == 1
    env.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_to_the_learner_do_not_stop_its_workers(number: signal.Signals) -> None:
    """Ctrl-C and a scheduler reach every process of the job; the learner has a round to finish before it saves."""
    env = toy(2, workers=2)
    env.reset()
    for worker in env.engine.workers:
        os.kill(worker.process.pid, number)
    time.sleep(0.2)
    rows = [env.step(torch.zeros(2, 2, 3)) for _ in range(2)]
    assert not any(bool(row.first.any()) for row in rows) and int(env.engine.stats()["restarts"]) == 0
    env.close()


def test_a_program_that_never_closes_its_environment_ends() -> None:
    lines = ["from tests.envs.test_pettingzoo import toy", "if __name__ == '__main__':", "    env = toy(1)"]
    program = "\n".join([*lines, "    print(float(env.reset().reward[0]))"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0.0\n"


@pytest.mark.parametrize("what", ["obs", "reward", "action"])
def test_what_is_not_finite_never_arrives(what: str) -> None:
    """The environment starts anew and is counted, as one whose physics breaks."""
    env = toy(2, nan=what, limit=3)
    env.reset()
    action = torch.zeros(2, 2, 3)
    assert not bool(env.step(action).first.any())
    if what == "action":
        action[:, 1, 2] = torch.nan
    row = env.step(action)
    assert row.first.tolist() == [True, True] and row.reward.tolist() == [0.0, 0.0]
    assert row.state[:, 1].tolist() == [0.0, 0.0] and bool(row.state.isfinite().all())
    assert int(env.quarantined) == 2 and int(env.engine.stats()["restarts"]) == 0
    env.close()


def test_the_action_of_a_held_environment_is_ignored() -> None:
    env = toy(1, limit=1)
    env.reset()
    assert bool(env.step(torch.zeros(1, 2, 3)).last[0])
    assert bool(env.step(torch.full((1, 2, 3), torch.nan)).first[0]) and int(env.quarantined) == 0
    env.close()


def test_an_environment_whose_first_state_is_not_finite_is_an_error() -> None:
    env = toy(1, nan="obs", nan_at=0)
    with pytest.raises(SimulationError, match="begins its episodes"):
        env.reset()
    env.close()


def test_observations_of_another_size_are_not_spread_out() -> None:
    env = toy(1, nan="one")
    env.reset()
    env.step(torch.zeros(1, 2, 3))
    with pytest.raises(WorkerError, match="a observes 1 numbers; its observation_space has 2"):
        for _ in range(4):
            env.step(torch.zeros(1, 2, 3))


def test_an_environment_that_breaks_in_every_episode_ends_the_run() -> None:
    env = toy(2, nan="reward", nan_at=2)
    env.reset()
    with pytest.raises(SimulationError, match="each of 2 environments became non-finite 100 times"):
        for _ in range(201):
            env.step(torch.zeros(2, 2, 3))
    assert int(env.engine.stats()["nonfinite"]) == 200
    env.close()


def test_a_worker_that_takes_too_long_to_start_names_the_key_to_raise() -> None:
    with pytest.raises(WorkerError, match=r"it gave no answer within task.start_patience=0.05 s"):
        make("pettingzoo", env_id=TOY, num_envs=1, engine="mujoco", start_patience=0.05)


def test_the_second_loss_is_final() -> None:
    env = toy(1, die_at=1)
    env.reset()
    env.step(torch.zeros(1, 2, 3))
    with pytest.raises(WorkerError, match=r"worker 0 \(environments 0 to 0\) died .*replaced before"):
        env.step(torch.zeros(1, 2, 3))


def test_wrong_names_are_refused() -> None:
    for env_id, said in (("", "env_id"), ("tests.envs.nothing", "cannot be made"), ("math:sqrt2", "cannot be made")):
        with pytest.raises(UsageError, match=said):
            make("pettingzoo", env_id=env_id, num_envs=1, engine="mujoco")
    for env_id, said in (
        ("json:loads", r"env_args=\{\}: .*argument"),
        ("os:getcwd", "makes a str, which is not"),
        ("tests.envs.parallel_toy:nobody", "possible_agents is empty"),
        ("tests.envs.parallel_toy:in_turn", "aec_to_parallel"),
        ("tests.envs.parallel_toy:no_map", r"env_args=\{\}: KeyError: 'no such map'"),
        ("tests.envs.parallel_toy:leaves_the_program", r"env_args=\{\}: SystemExit: 0"),
    ):
        with pytest.raises(UsageError, match=said):
            make("pettingzoo", env_id=env_id, num_envs=1, engine="mujoco")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"workers": -1}, "task.workers=-1 is not between 0 and 1_024"),
        ({"patience": 0.0}, "task.patience=0.0 is not above 0"),
        ({"start_patience": -1.0}, "task.start_patience=-1.0 is not above 0"),
    ],
)
def test_numbers_of_workers_and_seconds_have_a_range(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make("pettingzoo", env_id=TOY, num_envs=1, engine="mujoco", **wrong)
