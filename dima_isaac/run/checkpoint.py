"""The checkpoints of a run: saved with rotation, restored with a fall-back to the newest intact one.

checkpoints/step_<n>.pt      everything but the replay's rows (run.segments)
checkpoints/last.pt          the newest of them (a hard link)
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from dima_isaac import ranks
from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError
from dima_isaac.run import sealed
from dima_isaac.run.atomic import replacing
from dima_isaac.run.folder import RESUME, find, steps_in
from dima_isaac.run.renamed import check_expressible, renamed_config, renamed_state
from dima_isaac.run.sealed import State, UnreadableError
from dima_isaac.run.segments import ROW_FILE, load_rows, new_rows, save_rows, without_rows
from dima_isaac.schema import as_dict

FORMAT = 1


class Checkpoints:
    """The checkpoints folder of the run that this process writes."""

    def __init__(self, folder: Path, cfg: RunConfig, note: Callable[[str], None] = print) -> None:
        """Use ``folder`` (made if missing) for the run ``cfg``; messages for the user go to ``note``."""
        self.folder, self.cfg, self.note = folder, cfg, note
        self.segments: list[State] = []  # the row files of the newest checkpoint, oldest first
        folder.mkdir(parents=True, exist_ok=True)
        self._saved = bool(steps_in(folder))
        for stale in folder.glob(".*.tmp"):  # of a save that was killed: no other process has the run's lock
            stale.unlink(missing_ok=True)

    def save(self, env_steps: int, payload: State) -> bool:
        """Save ``payload`` as the newest checkpoint; returns whether it could be written.

        A full disk or a folder that is gone is reported, not raised, and the checkpoint before stays.
        ``payload["replay"]``, if present, is ``ReplayBuffer.state_dict()``. All ranks call this, and rank 0 writes.
        """
        new = new_rows(self.folder, payload["replay"], self.segments) if "replay" in payload else None
        stored = {**payload, "format": FORMAT, "env_steps": env_steps, "config": as_dict(self.cfg)}
        saved, self.segments = ranks.from_first(lambda: (self._write(env_steps, stored, new), self.segments))
        return saved

    def _write(self, env_steps: int, stored: State, new: tuple[list[State], int, State] | None) -> bool:
        path = self.folder / f"step_{env_steps}.pt"
        before = self.segments
        try:
            self.folder.mkdir(exist_ok=True)
            if new is not None:
                self.segments = save_rows(self.folder, *new)
                stored["replay"] = {**without_rows(stored["replay"]), "segments": self.segments}
            sealed.save(path, stored)
            self._link_last(path)
        except OSError as error:
            added = [segment for segment in self.segments if segment not in before]
            with contextlib.suppress(OSError):
                if added:
                    path.unlink(missing_ok=True)  # it may be there and list what goes now: a full disk needs the room
                for segment in added:
                    (self.folder / segment["file"]).unlink(missing_ok=True)
            self.segments = before
            left = "the one before it is intact" if self._saved else "there is none before it"
            self.note(f"checkpoint not saved: {(error.strerror or str(error)).rstrip('.')}; {left}.")
            return False
        self._saved = True
        try:
            self._rotate()
        except OSError as error:
            self.note(f"older checkpoints not deleted: {error.strerror}.")
        return True

    def restore(self) -> State | None:
        """The state that ``cfg.checkpoint`` names, or None to begin.

        Empty names none; ``auto`` and ``latest`` for the newest intact checkpoint of this folder, if there
        is one; anything else is the path of a checkpoint, made on the same task.

        Raises:
            CheckpointError: a named checkpoint that is missing, torn, altered or of another task; no intact one.
        """
        which = self.cfg.checkpoint
        if not which:
            return None
        return self.newest() if which in RESUME else self._read(find(which))

    def newest(self) -> State | None:
        """The newest intact checkpoint of this folder, if there is one.

        Raises:
            CheckpointError: there are checkpoints, but no intact one.
            UnreadableError: the newest one, or rows that it lists, may be intact and cannot be read now.
        """
        damaged: dict[Path, CheckpointError] = {}
        for path in reversed(steps_in(self.folder) or [*self.folder.glob("last.pt")]):
            try:
                state = self._read(path)
            except UnreadableError as error:
                raise UnreadableError(
                    f"{error} Try again when it can be; if it never can, move it away: the run continues without it."
                ) from error
            except CheckpointError as error:
                damaged[path] = error
                continue
            for torn, reason in damaged.items():  # only now: with their names gone, the run would begin anew
                self.note(f"{reason} It is set aside, and {path.name} continued from.")
                _set_aside(torn)
            return state
        if damaged:
            raise CheckpointError(
                f"no checkpoint is intact: {' '.join(map(str, damaged.values()))} A copy in the place of one"
                " continues this run; another run_dir begins a new run."
            )
        return None

    def _read(self, path: Path) -> State:
        state = read(path)
        check_task(path, state, self.cfg.task["name"])
        if "replay" in state:
            segments = list(state["replay"].get("segments", []))
            whole = load_rows(path.parent, state, self.note)
            self.segments = segments if whole and path.resolve().parent == self.folder.resolve() else []
        return state

    def _link_last(self, path: Path) -> None:
        with replacing(self.folder / "last.pt") as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                temporary.write_bytes(path.read_bytes())

    def _rotate(self) -> None:
        """Delete the steps beyond ``keep`` and the row files that no kept checkpoint lists."""
        files, keep = steps_in(self.folder), self.cfg.train.checkpoint.keep
        for path in files[:-keep]:
            path.unlink(missing_ok=True)
        listed = {segment["file"] for segment in self.segments}
        for path in files[-keep:-1]:
            try:
                segments = sealed.load(path).get("replay", {}).get("segments", [])
            except UnreadableError:  # it may be readable next time, and nothing goes before that
                return
            except CheckpointError as error:
                self.note(f"{error} It is set aside.")
                _set_aside(path)
                continue
            listed |= {segment["file"] for segment in segments}
        for path in self.folder.iterdir():
            if ROW_FILE.fullmatch(path.name) and path.name not in listed:
                path.unlink(missing_ok=True)


def read(path: Path) -> State:
    """A checkpoint under today's names, without its replay's rows.

    Raises:
        CheckpointError: missing, torn, altered, of another format, or made with settings that no longer exist.
    """
    state = sealed.load(path)
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
        for older in reversed(steps_in(path.parent) if path.name == "last.pt" else []):
            with contextlib.suppress(CheckpointError):
                state = read(older)
                print(f"{error} Taking {older.name}.")
                return older, state
        raise


def check_task(path: Path, state: State, wanted: str) -> None:
    """Raise ``CheckpointError`` unless the checkpoint ``state``, read from ``path``, was made on task ``wanted``."""
    made = state["config"]["task"]["name"]
    if made != wanted:
        raise CheckpointError(f"{path} was made on task {made}, not {wanted}.")


def _set_aside(path: Path) -> None:
    """Rename a damaged step file, so that nothing reads or deletes it."""
    path.rename(path.with_suffix(".pt.damaged"))
