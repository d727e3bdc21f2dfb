"""The folder of one run.

    runs/<experiment or task>/<name>/     or run_dir=PATH
      config.yaml     the full resolved configuration, with the reason for every ``auto`` value
      versions.json   git commit, Python and package versions
      metrics.jsonl   one JSON object per logged row
      checkpoints/    step_<n>.pt, last.pt and the replay's rows
      lock            the process that writes here

Torch-free.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run import zoo
from dima_isaac.run.atomic import write_atomic
from dima_isaac.run.lock import FolderLock
from dima_isaac.run.renamed import renamed_config
from dima_isaac.run.versions import versions
from dima_isaac.schema import AUTO, as_dict

ROOT = Path("runs")
LATEST = "latest"
RESUME = (AUTO, LATEST)
"""Values of ``checkpoint`` that continue a run in its own folder."""
_STEP = re.compile(r"step_(\d+)\.pt")


class RunFolder:
    """An existing, locked run folder. Use as a context manager; leaving it releases the lock."""

    def __init__(self, path: Path, lock: bool = True) -> None:
        """Create ``path``, or use an existing run's, and lock it; without ``lock`` another rank writes there.

        Raises:
            UsageError: another process holds it, or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path) if lock else None
        except OSError as error:
            raise UsageError(f"cannot write to run folder {path}: {error.strerror}.") from error
        if self._lock is not None and self._lock.holder:
            raise UsageError(f"{path} is in use by {self._lock.holder}; wait for it or choose another run_dir.")

    @classmethod
    def fresh(cls, path: Path) -> RunFolder:
        """A new folder at ``path``, or with a number after its name if another process has just made that one."""
        for n in range(1000):
            candidate = path if n == 0 else path.with_name(f"{path.name}-{n}")
            try:
                candidate.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UsageError(f"cannot create run folder {candidate}: {error.strerror}.") from error
            return cls(candidate)
        raise UsageError(f"{path} and a thousand names after it exist already.")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()

    def take_over(self) -> bool:
        """Lock the folder in place of a rank that has died; returns whether this process has it now."""
        for _ in range(50):  # that rank may be closing down
            with suppress(OSError):  # the folder is gone, too
                if self._lock is None or self._lock.holder:
                    self._lock = FolderLock(self.path)
                if not self._lock.holder:
                    return True
            time.sleep(0.1)
        return False

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    def in_place(self) -> bool:
        """Whether the folder is still there: not deleted, moved or on a disk that has gone."""
        return self._lock is not None and self._lock.in_place()

    def move_beside(self, cfg: RunConfig) -> None:
        """Go on in a new folder for the run ``cfg``, beside this one or else among temporary files.

        Raises:
            UsageError: no folder can be made in either place.
        """
        name = f"{self.path.name}-rescued"
        try:
            other = RunFolder.fresh(self.path.parent / name)
        except UsageError:
            other = RunFolder.fresh(Path(tempfile.gettempdir()) / name)
        other.write_config(cfg, {})
        self.close()
        self.path, self._lock = other.path, other._lock

    @property
    def resume_command(self) -> str:
        """What to type to continue this run."""
        words = [word for word in sys.argv[1:] if word.partition("=")[0] not in ("run_dir", "experiment", "checkpoint")]
        program = sys.argv[0]
        start = ["python", program] if program.endswith(".py") else [os.path.basename(program)]
        if "TORCHELASTIC_RUN_ID" in os.environ:
            start = ["torchrun", f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}", program]
        return shlex.join([*start, *words, f"run_dir={self.path}", "checkpoint=auto"])

    def command(self, tool: str) -> str:
        """What to type to use ``tool`` on this run."""
        return shlex.join([*program(tool), f"checkpoint={self.path}"])

    def write_config(self, cfg: RunConfig, reasons: dict[str, str]) -> None:
        """Store the resolved configuration, the ``reasons`` for what was ``auto``, and the versions."""
        import yaml

        head = "".join(f"# {key}: {reason}\n" for key, reason in reasons.items())
        text = yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True)
        write_atomic(self.path / "config.yaml", f"# The full configuration of this run. What was 'auto':\n{head}{text}")
        write_atomic(self.path / "versions.json", json.dumps(versions(), indent=1) + "\n")


def program(tool: str) -> list[str]:
    """What to type to start ``tool``, as this process was started: a script, or a command and its argument."""
    own, words = Path(sys.argv[0]), iter(sys.argv[1:])
    flags = (word for word in words if word.startswith("--config-dir"))
    folder = [flag if "=" in flag else f"{flag}={next(words, '')}" for flag in flags]
    start = ["python", str(own.with_name(f"{tool}.py"))] if own.suffix == ".py" else [own.name, tool]
    return start + folder


def find(where: str) -> Path:
    """The checkpoint file that a user means by a file, a run folder, its checkpoints folder, an export or zoo:NAME.

    Raises:
        CheckpointError: nothing there.
        UsageError: the zoo has no such policy.
    """
    if where.startswith(zoo.PREFIX):
        return zoo.weights(where.removeprefix(zoo.PREFIX))
    path = Path(os.path.expanduser(where))  # Path.expanduser raises for a user who does not exist
    for candidate in (path, path / "last.pt", path / "checkpoints" / "last.pt", path / zoo.WEIGHTS):
        if candidate.is_file():
            return candidate
    for folder in (path, path / "checkpoints"):  # a last.pt that was not copied along
        if found := steps_in(folder):
            return found[-1]
    if (path / "config.yaml").is_file():
        raise CheckpointError(f"the run in {where} has saved nothing yet; it saves at checkpoints and when it stops.")
    raise CheckpointError(f"there is no checkpoint {where} (a .pt file, a run folder, zoo:NAME, auto or latest).")


def steps_in(folder: Path) -> list[Path]:
    """The step files in ``folder``, oldest first."""
    numbered = [(_STEP.fullmatch(path.name), path) for path in folder.glob("step_*.pt")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


def has_begun(folder: Path) -> bool:
    """Whether ``folder`` holds anything of a run that a new one would destroy: checkpoints or rows of metrics."""
    metrics = folder / "metrics.jsonl"
    return any((folder / "checkpoints").glob("*.pt")) or (metrics.is_file() and metrics.stat().st_size > 0)


def read_rows(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, finite numbers or None; damaged lines, and one cut short, are passed over."""
    rows = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, RecursionError):
            if _is_row(row := json.loads(line)):
                rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or row.get("env_steps") is None or row.get("wall_time") is None:
        return False
    values = (value for value in row.values() if value is not None)
    return all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in values)


def read_config(folder: Path) -> dict[str, Any] | None:
    """The stored configuration of a run folder under today's keys, or None if there is none. Plain values only.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    import yaml

    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an impossible date
        raise CheckpointError(f"{folder / 'config.yaml'} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("task"), dict):
        raise CheckpointError(f"{folder / 'config.yaml'} is not a run's configuration.")
    return renamed_config(values)
