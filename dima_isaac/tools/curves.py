"""Learning curves of groups of runs, and what the world model's probes logged during training, as figures."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.tools import figure
from dima_isaac.tools.figure import COLOURS, DASHES, GREY, INK
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
)
_AXES = {
    "env_steps": ("environment steps", 1.0),
    "wall_time": ("hours", 3600.0),
}  # label, divisor


def panels(runs: list[Run], axis: str) -> list[tuple[str, str, str, bool]]:
    """Those of ``PANELS`` that some run has measured; lengths in place of success until a run has reached a goal."""
    shown = [panel for panel in PANELS if any(len(run.curve(panel[0], axis)[0]) for run in runs)]
    reached = any(run.curve("eval/success", axis)[1].any() for run in runs)
    return [panel for panel in shown if panel[0] != ("eval/length" if reached else "eval/success")]


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
        axes.set(title=title, xlabel=_AXES[axis][0], ylabel=unit)
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
    entries = [
        (f"{group.label}  ({len(group.runs)} {'run' if len(group.runs) == 1 else 'seeds'})", figure.line_style(i))
        for i, group in enumerate(groups)
    ]
    if any(len(group.runs) > 1 for group in groups):
        look = {"color": INK, "linewidth": 1, "linestyle": ":"}
        entries += [("mean (thick line: IQM, band: 95% bootstrap)", look)]
    entries += [(f"{name}: {value:,g}", dashed[name]) for name, value in references]
    figure.legend_above(canvas, entries)
    return figure.save(canvas, path)


def _draw_group(axes: Any, group: Group, metric: str, axis: str, look: dict[str, Any]) -> None:
    scale = _AXES[axis][1]
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


def probe_curves(groups: list[Group], path: Path) -> Path:
    """What the probes measured in training: error over the horizon at the end, over training, and sensitivity."""
    canvas, (error, ratio, sensitivity) = figure.pyplot().subplots(1, 3, figsize=(13.8, 4.0))
    horizon = agents = 0
    for i, group in enumerate(groups):
        for run in group.runs:
            rows = [row for row in run.rows if "probe/model_01" in row]
            if not rows:
                continue
            horizon = max(horizon, len(_horizon_steps(rows[-1])))
            agents = max(agents, sum(key.startswith("probe/sensitivity_true_") for key in rows[-1]))
            _draw_probes(error, ratio, sensitivity, rows, COLOURS[i % len(COLOURS)])
    error.set(
        title="open-loop error at the last probe", xlabel="imagined steps", ylabel="RMS error (standard deviations)"
    )
    figure.log_scale(error)
    names = ("world model", "linear model", "last state")
    figure.legend_below(error, [(name, {"linestyle": DASHES[i]}) for i, name in enumerate(names)])
    ratio.set(title="world model / better baseline", ylabel="ratio of errors (below 1 is better)")
    figure.legend_below(ratio, [("1 step", {}), (f"{horizon} steps", {"linestyle": DASHES[1]})])
    sensitivity.set(title="sensitivity to one agent's action", ylabel="dreamt / true")
    sensitivity.set_ylim(bottom=0.0)
    shown = range(min(agents, len(DASHES)))
    figure.legend_below(sensitivity, [(f"agent {n}", {"linestyle": DASHES[n]}) for n in shown])
    for axes in (ratio, sensitivity):
        axes.set_xlabel("environment steps")
        axes.axhline(1.0, color=GREY, linewidth=0.9)
        figure.thousands(axes)
    figure.legend_above(canvas, [(group.label, figure.line_style(i)) for i, group in enumerate(groups)])
    return figure.save(canvas, path)


def _horizon_steps(row: dict[str, float | None]) -> list[str]:
    """The horizon steps that a row has errors of, as they stand in its keys: 01, 02, ..."""
    return [key[-2:] for key in row if re.fullmatch(r"probe/model_\d+", key)]


def _draw_probes(error: Any, ratio: Any, sensitivity: Any, rows: list[dict[str, float | None]], colour: str) -> None:
    """One run in the three panels; a value that was not finite leaves a gap."""

    def series(key: str) -> np.ndarray:
        return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)

    marked = {"color": colour, "linewidth": 1.6, "marker": "o", "markersize": 3}
    plain = {"color": colour, "linewidth": 1.2}
    steps = _horizon_steps(rows[-1])
    for (name, look), dash in zip((("model", marked), ("linear", plain), ("repeat", plain)), DASHES, strict=False):
        last = [series(f"probe/{name}_{h}")[-1] for h in steps]
        error.plot([int(h) for h in steps], last, linestyle=dash, **look)
    env_steps = series("env_steps")
    for h, dash in ((steps[0], DASHES[0]), (steps[-1], DASHES[1])):
        better = np.fmin(series(f"probe/linear_{h}"), series(f"probe/repeat_{h}"))
        ratio.plot(env_steps, series(f"probe/model_{h}") / better, linestyle=dash, **marked)
    for key in (key for key in rows[-1] if key.startswith("probe/sensitivity_true_")):
        dash = DASHES[int(key.rpartition("_")[2]) % len(DASHES)]
        dreamt = series(key.replace("true", "dreamt"))
        sensitivity.plot(env_steps, dreamt / series(key), linestyle=dash, **marked)
