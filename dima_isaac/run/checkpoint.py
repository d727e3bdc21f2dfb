"""Checkpoint files: atomic, self-verifying, and nothing that could run code.

A file is what ``torch.save`` writes, with the SHA-256 of all of it in the zip archive's comment, so that it can
be verified wherever it is copied and is still read by a plain ``torch.load(path, weights_only=True)``. It is
written under a temporary name, synced and renamed: at any moment a name points to a whole file or to none.

    checkpoints/step_<n>.pt      everything but the replay's rows
    checkpoints/last.pt          the newest of them (a hard link)
    checkpoints/replay_<a>_<b>.pt  the replay's rows number a to b - 1, written once and shared

Rows never change once written, so a save writes only those added since the one before it, whatever the
capacity. A checkpoint lists its row files with their digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError
from dima_isaac.run.folder import find
from dima_isaac.run.renamed import check_expressible, renamed_config, renamed_state
from dima_isaac.schema import as_dict

FORMAT = 1
_END = b"PK\x05\x06"  # zip: end of central directory, 22 bytes with the length of the comment at 20
_MARK = b"dima-isaac sha256:"
_COMMENT = len(_MARK) + 64
_CHUNK = 1 << 22
_STEP = re.compile(r"step_(\d+)\.pt")
_ROWS = re.compile(r"replay_(\d+)_(\d+)\.pt")

State = dict[str, Any]


def save(path: Path, payload: State) -> str:
    """Write ``payload`` (tensors and plain values, nested) to ``path`` and return its SHA-256.

    Raises:
        OSError: no space, no permission; ``path`` is what it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            torch.save(payload, temporary)
        except RuntimeError as error:  # torch reports a full disk as a failed assertion of its zip writer
            raise OSError(f"{path.name} could not be written completely; is the disk full?") from error
        digest = _seal(temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest


def load(path: Path, device: torch.device | str = "cpu", digest: str | None = None) -> State:
    """Verify ``path`` and read it. ``digest`` is the one that somebody else noted, if there is one.

    Raises:
        CheckpointError: missing, truncated, altered, or holding anything but tensors and plain values.
    """
    found = verify(path)
    if digest is not None and found != digest:
        raise CheckpointError(f"{path} is intact but not the file that its checkpoint was saved with.")
    try:
        payload = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read safely: {str(error).splitlines()[0]}") from error
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}, not a checkpoint.")
    return payload


def verify(path: Path) -> str:
    """The SHA-256 that ``path`` carries, after checking it against the content.

    Raises:
        CheckpointError: missing, truncated, altered or not one of our files.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest, left = hashlib.sha256(), size - 64
            while left > 0:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    break
                digest.update(chunk)
                left -= len(chunk)
            file.seek(max(0, size - _COMMENT))
            comment = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}.") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    if not comment.startswith(_MARK) or comment[len(_MARK) :] != digest.hexdigest().encode():
        raise CheckpointError(f"{path} is truncated, altered or not a checkpoint of this program.")
    return digest.hexdigest()


def _seal(path: Path) -> str:
    """Give the archive a comment with its own digest (of every byte but the digest itself) and sync it."""
    with path.open("r+b") as file:
        file.seek(-22, os.SEEK_END)
        if file.read(4) != _END:
            raise OSError(f"{path.name} was not written completely")
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _COMMENT) + _MARK)
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        file.write(digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Checkpoints:
    """The checkpoints of one run: save with rotation, restore with a fall-back."""

    def __init__(self, folder: Path, cfg: RunConfig, note: Callable[[str], None] = print) -> None:
        """Use ``folder`` (made if missing) for the run ``cfg``, and tell the user through ``note``."""
        self.folder, self.cfg, self.note = folder, cfg, note
        self.keep = max(1, cfg.train.checkpoint.keep)
        self.segments: list[State] = []  # the row files of the newest checkpoint, oldest first
        self._named: dict[str, set[str]] = {}  # step file -> the row files it lists
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".*.tmp"):  # a save that was killed; the run's lock is ours, so nobody is writing it
            stale.unlink(missing_ok=True)

    def save(self, env_steps: int, payload: State) -> bool:
        """Save ``payload`` as the newest checkpoint; returns whether it could be written.

        A full disk is reported, not raised: the old one stays.

        ``payload["replay"]``, where there is one, is ``ReplayBuffer.state_dict()``.
        """
        path = self.folder / f"step_{env_steps}.pt"
        before = list(self.segments)
        try:
            stored = {**payload, "format": FORMAT, "env_steps": env_steps, "config": as_dict(self.cfg)}
            if "replay" in payload:
                stored["replay"] = self._save_rows(payload["replay"])
            save(path, stored)
            self._named[path.name] = {segment["file"] for segment in self.segments}
            self._link_last(path)
        except OSError as error:
            for segment in [segment for segment in self.segments if segment not in before]:
                for half_saved in (path, self.folder / segment["file"]):  # a full disk needs the room
                    half_saved.unlink(missing_ok=True)
            self.segments = before
            left = "the one before it is intact" if self.steps() else "there is none before it"
            self.note(f"checkpoint not saved: {(error.strerror or str(error)).rstrip('.')}; {left}.")
            return False
        self._rotate()
        return True

    def restore(self) -> State | None:
        """The state that ``cfg.checkpoint`` asks to continue from, or None to begin.

        Nothing asks for none; ``auto`` and ``latest`` for the newest intact checkpoint of this folder, if there
        is one; anything else is the path of a checkpoint, made on the same task.

        Raises:
            CheckpointError: a named checkpoint that is missing, torn, altered or of another task; no intact one.
        """
        which = self.cfg.checkpoint
        if not which:
            return None
        if which not in ("auto", "latest"):
            return self._read(find(which))
        damaged: list[Path] = []
        for path in reversed(self.steps()):
            try:
                state = self._read(path)
            except CheckpointError as error:
                self.note(f"{error} Trying the one before it.")
                damaged.append(path)
                continue
            for torn in damaged:  # only now: with their names gone, a run without an intact one would begin anew
                _set_aside(torn)
            return state
        if damaged:
            raise CheckpointError(f"no intact checkpoint in {self.folder}; remove that folder to begin anew.")
        return None

    def steps(self) -> list[Path]:
        """The step files, oldest first."""
        return _steps(self.folder)

    def _read(self, path: Path) -> State:
        state = read(path)
        check_task(path, state, self.cfg.task["name"])
        if "replay" in state:
            segments = state["replay"].get("segments", [])
            state["replay"] = _load_rows(path.parent, state["replay"])
            if path.resolve().parent == self.folder.resolve():
                self.segments = list(segments)
        return state

    def _save_rows(self, replay: State) -> State:
        """Write the rows added since the newest segment; return the replay's state with file names for rows."""
        columns = {name: value for name, value in replay.items() if isinstance(value, Tensor) and name != "generator"}
        rest = {name: value for name, value in replay.items() if name not in columns}
        capacity, stop, size = int(replay["rows"]), int(replay["added"]), int(replay["size"])
        oldest = stop - size
        kept = [segment for segment in self.segments if oldest < segment["stop"] <= stop]
        start = kept[-1]["stop"] if kept else oldest
        if start < stop:
            where = torch.arange(start, stop) % capacity
            rows = {name: value[where.to(value.device)].cpu() for name, value in columns.items()}
            name = f"replay_{start}_{stop}.pt"
            kept.append({"file": name, "start": start, "stop": stop, "sha256": save(self.folder / name, rows)})
        self.segments = kept
        return {**rest, "segments": kept}

    def _link_last(self, path: Path) -> None:
        temporary = self.folder / f".last.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(path.read_bytes())
        os.replace(temporary, self.folder / "last.pt")

    def _rotate(self) -> None:
        """Delete the steps beyond ``keep`` and the row files that no kept checkpoint can name."""
        files = self.steps()
        for path in files[: -self.keep]:
            path.unlink(missing_ok=True)
        named = {segment["file"] for segment in self.segments}
        for path in files[-self.keep : -1]:
            if path.name not in self._named:  # saved before this process took over
                try:
                    segments = load(path).get("replay", {}).get("segments", [])
                except CheckpointError as error:
                    self.note(f"{error} It is set aside.")
                    _set_aside(path)
                    continue
                self._named[path.name] = {segment["file"] for segment in segments}
            named |= self._named[path.name]
        for path in self.folder.iterdir():
            if _ROWS.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)


