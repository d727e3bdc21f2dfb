"""Progress as one line of text, and as a table with trends."""

import io

from rich.console import Console
from rich.live import Live

from dima_isaac.run.display import Panel, Progress, Trends, duration, line


def test_line():
    latest = {"train/return": 1.23456, "eval/success": 0.5, "time/env_steps_per_s": 4100.0}
    text = line(latest, Progress(12_000, 1_000_000, 61.0, 3661.0))
    assert text.split(" | ") == [
        "     12,000 / 1,000,000",
        "return 1.235",
        "eval success 0.5",
        "env 4,100/s",
        "0:01:01, ETA 1:01:01",
    ]
    assert duration(-1) == "0:00:00"


def test_the_line_shows_lengths_where_there_is_no_goal():
    latest, progress = {"train/return": 2.0, "train/length": 31.5, "eval/return": 3.0}, Progress(1_000, 2_000, 0.0)
    told = ["      1,000 / 2,000", "return 2", "length 31.5", "eval 3", "eval length 40", "0:00:00"]
    assert line(latest | {"eval/length": 40.0}, progress).split(" | ") == told
    told = ["      1,000 / 2,000", "return 2", "eval 3", "eval success 0", "0:00:00"]
    assert line(latest | {"eval/success": 0.0}, progress).split(" | ") == told


def test_trends_against_the_mean_of_earlier_values():
    trends = Trends()
    assert [trends("a", value) for value in (1.0, 2.0, 2.0, 1.31, 1.0)] == [0, 1, 1, 0, -1]  # means 1, 1.3, 1.3, 1.303
    assert trends("b", -1.0) == 0 and trends("b", -2.0) == -1


def test_the_panel_shows_trends_and_the_time(monkeypatch):
    seen = {}
    for encoding in ("utf-8", "ascii"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        console = Console(file=out, force_terminal=True, width=100, _environ={})
        monkeypatch.setattr("rich.live.Live", lambda console=console, **kw: Live(console=console, **kw))
        panel = Panel("Toy")
        panel.show({"env_steps": 1.0, "eval/return": 1.0, "world/denoise": 1.0}, Progress(1, 10, 2.0))
        panel.show({"env_steps": 5.0, "eval/return": 3.0, "world/denoise": 2.0}, Progress(5, 10, 65.0, 60.0))
        panel.close()
        out.flush()
        seen[encoding] = out.buffer.getvalue().decode(encoding)
        assert "5 / 10 steps   0:01:05, ETA 0:01:00" in seen[encoding]
    green, red = "\x1b[32m", "\x1b[31m"
    assert f"{green}▲" in seen["utf-8"] and f"{red}▲" in seen["utf-8"]  # a return rises, and a loss
    assert f"{green}^" in seen["ascii"] and f"{red}^" in seen["ascii"]
