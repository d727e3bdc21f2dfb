"""The baseline for the MuJoCo engine's speed: the same physics steps by ``mj_step`` loops, one per thread."""

import time
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

Array = np.ndarray
_ROW = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_INPUTS = int(mujoco.mjtState.mjSTATE_CTRL) | int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)


class BareMujoco:
    """Repeats what an engine did, with no packing, observations or rewards; see ``BarePhysics``."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int, threads: int) -> None:
        self.recording = False
        self._model, self._substeps = model, substeps
        self._steps: list[tuple[Array, Array]] = []  # state rows (E, nstate) and held environments (E,)
        self._chunks = np.array_split(np.arange(num_envs), threads)
        self._data = [mujoco.MjData(model) for _ in range(num_envs)]
        self._pool = ThreadPoolExecutor(threads)

    def record(self) -> None:
        self._steps = []
        self.recording = True

    def add(self, rows: Array, held: Array) -> None:
        """Note the state rows (E, nstate) at the start of a control step, and which environments are ``held`` (E,)."""
        self._steps.append((rows.copy(), held.copy()))

    def replay(self) -> float:
        """Stop recording; the seconds that its physics steps take. Controls are extracted before the clock starts."""
        self.recording = False
        inputs = [self._inputs(rows) for rows, _ in self._steps]
        started = time.perf_counter()
        for step in range(len(self._steps)):
            # blocks until every thread is done, as a control step does
            list(self._pool.map(lambda envs, k=step: self._advance(envs, inputs, k), self._chunks))
        return time.perf_counter() - started

    def _advance(self, envs: Array, inputs: list[Array], step: int) -> None:
        """One control step, from the recorded row after a reset and from where the environment is otherwise."""
        rows, held = self._steps[step]
        for env in envs[~held[envs]]:
            data = self._data[env]
            if step == 0 or self._steps[step - 1][1][env]:
                mujoco.mj_setState(self._model, data, rows[env], _ROW)
            else:
                mujoco.mj_setState(self._model, data, inputs[step][env], _INPUTS)
            mujoco.mj_step(self._model, data, self._substeps)

    def _inputs(self, rows: Array) -> Array:
        out = np.empty((len(rows), mujoco.mj_stateSize(self._model, _INPUTS)))
        for row, target in zip(rows, out, strict=True):
            mujoco.mj_extractState(self._model, row, _ROW, target, _INPUTS)
        return out

    def close(self) -> None:
        self.recording = False
        self._pool.shutdown()
