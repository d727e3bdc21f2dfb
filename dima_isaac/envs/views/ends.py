"""Truncation for libraries whose rows have no ``first``."""

from __future__ import annotations

from torch import Tensor

from dima_isaac.types import Step


def cut_short(row: Step) -> Tensor:
    """(E,) bool: the episode ended, but not by the task: at the time limit, or its physics failed and it starts anew.

    A row is also ``first`` where a tick is spent on a reset; views with such ticks leave these out.
    """
    return (row.last | row.first) & ~row.terminal
