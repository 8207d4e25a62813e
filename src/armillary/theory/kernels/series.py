"""Duals of any activation by its Hermite series, with the error of leaving off the rest.

With a_n(q) = E phi(sqrt(q) z) He_n(z)/sqrt(n!), z ~ N(0, 1), and correlation rho, E phi(u) phi(v) is the sum over n of
a_n(q) a_n(q') rho^n. What the coefficients leave of the mean square is put, even and odd part apart, into one more term,
so that equal and opposite inputs are exact, and what is left off bounds the error everywhere else.
"""

from collections.abc import Callable
from math import factorial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from armillary.errors import InvalidValue, require_between
from armillary.models.activations import Activation, Hermite, activation

if TYPE_CHECKING:
    from armillary.theory.kernels.duals import Dual

SPACING = 0.05
"""Of the nodes, even in the logarithm of |z|: a kink or jump at 0 costs nothing."""

AT_ONCE = 8
"""Terms of a series that are summed in one pass over the pairs: all 64 of them, differentiated twice, took 3.5 times as long
to compile."""


def nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z > 0 and the weights of the Gaussian measure there."""
    z = np.exp(np.arange(-30.0, 2.6, SPACING))
    return z, SPACING * z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def hermite(z: np.ndarray, terms: int) -> np.ndarray:
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
    z, weights = nodes()
    table = jnp.asarray(hermite(z, terms) * weights, variance.dtype)
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
    tail = _root(left.even * right.even) + _root(left.odd * right.odd) * rho

    def step(value: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        a, b = pair
        return value * rho + a * b, None

    pairs = jnp.moveaxis(left.values, -1, 0), jnp.moveaxis(right.values, -1, 0)
    return lax.scan(step, tail * rho ** (last - terms), pairs, reverse=True, unroll=AT_ONCE)[0]


def _root(x: Array) -> Array:
    """The square root, with slope 0 at 0: nothing is left of a function whose series is all there."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def hermite_dual(phi: str | Activation, terms: int = 64) -> "Dual":
    """The dual of any activation that JAX can differentiate and is square-integrable under the Gaussian.

    Raises `InvalidValue` for fewer than 2 terms. Cost: `terms` multiplications for each pair.
    """
    from armillary.theory.kernels.duals import Dual

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


def listed_dual(phi: Hermite) -> "Dual":
    """The dual of an activation that is given by its Hermite coefficients: exact, at any variance.

    At variance q the coefficients are a_m(q) = q^(m/2) sum over k of sqrt((m + 2k)!/m!) ((q - 1)/2)^k a_(m+2k)/k!, from the
    generating function of the Hermite polynomials.
    """
    from armillary.theory.kernels.duals import Dual

    given = phi.coefficients

    def at(q: Array) -> list[Array]:
        found = []
        for m in range(len(given)):
            parts = [
                given[n]
                * (factorial(n) / factorial(m)) ** 0.5
                / factorial((n - m) // 2)
                * ((q - 1) / 2) ** ((n - m) // 2)
                for n in range(m, len(given), 2)
                if given[n]
            ]
            found.append(q ** (m / 2) * sum(parts) if parts else jnp.zeros_like(q))
        return found

    def pair(q: Array, p: Array, c: Array) -> tuple[Array, Array]:
        size = jnp.sqrt(q) * jnp.sqrt(p)
        rho = jnp.clip(c / size, -1, 1)
        squares = [a * b for a, b in zip(at(q), at(p), strict=True)]
        value, slope = jnp.zeros_like(rho), jnp.zeros_like(rho)
        for m, square in reversed(list(enumerate(squares))):
            value = value * rho + square
            slope = slope * rho + m * square if m else slope
        return value, slope / size

    def same(q: Array) -> tuple[Array, Array]:
        squares = [a**2 for a in at(q)]
        return sum(squares, jnp.zeros_like(q)), sum((m * s for m, s in enumerate(squares)), jnp.zeros_like(q)) / q

    return Dual(pair, same)


def _slope(phi: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: jax.jvp(phi, (x,), (jnp.ones_like(x),))[1]


def mean_square(phi: Callable[[Array], Array], variance: Array) -> Array:
    """E phi(sqrt(variance) z)², for each variance."""
    z, weights = nodes()
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
    z, weights = nodes()
    with jax.enable_x64(True):
        points = jnp.asarray(np.sqrt(largest) * z)
        squares = np.asarray(activation(phi)(points) ** 2 + activation(phi)(-points) ** 2, float)
    integrand = squares * weights
    if not np.all(np.isfinite(squares)) or integrand[-1] > 1e-6 * integrand.sum():
        raise InvalidValue(
            f"the activation {phi!r} is not square-integrable under a Gaussian of variance {largest:.3g}; "
            "it needs a growth below exp(u²/4 variance)"
        )
