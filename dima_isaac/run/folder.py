"""The folder of one run: where it is, who may write to it, and what a continuation must agree on.

    runs/<experiment or task>/<name>/     or run_dir=PATH
      config.yaml     the full resolved configuration, with the reason for every ``auto`` value
      versions.json   git commit, Python and package versions
      metrics.jsonl   one JSON object per logging tick
      checkpoints/    step_<n>.pt, last.pt and the replay's rows
      lock            the process that is writing here

Torch-free: a folder that cannot be used is refused before torch is imported.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dima_isaac.config import FREE, RunConfig
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run.renamed import check_expressible, renamed_config
from dima_isaac.schema import AUTO, as_dict, leaves

ROOT = Path("runs")
_CODE = ("task.target", "task.config", "engine.target", "engine.config")

LATEST = "latest"
CONTINUE = (AUTO, LATEST)


@dataclass
class Plan:
    """Where a run will be, decided before anything is created."""

    path: Path
    stored: dict[str, Any] | None  # the configuration of the run to continue there, if it is one


def plan(cfg: RunConfig) -> Plan:
    """Choose the folder for ``cfg`` and check that it can be used. Creates nothing.

    Raises:
        UsageError: in use, not writable, holding another run, or made with other settings.
    """
    if cfg.run_dir:
        return _plan_named(cfg, Path(os.path.expanduser(cfg.run_dir)))
    parent = ROOT / (cfg.experiment or str(cfg.task["name"]))
    _check_writable(parent)
    if cfg.checkpoint in CONTINUE and parent.is_dir():
        for folder in sorted(_runs(parent), key=_started, reverse=True):
            try:
                stored = read_config(folder)
                check_expressible(stored or {}, folder)
            except CheckpointError as error:  # nobody asked for that run
                print(f"{error} That run is passed over.")
                continue
            if stored is not None and not changes(stored, cfg) and not _locked(folder):
                return Plan(folder, stored)
    if cfg.checkpoint == LATEST:
        raise CheckpointError(
            f"checkpoint=latest: no run in {parent} has these settings; checkpoint=auto would start one."
        )
    return Plan(parent / time.strftime(f"%Y%m%d-%H%M%S-seed{cfg.seed}"), None)


def _plan_named(cfg: RunConfig, folder: Path) -> Plan:
    _check_writable(folder)
    owner = _locked(folder)
    if owner:
        raise UsageError(f"{folder} is in use by {owner}; wait for it or choose another run_dir.")
    stored = read_config(folder)
    if stored is None and cfg.checkpoint == LATEST:
        raise CheckpointError(f"checkpoint=latest: {folder} holds no run; checkpoint=auto would start one.")
    if stored is None:
        return Plan(folder, None)
    if cfg.checkpoint not in CONTINUE:
        raise UsageError(f"{folder} holds a run; add checkpoint=auto to continue it, or choose another run_dir.")
    check_expressible(stored, folder)
    changed = changes(stored, cfg)
    if changed:
        listed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in list(changed.items())[:6])
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        raise UsageError(
            f"{folder} was made with other settings: {listed}{more}. Choose another run_dir;"
            f" checkpoint={folder} there starts from what was learnt here."
        )
    return Plan(folder, stored)


class RunFolder:
    """An existing, locked run folder. Use as a context manager; leaving it releases the lock."""

    def __init__(self, path: Path) -> None:
        """Create ``path`` (or take over an existing run's) and lock it.

        Raises:
            UsageError: another process holds it, or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / "lock", "a+", encoding="utf-8")  # noqa: SIM115  held until close()
            owner = _take(self._lock, path)
        except OSError as error:
            raise UsageError(f"cannot write to run folder {path}: {error.strerror}.") from error
        if owner:
            self._lock.close()
            raise UsageError(f"{path} is in use by {owner}; wait for it or choose another run_dir.")

    @classmethod
    def fresh(cls, path: Path) -> RunFolder:
        """A new folder at ``path``, with a number behind its name if somebody was faster."""
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
        if not self._lock.closed:
            self._lock.truncate(0)  # the file stays: unlinking it would let two processes lock two files of one name
            self._lock.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def resume_command(self) -> str:
        """What to type to continue this run."""
        words = [word for word in sys.argv[1:] if word.partition("=")[0] not in ("run_dir", "experiment", "checkpoint")]
        program = sys.argv[0]
        start = ["python", program] if program.endswith(".py") else [os.path.basename(program)]
        return shlex.join([*start, *words, f"run_dir={self.path}", "checkpoint=auto"])

    def command(self, tool: str) -> str:
        """What to type to look at this run with ``tool``."""
        program = Path(sys.argv[0])
        start = ["python", str(program.with_name(f"{tool}.py"))] if program.suffix == ".py" else [program.name, tool]
        return shlex.join([*start, f"checkpoint={self.path}"])

    def write_config(self, cfg: RunConfig, reasons: dict[str, str]) -> None:
        """Store the resolved configuration and the versions it runs with."""
        import yaml

        head = "".join(f"# {key}: {reason}\n" for key, reason in reasons.items())
        text = yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True)
        write_whole(self.path / "config.yaml", f"# The full configuration of this run. What was 'auto':\n{head}{text}")
        write_whole(self.path / "versions.json", json.dumps(versions(), indent=1) + "\n")


