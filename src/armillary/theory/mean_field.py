"""Signal propagation in infinitely wide random networks: lengths, correlations, the edge of chaos, depth scales.

Layers are h = W phi(h_before) + b with W ~ N(0, weight_variance/fan_in) and b ~ N(0, bias_variance). The length q is the
mean square of h's entries, the correlation c that of two inputs' h. `activation` is a name of `armillary.models.ACTIVATIONS`
or a function that JAX can differentiate; means over it are quadratures (`gaussian_means`), exact to about 1e-12 for
activations that are smooth but for a kink at 0. Source: Poole et al. (2016); Schoenholz et al. (2017)
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from armillary.errors import require_between
from armillary.models.activations import Activation
from armillary.theory.gaussian_means import SPACING, mean, product_mean, value_and_slope

Numbers = Any

SMALLEST, LARGEST = 1e-16, 1e12
"""Lengths below which a network counts as silent (its map is that of its slope at 0), and above which as diverging."""

SAME = 1e-11
"""Relative change of a length in one layer that counts as none: rounding of the quadrature."""


def length_map(
    activation: str | Activation, length: Numbers, weight_variance: Numbers, bias_variance: Numbers = 0.0
) -> Numbers:
    """The length one layer later, weight_variance E phi(sqrt(length) z)² + bias_variance. Arguments broadcast.

    >>> print(length_map("relu", 3.0, 2.0, 0.5).round(6))
    3.5
    """
    _check(weight_variance, bias_variance)
    return np.asarray(weight_variance) * _square(activation, length) + bias_variance


def length_slope(activation: str | Activation, length: Numbers, weight_variance: Numbers) -> Numbers:
    """The derivative of `length_map`: what a layer does to a small difference of lengths."""
    phi, slope = value_and_slope(activation)
    length = np.maximum(length, SMALLEST)
    return np.asarray(weight_variance) * mean(lambda u, z: phi(u) * slope(u) * z, length) / np.sqrt(length)


def correlation_map(
    activation: str | Activation, correlation: Numbers, length: Numbers, weight_variance: Numbers,
    bias_variance: Numbers = 0.0,
) -> Numbers:  # fmt: skip
    """The correlation one layer later of two inputs of that length: their product over the length that they have then.

    >>> print(correlation_map("relu", 0.0, 1.0, 2.0).round(4))  # 1/pi
    0.3183
    """
    _check(weight_variance, bias_variance)
    phi, _ = value_and_slope(activation)
    product = product_mean(phi, np.maximum(length, SMALLEST), correlation)
    after = np.asarray(weight_variance) * product + bias_variance
    return after / length_map(activation, np.maximum(length, SMALLEST), weight_variance, bias_variance)


def propagated(
    activation: str | Activation, length: Numbers, correlation: Numbers, layers: int, weight_variance: Numbers,
    bias_variance: Numbers = 0.0,
) -> tuple[Numbers, Numbers]:  # fmt: skip
    """Length and correlation after `layers` more layers: `length_map` and `correlation_map` again and again.

    >>> length, correlation = propagated("relu", 1.0, 0.0, 8, 2.0)
    >>> print(length.round(3), correlation.round(3))
    1.0 0.834
    """
    require_between("the number of layers", layers, 0)
    for _ in range(layers):
        correlation = correlation_map(activation, correlation, length, weight_variance, bias_variance)
        length = length_map(activation, length, weight_variance, bias_variance)
    return length, correlation


def correlation_slope(
    activation: str | Activation, correlation: Numbers, length: Numbers, weight_variance: Numbers
) -> Numbers:
    """weight_variance E phi'(u) phi'(v) at that length and correlation: what a layer does to a small difference of
    correlations at a fixed point, and to the product of two gradients."""
    _, slope = value_and_slope(activation)
    return np.asarray(weight_variance) * product_mean(slope, np.maximum(length, SMALLEST), correlation)


def chi(activation: str | Activation, length: Numbers, weight_variance: Numbers) -> Numbers:
    """chi_1 = weight_variance E phi'(sqrt(length) z)²: what a layer multiplies squared gradients, and the squared
    distance of neighbours, by. Below 1 is the ordered phase, above 1 the chaotic one.

    >>> print(chi("linear", 1.0, 1.5).round(6), chi("relu", 1.0, 2.0).round(6))
    1.5 1.0
    """
    return np.asarray(weight_variance) * _square(activation, np.maximum(length, SMALLEST), slope=True)


def fixed_length(
    activation: str | Activation, weight_variance: Numbers, bias_variance: Numbers = 0.0, start: float = 1.0
) -> Numbers:
    """The length q* at which inputs of length `start` arrive: the map's first fixed point on their way.

    0 where they shrink away; inf where they grow without bound (above `LARGEST`), as for ReLU above weight variance 2, or
    at 2 with biases; `start` itself where the map keeps every length. Variances broadcast. Found by a grid of ratio 1.1
    and bisection: a map that is not monotone may have a fixed point that is not stable (`length_slope` below -1).

    >>> print(fixed_length("relu", np.array([1.0, 2.0, 2.5]), 0.1), fixed_length("tanh", 1.761, 0.05).round(3))
    [0.2 inf inf] 0.57
    """
    _check(weight_variance, bias_variance)
    require_between("the length at the start", start, 0.0, open_low=True)
    variances = np.broadcast_arrays(np.asarray(weight_variance, float), np.asarray(bias_variance, float))
    shape = variances[0].shape
    weight, bias = (v.ravel()[:, None] for v in variances)
    grid = np.geomspace(SMALLEST, LARGEST, 676)
    grid = np.sort(np.append(grid, start))
    change = weight * _square(activation, grid) + bias - grid  # [variance, length]
    change = np.where(np.abs(change) <= SAME * grid, 0.0, change)
    middle = int(np.searchsorted(grid, start))
    found = np.empty(len(weight))
    brackets = []
    for row, courses in enumerate(change):
        rising = courses[middle] > 0
        there = courses[middle:] < 0 if rising else courses[: middle + 1][::-1] > 0
        first = int(np.argmax(there))
        if courses[middle] == 0:
            found[row] = start
        elif not there[first]:  # where rounding hides the change it still has its sign
            found[row] = np.inf if rising else 0.0
        else:
            at = middle + first if rising else middle - first
            brackets.append((row, *((at - 1, at) if rising else (at, at + 1))))
    if brackets:
        rows, low, high = (np.array(part) for part in zip(*brackets, strict=True))
        gap = lambda q: weight[rows, 0] * _square(activation, q) + bias[rows, 0] - q
        found[rows] = bisected(gap, grid[low], grid[high])
    return found.reshape(shape)[()]


def fixed_correlation(
    activation: str | Activation, length: float, weight_variance: float, bias_variance: float = 0.0
) -> float:
    """The correlation c* at which two inputs of the fixed length arrive: 1 unless chi_1 is above 1; nan for no length.

    The map is convex in c (its Taylor coefficients are squares), so that there is one other fixed point in [0, 1) at
    most. It is found by the logarithm of 1 - c, down to 1e-13.
    """
    if not np.isfinite(length):
        return float("nan")
    if length <= SMALLEST or chi(activation, length, weight_variance) <= 1 + 1e-9:
        return 1.0
    apart = np.geomspace(1.0, 1e-13, 27)

    def gap(away: Float[np.ndarray, " away"]) -> Float[np.ndarray, " away"]:
        return correlation_map(activation, 1 - away, length, weight_variance, bias_variance) - (1 - away)

    change = gap(apart)
    if change[0] <= 1e-12:  # odd activations without biases: inputs become independent
        return 0.0
    first = int(np.argmax(change < 0))
    if change[first] >= 0:
        return 1.0
    logs = np.log(apart[[first - 1, first]])[:, None]
    root = bisected(lambda log: gap(np.exp(log)), logs[0], logs[1], steps=45)
    return float(1 - np.exp(root[0]))


def critical_line(activation: str | Activation, length: Numbers) -> tuple[Numbers, Numbers]:
    """The edge of chaos as a curve: (weight variance, bias variance) of networks with that fixed length and chi_1 = 1.

    weight = 1/E phi'², bias = length - weight E phi². A negative bias variance means that there is no such network.

    >>> weight, bias = critical_line("tanh", 0.570)
    >>> print(weight.round(3), bias.round(3))
    1.761 0.05
    """
    weight = 1 / _square(activation, np.maximum(length, SMALLEST), slope=True)
    return weight, length - weight * _square(activation, length)


def critical_weight_variance(activation: str | Activation, bias_variance: float) -> float:
    """The weight variance at which chi_1 = 1 with that bias variance, at a stable fixed length; nan if there is none.

    For activations that only rescale (linear, ReLU, abs) it is 1/E phi'², though lengths then grow without bound if
    there are biases. Where several networks are critical, that of the smallest length is given.

    >>> print([round(critical_weight_variance("tanh", b), 3) for b in (0.0, 0.05, 0.1)])
    [1.0, 1.761, 1.986]
    >>> print(round(critical_weight_variance("relu", 0.0), 6))
    2.0
    """
    require_between("the bias variance", bias_variance, 0.0)
    grid = np.geomspace(1e-12, 1e8, 601)
    weight, bias = critical_line(activation, grid)
    if np.ptp(weight) <= 1e-9 * weight[0]:
        return float(weight[0])
    silent = weight[0] * length_map(activation, SMALLEST, 1.0) <= SMALLEST * (1 + 1e-6)
    if bias_variance == 0 and silent and length_map(activation, 1e-2, float(weight[0])) <= 1e-2 * (1 + 1e-9):
        return float(weight[0])  # the edge is where signals cease to vanish
    gap = bias - bias_variance
    for at in np.flatnonzero((gap[:-1] * gap[1:] < 0) & (np.abs(gap[1:]) > 1e-9 * grid[1:])):
        sign = np.sign(gap[at + 1])
        logs = np.log(grid[[at, at + 1]])[:, None]
        root = bisected(lambda log, s=sign: s * (bias_variance - critical_line(activation, np.exp(log))[1]), *logs)
        length = np.exp(root)
        found = critical_line(activation, length)[0]
        if length_slope(activation, length, found)[0] <= 1 + 1e-6:
            return float(found[0])
    return float("nan")


def critical_bias_variance(activation: str | Activation, weight_variance: float) -> float:
    """The bias variance at which chi_1 = 1 with that weight variance, at a stable fixed length; nan if there is none.

    >>> print(round(critical_bias_variance("tanh", 1.761), 3))
    0.05
    """
    require_between("the weight variance", weight_variance, 0.0)
    grid = np.geomspace(1e-12, 1e8, 601)
    weight, _ = critical_line(activation, grid)
    if np.ptp(weight) <= 1e-9 * weight[0]:
        return float("nan")  # biases change nothing
    for at in np.flatnonzero((weight[:-1] - weight_variance) * (weight[1:] - weight_variance) < 0):
        sign = np.sign(weight[at] - weight_variance)
        logs = np.log(grid[[at, at + 1]])[:, None]
        root = bisected(lambda log, s=sign: s * (critical_line(activation, np.exp(log))[0] - weight_variance), *logs)
        found, length = critical_line(activation, np.exp(root))[1], np.exp(root)
        if found[0] >= 0 and length_slope(activation, length, weight_variance)[0] <= 1 + 1e-6:
            return float(found[0])
    return float("nan")


def bisected(
    gap: Callable[[np.ndarray], np.ndarray], low: Float[np.ndarray, " root"], high: Float[np.ndarray, " root"],
    steps: int = 60,
) -> Float[np.ndarray, " root"]:  # fmt: skip
    """Roots of an elementwise function that is positive at `low` and not at `high`, all at once."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    for _ in range(steps):
        middle = (low + high) / 2
        above = gap(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def _square(activation: str | Activation, length: Numbers, *, slope: bool = False, spacing: float = SPACING) -> Numbers:
    function = value_and_slope(activation)[1 if slope else 0]
    return mean(lambda u, z: function(u) ** 2, length, spacing)


def _check(weight_variance: Numbers, bias_variance: Numbers) -> None:
    require_between("the weight variance", weight_variance, 0.0)
    require_between("the bias variance", bias_variance, 0.0)
