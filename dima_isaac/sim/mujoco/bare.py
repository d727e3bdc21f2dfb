"""The yardstick for the MuJoCo engine: the same physics steps by plain ``mj_step`` loops, one per thread."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

Tape = list[tuple[np.ndarray, np.ndarray]]
"""Per control step: the state rows (E, .) as the pool saw them, and which environments were held (E,)."""

_ROW = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_INPUTS = int(mujoco.mjtState.mjSTATE_CTRL) | int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)


class BarePhysics:
    """Replays what an engine did, with no packing, observations or rewards.

    ``closed_loop`` advances every environment by one control step before the next begins, each with its own MjData,
    as anything must that waits for actions. Otherwise each environment runs the whole tape at once in one warm
    MjData: no closed loop can do that, but it is the ceiling.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int, threads: int) -> None:
        self._model, self._substeps = model, substeps
        self._chunks = np.array_split(np.arange(num_envs), threads)
        self._own = [mujoco.MjData(model) for _ in range(num_envs)]
        self._shared = [mujoco.MjData(model) for _ in self._chunks]
        self._pool = ThreadPoolExecutor(threads)

    def replay(self, tape: Tape, closed_loop: bool) -> float:
        """Seconds for the physics steps on ``tape``; controls and forces are extracted before the clock starts."""
        inputs = [self._inputs(rows) for rows, _ in tape]
        started = time.perf_counter()
        if closed_loop:
            for step in range(len(tape)):
                # blocks until every thread is done, as a control step does
                list(self._pool.map(lambda envs, k=step: self._advance(envs, tape, inputs, k), self._chunks))
        else:
            list(
                self._pool.map(
                    lambda data, envs: self._trajectories(data, envs, tape, inputs), self._shared, self._chunks
                )
            )
        return time.perf_counter() - started

    def _advance(self, envs: np.ndarray, tape: Tape, inputs: list[np.ndarray], step: int) -> None:
        for env in envs:
            fresh = step == 0 or tape[step - 1][1][env]
            self._one(self._own[env], env, tape[step], inputs[step], fresh)

    def _trajectories(self, data: mujoco.MjData, envs: np.ndarray, tape: Tape, inputs: list[np.ndarray]) -> None:
        for env in envs:
            fresh = True
            for tick, given in zip(tape, inputs, strict=True):
                self._one(data, env, tick, given, fresh)
                fresh = tick[1][env]

    def _one(
        self, data: mujoco.MjData, env: int, tick: tuple[np.ndarray, np.ndarray], given: np.ndarray, fresh: bool
    ) -> None:
        """One control step, from the recorded row after a reset and from where ``data`` is otherwise."""
        rows, held = tick
        if held[env]:
            return
        if fresh:
            mujoco.mj_setState(self._model, data, rows[env], _ROW)
        else:
            mujoco.mj_setState(self._model, data, given[env], _INPUTS)
        mujoco.mj_step(self._model, data, self._substeps)

    def _inputs(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), mujoco.mj_stateSize(self._model, _INPUTS)))
        for row, target in zip(rows, out, strict=True):
            mujoco.mj_extractState(self._model, row, _ROW, target, _INPUTS)
        return out

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()
