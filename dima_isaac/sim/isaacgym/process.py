"""Isaac Gym's own process, and the commands that it carries out."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from dima_isaac.errors import UsageError, WorkerError
from dima_isaac.sim.config import IsaacGymConfig

INTERPRETER_VARIABLE = "DIMA_ISAACGYM_PYTHON"
_WORKER = Path(__file__).with_name("worker.py")


def interpreter(cfg: IsaacGymConfig) -> str:
    """The Python that can import isaacgym.

    Raises:
        UsageError: none is named, or it is not there.
    """
    named = cfg.python or os.environ.get(INTERPRETER_VARIABLE, "")
    if not named:
        raise UsageError(f"engine=isaacgym needs {INTERPRETER_VARIABLE}=/path/to/python3.8 that can import isaacgym.")
    found = shutil.which(os.path.expanduser(named))
    if found is None:
        where = "engine.python" if cfg.python else INTERPRETER_VARIABLE
        raise UsageError(f"{where}={named} is not a program.")
    return found


class WorkerProcess:
    """The process with its pipe, its folder of assets and its log."""

    def __init__(self, python: str) -> None:
        """Start the worker under the interpreter ``python``.

        Raises:
            UsageError: it is no program that can be started.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="dima_isaacgym_"))
        self._log = (self.folder / "isaacgym.log").open("w+b")
        self._read_to, self._overflows = 0, 0
        self._pipe, theirs = multiprocessing.Pipe()
        try:
            self._process = subprocess.Popen(
                # -u: C buffers PhysX's messages up to 4 kB, and a crash would lose them
                [python, "-u", str(_WORKER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=_environment(python),
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            self.remove_folder()
            raise UsageError(f"{python} cannot be started: {error.strerror}.") from error
        finally:
            theirs.close()

    def call(self, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Have the worker carry out ``command``, wait for it and return its answer.

        Raises:
            WorkerError: it failed, died or did not answer within ``timeout`` seconds.
        """
        try:
            self._pipe.send_bytes(json.dumps(command).encode())
            if not self._pipe.poll(timeout):
                raise WorkerError(f"Isaac Gym did not answer within {timeout:g} s.{self._tail()}")
            answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, ConnectionError):
            raise WorkerError(self._died()) from None
        if "error" in answer:
            raise WorkerError(f"Isaac Gym could not {command['do']}: {answer['error']}.{self._tail()}")
        return answer

    def _died(self) -> str:
        code = self._process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"Isaac Gym's process {how}.{self._tail()}"

    def _tail(self) -> str:
        lines = [line for line in self._printed(0).decode(errors="replace").splitlines() if line.strip()]
        return f" Its last messages: {' | '.join(lines[-3:])[-400:]}" if lines else ""

    def overflows(self) -> int:
        """How many lines PhysX has printed about contacts for which there was no room."""
        new = self._printed(self._read_to)
        whole = new.rfind(b"\n") + 1
        self._read_to += whole
        lines = new[:whole].decode(errors="replace").lower().splitlines()
        self._overflows += sum("overflow" in line or "pairscapacity" in line for line in lines)
        return self._overflows

    def _printed(self, start: int) -> bytes:
        size = os.fstat(self._log.fileno()).st_size
        # pread, because reading would move the position at which the worker writes
        return os.pread(self._log.fileno(), size - start, start)

    def remove_folder(self) -> None:
        """Remove the assets and the log's name; the log stays readable until ``close``."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        if self._process.poll() is None:
            try:
                self._pipe.send_bytes(b'{"do": "close"}')
                self._process.wait(5.0)
            except (ConnectionError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        self._pipe.close()
        self._log.close()


def _environment(python: str) -> dict[str, str]:
    """This process's variables without its own Python's, and the other interpreter's libraries first."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    library = Path(python).resolve().parent.parent / "lib"  # where libpython3.8.so.1.0 is
    kept["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(library), os.environ.get("LD_LIBRARY_PATH", ""))))
    return kept
