"""The house style of figures: colour-blind-safe, journal-sized, text as text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from armillary.report.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, the yellow left out: it vanishes on white."""

RC = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "armillary",
    "savefig.dpi": 160,
}


def save(figure: Figure, folder: Path) -> dict[str, Path]:
    """Draw a figure and write it as SVG and PNG; returns the two paths."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from armillary.report.panel import Panel, fix_labels, without_markup
    from armillary.store import write_whole

    rows, columns = figure.grid
    settings: Any = {**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"], **RC, "axes.prop_cycle": _cycle()}
    with mpl.rc_context(settings):
        size, layout = figure.size or (3.7 * columns + 0.6, 2.9 * rows), ConstrainedLayoutEngine()
        canvas = Canvas(figsize=size, dpi=RC["savefig.dpi"], layout=layout)
        FigureCanvasAgg(canvas)  # what text is measured with
        figure.draw(canvas.subplots(rows, columns, squeeze=False, subplot_kw={"axes_class": Panel}))
        for axes in canvas.axes:
            without_markup(axes)
        # Laid out once, here: under a layout engine matplotlib draws everything once more before it writes a format.
        layout.execute(canvas)
        canvas.set_layout_engine(None)
        paths = {}
        # Little compression: more of it makes a drawing hardly smaller and takes five times as long.
        kinds: dict[str, Any] = {
            "png": {"pil_kwargs": {"compress_level": 2}}, "svg": {"metadata": {"Date": None}}
        }  # fmt: skip
        for kind, extra in kinds.items():
            path = folder / f"{figure.name}.{kind}"
            paths[kind] = write_whole(path, lambda hidden, k=kind, e=extra: canvas.savefig(hidden, format=k, **e))
            for axes in canvas.axes:
                fix_labels(axes)
    return paths


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=COLORS)


def shades(count: int) -> list[Any]:
    """`count` colours in order (for a swept number), distinguishable without colour vision and on white."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](x) for x in np.linspace(0.0, 0.88, max(count, 1))]


def lines(axis: Any, data: xr.DataArray, along: str = "time", **style: Any) -> None:
    """A theory's curve: a line over `along`."""
    axis.plot(data[along].values, data.values, **{"zorder": 2, **style})


def dots(axis: Any, data: xr.DataArray, along: str = "time", every: int = 1, **style: Any) -> None:
    """Measured points over `along`: the mean over seeds with bars of one standard error where there are seeds."""
    from armillary.trajectory import over_seeds

    shown = data.isel({along: slice(None, None, every)})
    mean, error = over_seeds(shown)
    bars = error.values if shown.sizes.get("seed", 1) > 1 else None
    look = {"fmt": "o", "markersize": 3.2, "elinewidth": 0.8, "zorder": 3, **style}
    axis.errorbar(shown[along].values, mean.values, yerr=bars, **look)


def key_of_overlay(axis: Any, **kwargs: Any) -> None:
    """A legend that says what lines and dots are, beside the axis's own entries."""
    from matplotlib.lines import Line2D

    handles, labels = axis.get_legend_handles_labels()
    handles += [Line2D([], [], color="0.3"), Line2D([], [], color="0.3", marker="o", linestyle="")]
    axis.legend(handles, [*labels, "theory", "measured"], **kwargs)


def label(axis: Any, x: str, y: str, title: str = "", *, xlog: bool = False, ylog: bool = False) -> None:
    """Names of the axes and their scales."""
    from matplotlib.ticker import LogFormatter

    axis.set(xlabel=x, ylabel=y, title=title)
    if xlog:
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # short, and only within a decade
    if ylog:
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def panels(axes: Any) -> Sequence[Any]:
    """All axes of a grid in reading order."""
    return list(np.ravel(axes))


def cobweb(axis: Any, function: Callable[[Any], Any], start: float, *, color: str, steps: int = 12) -> None:
    """A function of [0, 1] into itself, the diagonal, and the path of its iterates from `start`."""
    grid = np.linspace(0, 1, 200)
    axis.plot(grid, function(grid), color=color)
    axis.plot(grid, grid, color="0.7", linewidth=1)
    path = [(start, 0.0)]
    for _ in range(steps):
        after = float(function(path[-1][0]))
        path += [(path[-1][0], after), (after, after)]
    axis.plot(*np.array(path).T, "-", color="0.2", linewidth=0.9)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
