"""Numbers read off trajectories: when a level is crossed, a power law's exponent, a rank correlation."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike


def crossing_time(values: xr.DataArray, level: xr.DataArray | float, *, falling: bool = False) -> xr.DataArray:
    """First time at which `values[..., time]` reaches `level`, linear between observations; nan if never.

    `falling` looks for the first time at or below the level instead of at or above. The result has the other
    dimensions of `values` (and of `level`).

    >>> rising = xr.DataArray([0.0, 1.0, 3.0], coords={"time": [0.0, 1.0, 2.0]})
    >>> crossing_time(rising, 2.0).item()
    1.5
    """
    gap = (level - values) if falling else (values - level)
    gap = gap.transpose(..., "time")
    reached = gap >= 0
    ever = reached.any("time")
    index = reached.argmax("time")
    before = np.maximum(index - 1, 0)
    time = values.time
    g1, g0 = gap.isel(time=index), gap.isel(time=before)
    t1, t0 = time.isel(time=index), time.isel(time=before)
    span = (g1 - g0).where(index > 0, 1.0)
    share = (-g0 / span.where(span != 0, 1.0)).where(index > 0, 1.0)
    crossing = t0 + share * (t1 - t0)
    return crossing.where(ever).drop_vars("time", errors="ignore").assign_attrs(time.attrs)


class PowerLaw(NamedTuple):
    """y = factor x^exponent fitted in log-log, with the exponent's standard error and R²."""

    exponent: float
    factor: float
    standard_error: float
    r_squared: float


def power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Least squares of log y on log x, over the points where both are finite and positive.

    >>> round(power_law(np.array([1.0, 2.0, 4.0]), np.array([3.0, 12.0, 48.0])).exponent, 6)
    2.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    use = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if use.sum() < 2:
        return PowerLaw(np.nan, np.nan, np.nan, np.nan)
    x, y = np.log(x[use]), np.log(y[use])
    if np.ptp(x) == 0:
        return PowerLaw(np.nan, np.nan, np.nan, np.nan)
    if use.sum() > 2:  # SciPy's linregress would take a second to load
        (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
        error = np.sqrt(covariance[0, 0])
    else:
        (slope, intercept), error = np.polyfit(x, y, 1), 0.0
    r_squared = np.corrcoef(x, y)[0, 1] ** 2 if np.ptp(y) > 0 else 0.0
    return PowerLaw(float(slope), float(np.exp(intercept)), float(error), float(r_squared))


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation over the points where both are finite; nan with fewer than three."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    use = np.isfinite(x) & np.isfinite(y)
    if use.sum() < 3:
        return float("nan")
    return float(pd.Series(x[use]).rank().corr(pd.Series(y[use]).rank()))


def standard_errors_away(values: ArrayLike, expected: float) -> float:
    """How far the mean of the finite values is from what is expected, in its standard errors; nan for fewer than two.

    >>> round(standard_errors_away([1.0, 2.0, 3.0], 2.5), 3)
    0.866
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    if values.size < 2:
        return float("nan")
    return float(abs(values.mean() - expected) / (values.std(ddof=1) / np.sqrt(values.size)))


def in_groups(values: xr.DataArray, groups: int, dim: str = "seed") -> xr.DataArray:
    """`values` with `dim` cut into equal groups, as the dimensions `group` and `dim`: what is found group by group says how
    much it scatters. What is left over is dropped.

    >>> in_groups(xr.DataArray(np.arange(7), dims="seed"), 3).std("seed").values
    array([0.5, 0.5, 0.5])
    """
    size = values.sizes[dim] // groups
    parts = [values.isel({dim: slice(i * size, (i + 1) * size)}).drop_vars(dim, errors="ignore") for i in range(groups)]
    return xr.concat(parts, "group")


def alignment_with_strangers(kernels: xr.DataArray) -> xr.DataArray:
    """Mean cosine of each member's kernel at the last time with the *other* seeds' kernels at the first.

    `kernels` is [..., seed, time, sample, other], on samples that all seeds share; the result has the other dimensions and the
    seed; nan for one seed. Uncentred kernels of unrelated networks are alike: it is this that an alignment with a network's own
    start must be compared with.

    >>> kernels = xr.DataArray(np.ones((2, 2, 3, 3)), dims=("seed", "time", "sample", "other"), coords={"seed": [0, 1]})
    >>> alignment_with_strangers(kernels).values.round(6).tolist()
    [1.0, 1.0]
    """
    both = ("sample", "other")
    begin, end = (kernels.isel(time=i, drop=True) / np.sqrt((kernels.isel(time=i) ** 2).sum(both)) for i in (0, -1))
    cosines = xr.dot(end, begin.rename(seed="begun"), dim=both)
    return cosines.where(cosines.seed != cosines.begun).mean("begun")
