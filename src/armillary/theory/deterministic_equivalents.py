"""Ridge regression in high dimension: what a random design, and random features, do to it on average.

A kernel is given by its modes, the eigenfunctions of its covariance, taken as independent Gaussians. Samples then act as a
larger ridge k than the one put in, and features as a share tau of the kernel: one fixed point for each. With
R_i = 1/(k + beside_i + tau value_i) the mean of (kernel + k)⁻¹ in mode i,

    1/tau = 1 + (sum of value R + tail/k)/features,    k (samples - degrees(k)) = penalty,

where degrees(k) is the trace of kernel (kernel + k)⁻¹. Second moments are derivatives in k. Source for the linear case:
Dobriban & Wager (2018), Hastie et al. (2022); with features: derived here, and checked against simulation in the tests.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between

Groups = Float[np.ndarray, " group"]


class Spectrum(NamedTuple):
    """Eigenvalues in groups of equal ones: `values` [group], each `counts` [group] times."""

    values: Groups
    counts: Groups


def effective_ridge(spectrum: Spectrum, samples: float, penalty: float = 0.0) -> float:
    """The k at which k (samples - sum of value/(value + k)) = penalty: what the covariance itself is shrunk by.

    Small eigenvalues act as a ridge on large ones: k is about (penalty + trace of the tail)/samples. 0 where an
    unpenalised fit has fewer directions than samples. Source: Dobriban & Wager (2018); Hastie et al. (2022)

    >>> round(effective_ridge(Spectrum(np.array([1.0]), np.array([200.0])), samples=100), 6)
    1.0
    """
    from scipy.optimize import brentq  # loads slowly

    values, counts = spectrum
    if penalty == 0 and counts[values > 0].sum() <= samples:
        return 0.0
    top = (penalty + values @ counts) / samples
    gap = lambda k: k * (samples - (counts * values / (values + k)).sum()) - penalty
    return float(brentq(gap, 1e-15 * top, (1 + 1e-9) * top + 1e-300, xtol=1e-14 * top))  # type: ignore[arg-type]


def linear_errors(
    spectrum: Spectrum, signal: ArrayLike, residual: float, samples: float, noise: float,
    penalty: float = 0.0,
) -> tuple[float, float]:  # fmt: skip
    """Bias and variance of linear ridge regression on Gaussian inputs in high dimension (the full trace formula).

    `signal` [group] is the squared norm of the best linear map's part in each group of eigenvalues, `residual` the
    variance of the target that no linear map of the inputs explains (in training and at the test point), `noise` the
    labels' deviation, `penalty` that of K + penalty I (0 interpolates). With k the `effective_ridge` and
    d = sum value²/(value + k)²: variance = noise² d/(samples - d), bias = (k² sum signal value/(value + k)² + residual)
    samples/(samples - d). Source: Hastie et al. (2022); the residual is put in here

    >>> bias, variance = linear_errors(Spectrum(np.array([1.0]), np.array([200.0])), [1.0], 0.0, 100, 1.0)
    >>> round(bias, 6), round(variance, 6)
    (0.5, 1.0)
    """
    k = effective_ridge(spectrum, samples, penalty)
    values, counts = (part[spectrum.values > 0] for part in spectrum)
    kept = np.asarray(signal, float)[spectrum.values > 0]
    used = (counts * values**2 / (values + k) ** 2).sum()
    missed = k**2 * (kept * values / (values + k) ** 2).sum()
    return float((missed + residual) * samples / (samples - used)), float(noise**2 * used / (samples - used))


class Beside(NamedTuple):
    """What a kernel has beside random features of its modes, at the ridge k at which it was asked.

    `value` is what each mode gets in R, with its first and second derivatives in k, `slope` and `bend` (numbers or
    [group]); `degrees` is the trace of kernel (kernel + k)⁻¹ over directions of its own, which no target has, and
    `degrees_squared` that of its square. A fixed kernel with eigenvalue a in each mode and infinitely many tiny
    eigenvalues of sum t is `Beside(a, degrees=t / k)`.
    """

    value: Any = 0.0
    slope: Any = 0.0
    bend: Any = 0.0
    degrees: float = 0.0
    degrees_squared: float = 0.0


def _nothing(ridge: float) -> Beside:
    return Beside()


class FeatureKernel(NamedTuple):
    """A kernel seen through random features: `spectrum` of its modes, `features` how many (inf: the kernel itself).

    `tail` is the sum of infinitely many tiny eigenvalues beyond the spectrum (a feature's own noise, as the non-linear part
    of an activation in high dimension); `beside` is what is added to it that is not seen through features, a function of k.
    """

    spectrum: Spectrum
    features: float = np.inf
    tail: float = 0.0
    beside: Callable[[float], Beside] = _nothing

    def share(self, ridge: float) -> float:
        """tau, the share of the kernel that so many features keep at that ridge, in (0, 1]."""
        return self._share(ridge, self.beside(ridge))

    def _share(self, ridge: float, beside: Beside) -> float:
        (values, counts), added = self.spectrum, beside.value + ridge
        if np.isinf(self.features):
            return 1.0
        # In u = 1/tau the gap is convex: Newton's steps from above never overshoot.
        u = 1 + (counts @ (values / added) + self.tail / ridge) / self.features
        for _ in range(200):
            kept = values / (added * u + values)
            gap = u - 1 - (u * (counts @ kept) + self.tail / ridge) / self.features
            rise = 1 - counts @ kept**2 / self.features
            u, before = u - gap / rise, u
            if abs(u - before) < 1e-14 * u:
                break
        return float(1 / u)

    def degrees(self, ridge: float) -> float:
        """The mean trace of kernel (kernel + ridge)⁻¹: how many directions are fitted at that ridge."""
        (values, counts), beside = self.spectrum, self.beside(ridge)
        (added, slope, _, own, _), tau = beside, self._share(ridge, beside)
        shrunk = ridge * (1 + slope) / (ridge + added + tau * values)
        return float(np.sum(counts * (1 - shrunk)) + own + tau * self.tail / ridge)

    def ridge(self, samples: float, penalty: float) -> float:
        """The k at which k (samples - degrees(k)) = penalty. Raises `InvalidValue` for a penalty that is not positive."""
        from scipy.optimize import brentq  # loads slowly

        require_between("the penalty", penalty, 0.0, open_low=True, note="a tiny one, such as 1e-9, interpolates")
        require_between("the number of samples", samples, 0.0, open_low=True)
        require_between("the number of features", self.features, 0.0, open_low=True)
        gap = lambda log: samples - self.degrees(np.exp(log)) - penalty * np.exp(-log)
        middle = np.log(penalty / samples)  # the root lies above: degrees are not negative
        high = middle + 1.0
        while gap(high) < 0:
            high += 5.0
            if high > 600:
                raise InvalidValue("the effective ridge is not finite; give a larger penalty or other eigenvalues")
        return float(np.exp(brentq(gap, middle - 1e-9, high, xtol=1e-13)))  # type: ignore[arg-type]


class RidgeErrors(NamedTuple):
    """The excess error of ridge regression on random features, split by what it comes from; label noise is left out.

    The mean prediction's `bias`, then variances: of what depends on the features alone, on the samples alone, on both
    at once (`features_samples`), on the samples' label noise (`noise_samples`), on it and the features (`noise_features`);
    `initial` is what the output of the untrained network adds. `training` is the mean squared residual of the noisy
    training targets. `ridge` is k, `degrees` the trace of the squared fit, the number of samples that noise uses up.
    """

    bias: float
    features: float
    samples: float
    features_samples: float
    noise_samples: float
    noise_features: float
    initial: float
    training: float
    ridge: float
    degrees: float

    @property
    def ensemble(self) -> float:
        """The excess error of the mean of infinitely many predictors, each with features of its own and the same data."""
        return self.bias + self.samples + self.noise_samples

    @property
    def noise(self) -> float:
        """The part that is proportional to the label noise: the variance at given samples and features."""
        return self.noise_samples + self.noise_features

    @property
    def excess(self) -> float:
        """The whole excess error of one predictor."""
        return self.ensemble + self.features + self.features_samples + self.noise_features + self.initial

    def of_ensemble(self, count: float) -> float:
        """The excess error of the mean of `count` predictors on the same data."""
        return self.ensemble + (self.excess - self.ensemble) / count


def feature_errors(
    kernel: FeatureKernel, power: ArrayLike, samples: float, penalty: float, noise: float = 0.0, residual: float = 0.0,
    output_variance: float = 0.0,
) -> RidgeErrors:  # fmt: skip
    """Errors of f(x) = k(x) (K + penalty I)⁻¹ y for a kernel seen through random features, in high dimension.

    `power` [group] is the variance of the target in each group of modes, `residual` what no mode explains (counted as
    bias), `noise` the labels' deviation. `output_variance` is that of the read-out's initial weights: the initial network,
    the features times them, is then subtracted from the targets and added to the predictions.

    With shrinkage p = k R of a mode's mean, p² of two independent draws of the features and P² of one,
    excess = (sum of power P² + initial + noise²)/(1 - degrees/samples) - noise², and the same with p² in the ensemble.
    Cost: about a millisecond. Derived here; the split is that of Adlam & Pennington (2020), arXiv:2011.03321. Raises
    `InvalidValue` for a penalty that is not positive.

    >>> linear = FeatureKernel(Spectrum(np.ones(1), np.array([200.0])))  # no features: linear regression
    >>> round(feature_errors(linear, [1.0], 100, 1e-9, noise=1.0).excess, 6)
    1.5
    """
    k = kernel.ridge(samples, penalty)
    (values, counts), (added, slope, bend, _, own), tau = kernel.spectrum, kernel.beside(k), kernel.share(k)
    inverse = 1 / (k + added + tau * values)
    pull = np.sum(counts * values * (1 + slope) * inverse**2) + kernel.tail / k**2
    pull = pull / (1 / tau**2 - np.sum(counts * values**2 * inverse**2) / kernel.features)
    rise = pull / kernel.features  # of tau with k
    shrunk = k * inverse
    inner = shrunk**2 * (1 + slope + rise * values)  # P², as a target in a mode sees it
    # The whole space, the features' directions included, is used up by that trace.
    twice = (1 + slope) * inner - k**2 * bend * inverse
    degrees = np.sum(counts * (1 - 2 * (1 + slope) * shrunk + twice)) + own + rise * kernel.tail
    scale, scale_mean = samples / (samples - degrees), samples / (samples - np.sum(counts * (1 - shrunk) ** 2))
    variance, power = noise**2, np.asarray(power, float)
    bias, fixed = np.sum(power * shrunk**2) + residual, np.sum(power * inner) + residual
    start = output_variance * k**2 * pull
    excess = (fixed + start + variance) * scale - variance
    found = (
        bias, fixed - bias, bias * (scale_mean - 1), fixed * (scale - 1) - bias * (scale_mean - 1),
        variance * (scale_mean - 1), variance * (scale - scale_mean), start * scale,
        (penalty / (k * samples)) ** 2 * (excess + variance), k, degrees,
    )  # fmt: skip
    return RidgeErrors(*(float(number) for number in found))
