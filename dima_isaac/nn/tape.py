"""What a CUDA graph does, on any device: the operations of one call of a function, to be played again.

A player runs the same operations on the same memory in the same order, without the Python between them and without
autograd's bookkeeping. What the host decided while the tape was recorded is decided for good, exactly as in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dima_isaac.nn.tree import tree_leaves, tree_map


class _Slot:
    """The place of a tensor that the recorded call made itself."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Recorder(TorchDispatchMode):
    """Notes every operation below autograd, forward and backward alike."""

    def __init__(self) -> None:
        super().__init__()
        # function, arguments, keyword arguments, the holes in both (container, key, slot), the slots of what it returns
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
        holes: list[tuple[Any, Any, int]] = []
        for container in (own_args, own_kwargs):
            _dig(container, holes)
        self.operations.append((func, own_args, own_kwargs, holes, [self.slots[_memory(tensor)] for tensor in made]))
        return out

    def place(self, tensor: Tensor) -> Any:
        """Where a player finds ``tensor``: a slot, or the tensor itself if it was there before."""
        index = self.slots.get(_memory(tensor))
        return tensor if index is None else _Slot(index)


def _dig(container: Any, holes: list[tuple[Any, Any, int]]) -> None:
    """Note where ``container``, a list or dictionary of arguments, has slots."""
    for key, item in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(item, _Slot):
            holes.append((container, key, item.index))
        elif isinstance(item, (list, dict)):
            _dig(item, holes)


def _memory(tensor: Tensor) -> Any:
    # autograd hands out other Python objects for the same memory, so an object's identity does not tell
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def record(work: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[[], Any], Any]:
    """Run ``work(*args)``; returns a player and what ``work`` returned.

    The player reads ``args``, parameters and buffers where they are and returns new tensors of the same structure.
    """
    with _Recorder() as recorder:
        out = work(*args)
    result = tree_map(recorder.place, out)
    operations, count = recorder.operations, len(recorder.slots)
    last = {index: k for k, (*_, holes, made) in enumerate(operations) for index in (*(h[2] for h in holes), *made)}
    for slot in tree_leaves(result, _Slot):
        last.pop(slot.index, None)
    free: list[list[int]] = [[] for _ in operations]
    for index, k in last.items():
        free[k].append(index)
    tape = [(*operation, unused) for operation, unused in zip(operations, free, strict=True)]

    @torch.no_grad()
    def play() -> Any:
        values: list[Any] = [None] * count
        for func, args, kwargs, holes, made, unused in tape:
            for place, key, index in holes:
                place[key] = values[index]
            out = func(*args, **kwargs)
            for place, key, _ in holes:  # else the tape would keep every tensor of this playing
                place[key] = None
            if isinstance(out, Tensor):
                values[made[0]] = out
            elif made:
                for index, tensor in zip(made, tree_leaves(out), strict=True):
                    values[index] = tensor
            for index in unused:
                values[index] = None
        return tree_map(lambda slot: values[slot.index], result, _Slot)

    return play, out
