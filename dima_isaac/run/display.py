"""A run's progress on the screen: a live panel on a terminal, or one line of text per row elsewhere."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    env_steps: int
    total: int  # environment steps at the end
    elapsed: float  # s, of earlier processes too
    left: float | None = None  # s, where it can be estimated

    @property
    def clock(self) -> str:
        """The time taken, and the time left if known."""
        return duration(self.elapsed) + (f", ETA {duration(self.left)}" if self.left is not None else "")


def line(latest: Row, progress: Progress) -> str:
    """The newest values as one line of text."""
    parts = [f"{progress.env_steps:>11,} / {progress.total:,}"]
    shown = _LINE if "train/success" in latest or "eval/success" in latest else _LINE_WITHOUT_GOAL
    parts += [f"{word} {value:.4g}" for name, word in shown if (value := latest.get(name)) is not None]
    for name, word in (("time/env_steps_per_s", "env"), ("time/imagined_steps_per_s", "dream")):
        if (value := latest.get(name)) is not None:
            parts.append(f"{word} {value:,.0f}/s")
    return " | ".join([*parts, progress.clock])


def duration(seconds: float) -> str:
    """h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class Lines:
    """Plain lines, for pipes and log files."""

    def note(self, text: str) -> None:
        say(text)

    def show(self, latest: Row, progress: Progress) -> None:
        say(line(latest, progress))

    def close(self) -> None:
        """Nothing to restore."""


class Trends:
    """Which way every metric goes: its newest value against a moving mean of those before it."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, int]] = {}  # newest value, mean with it, trend

    def __call__(self, name: str, value: float) -> int:
        """1 up, -1 down, 0 for less than 2 %; a value like the one before it is taken for a repetition."""
        last, mean, trend = self._seen.get(name, (value, value, 0))
        if value != last:
            change = value - mean
            trend = 0 if abs(change) < 0.02 * abs(mean) else 1 if change > 0 else -1
            mean += 0.3 * change
        self._seen[name] = (value, mean, trend)
        return trend


_GOOD = {  # the sign of a change for the better
    **dict.fromkeys(("train/return", "eval/return", "train/success", "eval/success"), 1),
    **dict.fromkeys(("world/denoise", "world/reward"), -1),
}


class Panel:
    """A live table of the newest value and the trend of every metric, in groups by the first part of its name."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title, self._trends = title, Trends()
        self._live = Live(refresh_per_second=2, transient=False)
        self._live.start()

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._live.console.print(text, markup=False, highlight=False)

    def show(self, latest: Row, progress: Progress) -> None:
        from rich.columns import Columns
        from rich.console import Group
        from rich.panel import Panel as Box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        arrows = " ^v" if self._live.console.options.ascii_only else " ▲▼"  # by trend: 0, 1, -1
        groups: dict[str, Table] = {}
        for name, value in latest.items():
            group, _, rest = name.partition("/")
            if rest and value is not None:
                if group not in groups:
                    groups[group] = Table(group, "", "", box=None)  # a title would be lost in columns
                trend = self._trends(name, value)
                colour = {1: "green", -1: "red"}.get(trend * _GOOD.get(name, 0), "dim")
                arrow = Text(arrows[trend], style=colour)
                groups[group].add_row(Text(rest), Text(f"{value:,.4g}", justify="right"), arrow)
        head = Table.grid(expand=True)  # a bare progress bar ends no line
        head.add_row(Text(f"{progress.env_steps:,} / {progress.total:,} steps   {progress.clock}"))
        head.add_row(ProgressBar(total=max(progress.total, 1), completed=progress.env_steps))
        body = Columns(list(groups.values()), padding=(0, 4))
        with suppress(OSError):
            self._live.update(Box(Group(head, body), title=Text(self._title)))

    def close(self) -> None:
        """Restore the terminal."""
        with suppress(OSError):
            self._live.stop()
