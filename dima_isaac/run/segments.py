"""The replay's rows on disk: files of consecutive rows, written once and shared by the checkpoints that list them.

Rows never change once written, so a save writes only those added since the one before it, whatever the capacity.

    checkpoints/replay_<a>_<b>.pt   rows number a to b - 1, counted from the start of the run
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dima_isaac.errors import CheckpointError
from dima_isaac.run import sealed
from dima_isaac.run.sealed import State

ROW_FILE = re.compile(r"replay_(\d+)_(\d+)\.pt")


def save_rows(folder: Path, replay: State, segments: list[State]) -> list[State]:
    """Write the rows of ``replay`` (``ReplayBuffer.state_dict()``) that the saved ``segments`` lack.

    Returns the segments, oldest first, that hold all of its rows: file, start, stop and digest each.

    Raises:
        OSError: no space, no permission.
    """
    capacity, stop, size = int(replay["rows"]), int(replay["added"]), int(replay["size"])
    oldest = stop - size
    kept = [segment for segment in segments if oldest < segment["stop"] <= stop]
    if not all((folder / segment["file"]).exists() for segment in kept):  # deleted by somebody else
        kept = []
    start = kept[-1]["stop"] if kept else oldest
    if start < stop:
        where = torch.arange(start, stop) % capacity
        rows = {name: value[where.to(value.device)].cpu() for name, value in _columns(replay).items()}
        name = f"replay_{start}_{stop}.pt"
        kept.append({"file": name, "start": start, "stop": stop, "sha256": sealed.save(folder / name, rows)})
    return kept


def without_rows(replay: State) -> State:
    """What is left of ``replay`` (``ReplayBuffer.state_dict()``) for the checkpoint itself."""
    columns = _columns(replay)
    return {name: value for name, value in replay.items() if name not in columns}


def load_rows(folder: Path, state: State, note: Callable[[str], None]) -> bool:
    """Read the rows that the replay of a checkpoint's ``state`` lists back into it; returns whether they are all there.

    Rows of a file that is damaged or not listed are lost, which ``note`` is told. The others move together; the row
    after a gap becomes the first of an episode, because nothing that is left led to it.

    Raises:
        CheckpointError: a listed name is not one of a row file.
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
        except CheckpointError as error:
            note(str(error))
            continue
        if segment["stop"] != joined:
            after = state["step"]["first"] if at == stop else replay["first"][at % capacity]
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


def _columns(replay: State) -> dict[str, Tensor]:
    return {name: value for name, value in replay.items() if isinstance(value, Tensor) and name != "generator"}
