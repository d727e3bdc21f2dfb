"""Learning curves of groups of runs, as figures."""

from pathlib import Path
from typing import Any

from dima_isaac.errors import UsageError
from dima_isaac.tools import figure
from dima_isaac.tools.figure import DASHES, GREY, INK
from dima_isaac.tools.runs import Group, Run

PANELS = (  # metric, title, unit of the vertical axis, logarithmic
    ("eval/return", "evaluation return", "return per episode", False),
    ("train/return", "training return", "return per episode", False),
    ("eval/success", "evaluation success", "share of episodes", False),
    ("eval/length", "evaluation length", "control steps", False),  # in place of success, where no goal was reached
    ("world/denoise", "denoiser loss", "mean squared error", True),
    ("world/reward", "reward model loss", "loss", True),
    ("agent/entropy", "policy entropy", "nats per agent", False),
    ("world/skill_5", "skill of dreams after 5 steps", "1 - error / variance", False),
    ("world/horizon", "length of dreams", "steps", False),
    ("probe/model_15", "error of dreams after 15 steps", "standard deviations", True),
)
AXES = {"env_steps": ("environment steps", 1.0), "wall_time": ("hours", 3600.0)}  # label, divisor


def panels(runs: list[Run], axis: str) -> list[tuple[str, str, str, bool]]:
    """Those of ``PANELS`` that some run has measured: success if a goal was ever reached, else lengths if they vary."""
    reached = any(run.curve("eval/success", axis)[1].any() for run in runs)
    lengths = {length for run in runs for length in run.curve("eval/length", axis)[1]}
    hidden = {"eval/length"} if reached else {"eval/success"} if len(lengths) > 1 else {"eval/success", "eval/length"}
    measured = (panel for panel in PANELS if any(len(run.curve(panel[0], axis)[0]) for run in runs))
    return [panel for panel in measured if panel[0] not in hidden]


def learning_curves(groups: list[Group], axis: str, path: Path, references: list[tuple[str, float]]) -> Path:
    """Return, success, losses and entropy over ``axis``; thin lines are runs, thick ones their IQM with its band.

    ``references`` are names and values of horizontal lines in the return panel, named in the legend.

    Raises:
        UsageError: no run has logged any of ``PANELS``.
    """
    shown = panels([run for group in groups for run in group.runs], axis)
    if not shown:
        raise UsageError("nothing to draw: none of the usual metrics has been logged yet.")
    columns = {4: 2, 7: 4, 8: 4}.get(len(shown), min(3, len(shown)))
    rows = -(-len(shown) // columns)
    size = (4.6 * columns, 3.2 * rows + 0.5)
    canvas, grid = figure.pyplot().subplots(rows, columns, figsize=size, squeeze=False)
    dashed = {
        name: {"color": GREY, "linewidth": 1, "linestyle": DASHES[1 + i % 3]} for i, (name, _) in enumerate(references)
    }
    for axes, (metric, title, unit, log) in zip(grid.flat, shown, strict=False):
        for i, group in enumerate(groups):
            _draw_group(axes, group, metric, axis, figure.line_style(i))
        axes.set(title=title, xlabel=AXES[axis][0], ylabel=unit)
        for name, value in references if metric == "eval/return" else ():
            axes.axhline(value, zorder=0, **dashed[name])
        if metric == "eval/success":
            axes.set_ylim(-0.03, 1.03)
        if log:
            figure.log_scale(axes)
        if axis == "env_steps":
            figure.thousands(axes)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    entries = [(f"{group.label}  ({group.size()})", figure.line_style(i)) for i, group in enumerate(groups)]
    if any(len(group.runs) > 1 for group in groups):
        look = {"color": INK, "linewidth": 1, "linestyle": ":"}
        entries += [("mean (thick line: IQM, band: 95% bootstrap)", look)]
    entries += [(f"{name}: {value:,g}", dashed[name]) for name, value in references]
    figure.legend_above(canvas, entries)
    return figure.save(canvas, path)


def _draw_group(axes: Any, group: Group, metric: str, axis: str, look: dict[str, Any]) -> None:
    scale = AXES[axis][1]
    band = group.band(metric, axis)
    for run in group.runs:
        x, y = run.curve(metric, axis)
        few = {"marker": "o", "markersize": 3} if len(x) < 12 else {}
        weight, alpha = (1.8, 1.0) if band is None else (0.8, 0.35)
        axes.plot(x / scale, y, linewidth=weight, alpha=alpha, **look, **few)
    if band is not None:
        axes.fill_between(band.x / scale, band.low, band.high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(band.x / scale, band.iqm, linewidth=2.0, **look)
        axes.plot(band.x / scale, band.mean, color=look["color"], linestyle=":", linewidth=1.0)
