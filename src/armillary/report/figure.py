"""Figures: a name, a caption, and how to draw it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure of a study.

    `draw` is handed a grid of matplotlib axes, `axes[row][column]` of shape `grid`, and draws on them; the house
    style (`report/style.py`) is in force and saves them. `caption` says what is seen in one or two sentences.
    """

    name: str
    caption: str
    draw: Callable[[Any], None]
    grid: tuple[int, int] = (1, 1)
    size: tuple[float, float] | None = None
