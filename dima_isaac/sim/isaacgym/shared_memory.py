"""Memory that this process and Isaac Gym's both map, as named float32 tensors."""

import ctypes
import os
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.errors import UsageError

_BLOCK = 2 * 1024 * 1024  # bytes that the driver shares at least: a smaller allocation would show its neighbours, too


class SharedTensors:
    """Named float32 tensors, one after the other: in a file of shared memory, or in GPU memory through CUDA IPC.

    ``description`` is what the other process needs to open them.
    """

    def __init__(self, layout: dict[str, tuple[int, ...]], device: torch.device) -> None:
        """Allocate zeros for every name and shape of ``layout``.

        Raises:
            UsageError: GPU memory that cannot be shared here.
        """
        places, total = {}, 0
        for name, shape in layout.items():
            places[name] = (total, shape)
            total += -(-int(np.prod(shape)) // 4) * 4  # at multiples of 16 bytes
        nbytes = 4 * max(total, 4)
        self._path, handle = "", ""
        if device.type == "cuda":
            nbytes = -(-nbytes // _BLOCK) * _BLOCK
            flat, handle = _on_device(nbytes, device)
        else:
            folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
            file, self._path = tempfile.mkstemp(prefix="dima_isaacgym_", dir=folder)
            os.close(file)
            flat = torch.from_numpy(np.memmap(self._path, dtype=np.float32, mode="w+", shape=(nbytes // 4,)))
        self.tensors = {
            name: flat[start : start + int(np.prod(shape))].view(*shape) for name, (start, shape) in places.items()
        }
        self.description: dict[str, Any] = {"path": self._path, "handle": handle, "bytes": nbytes, "places": places}

    def unlink(self) -> None:
        """Remove the file's name; the memory stays until both processes have ended.

        GPU memory is freed with this process: others may hold views of it.
        """
        if self._path:
            os.unlink(self._path)
            self._path = ""


def _on_device(nbytes: int, device: torch.device) -> tuple[Tensor, str]:
    """A zero tensor on device memory of its own, and its IPC handle: torch's allocator would share a larger block."""

    class Handle(ctypes.Structure):
        _fields_ = [("reserved", ctypes.c_char * 64)]

    torch.zeros(1, device=device)  # creates the CUDA context
    driver, pointer, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint64(), Handle()
    with torch.cuda.device(device):
        code = driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        code = code or driver.cuIpcGetMemHandle(ctypes.byref(handle), pointer)
    if code:
        raise UsageError(f"GPU memory cannot be shared here (CUDA error {code}); engine.pipeline=cpu does without.")

    class Owner:
        __cuda_array_interface__ = {  # noqa: RUF012
            **{"shape": (nbytes // 4,), "typestr": "<f4", "version": 2},
            "data": (pointer.value, False),
        }

    return torch.as_tensor(Owner(), device=device).zero_(), bytes(handle).hex()
