"""The replay's rows on disk: files of consecutive rows, written once and shared by the checkpoints that list them.

Rows never change once written, so a save writes only those added since the one before it, whatever the capacity.

    checkpoints/replay_<a>_<b>.pt   rows number a to b - 1, counted from the start of the run
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.errors import CheckpointError
from dima_isaac.run import sealed
from dima_isaac.run.sealed import State, UnreadableError

ROW_FILE = re.compile(r"replay_(\d+)_(\d+)\.pt")


def new_rows(folder: Path, replay: State, segments: list[State]) -> tuple[list[State], int, State]:
    """The rows of ``replay`` (``ReplayBuffer.state_dict()``) that the ``segments`` saved in ``folder`` lack.

    Returns the segments that are still needed, oldest first, the first new row's number, and on rank 0 the new rows
    (T, E, ...) of all ranks' environments. What a rank that has died holds is replaced by a copy of this one's.
    """
    capacity, stop, size = int(replay["rows"]), int(replay["added"]), int(replay["size"])
    oldest = stop - size
    kept = [segment for segment in segments if oldest < segment["stop"] <= stop]
    if not ranks.from_first(lambda: all((folder / segment["file"]).exists() for segment in kept)):
        kept = []  # deleted by another program
    start = kept[-1]["stop"] if kept else oldest
    where = torch.arange(start, stop) % capacity
    rows = {name: value[where.to(value.device)].cpu() for name, value in columns(replay).items()}
    of_ranks = [rows] * ranks.count() if ranks.lost() else ranks.gathered(rows)
    if len(of_ranks) > 1:
        rows = {name: torch.cat([own[name] for own in of_ranks], 1) for name in rows}
    return kept, start, rows


def save_rows(folder: Path, kept: list[State], start: int, rows: State) -> list[State]:
    """Write ``new_rows``. Returns the segments, oldest first, that hold all rows: file, start, stop, digest each.

    Raises:
        OSError: no space, no permission.
    """
    stop = start + len(next(iter(rows.values())))
    if start == stop:
        return kept
    name = f"replay_{start}_{stop}.pt"
    return [*kept, {"file": name, "start": start, "stop": stop, "sha256": sealed.save(folder / name, rows)}]


def without_rows(replay: State) -> State:
    """What is left of ``replay`` (``ReplayBuffer.state_dict()``) for the checkpoint itself."""
    return {name: value for name, value in replay.items() if name not in columns(replay)}


def load_rows(folder: Path, state: State, note: Callable[[str], None]) -> bool:
    """Read the rows that the replay of a checkpoint's ``state`` lists back into it; returns whether they are all there.

    Rows of a file that is damaged or not listed are lost, with a message to ``note``. The others move together; the row
    after a gap becomes the first of an episode, because nothing that is left led to it.

    Raises:
        CheckpointError: a listed name is not one of a row file.
        UnreadableError: a row file may be intact and cannot be read now.
    """
    replay = state["replay"]
    segments = replay.pop("segments", None)
    if segments is None:
        return True
    capacity, size, stop = int(replay["rows"]), int(replay["size"]), int(replay["added"])
    oldest, at, joined = stop - size, stop, stop  # rows go before number ``at`` and were read from ``joined`` on
    for segment in reversed(segments):
        if not ROW_FILE.fullmatch(segment["file"]):
            raise CheckpointError(f"a checkpoint in {folder} calls '{segment['file']}' replay rows; not opened.")
        try:
            rows = sealed.load(folder / segment["file"], digest=segment["sha256"])
        except UnreadableError:
            raise
        except CheckpointError as error:
            note(str(error))
            continue
        if segment["stop"] != joined:
            steps = [part["step"] for part in (state, *state.get("ranks", ()))] if at == stop else []
            for after in [step["first"] for step in steps] or [replay["first"][at % capacity]]:
                after.fill_(True)
        joined = max(segment["start"], oldest)
        where = torch.arange(at - (segment["stop"] - joined), at) % capacity
        for name, value in rows.items():
            if name not in replay:
                replay[name] = torch.zeros(min(stop, capacity), *value.shape[1:], dtype=value.dtype)
            replay[name][where] = value[joined - segment["start"] :]
        at -= len(where)
    replay["size"] = stop - at
    if at > oldest:
        note(f"{at - oldest:,} of {size:,} rows of the replay are lost; only the others are used.")
    return at == oldest


def columns(replay: State) -> dict[str, Tensor]:
    """The rows (T, E, ...) of ``ReplayBuffer.state_dict()``, without counters and the random state."""
    return {name: value for name, value in replay.items() if isinstance(value, Tensor) and name != "generator"}
