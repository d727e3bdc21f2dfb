"""E copies of a task as one environment of tensors: the only place that counts ticks and starts episodes.

A finished episode spends its next tick on the reset (dm_env's contract): that tick's action is ignored, its
row is ``first`` and its reward 0. So every tick writes one row, the terminal state is never overwritten, and
no side channel for final observations exists.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.envs.tally import EpisodeTally
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.types import Step


class VecEnv:
    """``reset() -> Step`` once, then ``step(action) -> Step`` as often as wanted. A tick is one call of ``step``."""

    def __init__(
        self, engine: Engine, task: Task, seed: int, device: torch.device | None = None, time_limit: int = 0
    ) -> None:
        """Bind ``task`` to ``engine``; starts are drawn from ``seed``, environment index and episode number.

        Rows are returned on ``device``, the learner's (the engine's if None); nothing is copied where both are one.
        ``time_limit`` > 0 truncates episodes after so many control steps, if the task does not end them earlier.

        Raises:
            UsageError: a task whose episodes have no step.
        """
        if task.spec.episode_length < 1:
            raise UsageError(f"task.episode_length={task.spec.episode_length} is too small; the least is 1.")
        self.engine, self.task, self.seed = engine, task, seed
        self.num_envs, self.device = engine.num_envs, device or engine.device
        task.bind(engine)
        self._limit = min(time_limit or task.spec.episode_length, task.spec.episode_length)
        on = engine.device
        self._time = torch.zeros(self.num_envs, dtype=torch.int64, device=on)  # control steps since the episode's start
        self._episode = torch.zeros(self.num_envs, dtype=torch.int64, device=on)  # its number, counted from 1
        self._over = torch.ones(self.num_envs, dtype=torch.bool, device=on)  # the next tick is a reset
        self._success = torch.zeros(self.num_envs, dtype=torch.bool, device=on)
        self._one = torch.ones(self.num_envs, device=on)
        self._closed = self._checked = False
        self._on_host = engine.capabilities.on_host
        self.tally = EpisodeTally(self.num_envs, engine.device)
        self.quarantined = torch.zeros((), dtype=torch.int64, device=on)
        """How often an environment whose physics failed was put back to a fresh start."""

    @property
    def spec(self) -> TaskSpec:
        return self.task.spec

    @property
    def success(self) -> Tensor:
        """(E,) bool: the goal was met at some time of the running episode (or of the one that just ended)."""
        return self._success.to(self.device)

    def reset(self, episode: int | None = None) -> Step:
        """Start a new episode everywhere: the next one, or number ``episode``, whatever came before."""
        if episode is not None:
            self._episode = torch.full_like(self._episode, episode - 1)
        self._over = torch.ones_like(self._over)  # a new tensor: the old one is the caller's ``last``
        dims = self.spec.dims
        return self.step(torch.zeros(self.num_envs, dims.agents, dims.action, device=self.engine.device))

    @torch.no_grad()
    def reset_where(self, mask: Tensor) -> Step:
        """Start a new episode where ``mask`` (E,) at once, without a tick: for trainers that reset within the step.

        Returns the rows that are current now; only those of ``mask`` are ``first``.
        """
        mask = mask.to(self.engine.device)
        self._stage_reset(mask)
        self.engine.refresh(mask)
        return self._restarted(mask)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Advance every environment one control step under ``action`` (E, N, A) in [-1, 1].

        An environment whose action is not finite fails: it starts anew and is counted in ``quarantined``.

        Raises:
            TypeError: an action that is no tensor.
            ValueError: an action of another shape.
            RuntimeError: after ``close``.
        """
        if self._closed:
            raise RuntimeError("this environment is closed; make another one")
        dims = self.spec.dims
        if not isinstance(action, Tensor):
            raise TypeError(f"action must be a torch tensor, not {type(action).__name__}: torch.as_tensor(action)")
        if action.shape != (self.num_envs, dims.agents, dims.action):
            raise ValueError(f"action must be {(self.num_envs, dims.agents, dims.action)}, not {tuple(action.shape)}")
        first = self._over
        self.task.act(self.engine, action.to(self.engine.device))
        self._stage_reset(first)
        self.engine.step(hold=first)
        first = self._quarantine(first)

        # few operations: each costs a kernel launch on a GPU, and cold caches between two physics steps on a CPU
        begins = not self._known_empty(first)
        self._time = self._time + 1
        outcome = self.task.compute_reward(self.engine)
        if not self._checked:
            _check(outcome, self.num_envs, self.spec.name)
            self._checked = True
        state = self.task.state(self.engine)
        reward = outcome.reward
        if begins:
            self._time.masked_fill_(first, 0)
            reward = reward.masked_fill(first, 0.0)
        terminal = outcome.terminal > first  # of booleans: a and not b
        last = (self._time >= self._limit).logical_or_(terminal)
        if outcome.truncated is not None:
            last |= outcome.truncated > first
        self._success = (self._success | outcome.success) > first
        self._over = last
        values = {"return": reward, "success": self._success & last, "length": self._one, **outcome.terms}
        self.tally.add(values, first, last, begins, ends=not self._known_empty(last))
        return self._row(state, reward, first, last, terminal)

    def episode_means(self) -> dict[str, Tensor]:
        """Means over the episodes finished since the last call, and their number ``episodes``.

        ``return``, ``length``, every term of the reward and, where the task has a goal, ``success``.
        """
        means = self.tally.read()
        if not self.spec.goal:
            means.pop("success", None)
        return means

    def physics_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Generalised positions and velocities, float64 arrays (E, nq), (E, nv)."""
        return self.task.physics_state()

    @torch.no_grad()
    def set_physics_state(self, qpos: Any, qvel: Any) -> Step:
        """Start an episode at qpos (E, nq), qvel (E, nv) wherever that is not the present state; the row seen there."""
        return self._restarted(self.task.set_physics_state(self.engine, qpos, qvel))

    def _stage_reset(self, mask: Tensor) -> None:
        if self._known_empty(mask):
            return
        self._episode = self._episode + mask
        self.task.reset(self.engine, mask, Noise(self.seed, self._episode, mask))

    def _restarted(self, mask: Tensor) -> Step:
        """Episode clocks at zero where ``mask``, and the rows that are current now."""
        self.tally.drop(mask)
        self._over = self._over & ~mask
        self._time = torch.where(mask, 0, self._time)
        self._success = self._success & ~mask
        state = self.task.state(self.engine)
        reward, nothing = torch.zeros_like(state[:, 0]), torch.zeros_like(mask)
        return self._row(state, reward, mask.clone(), nothing, nothing.clone())

    def _quarantine(self, first: Tensor) -> Tensor:
        """Put environments whose physics failed back to a fresh start; their row becomes a first row."""
        if self._known_empty(self.engine.bad):
            return first
        bad = self.engine.bad.clone()
        self.quarantined += bad.sum()
        self._stage_reset(bad)
        self.engine.refresh(bad)
        return first | bad

    def _known_empty(self, mask: Tensor) -> bool:
        """Whether ``mask`` (E,) is empty, as far as that is known without waiting for a device."""
        return self._on_host and not np.count_nonzero(mask.numpy())

    def _row(self, state: Tensor, *rest: Tensor) -> Step:
        if self.device != self.engine.device:
            state, *others = (column.to(self.device) for column in (state, *rest))
            rest = tuple(others)
        return Step(state, self.task.observe(state), *rest)

    def state_dict(self) -> dict:
        """Everything needed to continue bit for bit on a deterministic engine."""
        return {
            "engine": self.engine.state_dict(),
            "task": self.task.state_dict(),
            "tally": self.tally.state_dict(),
            "time": self._time,
            "episode": self._episode,
            "over": self._over,
            "success": self._success,
            "quarantined": self.quarantined,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``."""
        self.engine.load_state_dict(state["engine"])
        self.task.load_state_dict(state["task"])
        self.tally.load_state_dict(state["tally"])
        for name in ("time", "episode", "over", "success"):
            setattr(self, "_" + name, state[name].to(self.engine.device).clone())
        self.quarantined = state["quarantined"].to(self.engine.device).clone()

    def close(self) -> None:
        """Release the engine."""
        self._closed = True
        self.engine.close()


def _check(outcome: Any, envs: int, name: str) -> None:
    """Raise ``UsageError`` unless a task's first ``Outcome`` has the shapes and types of one: torch would broadcast."""
    if not isinstance(outcome, Outcome):
        raise UsageError(f"compute_reward of {name} returns {type(outcome).__name__}, not an Outcome.")
    flags = {"terminal": outcome.terminal, "success": outcome.success, "truncated": outcome.truncated}
    numbers = {"reward": outcome.reward, **{f"terms['{term}']": value for term, value in outcome.terms.items()}}
    for what, value in {**numbers, **flags}.items():
        is_flag = what in flags
        if isinstance(value, Tensor) and value.shape == (envs,) and (value.dtype == torch.bool) == is_flag:
            continue
        if value is None and what == "truncated":
            continue
        got = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        kind = "truth values" if is_flag else "numbers"
        raise UsageError(f"compute_reward of {name}: {what} must be a tensor of {kind} ({envs},), not {got}.")
