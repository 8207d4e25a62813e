"""Axes that are measured and labelled at little cost.

Most of the time that matplotlib takes for a figure goes into the sizes of its words. Powers of ten are formulas to it,
which takes milliseconds each, so they are plain text here; and the layout measures a panel once.
"""

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, LogFormatterMathtext
from matplotlib.transforms import Bbox

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_FORMULA = re.compile(r"^\$\\mathdefault\{(?P<base>[^^]*)(?:\^\{(?P<power>-?\d+)\})?\}\$$")


def plain_power(text: str) -> str:
    r"""The label of a tick of a logarithmic axis without markup; any other text as it is.

    >>> plain_power(r"$\mathdefault{10^{-3}}$"), plain_power(r"$\mathdefault{-2\times10^{4}}$"), plain_power("0.5")
    ('10⁻³', '−2×10⁴', '0.5')
    """
    found = _FORMULA.match(text)
    if not found:
        return text
    base = found["base"].replace(r"\times", "×").replace("-", "−")  # a minus sign, not a hyphen
    return base + (found["power"] or "").translate(_RAISED)


class PlainPowers(Formatter):
    """Another formatter's labels, powers written with raised digits."""

    def __init__(self, inner: Formatter) -> None:
        self.inner = inner

    def __call__(self, x: float, pos: int | None = None) -> str:
        return plain_power(self.inner(x, pos))

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self.inner.set_axis(axis)

    def set_locs(self, locs: Any) -> None:
        super().set_locs(locs)
        self.inner.set_locs(locs)

    def get_offset(self) -> str:
        return self.inner.get_offset()


class Panel(Axes):
    """Axes whose words a layout measures once: when it asks again, they have moved with the frame."""

    _around: np.ndarray | None = None

    def get_tightbbox(self, renderer: Any = None, *, for_layout_only: bool = False, **how: Any) -> Bbox | None:
        """What the panel covers, in pixels; see `Axes.get_tightbbox`."""
        if not for_layout_only or self.get_aspect() != "auto":
            return super().get_tightbbox(renderer, for_layout_only=for_layout_only, **how)
        around = self._around
        if around is None:
            covered = super().get_tightbbox(renderer, for_layout_only=True, **how)
            if covered is None:
                return None
            around = self._around = np.subtract(covered.extents, self.bbox.extents)
        return Bbox.from_extents(*np.add(self.bbox.extents, around))


def without_markup(axes: Axes) -> None:
    """Let the axes whose labels are powers in markup write them as plain text."""
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(inner := axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(PlainPowers(inner))
        if isinstance(inner := axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(PlainPowers(inner))


def fix_labels(axes: Axes) -> None:
    """Keep the names of drawn axes where they are, so that the next drawing need not measure the ticks for them."""
    for axis in (axes.xaxis, axes.yaxis):
        place = axis.label.get_transform().transform(axis.label.get_position())
        axis.set_label_coords(*axes.transAxes.inverted().transform(place), transform=axes.transAxes)
