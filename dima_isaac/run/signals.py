"""Signals that ask a run to stop: a handler sets a flag, the loop looks at it between two steps or updates.

SIGTERM and SIGUSR1 come from a scheduler that is about to take the machine away, SIGHUP from a terminal that closes:
the run saves and exits 75, "please requeue". SIGINT comes from a person: the run saves, says how to continue and exits
130. A SIGINT after any of them exits at once. Install this last: submitit's own handlers swallow SIGTERM, and the
handler registered last is called.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

REQUEUE = 75  # EX_TEMPFAIL: saved, run me again
INTERRUPTED = 130  # 128 + SIGINT

_WATCHED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal came in the middle of learning or of an evaluation; what is not done yet is still due.

    Like KeyboardInterrupt no ``Exception``, so that handlers for failed videos or mirrors do not catch it.
    """


class Signals:
    """``with Signals() as signals:`` ... ``if signals.stop:`` save and return ``signals.exit_code``."""

    def __init__(self) -> None:
        self.stop: str | None = None  # the first signal's name
        self.raises = False  # whether the next signal raises ``Interrupted`` wherever the program is
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What the process should end with: 0 without a signal, 75 to be requeued, 130 when interrupted."""
        if self.stop is None:
            return 0
        return INTERRUPTED if self.stop == "SIGINT" else REQUEUE

    def __enter__(self) -> Signals:
        for number in _WATCHED:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:  # not where ``ignore`` was called since
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    @staticmethod
    def ignore() -> None:
        """From now on signals do nothing: what is saved only has to leave, with its exit code."""
        for number in _WATCHED:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self.stop:
            os._exit(INTERRUPTED)  # the user means it; files are replaced atomically, so nothing can be torn
        if name == "SIGHUP":
            _leave_terminal()
        self.stop = self.stop or name
        with suppress(OSError):
            os.write(2, f"\n{name}: saving after this step; Ctrl-C leaves unsaved.\n".encode())
        if self.raises:
            self.raises = False
            raise Interrupted


def interruptible(signals: Signals, act: Callable[..., T]) -> Callable[..., T]:
    """``act``, raising ``Interrupted`` at the first call after a signal to this process."""

    def checked(*words: Any, **named: Any) -> T:
        if signals.stop:
            raise Interrupted
        return act(*words, **named)

    return checked


def _leave_terminal() -> None:
    """Write to nowhere from now on what went to a terminal: it is gone, and writing there fails."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@contextmanager
def interrupting() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt, a second one ends the process.

    An import may swallow the exception and a later one fail for what is missing then, so any error after Ctrl-C
    becomes KeyboardInterrupt.
    """
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            os._exit(INTERRUPTED)
        pressed = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


class ExitAtOnce(Signals):
    """For when there is nothing to save, before a run's own ``Signals`` and after them: any signal ends the process.

    KeyboardInterrupt would not do: an import that meets one may swallow it, and fail elsewhere for what is missing.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop = signal.Signals(number).name
        with suppress(OSError):
            os.write(2, f"{self.stop}: stopped with nothing to save.\n".encode())
        os._exit(self.exit_code)
