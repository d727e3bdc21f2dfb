"""What a run says: a live panel or plain lines, one JSON line per tick, Weights & Biases if asked for.

Metrics are summed on the device that made them and fetched once per tick, in one transfer. Nothing that goes
wrong with a display or with Weights & Biases can stop a run.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dima_isaac.config import RunConfig, WandbMode
from dima_isaac.run.folder import RunFolder, write_whole
from dima_isaac.schema import as_dict

_LINE = (  # metric, word on the line
    ("train/return", "return"),
    ("train/success", "success"),
    ("eval/return", "eval"),
    ("eval/success", "eval success"),
    ("world/denoise", "denoise"),
    ("world/reward", "reward"),
    ("agent/entropy", "entropy"),
)
_LINE_WITHOUT_GOAL = tuple(tuple(text.replace("success", "length") for text in pair) for pair in _LINE)


class Logger:
    """``add`` metrics as they come, ``tick`` when it is time to tell."""

    def __init__(self, run: RunFolder, cfg: RunConfig, total_steps: int) -> None:
        """Append to ``run``'s metrics.jsonl; ``total_steps`` is where the run will end."""
        self.run, self.total_steps = run, total_steps
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._work: dict[str, float] = {}
        self._latest: dict[str, float | None] = {}
        self._file = open(run.metrics, "a", encoding="utf-8")  # noqa: SIM115  held until close()
        self._before = 0.0  # seconds of earlier processes
        self._start = self._last_time = time.monotonic()
        self._last_steps: int | None = None
        self._wandb = WandbMirror(run, cfg, self.note) if cfg.wandb_activate else None
        self._panel = Panel(f"{cfg.task.get('name', '')}  {run.path}") if sys.stdout.isatty() else None

    def add(self, metrics: Mapping[str, Tensor | float], prefix: str = "") -> None:
        """Add one sample of each metric (0-dimensional tensors stay where they are); a tick reports the mean."""
        for name, value in metrics.items():
            key = prefix + name
            sample = value.detach().float().clone() if isinstance(value, Tensor) else float(value)
            self._sums[key] = self._sums[key] + sample if key in self._sums else sample
            self._counts[key] = self._counts.get(key, 0) + 1

    def count(self, name: str, amount: float) -> None:
        """Add to an amount of work; a tick reports it as ``time/<name>_per_s``."""
        self._work[name] = self._work.get(name, 0.0) + amount

    def tick(self, env_steps: int, extra: Mapping[str, Tensor | float] | None = None) -> dict[str, float | None]:
        """Write the means since the last tick, with ``extra`` and the rates. Returns what was written."""
        self.add(extra or {})
        now = time.monotonic()
        seconds = max(now - self._last_time, 1e-9)
        rates: dict[str, float | None] = {}
        if self._last_steps is not None and env_steps > self._last_steps:
            rates["time/env_steps_per_s"] = round((env_steps - self._last_steps) / seconds, 2)
        for name, amount in self._work.items():
            rates[f"time/{name}_per_s"] = round(amount / seconds, 2)
        self._last_time, self._last_steps, self._work = now, env_steps, {}
        row = self._tell(env_steps, rates)
        self._show(env_steps)
        return row

    def flush(self, env_steps: int) -> None:
        """Write what was added since the last tick, if anything was. The screen stays and the rates go on counting."""
        if self._sums:
            self._tell(env_steps, {})

    def _tell(self, env_steps: int, rates: dict[str, float | None]) -> dict[str, float | None]:
        seconds = self._before + time.monotonic() - self._start
        row: dict[str, float | None] = {"env_steps": env_steps, "wall_time": round(seconds, 3)}
        for name, value in self._means().items():
            row[name] = value if math.isfinite(value) else None
        for name, rate in rates.items():
            row.setdefault(name, rate)
        self._sums, self._counts = {}, {}
        self._write(row)
        self._latest.update({name: value for name, value in row.items() if value is not None})
        if self._wandb is not None:
            self._wandb.log(row, env_steps)
        return row

    def rewind(self, env_steps: int) -> None:
        """Forget what was logged after ``env_steps``: the run continues from a checkpoint made there."""
        self._file.close()
        kept = []
        try:
            for line in self.run.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                row = _parse(line)
                if row is not None and row["env_steps"] <= env_steps:
                    kept.append(line)
                    self._before = float(row["wall_time"])
            write_whole(self.run.metrics, "".join(line + "\n" for line in kept))
        finally:
            self._file = open(self.run.metrics, "a", encoding="utf-8")  # noqa: SIM115
        self._start = self._last_time = time.monotonic()
        self._last_steps = env_steps

    def note(self, text: str) -> None:
        """Tell the user one thing."""
        panel = getattr(self, "_panel", None)
        if panel is not None:
            with suppress(OSError):
                panel.note(text)
        else:
            say(text)

    def close(self) -> None:
        """Give the terminal back and close the files."""
        if self._panel is not None:
            with suppress(OSError):
                self._panel.close()
            self._panel = None
        if self._wandb is not None:
            self._wandb.close()
        with suppress(OSError):  # a full disk; tick has told of the lines that are missing
            self._file.close()

    def _means(self) -> dict[str, float]:
        """Every mean as a host number: one transfer per device."""
        means = {
            name: value / self._counts[name] for name, value in self._sums.items() if not isinstance(value, Tensor)
        }
        by_device: dict[torch.device, list[str]] = {}
        for name, value in self._sums.items():
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, []).append(name)
        for names in by_device.values():
            fetched = torch.stack([torch.as_tensor(self._sums[name]).reshape(()) for name in names]).tolist()
            means.update({name: total / self._counts[name] for name, total in zip(names, fetched, strict=True)})
        return {name: means[name] for name in self._sums}

    def _write(self, row: dict[str, float | None]) -> None:
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.note(f"metrics.jsonl not written at {row['env_steps']}: {error.strerror}; training goes on.")

    def _show(self, env_steps: int) -> None:
        rate = self._latest.get("time/env_steps_per_s")
        left = (self.total_steps - env_steps) / rate if rate else None
        if self._panel is not None:
            with suppress(OSError):
                self._panel.show(self._latest, env_steps, self.total_steps, left)
        else:
            say(line(self._latest, env_steps, self.total_steps, left))


