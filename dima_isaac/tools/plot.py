"""Runs as pictures: learning curves, probes over training, and the open-loop figure; and a Markdown table."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dima_isaac.cli.options import Asked, Axis, PlotConfig, references
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.folder import write_whole
from dima_isaac.tools import curves, table
from dima_isaac.tools.curves import Group, Run
from dima_isaac.tools.restore import Restored, restore
from dima_isaac.tools.statistics import bootstrap, iqm
from dima_isaac.train import probes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe and Ito's palette: told apart by colour-blind readers and in print."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
INK = "#333333"

PANELS = (  # metric, title, unit of the vertical axis, logarithmic
    ("eval/return", "evaluation return", "return per episode", False),
    ("train/return", "training return", "return per episode", False),
    ("eval/success", "evaluation success", "share of episodes", False),
    ("eval/length", "evaluation length", "control steps", False),  # in place of success, where there is no goal
    ("world/denoise", "denoiser loss", "mean squared error", True),
    ("world/reward", "reward model loss", "loss", True),
    ("agent/entropy", "policy entropy", "nats per agent", False),
)
DREAMS = 8  # averaged in the open-loop figure
_AXES = {"env_steps": "environment steps", "wall_time": "hours"}


def main(asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> int:
    """``plot``: figures of runs, or (``open_loop``) of a checkpoint's dreams. Prints every path written."""
    _matplotlib()
    cfg: PlotConfig = asked.cfg
    made = []
    if cfg.open_loop:
        made.append(_open_loop(cfg, restore(cfg.checkpoint, catalog, cfg)))
    if cfg.runs:
        runs = curves.load(cfg.runs)
        groups, folder = curves.group(runs), _folder(cfg, [run.path for run in runs])
        axes = [cfg.x.name] if cfg.x is not Axis.both else ["env_steps", "wall_time"]
        for axis in axes:
            made.append(learning_curves(groups, axis, folder / f"curves_{axis}.png", references(cfg.reference)))
        if any(key.startswith("probe/") for run in runs for row in run.rows for key in row):
            made.append(probe_curves(groups, folder / "probes.png"))
        text = results(groups)
        _write(folder / "results.md", text + "\n")
        print(text + "\n")
        made.append(folder / "results.md")
    for path in made:
        print(f"wrote       {path}")
    return 0


# ---- learning curves -------------------------------------------------------------------------------------------


def panels(runs: list[Run], axis: str) -> list[tuple[str, str, str, bool]]:
    """Those of ``PANELS`` that some run has measured; lengths only if nobody has a goal to reach."""
    shown = [panel for panel in PANELS if any(len(run.curve(panel[0], axis)[0]) for run in runs)]
    goal = any(metric == "eval/success" for metric, *_ in shown)
    return [panel for panel in shown if not (goal and panel[0] == "eval/length")]


