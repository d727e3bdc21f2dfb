"""What a CUDA graph does, on a CPU: the operations of one call of a function, to be replayed.

A replay runs the same operations on the same memory in the same order, without the Python between them and without
autograd's bookkeeping. What the host decided during the recording is decided for good, exactly as in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dima_isaac.nn.captured import Captured, tree_leaves, tree_map


def use_tapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``Captured`` play tapes on a CPU, and graphs on a GPU as before."""
    warm_up, capture = Captured._warm_up, Captured._capture

    def played(self: Captured, inputs: Any, device: torch.device) -> Callable[[], Any]:
        if device.type == "cuda":
            return capture(self, inputs, device)
        replay, first = record(self.function, inputs)
        recorded = [first]  # recording ran the function, which capturing does not
        return lambda: recorded.pop() if recorded else replay()

    def plain(self: Captured, args: Any, device: torch.device) -> Any:
        return warm_up(self, args, device) if device.type == "cuda" else self.function(*args)

    monkeypatch.setattr(Captured, "_warm_up", plain)
    monkeypatch.setattr(Captured, "_capture", played)


class _Slot:
    """The place of a tensor that the recorded call itself made."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Recorder(TorchDispatchMode):
    """Records every operation below autograd, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        # function, arguments, keyword arguments, slots in both (container, key, index), slots of what it returns
        self.operations: list[tuple[Any, list[Any], dict[str, Any], list[tuple[Any, Any, int]], list[int]]] = []
        self.slots: dict[Any, int] = {}
        self.kept: list[Tensor] = []  # alive until the end of the recording, so that no memory is given out twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own_args, own_kwargs = tree_map(self.place, list(args)), tree_map(self.place, kwargs or {})
        out = func(*args, **(kwargs or {}))
        made = tree_leaves(out)
        for tensor in made:
            self.slots.setdefault(_memory(tensor), len(self.slots))
        self.kept += made
        inputs: list[tuple[Any, Any, int]] = []
        for container in (own_args, own_kwargs):
            _find_slots(container, inputs)
        self.operations.append((func, own_args, own_kwargs, inputs, [self.slots[_memory(tensor)] for tensor in made]))
        return out

    def place(self, tensor: Tensor) -> Any:
        """Where a replay finds ``tensor``: a slot, or the tensor itself if it was there before the recording."""
        index = self.slots.get(_memory(tensor))
        return tensor if index is None else _Slot(index)


def _find_slots(container: Any, found: list[tuple[Any, Any, int]]) -> None:
    """Append to ``found`` where ``container``, a list or dictionary of arguments, has slots."""
    for key, item in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(item, _Slot):
            found.append((container, key, item.index))
        elif isinstance(item, (list, dict)):
            _find_slots(item, found)


def _memory(tensor: Tensor) -> Any:
    # autograd returns other Python objects for the same memory, so an object's identity does not tell
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def record(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[[], Any], Any]:
    """Run ``function(*args)``; returns its replay and its result.

    The replay reads ``args``, parameters and buffers where they are and returns new tensors of the same structure.
    """
    with _Recorder() as recorder:
        out = function(*args)
    result = tree_map(recorder.place, out)
    operations, count = recorder.operations, len(recorder.slots)
    last_use = {
        index: k for k, (*_, inputs, made) in enumerate(operations) for index in (*(i[2] for i in inputs), *made)
    }
    for slot in tree_leaves(result, _Slot):
        last_use.pop(slot.index, None)
    free: list[list[int]] = [[] for _ in operations]
    for index, k in last_use.items():
        free[k].append(index)
    tape = [(*operation, unused) for operation, unused in zip(operations, free, strict=True)]

    @torch.no_grad()
    def replay() -> Any:
        values: list[Any] = [None] * count
        for func, args, kwargs, inputs, made, unused in tape:
            for container, key, index in inputs:
                container[key] = values[index]
            out = func(*args, **kwargs)
            for container, key, _ in inputs:  # else the tape would keep every tensor of this replay
                container[key] = None
            if isinstance(out, Tensor):
                values[made[0]] = out
            elif made:
                for index, tensor in zip(made, tree_leaves(out), strict=True):
                    values[index] = tensor
            for index in unused:
                values[index] = None
        return tree_map(lambda slot: values[slot.index], result, _Slot)

    return replay, out
