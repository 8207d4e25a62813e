"""Power laws in the number of a mode: spectra made of them, and fits to measured ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.theory.deterministic_equivalents import Groups, Spectrum


def power_law_modes(
    spectrum_exponent: float, target_exponent: float, modes: float = 1e8, per_decade: int = 32
) -> tuple[Spectrum, Groups]:
    """Eigenvalues k^(-spectrum_exponent), k = 1 to `modes`, and the target's power k^(-target_exponent) in each, in groups.

    Modes are kept one by one as long as there are fewer than `per_decade` a decade, then in bins of that many, with their
    mean eigenvalue and summed power (integrals, exact to about 1e-4). Raises `InvalidValue` for exponents that are not
    positive, and fewer than 1 mode.

    >>> spectrum, power = power_law_modes(2.0, 2.0)
    >>> len(power), round(float(spectrum.counts.sum())), bool(abs(power.sum() - np.pi**2 / 6) < 1e-4)
    (232, 100000000, True)
    """
    for name, given in (("the spectrum's exponent", spectrum_exponent), ("the target's exponent", target_exponent)):
        require_between(name, given, 0.0, open_low=True)
    require_between("the number of modes", modes, 1)
    first, counts = log_bins(int(modes), per_decade)
    total = lambda exponent: np.where(counts == 1, first**-exponent, _integral(first, counts, exponent))
    return Spectrum(total(spectrum_exponent) / counts, counts), total(target_exponent)


def log_bins(modes: int, per_decade: int, start: int = 1) -> tuple[Groups, Groups]:
    """The first mode and the number of modes of bins from `start` to `modes`, even in the logarithm but whole."""
    many = max(int(np.ceil(np.log10(modes / start) * per_decade)), 1)
    edges = np.unique(np.append(np.round(np.geomspace(start, modes + 1, many + 1)), [start, modes + 1]))
    return edges[:-1], np.diff(edges)


def _integral(first: Groups, counts: Groups, exponent: float) -> Groups:
    low, high = first - 0.5, first + counts - 0.5
    return np.log(high / low) if exponent == 1 else (low ** (1 - exponent) - high ** (1 - exponent)) / (exponent - 1)


class Exponent(NamedTuple):
    """An exponent and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class ModeFit(NamedTuple):
    """values = factor mode^(-exponent): `error` is the exponent's standard error, with `freedom` degrees of freedom,
    `residual` the root mean square of the logarithm's residuals in bins, `first` and `last` the modes that were fitted."""

    exponent: Exponent
    factor: float
    error: float
    freedom: int
    residual: float
    first: int
    last: int


def fit_modes(values: Float[np.ndarray, " mode"], first: int, last: int, confidence: float = 0.95) -> ModeFit:
    """A power law in the mode's number (from 1) fitted to modes `first` to `last`, each decade with equal weight.

    The mean is fitted, not the logarithm's: noisy and zero values do no harm (gamma quasi-likelihood, weights 1/mode). Intervals
    let the misfit be correlated within eighths of a decade and of any size (clustered sandwich, Student's t). Raises
    `InvalidValue` for fewer than 4 such bins, negative values, and values that are all 0.

    >>> round(fit_modes(np.arange(1.0, 501.0) ** -1.5, 5, 400).exponent.value, 6)
    1.5
    """
    require_between("confidence", confidence, 0.5, 0.999)
    require_between("the first mode to be fitted", first, 1)
    require_between("the last mode to be fitted", last, first + 1, len(values), note="the number of modes")
    y = np.asarray(values, float)[first - 1 : last]
    require_between("a value to be fitted", y, 0.0)
    starts, _ = log_bins(last, 8, first)
    if len(starts) < 4 or not y.any():
        raise InvalidValue(f"modes {first} to {last} are too few for a power law, or all 0; give a wider range")
    modes = np.arange(first, last + 1.0)
    x, weight = np.stack([np.ones_like(modes), np.log(modes / np.sqrt(first * last))], axis=1), 1 / modes
    y = y / np.average(y, weights=modes**0.5)
    coefficients, bread = np.array([0.0, -1.0]), np.linalg.inv((x.T * weight) @ x)
    coefficients[0] = np.log(np.average(y * np.exp(-x @ coefficients), weights=weight))
    for _ in range(200):
        ratio = y * np.exp(-np.clip(x @ coefficients, -600, 600))
        change = bread @ ((x.T * weight) @ (ratio - 1))
        coefficients = coefficients + change * min(1.0, 1.0 / np.abs(change).max())
        if np.abs(change).max() < 1e-10:
            break
    ratio = y * np.exp(-x @ coefficients)
    pieces = np.add.reduceat((x.T * weight * (ratio - 1)), (starts - first).astype(int), axis=1)
    freedom = len(starts) - 2
    # Observed, not expected, information: it knows how far the mean still is from the power law.
    inner = np.linalg.inv((x.T * weight * ratio) @ x)
    error = float(np.sqrt((inner @ pieces @ pieces.T @ inner)[1, 1] * len(starts) / freedom))
    coarse = (log_bins(last, 3, first)[0] - first).astype(int)
    share = np.add.reduceat(weight * ratio, coarse) / np.add.reduceat(weight, coarse)
    residual = float(np.sqrt(np.mean(np.log(np.maximum(share, 1e-12)) ** 2)))
    value, reach = -float(coefficients[1]), _student(confidence, freedom) * error
    scale = float(np.average(np.asarray(values, float)[first - 1 : last], weights=modes**0.5))
    factor = scale * float(np.exp(coefficients[0]) * np.sqrt(first * last) ** value)
    return ModeFit(Exponent(value, value - reach, value + reach), factor, error, freedom, residual, first, last)


def _student(confidence: float, freedom: int) -> float:
    from scipy.stats import t  # loads slowly

    return float(t.ppf(0.5 + confidence / 2, freedom))
