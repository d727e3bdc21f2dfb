"""``plot``: figures of runs or of a checkpoint's dreams, and a Markdown table of what the runs reached."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from dima_isaac.config import RunConfig
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import curves, figure, open_loop, probe, runs, table
from dima_isaac.tools.config import PlotConfig, references
from dima_isaac.tools.restore import Restored, restore
from dima_isaac.tools.runs import Group
from dima_isaac.tools.statistics import bootstrap, iqm


def main(cfg: PlotConfig, changes: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog) -> int:
    """Draw what the options name and print every path written."""
    figure.pyplot()
    written = []
    if cfg.open_loop:
        written.append(_open_loop(cfg, restore(cfg, catalog)))
    if cfg.runs:
        found = runs.load(cfg.runs)
        tasks = {task: runs.group(members) for task, members in runs.by_task(found).items()}
        shared = Path(os.path.commonpath([run.path.resolve() for run in found]))
        folder = Path(os.path.expanduser(cfg.out)) if cfg.out else shared / "plots"
        lines = references(cfg.reference)
        for task, groups in tasks.items():
            place = folder / task if len(tasks) > 1 else folder
            written += [
                curves.learning_curves(groups, axis, place / f"curves_{axis}.png", lines) for axis in curves.AXES
            ]
        text = results([group for groups in tasks.values() for group in groups]) + "\n"
        print(text)
        written.append(figure.write(folder / "results.md", text))
    for path in written:
        print(f"wrote       {path}")
    return 0


def _open_loop(cfg: PlotConfig, restored: Restored) -> Path:
    with closing(restored.build_env(cfg.num_envs, cfg.seed)) as env:
        loop, spec, name = probe.open_loop(restored, env, cfg.seed), env.spec, env.task.describe
    title = f"{spec.name}, {restored.env_steps:,} environment steps, preset {restored.cfg.preset}, held-out episodes"
    folder = Path(os.path.expanduser(cfg.out)) if cfg.out else restored.run_folder / "plots"
    shown = open_loop.informative_dimensions(loop, spec.last_action_index)
    return open_loop.open_loop_figure(loop, title, folder / "open_loop.png", shown, name)


def results(groups: list[Group]) -> str:
    """A Markdown table: what every group had reached at the end, over its runs."""
    head = ["group", "runs", "env steps", "eval return, IQM", "95% interval", "mean", "best", "first"]
    return table.markdown([*head, "success", "hours", "steps/s"], [_result(group) for group in groups])


def _result(group: Group) -> list[str]:
    returns = [y for run in group.runs if len(y := run.curve("eval/return", "env_steps")[1])]
    success = [y[-1] for run in group.runs if len(y := run.curve("eval/success", "env_steps")[1])]
    last, best, first = [y[-1] for y in returns], [y.max() for y in returns], [y[0] for y in returns]
    steps = [int(run.rows[-1]["env_steps"] or 0) for run in group.runs]
    hours = [(run.rows[-1].get("wall_time") or 0.0) / 3600 for run in group.runs]
    speed = [count / (3600 * spent) for count, spent in zip(steps, hours, strict=True) if spent]
    interval = "-"
    if len(last) > 1:
        low, high = bootstrap(np.array(last))
        interval = f"{low:.3f} .. {high:.3f}"
    return [
        group.label,
        str(len(group.runs)),
        f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} .. {max(steps):,}",
        f"{iqm(np.array(last)):.3f}" if last else "-",
        interval,
        *(f"{np.mean(values):.3f}" if values else "-" for values in (last, best, first)),
        f"{100 * np.mean(success):.1f} %" if success else "-",
        f"{np.mean(hours):.2f}",
        f"{np.mean(speed):.0f}" if speed else "-",
    ]
