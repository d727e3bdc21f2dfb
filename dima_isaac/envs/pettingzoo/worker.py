"""A worker process with a part of the environments. Torch-free.

A command is one byte; the answer is ``ok`` or a traceback. Everything else goes through shared memory.
"""

import importlib
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from dima_isaac.errors import UsageError

STEP, RESET, STOP = b"s", b"r", b"q"
OK = "ok"


@dataclass(frozen=True)
class Layout:
    """The numbers that an environment and the learner exchange, and each agent's part of them."""

    agents: tuple[str, ...]
    obs: tuple[int, ...]  # numbers that each agent observes
    actions: tuple[int, ...]  # numbers of each agent's action

    @property
    def row(self) -> np.dtype:
        """One environment's row of the shared memory."""
        numbers = [
            ("seed", np.int64),
            ("state", np.float32, (sum(self.obs),)),
            ("action", np.float32, (len(self.agents), max(self.actions))),
            ("reward", np.float32),
            *((name, np.bool_) for name in ("mask", "terminal", "truncated")),
        ]
        return np.dtype(numbers, align=True)  # as torch's strides need it


def make_env(env_id: str, arguments: dict[str, Any]) -> Any:
    """Make the environment: ``package.module:factory``, or a module that has PettingZoo's ``parallel_env``.

    Raises:
        UsageError: no such module or factory, whatever either of them raises, or what it makes is no ``ParallelEnv``.
    """
    module, _, name = env_id.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name or "parallel_env")
    except (Exception, SystemExit) as error:  # the user's code, here and below
        raise UsageError(
            f"env_id='{env_id}' cannot be made: {error}. Write package.module:factory, or a module with parallel_env."
        ) from error
    try:
        env = factory(**arguments)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"env_id='{env_id}' cannot be made with env_args={arguments}: {why}.") from error
    if hasattr(env, "agent_iter"):
        raise UsageError(f"env_id='{env_id}' makes agents take turns; pettingzoo.utils.aec_to_parallel ends that.")
    if not hasattr(env, "possible_agents") or not hasattr(env, "observation_space"):
        raise UsageError(f"env_id='{env_id}' makes a {type(env).__name__}, which is not a PettingZoo ParallelEnv.")
    return env


def action_size(space: Any) -> int:
    """Numbers in [-1, 1] that choose an action of ``space``: as many as a Box has, or one per choice.

    Raises:
        UsageError: a space that is neither, or a Box without bounds.
    """
    if _discrete(space):
        return int(space.n)
    if getattr(space, "shape", None) is not None and hasattr(space, "low"):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise UsageError(f"an action space without bounds, to which [-1, 1] could be mapped: {space}.")
        return int(np.prod(space.shape))
    raise UsageError(f"an action space that is neither Box nor Discrete: {space}.")


def decode_action(space: Any, action: np.ndarray) -> Any:
    """The element of ``space`` that numbers in [-1, 1] choose."""
    if _discrete(space):
        return int(np.argmax(action)) + int(getattr(space, "start", 0))
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    scaled = low + (np.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
    if np.issubdtype(space.dtype, np.integer):
        scaled = scaled.round()
    return scaled.astype(space.dtype).reshape(space.shape)


def _discrete(space: Any) -> bool:
    """Whether it is Discrete; MultiBinary has an ``n`` too."""
    return hasattr(space, "n") and space.shape == ()


class Environments:
    """One process's environments and their ``rows`` of the shared memory."""

    def __init__(self, envs: list[Any], layout: Layout, rows: np.ndarray) -> None:
        self.layout, self.rows, self.envs = layout, rows, envs
        self.spaces = {name: envs[0].action_space(name) for name in layout.agents}

    def advance(self, command: bytes) -> None:
        """Start episodes where the mask is set; with ``STEP`` the others take a control step."""
        for row, env in zip(self.rows, self.envs, strict=True):
            if row["mask"]:
                obs, _ = env.reset(seed=int(row["seed"]))
                self._write_state(row, obs)
                row["reward"], row["terminal"], row["truncated"] = 0.0, False, False
            elif command == STEP:
                self._step(row, env)

    def _step(self, row: Any, env: Any) -> None:
        actions = {
            name: decode_action(self.spaces[name], row["action"][k, : self.layout.actions[k]])
            for k, name in enumerate(self.layout.agents)
            if name in env.agents
        }
        obs, rewards, terminations, truncations, _ = env.step(actions)
        self._write_state(row, obs)
        row["reward"] = np.mean(list(rewards.values())) if rewards else 0.0
        over = not env.agents or all(terminations[a] or truncations[a] for a in terminations)
        row["terminal"] = over and any(terminations.values())
        row["truncated"] = over and not any(terminations.values())

    def _write_state(self, row: Any, obs: dict[str, Any]) -> None:
        start = 0
        for name, size in zip(self.layout.agents, self.layout.obs, strict=True):
            seen = obs.get(name)  # an agent that has left observes zeros
            if seen is not None and np.size(seen) != size:  # one number would be written everywhere
                raise ValueError(f"{name} observes {np.size(seen)} numbers; its observation_space has {size}")
            row["state"][start : start + size] = 0.0 if seen is None else np.asarray(seen).reshape(-1)
            start += size


def serve(
    pipe: Connection, memory: Any, env_id: str, arguments: dict[str, Any], layout: Layout, first: int, last: int
) -> None:
    """The process's main: make environments ``first`` to ``last`` - 1, then execute commands until ``STOP``."""
    # a terminal and a scheduler send these to the learner's whole process group; the learner saves, still stepping, and
    # then sends STOP. A handler instead of SIG_IGN, which programs started by the environment would inherit
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        rows = np.frombuffer(memory, layout.row)[first:last]
        own = Environments([make_env(env_id, arguments) for _ in rows], layout, rows)
        pipe.send(OK)
        while (command := pipe.recv_bytes()) != STOP:
            own.advance(command)
            pipe.send(OK)
    except EOFError:
        return  # the learner has ended
    except Exception:  # the environment is the user's code: whatever it raises is reported to the learner
        pipe.send(traceback.format_exc())