def learning_curves(groups: list[Group], axis: str, path: Path, lines: list[tuple[str, float]]) -> Path:
    """Return, success, losses and entropy over ``axis``; thin lines are runs, thick ones their IQM with its band."""
    plt = _matplotlib()
    shown = panels([run for one in groups for run in one.runs], axis)
    if not shown:
        raise UsageError("nothing to draw: none of the usual metrics has been logged yet.")
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.2 * rows + 0.5), squeeze=False)
    for place, (metric, title, unit, log) in zip(grid.flat, shown, strict=False):
        for i, one in enumerate(groups):
            _curves(place, one, metric, axis, COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
        if metric == "eval/return":
            _references(place, lines)
        if metric == "eval/success":
            place.set_ylim(-0.03, 1.03)
        if log:
            place.set_yscale("log")
            _plain_log(place)
        _dress(place, title, _AXES[axis], unit)
        if axis == "env_steps":
            place.xaxis.set_major_formatter(plt.FuncFormatter(_thousands))
    for place in list(grid.flat)[len(shown) :]:
        place.set_visible(False)
    handles = [
        plt.Line2D(
            [], [], color=COLOURS[i % len(COLOURS)], linestyle=DASHES[i // len(COLOURS) % len(DASHES)], linewidth=2
        )
        for i in range(len(groups))
    ]
    labels = [f"{one.label}  ({len(one.runs)} {'run' if len(one.runs) == 1 else 'seeds'})" for one in groups]
    if any(len(one.runs) > 1 for one in groups):
        handles += [plt.Line2D([], [], color=INK, linewidth=1, linestyle=":")]
        labels += ["mean (thick line: IQM, band: 95% bootstrap)"]
    _legend_above(figure, handles, labels)
    return _save(figure, path)


def _curves(place: Any, one: Group, metric: str, axis: str, colour: str, dash: Any) -> None:
    scale = 3600.0 if axis == "wall_time" else 1.0
    band = one.band(metric, axis)
    for run in one.runs:
        x, y = run.curve(metric, axis)
        few = {"marker": "o", "markersize": 3} if len(x) < 12 else {}
        weight, alpha = (1.8, 1.0) if band is None else (0.8, 0.35)
        place.plot(x / scale, y, color=colour, linestyle=dash, linewidth=weight, alpha=alpha, **few)
    if band is not None:
        place.fill_between(band.x / scale, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
        place.plot(band.x / scale, band.iqm, color=colour, linestyle=dash, linewidth=2.0)
        place.plot(band.x / scale, band.mean, color=colour, linestyle=":", linewidth=1.0)


def _references(place: Any, lines: list[tuple[str, float]]) -> None:
    for name, value in lines:
        place.axhline(value, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        place.annotate(
            name, (1.0, value), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=7, color="#444444", zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


# ---- probes over training --------------------------------------------------------------------------------------


def probe_curves(groups: list[Group], path: Path) -> Path:
    """What the probes said while training: error over the horizon at the end, over training, and sensitivity."""
    plt = _matplotlib()
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(13.8, 4.0))
    horizon = agents = 0
    for i, one in enumerate(groups):
        for run in one.runs:
            rows = [row for row in run.rows if "probe/model_01" in row]
            if not rows:
                continue
            keys = [key for key in rows[-1] if key.startswith("probe/")]
            horizon = max(horizon, sum(re.fullmatch(r"probe/model_\d+", key) is not None for key in keys))
            agents = max(agents, sum(key.startswith("probe/sensitivity_true_") for key in keys))
            _probe(first, second, third, rows, COLOURS[i % len(COLOURS)])
    first.set_yscale("log")
    _plain_log(first)
    _dress(first, "open-loop error at the last probe", "imagined steps", "RMS error (standard deviations)")
    _style_legend(first, [("world model", "-"), ("linear model", DASHES[1]), ("last state", DASHES[2])])
    second.axhline(1.0, color="#777777", linewidth=0.9)
    _dress(second, "world model / better baseline", "environment steps", "ratio of errors (below 1 is better)")
    _style_legend(second, [("1 step", "-"), (f"{horizon} steps", DASHES[1])])
    third.axhline(1.0, color="#777777", linewidth=0.9)
    third.set_ylim(bottom=0.0)
    _dress(third, "sensitivity to one agent's action", "environment steps", "dreamt / true")
    _style_legend(third, [(f"agent {n}", DASHES[n % len(DASHES)]) for n in range(min(agents, len(DASHES)))])
    for place in (second, third):
        place.xaxis.set_major_formatter(plt.FuncFormatter(_thousands))
    handles = [plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=2) for i in range(len(groups))]
    _legend_above(figure, handles, [one.label for one in groups])
    return _save(figure, path)


def _probe(first: Any, second: Any, third: Any, rows: list[dict[str, float | None]], colour: str) -> None:
    """One run in the three panels; what was not finite leaves a gap."""

    def series(key: str) -> np.ndarray:
        return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)

    marked = {"color": colour, "linewidth": 1.6, "marker": "o", "markersize": 3}
    steps = [key[-2:] for key in rows[-1] if re.fullmatch(r"probe/model_\d+", key)]
    for name, look in (
        ("model", {**marked, "linestyle": "-"}),
        ("linear", {"color": colour, "linewidth": 1.2, "linestyle": DASHES[1]}),
        ("repeat", {"color": colour, "linewidth": 1.2, "linestyle": DASHES[2]}),
    ):
        first.plot([int(h) for h in steps], [series(f"probe/{name}_{h}")[-1] for h in steps], **look)
    when = series("env_steps")
    for h, dash in ((steps[0], "-"), (steps[-1], DASHES[1])):
        better = np.fmin(series(f"probe/linear_{h}"), series(f"probe/repeat_{h}"))
        second.plot(when, series(f"probe/model_{h}") / better, linestyle=dash, **marked)
    for key in (key for key in rows[-1] if key.startswith("probe/sensitivity_true_")):
        dash = DASHES[int(key.rpartition("_")[2]) % len(DASHES)]
        third.plot(when, series(key.replace("true", "dreamt")) / series(key), linestyle=dash, **marked)


# ---- the open-loop figure --------------------------------------------------------------------------------------


def _open_loop(cfg: PlotConfig, restored: Restored) -> Path:
    horizon = restored.cfg.train.probe_horizon
    env = restored.build_env(cfg.num_envs, cfg.seed + restored.cfg.seed)
    try:
        world, agent = restored.world(env), restored.agent(env.spec)
        linear = probes.LinearModel(world, restored.replay(env.spec))
        held_out = probes.record(env, agent.actor, 1, max(2 * env.spec.episode_length, 3 * horizon), cfg.seed)
        loop = probes.open_loop(world, held_out, linear, horizon, dreams=DREAMS)
    finally:
        env.close()
    title = (
        f"{env.spec.name}, {restored.env_steps:,} environment steps, preset {restored.cfg.preset}, held-out episodes"
    )
    run = restored.path.parent.parent if restored.path.parent.name == "checkpoints" else restored.path.parent
    names = getattr(env.task, "describe", lambda d: f"state dimension {d}")
    path = (Path(cfg.out) if cfg.out else run / "plots") / "open_loop.png"
    return open_loop_figure(loop, title, path, telling(loop, env.spec.last_action_index), names)


def open_loop_figure(
    loop: probes.OpenLoop, title: str, path: Path, shown: list[int], names: Callable[[int], str]
) -> Path:
    """Error per horizon step beside both baselines, and the ``shown`` (even number of) state dimensions of a dream."""
    plt = _matplotlib()
    from matplotlib.ticker import MaxNLocator

    figure = plt.figure(figsize=(14.0, 6.4))
    grid = figure.add_gridspec(len(shown) // 2, 4, width_ratios=[1.5, 0.08, 1, 1], wspace=0.26, hspace=0.5)
    place = figure.add_subplot(grid[:, 0])
    steps = np.arange(1, len(loop.model) + 1)
    for (name, error, marker), colour, dash in zip(
        (
            ("world model, one dream", loop.model, "o"),
            (f"world model, mean of {DREAMS} dreams", loop.average, "D"),
            ("linear model", loop.linear, "s"),
            ("last state repeated", loop.repeat, "^"),
        ),
        (COLOURS[0], COLOURS[5], COLOURS[1], COLOURS[2]),
        ("-", "-", DASHES[1], DASHES[2]),
        strict=True,
    ):
        look = {"linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.8}
        place.plot(steps, error.cpu().numpy(), color=colour, label=name, **look)
    place.set_yscale("log")
    _plain_log(place)
    place.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(place, "error of a dream", "imagined steps", "RMS error over state dimensions (standard deviations)")
    below = {"frameon": False, "fontsize": 9, "loc": "upper center"}
    place.legend(**below, bbox_to_anchor=(0.5, -0.11), ncols=2, columnspacing=1.2)
    past, true, dreamt = (part.cpu().numpy() for part in (loop.past, loop.true, loop.dreamt))
    time = np.arange(-len(past), len(true))
    for n, d in enumerate(shown):
        place = figure.add_subplot(grid[n // 2, 2 + n % 2])
        place.axvspan(time[0] - 0.5, 0, color="#EEEEEE", linewidth=0, label="before imagination begins")
        place.axvline(0, color="#777777", linewidth=1.0)
        place.plot(time, np.concatenate([past[:, d], true[:, d]]), color=INK, linewidth=1.6, label="simulator")
        place.plot(
            time[-len(dreamt) :], dreamt[:, d], color=COLOURS[1], linewidth=1.8, linestyle=DASHES[1], label="dream"
        )
        place.set_xlim(time[0] - 0.5, time[-1] + 0.5)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        _dress(place, names(d), "control steps" if n >= len(shown) - 2 else "", "z" if n % 2 == 0 else "")
    handles, labels = place.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.7, 0.035), ncols=3)
    figure.suptitle(title, fontsize=11, color=INK, y=0.96)
    return _save(figure, path, tight=False)


def telling(loop: probes.OpenLoop, last_action_index: torch.Tensor | None, count: int = 6) -> list[int]:
    """The ``count`` dimensions that travel furthest and smoothly: no contact spikes, no repeated actions."""
    z = torch.cat([loop.past, loop.true]).cpu()
    smooth = z.unfold(0, 3, 1).mean(-1)
    score = smooth.std(0) - (z[1:-1] - smooth).std(0)
    if last_action_index is not None:
        score[last_action_index.flatten()[last_action_index.flatten() >= 0].cpu()] = -torch.inf
    count = min(count, score.shape[0]) // 2 * 2
    return sorted(score.topk(count).indices.tolist())


# ---- results ---------------------------------------------------------------------------------------------------


def results(groups: list[Group]) -> str:
    """A Markdown table: what every group had reached at the end, over its runs."""
    head = [
        "group",
        "runs",
        "env steps",
        "eval return, IQM",
        "95% interval",
        "mean",
        "best",
        "first",
        "success",
        "hours",
        "steps/s",
    ]
    rows = []
    for one in groups:
        measured = [y for run in one.runs if len(y := run.curve("eval/return", "env_steps")[1])]
        solved = [y[-1] for run in one.runs if len(y := run.curve("eval/success", "env_steps")[1])]
        last, best, first = ([pick(y) for y in measured] for pick in (lambda y: y[-1], np.max, lambda y: y[0]))
        steps = [int(run.rows[-1]["env_steps"] or 0) for run in one.runs]
        hours = [(run.rows[-1].get("wall_time") or 0.0) / 3600 for run in one.runs]
        speed = [count / (3600 * spent) for count, spent in zip(steps, hours, strict=True) if spent]
        band = "-"
        if len(last) > 1:
            low, high = bootstrap([np.array(last)])
            band = f"{low:.3f} .. {high:.3f}"
        rows.append([
            one.label,
            str(len(one.runs)),
            f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} .. {max(steps):,}",
            f"{iqm(np.array(last)):.3f}" if last else "-",
            band,
            *(f"{np.mean(values):.3f}" if values else "-" for values in (last, best, first)),
            f"{100 * np.mean(solved):.1f} %" if solved else "-",
            f"{np.mean(hours):.2f}" if hours else "-",
            f"{np.mean(speed):.0f}" if speed else "-",
        ])  # fmt: skip
    return table.markdown(head, rows)


# ---- looks -----------------------------------------------------------------------------------------------------


def _matplotlib() -> Any:
    """pyplot on a canvas without a display.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UsageError("plot needs matplotlib: pip install 'dima-isaac[plot]'.") from error

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _dress(place: Any, title: str, x: str, y: str) -> None:
    place.set_title(title, fontsize=10, color=INK)
    place.set_xlabel(x, fontsize=9, color=INK)
    place.set_ylabel(y, fontsize=9, color=INK)
    place.tick_params(labelsize=8, colors=INK)
    place.grid(True, color="#E2E2E2", linewidth=0.6)
    place.set_axisbelow(True)
    for side in ("top", "right"):
        place.spines[side].set_visible(False)


def _plain_log(place: Any) -> None:
    """A logarithmic axis with plain numbers, also between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    place.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    place.yaxis.set_minor_formatter(NullFormatter())


def _style_legend(place: Any, entries: list[tuple[str, Any]]) -> None:
    """What line styles mean, below the panel: colours are the groups'."""
    plt = _matplotlib()
    handles = [plt.Line2D([], [], color=INK, linestyle=dash, linewidth=1.5) for _, dash in entries]
    place.legend(
        handles,
        [name for name, _ in entries],
        frameon=False,
        fontsize=8,
        ncols=max(1, len(entries)),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
    )


def _legend_above(figure: Any, handles: list[Any], labels: list[str]) -> None:
    """One legend above all panels, where it covers nothing."""
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(3, max(1, len(labels))),
        frameon=False,
        fontsize=9,
    )


def _thousands(value: float, _: int) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def _save(figure: Any, path: Path, tight: bool = True) -> Path:
    plt = _matplotlib()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if tight:
            figure.tight_layout()
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=130, bbox_inches="tight", facecolor="white")
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}.") from error
    finally:
        plt.close(figure)
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}.") from error


def _folder(cfg: PlotConfig, runs: list[Path]) -> Path:
    if cfg.out:
        return Path(cfg.out)
    shared = Path(os.path.commonpath([path.resolve() for path in runs]))
    return shared / "plots"
