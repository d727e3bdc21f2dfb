"""Refuses whatever would make a CPU wait for a GPU, on any device, so that a machine without a GPU can prove it.

``torch.cuda.set_sync_debug_mode("error")`` does the same where there is a GPU; here operations are judged by what
they are: numbers read by the host, shapes that depend on data, and host values made into tensors (on a GPU a
copy from pageable memory).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_REFUSED = {
    "aten::_local_scalar_dense": "a number read by the host",
    "aten::item": "a number read by the host",
    "aten::is_nonzero": "a number read by the host",
    "aten::equal": "a number read by the host",
    "aten::_linalg_check_errors": "a number read by the host",
    "aten::nonzero": "a shape that depends on data",
    "aten::masked_select": "a shape that depends on data",
    "aten::unique_dim": "a shape that depends on data",
    "aten::_unique2": "a shape that depends on data",
    "aten::bincount": "a shape that depends on data",
    "aten::repeat_interleave.Tensor": "a shape that depends on data",
    "aten::lift_fresh": "a host value made into a tensor",
}
_INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_HOST = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.item}


class SynchronisationError(AssertionError):
    """Something would have waited for the device."""


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name in _REFUSED:
            raise SynchronisationError(f"{name}: {_REFUSED[name]}")
        if name in _INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise SynchronisationError(f"{name} with a boolean mask: a shape that depends on data")
        out = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
        devices = {value.device for value in tensors if value.dim()}
        if name in ("aten::_to_copy", "aten::copy_") and len(devices) > 1:
            raise SynchronisationError(f"{name}: a copy between devices")
        return out


class _Methods(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _HOST:
            raise SynchronisationError(f"Tensor.{func.__name__}: read by the host")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation(device: torch.device | None = None) -> Any:
    """Raise where the code inside would wait for ``device``; a GPU's own debug mode watches too."""
    on_gpu = device is not None and device.type == "cuda"
    before = torch.cuda.get_sync_debug_mode() if on_gpu else 0
    with ExitStack() as stack:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("error")
            stack.callback(torch.cuda.set_sync_debug_mode, before)
        stack.enter_context(_Methods())
        stack.enter_context(_Operations())
        yield


def guard(owner: Any, method: str, device: torch.device | None = None) -> None:
    """Make ``owner.method`` raise where it would wait."""
    inner: Callable[..., Any] = getattr(owner, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        with no_synchronisation(device):
            return inner(*args, **kwargs)

    setattr(owner, method, watched)
