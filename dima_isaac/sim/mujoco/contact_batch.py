"""A batch whose every step ends with ``mj_rnePostConstraint``, so that ``cfrc_ext`` is what Gymnasium reads.

MuJoCo computes the external forces on bodies only for models with force sensors; Gymnasium calls the function itself
after each control step. ``mujoco.batch.Batch`` offers no such call, the C library does: ``mjb_apply``. So this
class uses the C interface (``mujoco/mjbatch.h``) through ctypes, with the part of ``Batch``'s interface that the
engine needs. The call costs a twentieth of a step.
"""

import ctypes
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import SimulationError

Array = np.ndarray
_STATE = {"qacc_warmstart": "WARMSTART", "plugin_state": "PLUGIN"}
_ERROR_BYTES = 1000


class _Config(ctypes.Structure):
    _fields_ = (("nthread", ctypes.c_int), ("persistent", ctypes.c_bool))


class ContactBatch:
    """``nsim`` simulations of ``model``, one MjData each, on ``nthread`` threads."""

    def __init__(self, model: mujoco.MjModel, nsim: int, nthread: int) -> None:
        """Start the pool.

        Raises:
            RuntimeError: MuJoCo could not make the batch.
        """
        self.model, self.nsim = model, nsim
        self._lib = _library()
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        config = _Config(nthread, True)
        address = ctypes.c_void_p(model._address)
        self._batch = self._lib.mjb_makeBatch(address, nsim, ctypes.byref(config), message, _ERROR_BYTES)
        if not self._batch:
            raise RuntimeError(f"MuJoCo made no batch of {nsim}: {message.value.decode()}")
        self._template = mujoco.MjData(model)
        self._nstate = int(self._lib.mjb_nstate(self._batch))
        self.state = self._view(self._lib.mjb_state(self._batch), np.dtype(np.float64), (nsim, self._nstate))
        warnings = int(mujoco.mjtWarning.mjNWARNING)
        self.warning = self._view(self._lib.mjb_warning(self._batch), np.dtype(np.int32), (nsim, warnings, 2))
        self._status = self._view(self._lib.mjb_status(self._batch), np.dtype(np.int32), (nsim,))
        self._bound: dict[str, Array] = {}

    def bind(self, name: str) -> Array:
        """The live (nsim, ...) array of an MjData field."""
        if name not in self._bound:
            self._bound[name] = self._bind(name)
        return self._bound[name]

    def _bind(self, name: str) -> Array:
        template = np.asarray(getattr(self._template, name))
        size, width = ctypes.c_int(), ctypes.c_int()
        component = getattr(mujoco.mjtState, f"mjSTATE_{_STATE.get(name, name.upper())}", None)
        if component is not None:
            first = self._lib.mjb_stateComponent(self._batch, int(component), ctypes.byref(size))
            column = (first - self.state.ctypes.data) // self.state.itemsize if first else 0
            return self.state[:, column : column + size.value].reshape(self.nsim, *template.shape)
        address = self._lib.mjb_output(self._batch, name.encode(), ctypes.byref(size), ctypes.byref(width))
        if not address and template.size:
            raise ValueError(f"MjData.{name} cannot be read from a batch")
        return self._view(address, template.dtype, (self.nsim, *template.shape))

    def step(self, ids: Array | None, nstep: int, stage: int) -> None:
        """Advance ``ids`` (a mask or indices, None for all), then find the external forces on their bodies."""
        chosen, count = self._ids(ids)
        self._check(self._lib.mjb_step(self._batch, chosen, count, nstep, stage))
        # the function takes model and data; the two arguments more that mjb_apply passes are ignored by every C
        # calling convention in use, and nothing of the state is to be saved
        function = ctypes.cast(self._lib.mj_rnePostConstraint, ctypes.c_void_p)
        self._check(self._lib.mjb_apply(self._batch, chosen, count, function, None, 0))
        self._check(self._lib.mjb_forward(self._batch, chosen, count, int(mujoco.mjtStage.mjSTAGE_NONE.value)))

    def forward(self, ids: Array | None, stage: int) -> None:
        """Compute the stages up to ``stage`` on ``ids``."""
        self._check(self._lib.mjb_forward(self._batch, *self._ids(ids), stage))

    def reset(self, ids: Array | None, stage: int) -> None:
        """Put ``ids`` back to the model's defaults."""
        self._check(self._lib.mjb_reset(self._batch, *self._ids(ids), None, stage))

    def _ids(self, ids: Array | None) -> tuple[Any, int]:
        """A mask or indices as a C array and their number; None stands for all."""
        if ids is None:
            return None, self.nsim
        index = np.ascontiguousarray(np.flatnonzero(ids) if ids.dtype == bool else ids, dtype=np.int32)
        return index.ctypes.data_as(ctypes.c_void_p), len(index)

    def _check(self, failed: int) -> None:
        if failed:
            ids = np.flatnonzero(self._status)
            raise SimulationError(ids, self._lib.mjb_error(self._batch, int(ids[0])).decode(), self.nsim)

    def _view(self, address: int, dtype: np.dtype, shape: tuple[int, ...]) -> Array:
        """A writable array on the batch's own memory; ``self`` outlives it by contract."""
        size = int(np.prod(shape)) * dtype.itemsize
        if not size:
            return np.zeros(shape, dtype)
        buffer = memoryview((ctypes.c_char * size).from_address(address))
        return np.frombuffer(buffer, dtype=dtype).reshape(shape)

    def __del__(self) -> None:
        if getattr(self, "_batch", None):
            self._lib.mjb_deleteBatch(self._batch)
            self._batch = None


def _library() -> Any:
    """The C library that the Python bindings have loaded, with the batch functions' types."""
    lib = ctypes.CDLL(str(next(Path(str(mujoco.__file__)).parent.glob("libmujoco*.so*"))))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    signatures = {
        "mjb_makeBatch": (pointer, [pointer, number, pointer, ctypes.c_char_p, number]),
        "mjb_deleteBatch": (None, [pointer]),
        "mjb_nstate": (number, [pointer]),
        "mjb_state": (pointer, [pointer]),
        "mjb_stateComponent": (pointer, [pointer, number, pointer]),
        "mjb_warning": (pointer, [pointer]),
        "mjb_status": (pointer, [pointer]),
        "mjb_error": (ctypes.c_char_p, [pointer, number]),
        "mjb_output": (pointer, [pointer, ctypes.c_char_p, pointer, pointer]),
        "mjb_step": (number, [pointer, pointer, number, number, number]),
        "mjb_forward": (number, [pointer, pointer, number, number]),
        "mjb_reset": (number, [pointer, pointer, number, pointer, number]),
        "mjb_apply": (number, [pointer, pointer, number, pointer, pointer, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
