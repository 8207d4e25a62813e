"""When to look: observation times of a run."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from armillary.errors import InvalidValue, require_between


@dataclass(frozen=True)
class LogSpaced:
    """The start, then `count - 1` times even in log time up to the end; `first` is the earliest after 0.

    On a clock of whole steps doubles are merged, so fewer may remain.

    >>> LogSpaced(4).times(100, discrete=True).tolist()
    [0.0, 1.0, 10.0, 100.0]
    """

    kind: ClassVar[str] = "log"
    count: int = 50
    first: float | None = None

    def __post_init__(self):
        require_between("the number of observations (count)", self.count, 2)
        require_between("first", 1.0 if self.first is None else self.first, 0.0, open_low=True)

    def times(self, end: float, *, discrete: bool) -> np.ndarray:
        first = self.first if self.first is not None else (1.0 if discrete else end * 1e-4)
        if end <= first:
            return np.array([0.0, end]) if end > 0 else np.zeros(1)
        times = np.concatenate([[0.0], np.geomspace(first, end, self.count - 1)])
        times[-1] = end  # geomspace ends a rounding error away
        return np.unique(np.round(times)) if discrete else times


@dataclass(frozen=True)
class Evenly:
    """`count` times, even from the start to the end, both included.

    >>> Evenly(3).times(10, discrete=True).tolist()
    [0.0, 5.0, 10.0]
    """

    kind: ClassVar[str] = "even"
    count: int = 50

    def __post_init__(self):
        require_between("the number of observations (count)", self.count, 2)

    def times(self, end: float, *, discrete: bool) -> np.ndarray:
        times = np.linspace(0.0, end, self.count)
        return np.unique(np.round(times)) if discrete else times


@dataclass(frozen=True)
class At:
    """Given times, increasing, none before 0.

    >>> At((0, 3, 7)).times(10, discrete=True).tolist()
    [0.0, 3.0, 7.0]
    """

    kind: ClassVar[str] = "at"
    given: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "given", tuple(float(t) for t in self.given))
        if not self.given or self.given[0] < 0 or list(self.given) != sorted(set(self.given)):
            raise InvalidValue(f"observation times are {self.given}, but must increase from 0 or later")

    def times(self, end: float, *, discrete: bool) -> np.ndarray:
        if self.given[-1] > end:
            raise InvalidValue(f"an observation at {self.given[-1]:g} is past the end of the run, {end:g}")
        if discrete and any(t != round(t) for t in self.given):
            raise InvalidValue("observation times must be whole steps, because this rule works in steps")
        return np.asarray(self.given)


Clock = LogSpaced | Evenly | At
"""Any of the ways to say when to look."""
