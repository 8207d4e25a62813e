"""Claims, decided by numbers that can come out wrong."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import xarray as xr

from armillary.errors import InvalidValue


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Paper:
    """Where a study comes from."""

    title: str
    authors: str
    year: int
    arxiv: str = ""
    venue: str = ""

    @property
    def url(self) -> str:
        """The paper's page, if it is on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def __str__(self) -> str:
        where = f"arXiv:{self.arxiv}" if self.arxiv else self.venue
        return f"{self.authors} ({self.year}), {self.title}{f', {where}' if where else ''}"


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with the number that decides it.

    `measured` is a number, or one for each seed (any array): its mean is judged, and its standard error is
    the spread shown. Exactly one criterion: `expected` with a `tolerance` (absolute, or `relative` to
    expected), `at_least`, `at_most`, or `between=(low, high)`. nan entries are members that diverged; they are
    left out, and counted.

    The verdict is "undecided" when nothing finite was measured, or when the seeds scatter so much that the
    threshold lies within two standard errors of the mean.

    - `paper`: where the paper says it. `reason`: why the tolerance is what it is, or why the claim does not hold
      at this scale.

    >>> Claim("C1", "it doubles", measured=2.01, expected=2.0, tolerance=0.05).verdict
    <Verdict.HOLDS: 'holds'>
    >>> Claim("C2", "it stays small", measured=[3.0, 5.0], at_most=3.9).verdict
    <Verdict.UNDECIDED: 'undecided'>
    """

    id: str
    statement: str
    measured: Any = field(kw_only=True)
    expected: float | None = field(default=None, kw_only=True)
    tolerance: float | None = field(default=None, kw_only=True)
    relative: bool = field(default=False, kw_only=True)
    at_least: float | None = field(default=None, kw_only=True)
    at_most: float | None = field(default=None, kw_only=True)
    between: tuple[float, float] | None = field(default=None, kw_only=True)
    paper: str = field(default="", kw_only=True)
    reason: str = field(default="", kw_only=True)

    def __post_init__(self):
        criteria = [c is not None for c in (self.expected, self.at_least, self.at_most, self.between)]
        if sum(criteria) != 1 or (self.expected is not None) != (self.tolerance is not None):
            raise InvalidValue(
                f"claim {self.id} needs one criterion: expected with tolerance, at_least, at_most or between"
            )

    @property
    def values(self) -> np.ndarray:
        """The finite measured numbers, flat."""
        raw = self.measured.values if isinstance(self.measured, xr.DataArray) else self.measured
        flat = np.asarray(raw, dtype=float).ravel()
        return flat[np.isfinite(flat)]

    @property
    def missing(self) -> int:
        """How many of the measured numbers are not finite."""
        return int(np.size(self.measured)) - self.values.size

    @property
    def mean(self) -> float:
        """What is judged."""
        return float(self.values.mean()) if self.values.size else float("nan")

    @property
    def standard_error(self) -> float:
        """Of the mean, from the scatter of the measured numbers; 0 for a single one."""
        return float(self.values.std(ddof=1) / np.sqrt(self.values.size)) if self.values.size > 1 else 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """What the mean must lie between."""
        if self.expected is not None and self.tolerance is not None:
            width = self.tolerance * (abs(self.expected) if self.relative else 1.0)
            return self.expected - width, self.expected + width
        if self.between is not None:
            return self.between
        low = -np.inf if self.at_least is None else self.at_least
        return low, np.inf if self.at_most is None else self.at_most

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds."""
        low, high = self.limits
        if not self.values.size or np.isnan([low, high]).any():
            return Verdict.UNDECIDED
        if min(abs(self.mean - low), abs(self.mean - high)) < 2 * self.standard_error:
            return Verdict.UNDECIDED
        return Verdict.HOLDS if low <= self.mean <= high else Verdict.FAILS

    @property
    def criterion(self) -> str:
        """What was asked for, in words."""
        if self.expected is not None and self.tolerance is not None:
            tolerance = f"{self.tolerance:.3g}" if not self.relative else f"{self.tolerance:.3g} × itself"
            return f"{self.expected:.4g} ± {tolerance}"
        if self.between is not None:
            return f"{self.between[0]:.4g} to {self.between[1]:.4g}"
        return f"≥ {self.at_least:.4g}" if self.at_least is not None else f"≤ {self.at_most:.4g}"

    @property
    def found(self) -> str:
        """What was measured, with its spread over seeds."""
        spread = f" ± {self.standard_error:.2g}" if self.standard_error else ""
        lost = f" ({self.missing} of {np.size(self.measured)} missing)" if self.missing else ""
        return f"{self.mean:.4g}{spread}{lost}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan and inf as None."""
        low, high = (None if not np.isfinite(v) else float(v) for v in self.limits)
        return {
            "id": self.id,
            "statement": self.statement,
            "verdict": str(self.verdict),
            "measured": self.mean if np.isfinite(self.mean) else None,
            "standard_error": self.standard_error,
            "expected": self.expected if self.expected is not None else [low, high],
            "tolerance": self.tolerance,
            "criterion": self.criterion,
            "paper": self.paper,
            "reason": self.reason,
        }
