"""A ParallelEnv whose numbers encode agent and column, and that dies or hangs on demand."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv


class Counter(ParallelEnv):
    """Agent a sees (seed, tick), b sees (a's action, b's, tick). Ends at tick 4, by the clock at ``limit``."""

    metadata: dict[str, Any] = {"name": "counter"}  # noqa: RUF012
    render_mode = None
    possible_agents = ["a", "b"]  # noqa: RUF012

    def __init__(
        self, limit: int = 100, die_at: int = 0, hang_at: int = 0, only_once: str = "", nan: str = "", nan_at: int = 2
    ) -> None:
        self.limit, self.die_at, self.hang_at, self.only_once = limit, die_at, hang_at, only_once
        self.nan, self.nan_at = nan, nan_at  # "reward", "obs" or "one" (number instead of two), and the tick
        self.agents: list[str] = []
        self.life = 0

    def observation_space(self, agent: str) -> Box:
        return Box(-np.inf, np.inf, (2,) if agent == "a" else (3,), np.float64)

    def action_space(self, agent: str) -> Any:
        return Box(np.array([0.0, 10.0]), np.array([1.0, 20.0]), dtype=np.float64) if agent == "a" else Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.agents, self.tick, self.seed = ["a", "b"], 0, seed or 0
        return self._observe(0.0, 0.0), {"a": {}, "b": {}}

    def step(self, actions: dict[str, Any]) -> Any:
        self.tick += 1
        self.life += 1
        if self._due(self.die_at):
            os._exit(9)
        if self._due(self.hang_at):
            time.sleep(60)
        terminal, truncated = self.tick == 4, self.tick == self.limit
        obs = self._observe(float(actions["a"][1]), float(actions["b"]))
        reward = {"a": 1.0, "b": float("nan") if (self.nan, self.nan_at) == ("reward", self.tick) else 2.0}
        flags = [{name: flag for name in self.agents} for flag in (terminal, truncated)]
        if terminal or truncated:
            self.agents = []
        return obs, reward, *flags, {"a": {}, "b": {}}

    def _due(self, at: int) -> bool:
        """Once in a lifetime, and with ``only_once`` (a file) once in all."""
        if not at or self.life != at:
            return False
        if not self.only_once:
            return True
        try:
            open(self.only_once, "x").close()  # exactly one of several workers succeeds
        except FileExistsError:
            return False
        return True

    def _observe(self, first: float, second: float) -> dict[str, np.ndarray]:
        if (self.nan, self.nan_at) == ("one", self.tick):
            return {"a": np.array([1.0]), "b": np.array([first, second, self.tick])}
        if (self.nan, self.nan_at) == ("obs", self.tick):
            first = float("nan")
        return {"a": np.array([float(self.seed), self.tick]), "b": np.array([first, second, self.tick])}


class Leaving(Counter):
    """a leaves at tick 2, b follows at tick 4: by the clock, or as ``end`` says. Takes the actions of who is there."""

    def __init__(self, end: str = "clock") -> None:
        super().__init__()
        self.end = end

    def step(self, actions: dict[str, Any]) -> Any:
        if set(actions) != set(self.agents):
            raise ValueError(f"actions of {set(actions)}, agents are {self.agents}")
        self.tick += 1
        here = self.agents
        over = {name: self.tick == (2 if name == "a" else 4) for name in here}
        self.agents = [name for name in here if not over[name]]
        terminal = {name: over[name] and (name == "a" or self.end == "terminal") for name in here}
        truncated = {name: over[name] and not terminal[name] for name in here}
        seen = self._observe(7.0, 8.0)
        obs, reward = {name: seen[name] for name in here}, {name: {"a": 1.0, "b": 2.0}[name] for name in here}
        return obs, reward, terminal, truncated, {name: {} for name in here}


class Fragile(Counter):
    """Its process dies in its second reset, once in all."""

    resets = 0

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.resets += 1
        self.life = self.resets
        if self._due(2):
            os._exit(9)
        self.life = 0
        return super().reset(seed, options)


def make(**arguments: Any) -> Counter:
    return Counter(**arguments)


def leaving(**arguments: Any) -> Leaving:
    return Leaving(**arguments)


def fragile(**arguments: Any) -> Fragile:
    return Fragile(**arguments)


def nobody() -> Counter:
    env = Counter()
    env.possible_agents = []
    return env


def in_turn() -> Any:
    from pettingzoo.utils import parallel_to_aec

    return parallel_to_aec(Counter())


def no_map() -> Counter:
    raise KeyError("no such map")


def leaves_the_program() -> Counter:
    sys.exit(0)
