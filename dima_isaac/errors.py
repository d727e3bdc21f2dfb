"""What can go wrong in a way the user should read, and the exit code each one ends with.

The command line prints ``str(error)`` as one sentence and exits with ``error.exit_code``; nothing else is
shown, so a message names the value, the alternatives and the cure.
"""

import difflib
from collections.abc import Iterable


class DimaError(Exception):
    """A failure with a message for the user."""

    exit_code = 1


class UsageError(DimaError):
    """A wrong key, value, name or folder."""

    exit_code = 2


class CheckpointError(DimaError):
    """A checkpoint that is missing, torn, altered or of another task."""

    exit_code = 3


class SimulationError(DimaError):
    """Physics that cannot go on, for example every environment non-finite."""

    exit_code = 4


class DivergenceError(DimaError):
    """Learning that cannot go on: losses stayed non-finite."""

    exit_code = 5


class WorkerError(DimaError):
    """An environment worker process that died or hangs."""

    exit_code = 6


def unknown(kind: str, value: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: the nearest match first, then every alternative."""
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), lower, n=1, cutoff=0.5)
    hint = f"; did you mean {lower[near[0]]}?" if near else "."
    return UsageError(f"unknown {kind} '{value}'{hint} Known: {', '.join(names)}.")
