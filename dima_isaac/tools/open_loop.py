"""The open-loop figure: how far a dream departs from the simulator under the same actions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.tools import figure
from dima_isaac.tools.figure import COLOURS, DASHES, GREY, INK
from dima_isaac.tools.probe import DREAMS
from dima_isaac.training.probes import OpenLoop


def open_loop_figure(loop: OpenLoop, title: str, path: Path, dimensions: list[int], name: Callable[[int], str]) -> Path:
    """Error per horizon step beside both baselines, and one dream of each of ``dimensions`` (an even number).

    ``name`` gives the label of a state dimension.
    """
    canvas = figure.pyplot().figure(figsize=(14.0, 6.4))
    grid = canvas.add_gridspec(len(dimensions) // 2, 4, width_ratios=[1.5, 0.08, 1, 1], wspace=0.26, hspace=0.5)
    _draw_error(canvas.add_subplot(grid[:, 0]), loop)
    for n, dimension in enumerate(dimensions):
        axes = canvas.add_subplot(grid[n // 2, 2 + n % 2])
        _draw_dimension(axes, loop, dimension)
        axes.set(title=name(dimension), ylabel="z" if n % 2 == 0 else "")
        axes.set_xlabel("control steps" if n >= len(dimensions) - 2 else "")
    canvas.legend(*axes.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.7, 0.035), ncols=3)
    canvas.suptitle(title, fontsize=11, y=0.96)
    return figure.save(canvas, path, tight=False)


def _draw_error(axes: Any, loop: OpenLoop) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = np.arange(1, len(loop.model) + 1)
    for name, error, marker, colour, dash in (
        ("world model, one dream", loop.model, "o", COLOURS[0], "-"),
        (f"world model, mean of {DREAMS} dreams", loop.average, "D", COLOURS[5], "-"),
        ("linear model", loop.linear, "s", COLOURS[1], DASHES[1]),
        ("last state repeated", loop.repeat, "^", COLOURS[2], DASHES[2]),
    ):
        look: dict[str, Any] = {"linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.8}
        axes.plot(steps, error.cpu().numpy(), color=colour, label=name, **look)
    axes.set(title="error of a dream", xlabel="imagined steps")
    axes.set_ylabel("RMS error over state dimensions (standard deviations)")
    figure.log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, columnspacing=1.2)


def _draw_dimension(axes: Any, loop: OpenLoop, dimension: int) -> None:
    from matplotlib.ticker import MaxNLocator

    past, true, dreamt = (part[:, dimension].cpu().numpy() for part in (loop.past, loop.true, loop.dreamt))
    time = np.arange(-len(past), len(true))
    axes.axvspan(time[0] - 0.5, 0, color="#EEEEEE", linewidth=0, label="before imagination begins")
    axes.axvline(0, color=GREY, linewidth=1.0)
    axes.plot(time, np.concatenate([past, true]), color=INK, linewidth=1.6, label="simulator")
    look = {"color": COLOURS[1], "linewidth": 1.8, "linestyle": DASHES[1]}
    axes.plot(time[-len(dreamt) :], dreamt, label="dream", **look)
    axes.set_xlim(time[0] - 0.5, time[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def informative_dimensions(loop: OpenLoop, last_action_index: Tensor | None, count: int = 6) -> list[int]:
    """The ``count`` dimensions that move furthest and most smoothly: no contact spikes, no copies of the action."""
    z = torch.cat([loop.past, loop.true]).cpu()
    smooth = z.unfold(0, 3, 1).mean(-1)
    score = smooth.std(0) - (z[1:-1] - smooth).std(0)
    if last_action_index is not None:
        score[last_action_index[last_action_index >= 0].cpu()] = -torch.inf
    count = min(count, score.shape[0]) // 2 * 2
    return sorted(score.topk(count).indices.tolist())
