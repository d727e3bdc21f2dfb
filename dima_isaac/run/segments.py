"""The replay's rows on disk: files of consecutive rows, written once and shared by the checkpoints that list them.

Rows never change once written, so a save writes only those added since the one before it, whatever the capacity.

    checkpoints/replay_<a>_<b>.pt   rows number a to b - 1, counted from the start of the run
"""

from __future__ import annotations

import re
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


def load_rows(folder: Path, replay: State) -> State:
    """``replay`` as a checkpoint in ``folder`` holds it, with the rows of its segments read back in the ring's order.

    Raises:
        CheckpointError: a row file that is missing, altered or not the one it was saved with.
    """
    replay = dict(replay)
    segments = replay.pop("segments", None)
    if segments is None:
        return replay
    capacity, size = int(replay["rows"]), int(replay["size"])
    oldest = int(replay["added"]) - size
    columns: dict[str, Tensor] = {}
    for segment in segments:
        if not ROW_FILE.fullmatch(segment["file"]):
            raise CheckpointError(f"a checkpoint in {folder} calls '{segment['file']}' replay rows; not opened.")
        rows = sealed.load(folder / segment["file"], digest=segment["sha256"])
        start = max(segment["start"], oldest)
        where = torch.arange(start, segment["stop"]) % capacity
        for name, value in rows.items():
            column = columns.setdefault(name, torch.empty(size, *value.shape[1:], dtype=value.dtype))
            column[where] = value[start - segment["start"] :]
    return {**replay, **columns}


def _columns(replay: State) -> dict[str, Tensor]:
    return {name: value for name, value in replay.items() if isinstance(value, Tensor) and name != "generator"}
