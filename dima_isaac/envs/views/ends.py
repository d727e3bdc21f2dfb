"""Where an episode ends for libraries that know terminations and truncations only."""

from __future__ import annotations

from torch import Tensor

from dima_isaac.types import Step


def cut_short(row: Step) -> Tensor:
    """(E,) bool: the episode ended, but not by the task: its clock ran out, or it broke and the next one has begun.

    These libraries have no word for a row that is ``first``. Where a tick is spent on the reset it is first, too.
    """
    return (row.last | row.first) & ~row.terminal
