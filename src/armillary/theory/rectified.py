"""Infinitely wide networks of (a, b)-rectifiers, a s + b |s|: exact maps of correlations and of the tangent kernel.

Layers are h_k = sqrt(weight variance) A_k x_{k-1}/sqrt(width) without biases, entries of A_k N(0, 1), x_k = phi(h_k). The
cosine of two inputs then moves from layer to layer by the share of the even part alone,
`share` = b²/(a² + b²): 0 for the identity, 1/2 for ReLU, 1 for the absolute value. The scale matters only to lengths.
"""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Float

from armillary.errors import require_between

Numbers = Any
"""A number or an array of them; what is returned has the same shape, float64."""

Layered = Float[np.ndarray, "layer ..."]


def share(a: Numbers, b: Numbers) -> Numbers:
    """The even part's share of the second moment of a s + b |s|, in [0, 1]; nan for the zero function.

    >>> print(share(0.5, 0.5), share(0.0, 1.0))  # ReLU, absolute value
    0.5 1.0
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        return b**2 / (a**2 + b**2)


def kappa(a: Numbers, b: Numbers) -> Numbers:
    """The largest slope over the root mean square one, (|a| + |b|)/sqrt(a² + b²), in [1, sqrt 2].

    It enters bounds on the fluctuations of finite networks. Source: Terjék & González-Sánchez (2025)

    >>> print(kappa(0.5, 0.5).round(4), kappa(0.0, 1.0))
    1.4142 1.0
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        return (np.abs(a) + np.abs(b)) / np.hypot(a, b)


def gain(a: Numbers, b: Numbers) -> Numbers:
    """What a layer of weight variance 1 multiplies squared lengths, and gradients', by: a² + b².

    The edge of chaos is at weight variance 1/gain, without biases: 2 for ReLU.
    """
    return np.asarray(a, float) ** 2 + np.asarray(b, float) ** 2


def layer_correlation(cosine: Numbers, share: Numbers) -> Numbers:
    """The cosine after one layer: rho + share (2/pi) (sqrt(1 - rho²) - rho arccos rho).

    For share 1/2 it is the arc-cosine kernel of Cho & Saul (2009). Raises `InvalidValue` for cosines and shares out of
    range.

    >>> print(layer_correlation(0.0, 0.5).round(4))
    0.3183
    """
    return np.cos(_next_angle(_angle(cosine), _checked(share)))


def layer_slope(cosine: Numbers, share: Numbers) -> Numbers:
    """The mean product of slopes at two inputs of that cosine, 1 - share (2/pi) arccos rho, in units of the gain.

    It is the derivative of `layer_correlation`, and what a layer does to the product of two gradients.
    """
    return 1 - _checked(share) * (2 / np.pi) * _angle(cosine)


def correlations(cosine: Numbers, depth: int, share: Numbers) -> Layered:
    """Cosines rho_0 (as given) to rho_depth, [layer, ...]: `layer_correlation` again and again.

    Iterated as angles, so that cosines near 1 keep their distance from it. `cosine` and `share` broadcast.

    >>> print(correlations(0.0, 2, 1.0).round(4))
    [0.     0.6366 0.7706]
    """
    return np.cos(angles(cosine, depth, share))


def angles(cosine: Numbers, depth: int, share: Numbers) -> Layered:
    """The angles arccos rho_0 to arccos rho_depth, [layer, ...], in rad."""
    require_between("depth", depth, 0)
    theta, part = np.broadcast_arrays(_angle(cosine), _checked(share))
    course = [theta]
    for _ in range(depth):
        course.append(_next_angle(course[-1], part))
    return np.stack(course)


def tangent_kernel(
    cosine: Numbers, depth: int, share: Numbers, gain: Numbers = 1.0, weight_variance: Numbers = 1.0
) -> Numbers:
    """The tangent kernel of networks of `depth` weight layers, for pairs of inputs of those cosines and squared length
    of the number of inputs.

    K_1 = rho_0, K_{k+1} = rho_k + layer_slope(rho_{k-1}) K_k: `depth` at cosine 1. In general layers of
    `weight_variance` s multiply it by s (s gain)^(depth - 1), and an output multiplier by its square.
    Source: Jacot et al. (2018) for the recursion; Terjék (2025) for this form.

    >>> print(tangent_kernel(0.0, 9, 1.0).round(3), tangent_kernel(1.0, 9, 1.0))
    3.06 9.0
    """
    require_between("depth", depth, 1)
    course = angles(cosine, depth - 1, share)
    kernel = np.cos(course[0])
    for before, theta in itertools.pairwise(course):
        kernel = np.cos(theta) + (1 - np.asarray(share, float) * (2 / np.pi) * before) * kernel
    variance = np.asarray(weight_variance, float)
    return variance * (variance * np.asarray(gain, float)) ** (depth - 1) * kernel


def deep_angle(depth: Numbers, share: Numbers) -> Numbers:
    """The angle between any two inputs after many layers: 3 pi/(2 share depth).

    >>> print((angles(0.0, 3000, 0.5)[-1] / deep_angle(3000, 0.5)).round(2))
    0.99
    """
    return 3 * np.pi / (2 * np.asarray(share, float) * np.asarray(depth, float))


def deep_kernel(angle: Numbers, share: Numbers) -> Numbers:
    """The tangent kernel of a pair after many layers, 3 pi/(8 share angle) of the angle that it has there.

    With `deep_angle` it is a quarter of the kernel at equal inputs, whatever the pair.
    """
    return 3 * np.pi / (8 * np.asarray(share, float) * np.asarray(angle, float))


DEEP_RATIO = 0.25
"""The tangent kernel of any two different inputs over that at equal ones, after many layers."""


def deep_condition_number(samples: int) -> float:
    """The condition number of the tangent kernel of that many inputs after many layers: 1 + samples/3.

    The matrix has 1 on its diagonal and 1/4 beside it. Source: Terjék & González-Sánchez (2025)

    >>> print(deep_condition_number(30))
    11.0
    """
    require_between("the number of samples", samples, 1)
    return 1.0 if samples == 1 else 1 + samples / 3


def _checked(part: Numbers) -> Any:
    require_between("the even part's share", part, 0.0, 1.0)
    return np.asarray(part, float)


def _angle(cosine: Numbers) -> Any:
    cosine = np.asarray(cosine, float)
    require_between("the cosine", cosine, -1.0 - 1e-6, 1.0 + 1e-6)  # float32 vectors' own may be above 1 by rounding
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def _next_angle(theta: Any, part: Any) -> Any:
    """From half the sine: 1 - cos = 2 sin²(theta/2) loses nothing at small angles, nor does the series."""
    small = theta < 0.1
    series = theta**3 / 3 - theta**5 / 30 + theta**7 / 840 - theta**9 / 45360
    rise = np.where(small, series, np.sin(theta) - theta * np.cos(theta))
    half = np.sin(theta / 2) ** 2 - part / np.pi * rise
    return 2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
