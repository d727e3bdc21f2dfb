"""A run's progress on the screen: a live panel on a terminal, or one line of text per row elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

Row = Mapping[str, float | None]

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


def say(text: str) -> None:
    """Print a line; a terminal, pipe or disk that is gone or full is no reason to stop."""
    with suppress(OSError):
        print(text, flush=True)


def line(latest: Row, env_steps: int, total: int, left: float | None) -> str:
    """The newest values, and the ``left`` seconds if known, as one line of text."""
    parts = [f"{env_steps:>11,} / {total:,}"]
    shown = _LINE if "train/success" in latest or "eval/success" in latest else _LINE_WITHOUT_GOAL
    parts += [f"{word} {value:.4g}" for name, word in shown if (value := latest.get(name)) is not None]
    for name, word in (("time/env_steps_per_s", "env"), ("time/imagined_steps_per_s", "dream")):
        if (value := latest.get(name)) is not None:
            parts.append(f"{word} {value:,.0f}/s")
    if left is not None:
        parts.append(f"ETA {duration(left)}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class Lines:
    """Plain lines, for pipes and log files."""

    def note(self, text: str) -> None:
        say(text)

    def show(self, latest: Row, env_steps: int, total: int, left: float | None) -> None:
        say(line(latest, env_steps, total, left))

    def close(self) -> None:
        """Nothing to give back."""


class Panel:
    """A live table of the newest value of every metric, in groups by the first part of its name."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._live = Live(refresh_per_second=2, transient=False)
        self._live.start()

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._live.console.print(text, markup=False, highlight=False)

    def show(self, latest: Row, env_steps: int, total: int, left: float | None) -> None:
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
        with suppress(OSError):
            self._live.update(Box(Group(head, body), title=Text(self._title)))

    def close(self) -> None:
        """Give the terminal back."""
        with suppress(OSError):
            self._live.stop()
