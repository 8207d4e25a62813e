"""How much a loss changes when hidden units are dropped: the exact sampling variance, and the shape of the proved
bound.

A network whose output is a sum over N hidden units is, with M of them kept and weighted N/M, an average over a sample
without replacement: its mean is the whole network's output, and its variance has a closed form.
"""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from armillary.errors import require_between

Numbers = Any


def sampled_variance(units: ArrayLike, left: ArrayLike) -> Numbers:
    """The variance of the sum of `left` of N = `units` numbers drawn without replacement, times N/left, for numbers of
    sample variance 1 (divided by N - 1): N² (1/left - 1/N).

    Where each number is of order 1/N, as in a mean-field network, it is 1/left - 1/N: what counts is how many units
    are left, and a share of them only by the factor 1 - left/N. Raises `InvalidValue` for no unit left or more than
    there are. Source: sampling from a finite population (Cochran 1977).

    >>> print(sampled_variance(100, 50))
    100.0
    """
    n, m = np.asarray(units, float), np.asarray(left, float)
    require_between("the number of units left", m, 1)
    require_between("the share of units left", m / n, 0.0, 1.0)
    return (n**2 * (1 / m - 1 / n))[()]


def loss_rise(units: ArrayLike, left: ArrayLike, deviation: ArrayLike = 1.0, curvature: ArrayLike = 1.0) -> Numbers:
    """The mean rise of the loss over random sets of `left` units: curvature deviation² (1/left - 1/N)/2.

    `deviation` is that of N a_i phi_i over the N units, root mean square over the inputs, and `curvature` the second
    derivative of the loss in the output: 1 for the squared error, where it is exact; otherwise it is the second order
    in the output's change. The scaling of order 1/M is that of a loss seen near its minimum. Derived here. Raises
    `InvalidValue` as `sampled_variance`.

    >>> print(round(loss_rise(1000, 100, deviation=2.0), 6))
    0.018
    """
    n = np.asarray(units, float)
    spread = np.asarray(deviation, float) ** 2 * np.asarray(curvature, float)
    return (spread * sampled_variance(units, left) / n**2 / 2)[()]


def bound_shape(left: ArrayLike) -> Numbers:
    """How the proved bound on the loss change depends on the number M of units left: sqrt(log M/M), for M above 1.

    Its constants grow exponentially with the training time and say nothing at any size in use; the bound has neither
    the number of units nor the dimension of the inputs in this term. It is first order in the outputs' change, so that
    what is seen is below it (`loss_rise`). For networks of more layers M is divided by the dimension. Source:
    Shevchenko & Mondelli (2020), as recalled: the powers were not checked against the paper. Raises `InvalidValue` for
    fewer than 2 units.

    >>> print(round(bound_shape(100) / bound_shape(400), 3))
    1.753
    """
    m = np.asarray(left, float)
    require_between("the number of units left", m, 2)
    return np.sqrt(np.log(m) / m)[()]


def bound_slope(left: ArrayLike) -> Numbers:
    """The bound's slope in log-log axes, -(1 - 1/log M)/2: from -0.26 at 8 units to -1/2.

    >>> print(round(bound_slope(1000), 3))
    -0.428
    """
    m = np.asarray(left, float)
    require_between("the number of units left", m, 2)
    return (-(1 - 1 / np.log(m)) / 2)[()]
