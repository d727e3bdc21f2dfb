"""Tensors inside tuples, lists, dictionaries and dataclasses, such as ``Window``, ``Rollout`` and ``Metrics``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor


def tree_map(function: Callable[[Any], Any], value: Any, kind: type = Tensor) -> Any:
    """``value`` with ``function`` applied to everything in it of type ``kind``."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)([tree_map(function, item, kind) for item in value])
    if isinstance(value, dict):
        return {key: tree_map(function, item, kind) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{key: tree_map(function, item, kind) for key, item in vars(value).items()})
    return value


def tree_leaves(value: Any, kind: type = Tensor) -> list[Any]:
    """Everything of type ``kind`` in ``value``, in order."""
    found: list[Any] = []
    tree_map(found.append, value, kind)
    return found
