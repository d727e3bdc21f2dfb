"""Isaac Gym's rules that a program may break here without harm, said once each so that it runs there as well; and what
to say of that which is not here."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

_SAID: set[str] = set()


class IsaacGymWarning(UserWarning):
    """What works here and does not, or differently, in Isaac Gym; or the other way round."""


def warn_once(text: str) -> None:
    """Warn of ``text``, at the program's line, unless it was said before of this simulation."""
    if text not in _SAID:
        _SAID.add(text)
        level, frame = 2, sys._getframe(1)
        while frame.f_back is not None and frame.f_globals["__name__"].startswith("dima_isaac.gym."):
            level, frame = level + 1, frame.f_back
        warnings.warn(text, IsaacGymWarning, stacklevel=level)


def forget() -> None:
    """Begin anew: for a simulation after another one in the same process."""
    _SAID.clear()


def absent(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of one of Isaac Gym's modules, for names that it has there and not here."""

    def refuse(name: str) -> Any:
        raise AttributeError(
            f"Isaac Gym's {module}.{name} is not here (docs/gym.md lists what is); run the program under Isaac Gym"
            " itself, or write the task against this package's engines (docs/new_task.md)"
        )

    return refuse
