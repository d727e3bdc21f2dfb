"""What all figures share: colours, line styles, axes, legends, and writing the file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dima_isaac.errors import UsageError
from dima_isaac.run.atomic import write_atomic

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe and Ito's palette: distinguishable to colour-blind readers and in print."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
INK, GREY = "#333333", "#777777"
_STYLE: dict[str, Any] = {
    **{"text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 10, "axes.labelsize": 9, "axes.axisbelow": True},
    **{"xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8},
    **{"axes.grid": True, "grid.color": "#E2E2E2", "grid.linewidth": 0.6},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 9},
}


def pyplot() -> Any:
    """pyplot in this project's style, on a canvas that needs no display.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UsageError("plot needs matplotlib: pip install 'dima-isaac[plot]'.") from error

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(_STYLE)
    return plt


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of group ``index``: dashes change when the colours have been used up."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}


def log_scale(axes: Any) -> None:
    """A logarithmic vertical axis with plain numbers, also between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def thousands(axes: Any) -> None:
    """A horizontal axis labelled 5k or 2M."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int) -> str:
        if abs(value) >= 1e6:
            return f"{value / 1e6:g}M"
        return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"

    axes.xaxis.set_major_formatter(FuncFormatter(text))


def legend_above(figure: Any, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One legend of (label, line style) above all panels, where it covers nothing."""
    placed = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": min(3, max(1, len(entries)))}
    lines = [pyplot().Line2D([], [], label=label, **{"linewidth": 2, **look}) for label, look in entries]
    figure.legend(handles=lines, **placed)


def save(figure: Any, path: Path, tight: bool = True) -> Path:
    """Write ``figure`` as a PNG and close it; a file that was there before is replaced whole or not at all."""
    png = io.BytesIO()
    try:
        if tight:
            figure.tight_layout()
        figure.savefig(png, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    finally:
        pyplot().close(figure)
    return write(path, png.getvalue())


def write(path: Path, content: str | bytes) -> Path:
    """Write ``content`` to ``path``, making its folder.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}.") from error
    return path
