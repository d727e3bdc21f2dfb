"""Which process may write to a run folder: an advisory lock on a file in it that names its holder.

The kernel releases the lock of a process that died. On a file system without locks no process is refused: the
name in the file may be that of a process which was killed on another machine, and a run must be continued after that.
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO

_NAME = "lock"


class FolderLock:
    """The lock of one folder. Its file stays behind: if it were removed, two processes could lock two files."""

    def __init__(self, folder: Path) -> None:
        """Try to lock ``folder``; afterwards ``holder`` names the process that has it, '' if it is this one.

        Raises:
            OSError: the file cannot be written.
        """
        self._path = folder / _NAME
        self._file = open(self._path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  held until release()
        self.holder = _lock(self._file)
        if self.holder:
            self._file.close()
            return
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def in_place(self) -> bool:
        """Whether the folder is still there under its name and holds this lock."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def release(self) -> None:
        """Let others lock the folder."""
        if not self._file.closed:
            with suppress(OSError):  # the folder may be on a disk that has gone
                self._file.truncate(0)
            with suppress(OSError):
                self._file.close()


def holder(folder: Path) -> str:
    """The process that has locked ``folder``, or ''."""
    try:
        with open(folder / _NAME, "r+", encoding="utf-8", errors="replace") as file:
            return _lock(file)
    except OSError:
        return ""


def _lock(file: IO[str]) -> str:
    """Lock ``file`` for this process; returns '' or who has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            file.seek(0)
            return file.read().strip() or "another process"
    return ""
