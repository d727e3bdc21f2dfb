"""Runs read back from their folders, and grouped by the settings in which they differ."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dima_isaac.config import FREE
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run.folder import read_config, read_rows
from dima_isaac.schema import leaves
from dima_isaac.tools.statistics import bootstrap, iqm

Array = np.ndarray
_IGNORED = (*FREE, "seed")
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

    def size(self) -> str:
        """How many runs: "1 run", "3 seeds", "5 runs of 3 seeds"."""
        runs, seeds = len(self.runs), len({run.config.get("seed") for run in self.runs})
        if runs == 1:
            return "1 run"
        return f"{seeds} seeds" if seeds == runs else f"{runs} runs of {seeds} seed{'s' if seeds > 1 else ''}"

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
        low, high = bootstrap(values)
        return Band(x, values.mean(0), iqm(values), low, high)


def load(names: Iterable[str]) -> list[Run]:
    """Every run that ``names`` name, or that lies below a folder that they name; each once.

    Raises:
        UsageError: no such folder, no run in it, or nothing logged yet.
        CheckpointError: the configuration of a named run cannot be read.
    """
    found: dict[Path, Run] = {}
    for name in names:
        folder = Path(os.path.expanduser(name))
        if not folder.is_dir():
            raise UsageError(f"{name} is not a folder; give run folders (or a folder of runs).")
        is_run = (folder / "metrics.jsonl").is_file()
        below = {path.parent for path in folder.glob("**/metrics.jsonl")}
        paths = [folder] if is_run else sorted(path for path in below if below.isdisjoint(path.parents))
        if not paths:
            raise UsageError(f"{name} holds no run: there is no metrics.jsonl in it or below.")
        for path in paths:
            try:
                found[path.resolve()] = Run(path, read_config(path) or {}, read_rows(path / "metrics.jsonl"))
            except (CheckpointError, OSError) as error:
                if is_run:
                    raise
                print(f"{str(error).rstrip('.')}. That run is passed over.")
    logged = [run for run in found.values() if run.rows]
    if not logged:
        where = ", ".join(str(run.path) for run in found.values()) or "any run that can be read"
        raise UsageError(f"nothing has been logged yet in {where}.")
    return logged


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by the name of their task: returns of two tasks have no common axis."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(str(run.config.get("task", {}).get("name", run.path.name)), []).append(run)
    return found


def group(runs: list[Run]) -> list[Group]:
    """Runs of one task whose configurations agree in all but seed and housekeeping, labelled by what differs.

    A setting that some runs lack, because an older version made them, separates only those that have it.
    """
    settings = [_settings(run) for run in runs]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    differing = [key for key in keys if _differs(key, settings)]
    # what these set, or leave unused, differs as a matter of course
    for key, implied in (("preset", ""), ("algo", ("agent.learner", "train.learn.", "world_model."))):
        if key in differing:
            alike: dict[str, list[dict[str, Any]]] = {}
            for one in settings:
                alike.setdefault(repr(one.get(key)), []).append(one)
            differing = [
                name
                for name in differing
                if name == key or not name.startswith(implied) or any(_differs(name, some) for some in alike.values())
            ]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run, one in zip(runs, settings, strict=True):
        groups.setdefault(tuple(repr(one.get(key)) for key in differing), []).append(run)
    return [Group(_label(members, differing), members) for members in groups.values()]


def _settings(run: Run) -> dict[str, Any]:
    return {
        key: value
        for key, value in leaves(run.config)
        if not any(key == ignored or key.startswith(ignored + ".") for ignored in _IGNORED)
    }


def _differs(key: str, settings: list[dict[str, Any]]) -> bool:
    return len({repr(one[key]) for one in settings if key in one}) > 1


def _label(runs: list[Run], keys: list[str]) -> str:
    """The game, ``Ant-4x2 (harl)``, and the values of ``keys``, or the folders' names where there are too many."""
    settings = _settings(runs[0])
    game = "-".join(str(settings[key]) for key in ("task.name", "task.agent_conf") if key in settings)
    if "task.protocol" in settings:
        game += f" ({settings['task.protocol']})"
    keys = [key for key in keys if key in settings and key not in ("task.agent_conf", "task.protocol")]
    last = [key.rpartition(".")[2] for key in keys]
    words = [
        f"{short if last.count(short) == 1 else key}={settings[key]}" for short, key in zip(last, keys, strict=True)
    ]
    if len(words) > 3:
        words = [" ".join(run.path.name for run in runs[:3]) + (" ..." if len(runs) > 3 else "")]
    return ", ".join(filter(None, [game, *words])) or runs[0].path.name
