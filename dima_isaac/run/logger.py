"""A run's metrics: means per row in metrics.jsonl, on the screen and optionally elsewhere (``run.mirrors``).

Metrics are summed on the device that made them and fetched once per row, in one transfer. Rank 0 writes the means of
all ranks. Nothing that goes wrong with a display or a mirror can stop a run.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.config import Algo, RunConfig
from dima_isaac.run.atomic import write_atomic
from dima_isaac.run.display import Lines, Panel, Progress
from dima_isaac.run.folder import RunFolder, read_rows
from dima_isaac.run.mirrors import Mirror, TensorBoard, Wandb

_QUIET = 60.0  # s without a row or a note, after which progress within a round is shown
_PACE_ROWS = 10  # rows whose mean pace gives the time left


class Logger:
    """``add`` metrics as they come, ``write`` a row when it is time."""

    def __init__(self, run: RunFolder, cfg: RunConfig, total_steps: int, show: bool = True) -> None:
        """Append to ``run``'s metrics.jsonl; ``total_steps`` is where the run will end.

        Without ``show`` rows are not shown, and notes still are.
        """
        self.run, self.total_steps, self._show, self._writes = run, total_steps, show, ranks.rank() == 0
        self.callbacks: list[Callable[[dict[str, float | None]], Any]] = []  # called with every row
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._latest: dict[str, float | None] = {}
        self._file = open(run.metrics if self._writes else os.devnull, "a+", encoding="utf-8")  # noqa: SIM115
        self._before = 0.0  # seconds of earlier processes
        self._start = self._last_time = self._shown = time.monotonic()
        self._last_steps: int | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=_PACE_ROWS + 1)  # times and steps of the last rows
        # nothing is learnt before these steps, so they are faster than the rest
        self._warm_up = {Algo.dima: cfg.train.learn.behaviour_start, Algo.sac: cfg.agent.sac.start}.get(cfg.algo, 0)
        self._display: Lines | Panel = Lines()
        wanted: tuple[tuple[bool, type[Mirror]], ...] = ((cfg.wandb_activate, Wandb), (cfg.tensorboard, TensorBoard))
        self._mirrors = [mirror(run, cfg, self.note) for active, mirror in wanted if active and self._writes]
        if show and sys.stdout.isatty() and self._writes:
            self._display = Panel(f"{cfg.task.get('name', '')}  {run.path}")

    def add(self, metrics: Mapping[str, Tensor | float], prefix: str = "") -> None:
        """Add one sample of each metric (0-dimensional tensors stay where they are); a row holds the mean."""
        for name, value in metrics.items():
            key = prefix + name
            sample = value.detach().float().clone() if isinstance(value, Tensor) else float(value)
            self._sums[key] = self._sums[key] + sample if key in self._sums else sample
            self._counts[key] = self._counts.get(key, 0) + 1

    def write(self, env_steps: int) -> dict[str, float | None]:
        """Write and show the means since the last row and the rate of environment steps; returns the row."""
        now = time.monotonic()
        if self._last_steps is not None and env_steps > self._last_steps:
            seconds = max(now - self._last_time, 1e-9)
            self.add({"time/env_steps_per_s": round((env_steps - self._last_steps) / seconds, 2)})
        self._last_time, self._last_steps, self._shown = now, env_steps, now
        row = self._write_row(env_steps, self._means())
        progress = Progress(env_steps, self.total_steps, row["wall_time"] or 0.0, self._seconds_left(now, env_steps))
        if self._show:
            self._display.show(self._latest, progress)
        return row

    def _seconds_left(self, now: float, env_steps: int) -> float | None:
        """At the pace of the last rows; None while nothing is learnt yet."""
        if env_steps < self._warm_up:
            return None
        self._recent.append((now, env_steps))
        before, steps = self._recent[0]
        return (self.total_steps - env_steps) * (now - before) / (env_steps - steps) if env_steps > steps else None

    def flush(self, env_steps: int) -> None:
        """Write what was added since the last row, if anything was, as a row without a rate that is not shown."""
        means = self._means()
        if means:
            self._write_row(env_steps, means)

    def rewind(self, env_steps: int) -> None:
        """Drop the rows after ``env_steps``: the run continues from a checkpoint made there."""
        if self._writes:
            self._drop_after(env_steps)
        self._start = self._last_time = time.monotonic()
        self._last_steps = env_steps
        self._recent.clear()

    def _drop_after(self, env_steps: int) -> None:
        self._file.close()
        try:
            kept = [row for row in read_rows(self.run.metrics) if row["env_steps"] <= env_steps]
            self._before = float(kept[-1]["wall_time"]) if kept else 0.0
            write_atomic(self.run.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        finally:
            self._file = open(self.run.metrics, "a+", encoding="utf-8")  # noqa: SIM115

    def move(self) -> None:
        """Go on in the run's folder of now, with the rows written so far as far as they can still be read."""
        text = ""
        with suppress(OSError):
            self._file.seek(0)
            text = self._file.read()
            self._file.close()
        self._file = open(self.run.metrics, "a+", encoding="utf-8")  # noqa: SIM115
        self._file.write(text)

    def note(self, text: str) -> None:
        """Show the user a message."""
        self._shown = time.monotonic()
        self._display.note(text)

    def progress(self, text: str) -> None:
        """A note within a round that takes long, once a minute."""
        if self._show and self._writes and time.monotonic() - self._shown > _QUIET:
            self.note(text)

    def video(self, path: Path, env_steps: int) -> None:
        """Show a video of an evaluation wherever rows are shown beside the run folder."""
        for mirror in self._mirrors:
            mirror.video(path, env_steps)

    def close(self) -> None:
        """Restore the terminal and close the files."""
        self._display.close()
        self._display = Lines()
        for mirror in self._mirrors:
            mirror.close()
        with suppress(OSError):  # a full disk; the rows that are missing have been reported
            self._file.close()

    def _write_row(self, env_steps: int, means: dict[str, float]) -> dict[str, float | None]:
        seconds = self._before + time.monotonic() - self._start
        row: dict[str, float | None] = {"env_steps": env_steps, "wall_time": round(seconds, 3)}
        for name, value in means.items():
            row[name] = value if math.isfinite(value) else None
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.note(f"metrics.jsonl not written at {env_steps}: {error.strerror}; training goes on.")
        self._latest.update({name: value for name, value in row.items() if value is not None})
        for mirror in self._mirrors:
            mirror.log(row, env_steps)
        for callback in self.callbacks:
            callback(row)
        return row

    def _means(self) -> dict[str, float]:
        """Every mean since the last row as a host number: one transfer per device. Over the ranks that have one."""
        sums = {name: value for name, value in self._sums.items() if not isinstance(value, Tensor)}
        by_device: dict[torch.device, dict[str, Tensor]] = {}
        for name, value in self._sums.items():
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, {})[name] = value.reshape(())
        for tensors in by_device.values():
            sums.update(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
        means = {name: sums[name] / self._counts[name] for name in self._sums}
        self._sums, self._counts = {}, {}
        of_ranks = ranks.gathered(means)
        if len(of_ranks) > 1:
            names = dict.fromkeys(name for own in of_ranks for name in own)
            means = {name: fmean(own[name] for own in of_ranks if name in own) for name in names}
        return ranks.from_first(lambda: means)
