"""Runs read back from their folders, grouped by what their configurations have in common, on one axis."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dima_isaac.config import FREE, leaves
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run.folder import read_config
from dima_isaac.tools.statistics import bootstrap, iqm, mean

Array = np.ndarray
_IGNORED = (*FREE, "seed", "task.target", "task.config", "engine.target", "engine.config", "engine.threads")
POINTS = 200  # of a group's common axis


@dataclass
class Run:
    """One run folder."""

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, float | None]]  # metrics.jsonl

    def curve(self, metric: str, axis: str) -> tuple[Array, Array]:
        """Where ``metric`` was reported as a finite number: (positions on ``axis``, values), ascending.

        A row holds only what was measured since the one before it, so every point is a measurement.
        """
        last: dict[float, float] = {}  # one value for each position: the newest
        for row in self.rows:
            x, y = row.get(axis), row.get(metric)
            if x is not None and y is not None:
                last[x] = y
        positions = sorted(last)
        return np.array(positions, dtype=float), np.array([last[x] for x in positions], dtype=float)


@dataclass
class Band:
    """Several runs on one axis, from where the last begins to where the first ends."""

    x: Array
    mean: Array
    iqm: Array
    low: Array  # 95 % bootstrap interval of the IQM over runs
    high: Array


@dataclass
class Group:
    """Runs that differ in nothing but their seed."""

    label: str
    runs: list[Run]

    def band(self, metric: str, axis: str) -> Band | None:
        """None where fewer than two runs reported ``metric`` over a common stretch."""
        curves = [curve for run in self.runs if len((curve := run.curve(metric, axis))[0])]
        if len(curves) < 2:
            return None
        start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        if end < start:
            return None
        x = np.unique(np.concatenate([x for x, _ in curves]))
        x = x[(x >= start) & (x <= end)]
        if len(x) > POINTS:
            x = np.linspace(start, end, POINTS)
        values = np.stack([np.interp(x, *curve) for curve in curves])
        low, high = bootstrap([values])
        return Band(x, mean(values), iqm(values), low, high)


def load(words: Iterable[str]) -> list[Run]:
    """Every run named, or found in a named folder of runs.

    Raises:
        UsageError: no such folder, no run in it, or nothing logged yet.
        CheckpointError: the configuration of a named run cannot be read.
    """
    runs: list[Run] = []
    for word in words:
        place = Path(os.path.expanduser(word))
        if not place.is_dir():
            raise UsageError(f"{word} is not a folder; give run folders (or a folder of runs).")
        named = (place / "metrics.jsonl").is_file()
        found = [place] if named else sorted(path.parent for path in place.glob("*/metrics.jsonl"))
        if not found:
            raise UsageError(f"{word} holds no run: there is no metrics.jsonl in it or one level below.")
        for path in found:
            try:
                runs.append(_read(path))
            except CheckpointError as error:
                if named:
                    raise
                print(f"{error} That run is passed over.")
    filled = [run for run in runs if run.rows]
    if not filled:
        where = ", ".join(str(run.path) for run in runs) or "any run that can be read"
        raise UsageError(f"nothing has been logged yet in {where}.")
    return filled


def _read(path: Path) -> Run:
    rows = []
    for line in (path / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that a kill cut short
        if isinstance(row, dict) and row.get("env_steps") is not None:
            rows.append(row)
    return Run(path, read_config(path) or {}, rows)


def group(runs: list[Run]) -> list[Group]:
    """Runs whose configurations agree in all but seed and housekeeping; labelled by what tells groups apart.

    A setting that some runs do not have, made by a version without it, tells only those apart that have it.
    """
    settings = [_settings(run) for run in runs]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    differing = [key for key in keys if len({repr(one[key]) for one in settings if key in one}) > 1]
    if "task.name" in differing:  # then the tasks' own values differ as a matter of course
        differing = [key for key in differing if not key.startswith("task.") or key == "task.name"]
    if "preset" in differing:  # and so does what a preset sets
        parts = {one.get("preset") for one in settings}
        differing = [key for key in differing if key == "preset" or _varies_within(settings, key, parts)]
    names = _short(differing)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run, one in zip(runs, settings, strict=True):
        groups.setdefault(tuple(repr(one.get(key)) for key in differing), []).append(run)
    out = []
    for members in groups.values():
        one = _settings(members[0])
        words = [
            str(one.get(key)) if key == "task.name" else f"{name}={one.get(key)}"
            for key, name in zip(differing, names, strict=True)
        ]
        if len(words) > 3:  # too much to tell on a label: the folders' names say more
            words = [str(one["task.name"])] if "task.name" in differing else []
            words += [" ".join(run.path.name for run in members[:3]) + (" ..." if len(members) > 3 else "")]
        label = ", ".join(words)
        out.append(Group(label or str(one.get("task.name", members[0].path.name)), members))
    return out


def _settings(run: Run) -> dict[str, Any]:
    return {
        key: value
        for key, value in leaves(run.config)
        if not any(key == ignored or key.startswith(ignored + ".") for ignored in _IGNORED)
    }


def _varies_within(settings: list[dict[str, Any]], key: str, presets: set[Any]) -> bool:
    return any(len({repr(one.get(key)) for one in settings if one.get("preset") == p}) > 1 for p in presets)


def _short(keys: list[str]) -> list[str]:
    """The last part of each key, or all of it where that is ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for short, key in zip(last, keys, strict=True)]