def read(path: Path) -> State:
    """A checkpoint under today's names and without its replay's rows, for whoever only wants the policy.

    Raises:
        CheckpointError: missing, torn, altered, of another format, or made with settings that no longer exist.
    """
    state = load(path)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {state.get('format')}; this version reads {FORMAT}.")
    state["config"] = renamed_config(state["config"])
    check_expressible(state["config"], path)
    return renamed_state(state)


def read_newest(path: Path) -> tuple[Path, State]:
    """``path`` and what ``read`` makes of it; in place of a damaged last.pt the newest intact step file, with a note.

    Raises:
        CheckpointError: another file than last.pt is damaged, or there is no intact one.
    """
    try:
        return path, read(path)
    except CheckpointError as error:
        for older in reversed(_steps(path.parent) if path.name == "last.pt" else []):
            with contextlib.suppress(CheckpointError):
                state = read(older)
                print(f"{error} Taking {older.name}.")
                return older, state
        raise


def check_task(path: Path, state: State, wanted: str) -> None:
    """Refuse the checkpoint ``state``, read from ``path``, unless it was made on task ``wanted``.

    Raises:
        CheckpointError: it was made on another.
    """
    made = state["config"]["task"]["name"]
    if made != wanted:
        raise CheckpointError(f"{path} was made on task {made}, not {wanted}.")


def rows(path: Path, replay: State) -> State:
    """The replay's rows that the checkpoint at ``path`` lists, for whoever measures a finished run.

    Raises:
        CheckpointError: a row file that is missing, altered or not the one it was saved with.
    """
    return _load_rows(path.parent, dict(replay))


def _steps(folder: Path) -> list[Path]:
    """The step files in ``folder``, oldest first."""
    numbered = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


def _set_aside(path: Path) -> None:
    """Take a damaged step file out of the rotation's way, for whoever wants to look at it."""
    path.rename(path.with_suffix(".pt.damaged"))


def _load_rows(folder: Path, replay: State) -> State:
    """The replay's state with its rows read back into the ring's order."""
    segments = replay.pop("segments", None)
    if segments is None:
        return replay
    capacity, size = int(replay["rows"]), int(replay["size"])
    oldest = int(replay["added"]) - size
    columns: dict[str, Tensor] = {}
    for segment in segments:
        if not _ROWS.fullmatch(segment["file"]):
            raise CheckpointError(f"a checkpoint in {folder} calls '{segment['file']}' replay rows; not opened.")
        rows = load(folder / segment["file"], digest=segment["sha256"])
        start = max(segment["start"], oldest)
        where = torch.arange(start, segment["stop"]) % capacity
        for name, value in rows.items():
            column = columns.setdefault(name, torch.empty(size, *value.shape[1:], dtype=value.dtype))
            column[where] = value[start - segment["start"] :]
    return {**replay, **columns}
