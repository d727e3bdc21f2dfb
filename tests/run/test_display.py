"""Progress as one line of text."""

from dima_isaac.run.display import duration, line


def test_line():
    latest = {"train/return": 1.23456, "eval/success": 0.5, "time/env_steps_per_s": 4100.0}
    text = line(latest, 12_000, 1_000_000, 3661.0)
    assert text.split(" | ") == [
        "     12,000 / 1,000,000",
        "return 1.235",
        "eval success 0.5",
        "env 4,100/s",
        "ETA 1:01:01",
    ]
    assert duration(-1) == "0:00:00"


def test_the_line_shows_lengths_where_there_is_no_goal():
    latest = {"train/return": 2.0, "train/length": 31.5, "eval/return": 3.0, "eval/length": 40.0}
    told = ["      1,000 / 2,000", "return 2", "length 31.5", "eval 3", "eval length 40"]
    assert line(latest, 1_000, 2_000, None).split(" | ") == told
    told = ["      1,000 / 2,000", "return 2", "eval 3", "eval success 0"]
    assert line(latest | {"eval/success": 0.0}, 1_000, 2_000, None).split(" | ") == told
