"""Figures are written and show something."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dima_isaac.cli import main as cli
from dima_isaac.errors import UsageError
from dima_isaac.tools import curves, figure
from dima_isaac.tools.runs import Run, group
from tests.tools.toy_runs import TOY


def not_blank(path: Path) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_a_missing_matplotlib_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: plot needs matplotlib: pip install 'dima-isaac[plot]'.\n"


def test_lengths_are_drawn_if_they_vary_and_no_run_has_reached_a_goal(tmp_path):
    row = {"env_steps": 1.0, "eval/return": 2.0, "eval/length": 3.0}
    fell = {"env_steps": 2.0, "eval/length": 1.0}
    robot, far, near = (Run(tmp_path, {}, [row | more]) for more in ({}, {"eval/success": 0.0}, {"eval/success": 0.1}))
    fallen = Run(tmp_path, {}, [row, fell])
    cases = [([robot, far], []), ([fallen, far], ["length"]), ([fallen, far, near], ["success"])]
    for runs, last in cases:
        shown = [panel[0] for panel in curves.panels(runs, "env_steps")]
        assert shown == ["eval/return", *(f"eval/{name}" for name in last)]


def test_references_are_named_above_the_panels(tmp_path, monkeypatch):
    run = Run(tmp_path, {"task": {"name": "Toy"}}, [{"env_steps": x, "eval/return": x} for x in (0.0, 1.0)])
    monkeypatch.setattr(figure, "save", lambda canvas, path: canvas)
    canvas = curves.learning_curves(group([run]), "env_steps", tmp_path, [("published", 4766.0), ("untrained", -2.5)])
    assert [text.get_text() for text in canvas.legends[0].texts] == [
        "Toy  (1 run)",
        "published: 4,766",
        "untrained: -2.5",
    ]
    [panel] = canvas.axes
    assert [line.get_ydata()[0] for line in panel.lines[1:]] == [4766.0, -2.5]
    assert len({str(line._unscaled_dash_pattern) for line in panel.lines}) == 3
    assert not panel.texts, "nothing is written over the curve"


@pytest.mark.slow
def test_plot_draws_curves_and_a_table(runs, tmp_path, capsys):
    assert cli.main(["plot", str(runs), f"out={tmp_path}", "reference=hand-made:1.5"]) == 0
    output = capsys.readouterr().out
    for name in ("curves_env_steps.png", "curves_wall_time.png"):
        assert not_blank(tmp_path / name) and name in output
    table = (tmp_path / "results.md").read_text()
    assert table.startswith("| group |") and "| Toy | 2 | 384 |" in table


@pytest.mark.slow
def test_plot_draws_the_open_loop_figure(runs, tmp_path):
    words = ["open_loop=True", f"checkpoint={runs}/0", f"out={tmp_path}", "num_envs=4", "threads=1"]
    assert cli.main(["plot", *TOY, *words]) == 0
    assert not_blank(tmp_path / "open_loop.png")


def test_a_figure_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = figure.save(figure.pyplot().figure(), tmp_path / "a.png", tight=False)
    before = path.read_bytes()
    monkeypatch.setattr("dima_isaac.run.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(UsageError, match=r"cannot write .*a\.png: full"):
        figure.save(figure.pyplot().figure(), path, tight=False)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["a.png"]
