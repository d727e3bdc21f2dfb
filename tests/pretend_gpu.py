"""A device ``gpu`` that is no GPU: its tensors hold their numbers on the host, and do not mix with tensors from there.

On a machine without a GPU it shows what CUDA would refuse: operations on tensors of two devices, host memory taken
from a tensor of the device, and operations without a deterministic way. It needs a process of its own, since torch
learns of a new device for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
NAME = "gpu"
_COPIES = {"aten::_to_copy", "aten::copy_"}
_INDEXING = {"aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class MixedDevicesError(AssertionError):
    """Tensors of two devices met."""


class DeterminismError(AssertionError):
    """CUDA has no deterministic way, and refuses under ``torch_deterministic=True``."""


class GpuTensor(Tensor):
    """Claims to be on the device; its numbers are ``inner``'s."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> GpuTensor:
        self: GpuTensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        self.inner = inner
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func`` on the numbers; the result is on the device if an argument is, or if it was requested there."""
    name = func.name().partition(".")[0]
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    asked = kwargs.get("device")
    on_device = any(isinstance(value, GpuTensor) for value in tensors)
    if asked is not None:
        on_device = torch.device(asked).type == NAME
    if name not in _COPIES and func.name() not in _INDEXING:
        strangers = [value for value in tensors if not isinstance(value, GpuTensor) and value.dim()]
        if strangers and any(isinstance(value, GpuTensor) for value in tensors):
            raise MixedDevicesError(f"{func.name()}: {len(strangers)} of {len(tensors)} tensors are on the host")
    if func.name() in _INDEXING and not isinstance(args[0], GpuTensor) and on_device:
        raise MixedDevicesError(f"{func.name()}: a tensor of the host with an index or value from the device")
    if on_device and (func.name() == "aten::median.dim" or (name == "aten::cumsum" and args[0].is_floating_point())):
        raise DeterminismError(func.name())
    inner_kwargs = tree_map(_inner, kwargs)
    if asked is not None:
        inner_kwargs["device"] = torch.device("cpu")
    out = func(*tree_map(_inner, args), **inner_kwargs)
    if name == "aten::copy_":
        return args[0]
    if name == "aten::_to_copy" and any(out is value for value in tree_leaves(tree_map(_inner, args))):
        out = out.clone()
    if on_device:
        out = tree_map(lambda value: GpuTensor(value) if isinstance(value, Tensor) else value, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if on_device and tensors else out


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, GpuTensor) else value


class _Factories(TorchDispatchMode):
    """Tensors that are requested on the device although no argument is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Values(TorchFunctionMode):
    """``torch.tensor`` makes its tensor below every mode: here it makes one on the host and moves it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.tolist and isinstance(args[0], GpuTensor):
            return args[0].inner.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], GpuTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(i) if isinstance(i, list) else i for i in index), *args[2:])
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    """Random numbers of the device, drawn on the host."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        self: _Generator = super().__new__(cls, "cpu")
        self.place = torch.device(device)
        return self

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, 0) if self.place.type == NAME else self.place

    def set_state(self, state: Tensor) -> torch.Generator:
        if isinstance(state, GpuTensor):
            raise TypeError("RNG state must be a torch.ByteTensor")
        return super().set_state(state)


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """The device, for the body."""
    if not hasattr(torch, NAME):
        module = backend_registration._DummyBackendModule()
        module.get_amp_supported_dtype = lambda: [torch.bfloat16]  # type: ignore[attr-defined]
        backend_registration._setup_privateuseone_for_python_backend(NAME, module)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(_Values())
        stack.enter_context(_Factories())
        yield torch.device(NAME, 0)


class OnDevice:
    """An engine of the host (``engine``) that claims to compute on ``device``, and takes and gives tensors of it only.

    Masks cannot be looked into, so tasks take the path that they take on a GPU.
    """

    def __init__(self, engine: Any, device: torch.device) -> None:
        self._engine, self.device = engine, device
        self.capabilities = replace(engine.capabilities, on_host=False)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        if isinstance(value, Tensor):
            return GpuTensor(value)
        return self._method(name, value) if callable(value) else value

    def _method(self, name: str, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            if name != "load_state_dict" and not all(isinstance(value, GpuTensor) for value in given):
                raise MixedDevicesError(f"engine.{name} was given a tensor of the host")
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                args, kwargs = tree_map(_inner, (args, kwargs))
                if name in ("refresh", "set_dof_state", "set_root_state") and not args[0].any():
                    return None  # engines of the host are never called with empty shapes
                out = method(*args, **kwargs)
                live = name == "field"
                wrap = lambda value: GpuTensor(value if live else value.clone()) if isinstance(value, Tensor) else value
                return tree_map(wrap, out)

        return call


def on_host(tree: Any) -> Any:
    """As ``torch.load(..., map_location="cpu")`` brings back what was on the device."""
    host = lambda value: value.inner.clone() if isinstance(value, GpuTensor) else value.cpu()
    return tree_map(lambda value: host(value) if isinstance(value, Tensor) else value, tree)
