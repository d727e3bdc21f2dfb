"""A worker process with a part of the environments. Torch-free.

A command is one byte; the answer is ``ok`` or a traceback. Everything else goes through the shared arrays.
"""

from __future__ import annotations

import importlib
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from dima_isaac.errors import UsageError

STEP, RESET, STOP = b"s", b"r", b"q"
OK = "ok"


@dataclass(frozen=True)
class Layout:
    """Sizes of the shared arrays, and of each agent's part in them."""

    envs: int
    agents: tuple[str, ...]
    obs: tuple[int, ...]  # numbers that each agent observes
    actions: tuple[int, ...]  # numbers of each agent's action

    def arrays(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Name -> type and shape of every shared array, in the order of memory."""
        return {
            "seed": (np.int64, (self.envs,)),
            "state": (np.float32, (self.envs, sum(self.obs))),
            "action": (np.float32, (self.envs, len(self.agents), max(self.actions))),
            "reward": (np.float32, (self.envs,)),
            "mask": (np.bool_, (self.envs,)),
            "terminal": (np.bool_, (self.envs,)),
            "truncated": (np.bool_, (self.envs,)),
        }

    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for kind, shape in self.arrays().values())

    def on(self, buffer: Any) -> dict[str, np.ndarray]:
        """The arrays on a shared block."""
        out, offset = {}, 0
        for name, (kind, shape) in self.arrays().items():
            out[name] = np.ndarray(shape, kind, buffer, offset)
            offset += out[name].nbytes
        return out


def make_env(env_id: str, arguments: dict[str, Any]) -> Any:
    """Make the environment: ``package.module:factory``, or a module that has PettingZoo's ``parallel_env``.

    Raises:
        UsageError: no such module or factory, whatever either of them raises, or what it makes is no ``ParallelEnv``.
    """
    module, _, name = env_id.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name or "parallel_env")
    except Exception as error:  # somebody else's code, here and below
        raise UsageError(
            f"env_id='{env_id}' cannot be made: {error}. Write package.module:factory, or a module with parallel_env."
        ) from error
    try:
        env = factory(**arguments)
    except Exception as error:
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
    """One process's environments and their rows of the shared arrays."""

    def __init__(self, envs: dict[int, Any], layout: Layout, shared: dict[str, np.ndarray]) -> None:
        """``envs`` by their row."""
        self.layout, self.shared, self.envs = layout, shared, envs
        some = next(iter(envs.values()))
        self.spaces = {name: some.action_space(name) for name in layout.agents}

    def reset(self) -> None:
        """Start episodes where the mask says so."""
        for row, env in self.envs.items():
            if self.shared["mask"][row]:
                self._reset_one(row, env)

    def step(self) -> None:
        """One control step; where the mask says so it is a reset."""
        for row, env in self.envs.items():
            if self.shared["mask"][row]:
                self._reset_one(row, env)
            else:
                self._step_one(row, env)

    def _reset_one(self, row: int, env: Any) -> None:
        obs, _ = env.reset(seed=int(self.shared["seed"][row]))
        self._write_state(row, obs)
        self.shared["reward"][row] = 0.0
        self.shared["terminal"][row] = self.shared["truncated"][row] = False

    def _step_one(self, row: int, env: Any) -> None:
        actions = {}
        for k, name in enumerate(self.layout.agents):
            if name in env.agents:
                numbers = self.shared["action"][row, k, : self.layout.actions[k]]
                actions[name] = decode_action(self.spaces[name], numbers)
        obs, rewards, terminations, truncations, _ = env.step(actions)
        self._write_state(row, obs)
        self.shared["reward"][row] = np.mean(list(rewards.values())) if rewards else 0.0
        over = not env.agents or all(terminations[a] or truncations[a] for a in terminations)
        self.shared["terminal"][row] = over and any(terminations.values())
        self.shared["truncated"][row] = over and not any(terminations.values())

    def _write_state(self, row: int, obs: dict[str, Any]) -> None:
        start = 0
        for name, size in zip(self.layout.agents, self.layout.obs, strict=True):
            seen = obs.get(name)  # an agent that has left observes zeros
            self.shared["state"][row, start : start + size] = 0.0 if seen is None else np.asarray(seen).reshape(-1)
            start += size


def serve(
    pipe: Connection, block: str, env_id: str, arguments: dict[str, Any], layout: Layout, first: int, last: int
) -> None:
    """The process's main: make environments ``first`` to ``last`` - 1, then execute commands until told to stop."""
    # a terminal and a scheduler send these to the learner's whole process group; the learner saves, still stepping, and
    # then sends STOP. A handler instead of SIG_IGN, which programs started by the environment would inherit
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    memory = SharedMemory(block)
    shared = layout.on(memory.buf)
    own: Environments | None = None
    try:
        own = Environments({i: make_env(env_id, arguments) for i in range(first, last)}, layout, shared)
        pipe.send(OK)
        while (command := pipe.recv_bytes()) != STOP:
            (own.step if command == STEP else own.reset)()
            pipe.send(OK)
    except EOFError:
        return  # the learner has ended
    except Exception:  # the environment is somebody else's code: whatever it raises is reported to the learner
        pipe.send(traceback.format_exc())
    finally:
        del own, shared  # they refer to the shared memory, which is closed when nothing does
        pipe.close()