def find(where: str) -> Path:
    """The checkpoint file that a user means by a file, a run folder or its checkpoints folder.

    Raises:
        CheckpointError: nothing there.
    """
    path = Path(os.path.expanduser(where))  # Path's own raises for a user who is not there
    for candidate in (path, path / "last.pt", path / "checkpoints" / "last.pt"):
        if candidate.is_file():
            return candidate
    raise CheckpointError(f"there is no checkpoint {where} (a .pt file or a run folder).")


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
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or no day of the calendar
        raise CheckpointError(f"{folder / 'config.yaml'} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("task"), dict):
        raise CheckpointError(f"{folder / 'config.yaml'} is not a run's configuration.")
    return renamed_config(values)


def changes(stored: dict[str, Any], cfg: RunConfig) -> dict[str, tuple[Any, Any]]:
    """What ``cfg`` wants to change and may not: key -> (stored, wanted). ``auto`` agrees with anything."""
    old = dict(leaves(stored))
    out = {}
    for key, value in leaves(cfg):
        if key in _CODE or any(key == free or key.startswith(free + ".") for free in FREE):
            continue
        if value != AUTO and key in old and old[key] != value:
            out[key] = (old[key], value)
    return out


def versions() -> dict[str, Any]:
    """Commit, Python and package versions: names and numbers, nothing of the environment's variables."""
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return {
        "git": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git(*words: str) -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _runs(parent: Path) -> list[Path]:
    return [folder for folder in parent.iterdir() if (folder / "config.yaml").is_file()]


def _started(folder: Path) -> tuple[float, str]:
    files = [folder / "config.yaml", folder / "metrics.jsonl"]
    return max(path.stat().st_mtime for path in files if path.exists()), folder.name


def _check_writable(folder: Path) -> None:
    """Raise unless ``folder`` could be created and written: its nearest existing ancestor decides."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"cannot use run folder {folder}: {place} is a file.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"cannot use run folder {folder}: no permission to write to {place.resolve()}.")


def _locked(folder: Path) -> str:
    """Who holds ``folder``, or ''."""
    try:
        with open(folder / "lock", "r+", encoding="utf-8") as file:
            owner = _take(file, folder, keep=False)
    except OSError:
        return ""
    return owner


def _take(file: Any, folder: Path, keep: bool = True) -> str:
    """Lock ``file`` for this process; returns '' or the owner. A dead owner's lock is free: the kernel released it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            return _owner(file) or "another process"
        owner = _owner(file)  # no locks on this file system: go by the process number
        if owner and not _dead(owner):
            return owner
    if keep:
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return ""


def _owner(file: Any) -> str:
    file.seek(0)
    return str(file.read().strip())


def _dead(owner: str) -> bool:
    """Whether ``owner`` is a process of this machine that no longer exists."""
    words = owner.split()
    if len(words) != 4 or words[3] != socket.gethostname():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def write_whole(path: Path, content: str | bytes) -> None:
    """Put ``content`` into ``path`` at once: whoever reads it, or whatever fails, meets the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