def say(text: str) -> None:
    """Print a line, whatever has become of the terminal, the pipe or the disk that it goes to."""
    with suppress(OSError):
        print(text, flush=True)


def line(latest: Mapping[str, float | None], env_steps: int, total: int, left: float | None) -> str:
    """One tick as one line of text."""
    parts = [f"{env_steps:>11,} / {total:,}"]
    shown = _LINE if "train/success" in latest or "eval/success" in latest else _LINE_WITHOUT_GOAL
    parts += [f"{word} {latest[name]:.4g}" for name, word in shown if latest.get(name) is not None]
    for name, word in (("time/env_steps_per_s", "env"), ("time/imagined_steps_per_s", "dream")):
        if latest.get(name) is not None:
            parts.append(f"{word} {latest[name]:,.0f}/s")
    if left is not None:
        parts.append(f"ETA {duration(left)}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _parse(text: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl, or None for one that a kill cut short."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "env_steps" in row and "wall_time" in row else None


class Panel:
    """A live table of the newest value of every metric, in groups by the first part of its name."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._live = Live(refresh_per_second=2, transient=False)
        self._live.start()

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, latest: Mapping[str, float | None], env_steps: int, total: int, left: float | None) -> None:
        from rich.columns import Columns
        from rich.console import Group
        from rich.panel import Panel as Box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        groups: dict[str, Table] = {}
        for name, value in latest.items():
            group, _, rest = name.partition("/")
            if rest and value is not None:
                if group not in groups:
                    groups[group] = Table(group, "", box=None)  # a title would be lost in columns
                groups[group].add_row(Text(rest), Text(f"{value:,.4g}", justify="right"))
        words = f"{env_steps:,} / {total:,} steps" + (f"   ETA {duration(left)}" if left is not None else "")
        head = Table.grid(expand=True)  # a bare progress bar ends no line
        head.add_row(Text(words))
        head.add_row(ProgressBar(total=max(total, 1), completed=env_steps))
        body = Columns(list(groups.values()), padding=(0, 4))
        self._live.update(Box(Group(head, body), title=Text(self._title)))

    def close(self) -> None:
        self._live.stop()


class WandbMirror:
    """Weights & Biases behind one call. The first thing that fails is reported; from then on it is silent."""

    def __init__(self, run: RunFolder, cfg: RunConfig, note: Callable[[str], None]) -> None:
        self._note = note
        self._run: Any = None
        try:
            self._run = self._start(run, cfg)
        except Exception as error:  # whatever it is, the run does not depend on it
            note(f"wandb is off: {_first_line(error)}.")

    def log(self, row: Mapping[str, float | None], env_steps: int) -> None:
        if self._run is None:
            return
        try:
            self._run.log({name: value for name, value in row.items() if value is not None}, step=env_steps)
        except Exception as error:
            self._run = None
            self._note(f"wandb stopped: {_first_line(error)}; training goes on, metrics.jsonl is complete.")

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._note(f"wandb did not finish: {_first_line(error)}.")

    def _start(self, run: RunFolder, cfg: RunConfig) -> Any:
        import wandb

        def begin(mode: Any) -> Any:
            return wandb.init(
                project=cfg.wandb.project,
                entity=cfg.wandb.entity or None,
                group=cfg.wandb.group or cfg.experiment or None,
                name=cfg.wandb.name or run.path.name,
                id=hashlib.sha1(str(run.path.resolve()).encode()).hexdigest()[:12],
                resume="allow" if mode == "online" else None,
                dir=str(run.path),
                config=as_dict(cfg),
                mode=mode,
                settings=wandb.Settings(init_timeout=15, silent=True, console="off", disable_git=True),
            )

        if cfg.wandb.mode is WandbMode.online:
            try:
                return begin("online")
            except Exception as error:
                self._note(f"wandb cannot be reached ({_first_line(error)}); recording offline.")
        handle = begin("offline")
        self._note(f"wandb is recording offline; send it later with: wandb sync {run.path}/wandb/offline-run-*")
        return handle


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
