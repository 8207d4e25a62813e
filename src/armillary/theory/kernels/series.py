"""Duals of any activation by its Hermite series, with the error of leaving off the rest.

With a_n(q) = E phi(sqrt(q) z) He_n(z)/sqrt(n!), z ~ N(0, 1), and correlation rho, E phi(u) phi(v) is the sum over n of
a_n(q) a_n(q') rho^n. What the coefficients leave of the mean square is put, even and odd part apart, into one more term,
so that equal and opposite inputs are exact, and what is left off bounds the error everywhere else.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from armillary.errors import InvalidValue, require_between
from armillary.models.activations import Activation, activation

if TYPE_CHECKING:
    from armillary.theory.kernels.dual import Dual

SPACING = 0.05
"""Of the nodes, even in the logarithm of |z|: a kink or jump at 0 costs nothing."""


def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and the weights of the Gaussian measure there."""
    z = np.exp(np.arange(-30.0, 2.6, SPACING))
    return z, SPACING * z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _hermite(z: np.ndarray, terms: int) -> np.ndarray:
    """He_n(z)/sqrt(n!) for n < terms, float[n, node]."""
    rows = [np.ones_like(z), z]
    for n in range(1, terms - 1):
        rows.append((z * rows[n] - np.sqrt(n) * rows[n - 1]) / np.sqrt(n + 1))
    return np.stack(rows[:terms])


class Coefficients(NamedTuple):
    """Of an activation at variances q [...]: a_n [..., n], and what they leave of E phi² in its even and odd part."""

    values: Array
    even: Array
    odd: Array


def coefficients(phi: Callable[[Array], Array], variance: Array, terms: int) -> Coefficients:
    """The Hermite coefficients a_n(variance), n < terms, and the two remainders.

    Quadrature in log |z|; exact to rounding for functions that are smooth but for 0 and grow no faster than a power.
    """
    variance = jnp.asarray(variance)
    z, weights = _nodes()
    table = jnp.asarray(_hermite(z, terms) * weights, variance.dtype)
    points = jnp.sqrt(variance)[..., None] * jnp.asarray(z, variance.dtype)
    above, below = phi(points), phi(-points)
    even, odd = (above + below) / 2, (above - below) / 2
    parts = []
    for part, first in ((even, 0), (odd, 1)):
        found = 2 * part @ table[first::2].T
        whole = 2 * part**2 @ jnp.asarray(weights, variance.dtype)
        # Rounding of what is left of a function that is all there would pass for a rest.
        rounding = 16 * jnp.finfo(variance.dtype).eps * whole
        rest = whole - jnp.sum(found**2, axis=-1)
        parts.append((found, jnp.where(rest > rounding, rest, 0.0)))
    (a, rest_even), (b, rest_odd) = parts
    values = jnp.zeros((*variance.shape, terms), variance.dtype).at[..., 0::2].set(a).at[..., 1::2].set(b)
    return Coefficients(values, rest_even, rest_odd)


def _summed(left: Coefficients, right: Coefficients, rho: Array) -> Array:
    """The sum over n of a_n b_n rho^n, remainders included, by Horner's rule."""
    terms = left.values.shape[-1]
    last = terms + (terms % 2)  # the next even power; the odd one after it
    tail = jnp.sqrt(left.even * right.even) + jnp.sqrt(left.odd * right.odd) * rho
    value = tail * rho ** (last - terms)
    for n in reversed(range(terms)):
        value = value * rho + left.values[..., n] * right.values[..., n]
    return value


def hermite_dual(phi: str | Activation, terms: int = 64) -> "Dual":
    """The dual of any activation that JAX can differentiate and is square-integrable under the Gaussian.

    Raises `InvalidValue` for fewer than 2 terms. Cost: `terms` multiplications for each pair.
    """
    from armillary.theory.kernels.dual import Dual

    require_between("terms", terms, 2)
    value = activation(phi)
    slope = _slope(value)

    def pair(q: Array, p: Array, c: Array) -> tuple[Array, Array]:
        rho = jnp.clip(c / (jnp.sqrt(q) * jnp.sqrt(p)), -1, 1)
        summed = lambda f: _summed(coefficients(f, q, terms), coefficients(f, p, terms), rho)
        return summed(value), summed(slope)

    def same(q: Array) -> tuple[Array, Array]:
        return mean_square(value, q), mean_square(slope, q)

    return Dual(pair, same, closed=False)


def _slope(phi: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: jax.jvp(phi, (x,), (jnp.ones_like(x),))[1]


def mean_square(phi: Callable[[Array], Array], variance: Array) -> Array:
    """E phi(sqrt(variance) z)², for each variance."""
    z, weights = _nodes()
    points = jnp.sqrt(variance)[..., None] * jnp.asarray(z, variance.dtype)
    return (phi(points) ** 2 + phi(-points) ** 2) @ jnp.asarray(weights, variance.dtype)


def series_error(phi: str | Activation, variance: float, terms: int = 64) -> tuple[float, float]:
    """Bounds on the relative error of the series of the dual and of its derivative: the share that is left off.

    It is attained by no correlation: at -1, 0 and 1 the series is exact. Raises `InvalidValue` for an activation that is
    not square-integrable under a Gaussian of that variance.

    >>> value, slope = series_error("tanh", 1.0)
    >>> value < 1e-6 and slope < 1e-4
    True
    """
    require_integrable(phi, variance)
    value = activation(phi)
    errors = []
    with jax.enable_x64(True):
        for function in (value, _slope(value)):
            found = coefficients(function, jnp.asarray(float(variance)), terms)
            whole = mean_square(function, jnp.asarray(float(variance)))
            errors.append(float((found.even + found.odd) / whole))
    return errors[0], errors[1]


def require_integrable(phi: str | Activation, largest: float) -> None:
    """Raise where E phi² does not exist, or is not finite in float64, at the largest of the variances that occur."""
    z, weights = _nodes()
    with jax.enable_x64(True):
        points = jnp.asarray(np.sqrt(largest) * z)
        squares = np.asarray(activation(phi)(points) ** 2 + activation(phi)(-points) ** 2, float)
    integrand = squares * weights
    if not np.all(np.isfinite(squares)) or integrand[-1] > 1e-6 * integrand.sum():
        raise InvalidValue(
            f"the activation {phi!r} is not square-integrable under a Gaussian of variance {largest:.3g}; "
            "it needs a growth below exp(u²/4 variance)"
        )
