"""Episode rows of the vectorised environment, on a game small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dima_isaac import make
from dima_isaac.envs.noise import Noise
from dima_isaac.envs.tally import EpisodeTally
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Capabilities
from dima_isaac.types import Dims
from tests.toy import ToyEngine, ToyTask, toy_env


class Counter:
    """An engine whose state is the number of steps since the last reset, and the noise it started with."""

    capabilities = Capabilities(deterministic=True, on_host=True)

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.device = num_envs, torch.device("cpu")
        self.count = torch.full((num_envs,), -100.0)
        self.start = torch.zeros(num_envs)
        self.bad = torch.zeros(num_envs, dtype=torch.bool)
        self.break_next = torch.zeros(num_envs, dtype=torch.bool)

    def begin(self, mask: Tensor, start: Tensor) -> None:
        self.count = torch.where(mask, 0.0, self.count)
        self.start = torch.where(mask, start, self.start)

    def step(self, hold: Tensor) -> None:
        self.count = torch.where(hold, self.count, self.count + 1)
        self.bad = self.break_next
        self.count = torch.where(self.bad, float("nan"), self.count)
        self.break_next = torch.zeros_like(self.bad)

    def refresh(self, mask: Tensor) -> None:
        assert not self.count[mask].isnan().any()

    def stats(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count, "start": self.start}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count, self.start = state["count"].clone(), state["start"].clone()

    def close(self) -> None:
        pass


class Game(Task):
    """Ends itself when the count reaches ``ends[e]``; times out after four steps; pays the count."""

    def __init__(self, ends: list[int]) -> None:
        self.ends = torch.tensor(ends, dtype=torch.float32)
        self.spec = TaskSpec("Game", Dims(agents=1, state=2, obs=2, action=1), 4, 0.1, ("one",))
        self.action = torch.zeros(0)

    def bind(self, engine: Counter) -> None:
        self.action = torch.zeros(engine.num_envs)

    def reset(self, engine: Counter, mask: Tensor, noise: Noise) -> None:
        engine.begin(mask, noise.uniform(1)[:, 0])

    def act(self, engine: Counter, action: Tensor) -> None:
        self.action = action[:, 0, 0]

    def state(self, engine: Counter) -> Tensor:
        return torch.stack([engine.count, engine.start], 1)

    def observe(self, state: Tensor) -> Tensor:
        return state.unsqueeze(-2)

    def compute_reward(self, engine: Counter) -> Outcome:
        return Outcome(
            engine.count.clone(), engine.count >= self.ends, engine.count == 2, {"ticks": torch.ones_like(engine.count)}
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"action": self.action}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.action = state["action"].clone()


def play(env: VecEnv, ticks: int) -> list:
    return [env.step(torch.zeros(env.num_envs, 1, 1)) for _ in range(ticks)]


def rows(steps: list, env: int) -> list[tuple[float, float, bool, bool, bool]]:
    return [
        (s.state[env, 0].item(), s.reward[env].item(), bool(s.first[env]), bool(s.last[env]), bool(s.terminal[env]))
        for s in steps
    ]


def test_a_finished_episode_spends_its_next_tick_on_the_reset() -> None:
    env = VecEnv(Counter(3), Game([2, 4, 99]), seed=0)
    steps = [env.reset(), *play(env, 6)]
    begin = (0.0, 0.0, True, False, False)
    inside = [(float(n), float(n), False, False, False) for n in range(1, 4)]
    assert rows(steps, 0) == [
        begin,
        inside[0],
        (2.0, 2.0, False, True, True),
        begin,
        inside[0],
        (2.0, 2.0, False, True, True),
        begin,
    ]
    # the task's end on the last tick of the clock is still the task's end
    assert rows(steps, 1) == [begin, *inside, (4.0, 4.0, False, True, True), begin, inside[0]]
    # and a time-out is not one
    assert rows(steps, 2) == [begin, *inside, (4.0, 4.0, False, True, False), begin, inside[0]]


def test_starts_depend_on_seed_environment_and_episode_only() -> None:
    def starts(num_envs: int, ends: list[int], seed: int) -> list[float]:
        env = VecEnv(Counter(num_envs), Game(ends), seed)
        steps = [env.reset(), *play(env, 12)]
        return [s.state[1, 1].item() for s in steps if s.first[1]]

    reference = starts(2, [99, 99], 0)
    assert len(set(reference)) == len(reference) == 3
    assert starts(5, [1, 99, 2, 3, 1], 0) == reference
    assert starts(2, [99, 99], 1) != reference


def test_a_broken_environment_restarts_and_is_counted() -> None:
    env = VecEnv(Counter(3), Game([99, 99, 99]), seed=0)
    env.reset()
    play(env, 2)
    env.engine.break_next = torch.tensor([False, True, False])
    step = play(env, 1)[0]
    assert step.first.tolist() == [False, True, False]
    assert step.reward.tolist() == [3.0, 0.0, 3.0]
    assert step.state[:, 0].tolist() == [3.0, 0.0, 3.0]
    assert not step.last.any() and int(env.quarantined) == 1
    assert [s.last.tolist() for s in play(env, 4)] == [
        [True, False, True],
        [False] * 3,
        [False] * 3,
        [False, True, False],
    ]


def test_the_tally_is_the_mean_over_finished_episodes() -> None:
    env = VecEnv(Counter(2), Game([2, 99]), seed=0)
    env.reset()
    play(env, 5)
    out = {name: value.item() for name, value in env.tally.read().items()}
    # finished: two episodes of environment 0 (1 + 2 each), one of environment 1 (1 + 2 + 3 + 4)
    assert out["episodes"] == 3
    assert out["return"] == pytest.approx((3 + 3 + 10) / 3)
    assert out["length"] == pytest.approx((2 + 2 + 4) / 3)
    assert out["ticks"] == out["length"]
    assert out["success"] == 1.0  # each passed a count of two; the flag is latched
    assert env.tally.read()["episodes"] == 0


def test_a_restart_in_mid_episode_is_not_a_finished_episode() -> None:
    tally = EpisodeTally(1, torch.device("cpu"))
    yes, no = torch.tensor([True]), torch.tensor([False])
    for value, first, last in ((5.0, no, no), (0.0, yes, no), (2.0, no, yes)):
        tally.add({"return": torch.tensor([value])}, first, last)
    assert tally.read()["return"].item() == 2.0


def test_saved_and_loaded_it_continues() -> None:
    def fresh() -> VecEnv:
        env = VecEnv(Counter(3), Game([2, 3, 99]), seed=4)
        env.reset()
        return env

    straight = fresh()
    play(straight, 5)
    saved = straight.state_dict()
    resumed = fresh()
    resumed.load_state_dict(saved)
    for mine, theirs in zip(play(resumed, 7), play(straight, 7), strict=True):
        for name in ("state", "reward", "first", "last", "terminal"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
    assert resumed.tally.read() == straight.tally.read()


def test_a_wrong_action_is_refused() -> None:
    env = VecEnv(Counter(2), Game([9, 9]), seed=0)
    with pytest.raises(ValueError, match=r"\(2, 1, 1\), not \(2, 1\)"):
        env.step(torch.zeros(2, 1))


def test_a_closed_environment_takes_no_step() -> None:
    env = toy_env(2)
    env.reset()
    env.close()
    for use in (env.reset, lambda: env.step(torch.zeros(2, 2, 1))):
        with pytest.raises(RuntimeError, match="this environment is closed"):
            use()


@pytest.mark.parametrize("task", ["ShadowHandOver", "HalfCheetah"])
def test_an_action_that_is_no_number_costs_an_episode_and_is_counted(task: str) -> None:
    env = make(task, num_envs=2, engine="mujoco")
    env.reset()
    dims = env.spec.dims
    action = torch.zeros(2, dims.agents, dims.action)
    action[1, 0, 0] = math.nan
    row = env.step(action)
    assert row.first.tolist() == [False, True] and bool(row.state.isfinite().all()) and int(env.quarantined) == 1
    env.close()


def test_a_robot_faster_than_any_robot_is_broken() -> None:
    env = make("HalfCheetah", num_envs=2, engine="mujoco")
    env.reset()
    qpos, qvel = env.physics_state()
    qvel[1, 0] = 2_000.0
    env.set_physics_state(qpos, qvel)
    row = env.step(torch.zeros(2, env.spec.dims.agents, env.spec.dims.action))
    assert row.first.tolist() == [False, True] and int(env.engine.stats()["nonfinite"]) == 1
    env.close()


def test_a_reset_leaves_rows_already_handed_out_alone():
    env = toy_env(3, episode_length=5)
    env.reset()
    step = env.step(torch.zeros(3, 2, 1))
    env.reset()
    assert not step.last.any()


def test_rows_are_handed_out_on_the_learner_s_device():
    """``meta`` stands in for a second device: it takes copies of everything and mixes with nothing."""
    env = VecEnv(ToyEngine(3), ToyTask(5), 0, torch.device("meta"))
    env.reset()
    step = env.step(torch.zeros(3, 2, 1))
    assert {column.device.type for column in vars(step).values()} == {"meta"} == {env.success.device.type}
    assert env.engine.dof_pos.device.type == "cpu" == env.state_dict()["over"].device.type


def test_training_may_cut_episodes_off_earlier_than_the_task():
    env = VecEnv(Counter(2), Game([9, 2]), 0, time_limit=3)
    env.reset()
    rows = [env.step(torch.zeros(2, 1, 1)) for _ in range(4)]
    assert [row.last.tolist() for row in rows] == [[False, False], [False, True], [True, False], [False, False]]
    assert not rows[2].terminal[0] and rows[1].terminal[1], "a cut is not an end"
    assert VecEnv(Counter(1), Game([9]), 0, time_limit=50)._limit == 4, "never longer than the task's own"


def test_inconsistent_settings_are_refused() -> None:
    env = toy_env(2)
    env.reset()
    with pytest.raises(TypeError, match="torch tensor, not ndarray"):
        env.step(np.zeros((2, 1, 1)))
    game = Game([99])
    game.spec = replace(game.spec, episode_length=0)
    with pytest.raises(UsageError, match=r"task\.episode_length=0 is too small"):
        VecEnv(Counter(1), game, seed=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda o: None, "Game returns NoneType, not an Outcome"),
        (
            lambda o: replace(o, reward=o.reward.mean()),
            r"reward must be a tensor of numbers \(2,\), not \(\)",
        ),
        (lambda o: replace(o, reward=o.reward[:, None]), r"reward must be .* not \(2, 1\)"),
        (
            lambda o: replace(o, terminal=o.terminal.float()),
            r"terminal must be a tensor of truth values \(2,\), not",
        ),
        (lambda o: replace(o, success=o.success.any()), "success must be"),
        (lambda o: replace(o, truncated=o.terminal.numpy()), "truncated must be .* not ndarray"),
        (lambda o: replace(o, terms={"ticks": 1.0}), r"terms\['ticks'\] must be a tensor of numbers \(2,\), not float"),
    ],
)
def test_what_a_task_returns_is_checked_at_its_first_step(wrong, said, monkeypatch) -> None:
    game, right = Game([9, 9]), Game.compute_reward
    monkeypatch.setattr(game, "compute_reward", lambda engine: wrong(right(game, engine)))
    with pytest.raises(UsageError, match=said):
        VecEnv(Counter(2), game, seed=0).reset()


def test_a_term_renamed_since_a_checkpoint_begins_at_zero() -> None:
    """Three episodes of one tick each: what the earlier version called ``throw`` is ``toss`` now."""
    first, last, value = torch.tensor([False]), torch.tensor([True]), torch.tensor([2.0])
    old, new = (EpisodeTally(1, torch.device("cpu")) for _ in range(2))
    old.add({"return": value, "throw": value}, first, last)
    new.load_state_dict(old.state_dict())
    for _ in range(2):
        new.add({"toss": value, "return": value}, first, last)
    means = {name: mean.item() for name, mean in new.read().items()}
    assert means == pytest.approx({"return": (2 + 4 + 6) / 3, "toss": (2 + 4) / 3, "episodes": 3.0})
