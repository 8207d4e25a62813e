"""Spectral densities, traces and norms of a symmetric operator, from random vectors, with their error bars."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from armillary.curvature.operators import Operator
from armillary.errors import require_between

Numbers = Array | np.ndarray


class Quadrature(NamedTuple):
    """The spectral measure as weighted points, one set for each random vector; the weights of a set add up to 1.

    Arrays of JAX's or of NumPy's; in NumPy nothing is compiled.
    """

    nodes: Float[Numbers, "draw node"]
    weights: Float[Numbers, "draw node"]

    def density(self, at: Float[Numbers, " point"], width: float | Numbers) -> Float[Numbers, "draw point"]:
        """The density at some values, each point smeared to a Gaussian of standard deviation `width`."""
        theirs = self.nodes.__array_namespace__()
        apart = (at[:, None] - self.nodes[:, None, :]) / width
        bumps = theirs.exp(-(apart**2) / 2) / (math.sqrt(2 * math.pi) * width)
        return theirs.sum(bumps * self.weights[:, None, :], axis=-1)

    def mean(self, function: Callable[[Any], Any]) -> Float[Numbers, " draw"]:
        """The mean of a function over the spectrum, one estimate for each random vector."""
        return self.nodes.__array_namespace__().sum(function(self.nodes) * self.weights, axis=-1)


def each(operator: Operator, function: Callable[[Any], Any], items: Any) -> Any:
    """`function` of each item, stacked: a loop of JAX's, or Python's where the operator is another library's."""
    if operator.traced:
        return lax.map(function, items)
    parts = [function(items[i]) for i in range(len(items))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def signs(key: Any, operator: Operator) -> Float[Array, " parameter"]:
    """A vector of random signs."""
    return jax.random.rademacher(key, (operator.size,), operator.dtype)


Space = tuple[Array, Array, Array]
"""The last vector of a Krylov basis, the one before, and what couples them."""


def extended(space: Space, image: Array) -> tuple[Space, tuple[Array, Array]]:
    """The basis one vector longer, given the operator's product with the last; and the two numbers that it adds."""
    last, before, coupling = space
    rest = image - coupling * before
    along = rest @ last
    rest = rest - along * last
    norm = jnp.linalg.norm(rest)
    tiny = 50 * jnp.finfo(norm.dtype).eps * (jnp.abs(along) + coupling)
    norm = jnp.where(norm > tiny, norm, 0.0)  # an invariant space: nothing is left to add
    return (jnp.where(norm > 0, rest / jnp.where(norm > 0, norm, 1.0), 0.0), last, norm), (along, norm)


_extended = jax.jit(extended)  # compiled once for products that come from elsewhere


def tridiagonal(operator: Operator, start: Array, steps: int) -> tuple[Array, Array]:
    """Diagonal [steps] and off-diagonal [steps - 1] of the operator in the Krylov basis of a unit vector.

    The three-term recurrence alone, two vectors of memory: rounding then brings copies of converged eigenvalues, which
    share their weight, so that the spectral measure stays right (Greenbaum 1989).
    """

    begin = (start, jnp.zeros_like(start), jnp.zeros((), start.dtype))
    if operator.traced:
        _, (diagonal, off) = lax.scan(lambda space, _: extended(space, operator.product(space[0])), begin, length=steps)
        return diagonal, off[:-1]
    space, rows = begin, []
    for _ in range(steps):
        space, row = _extended(space, operator.product(space[0]))
        rows.append(row)
    diagonal, off = (jnp.stack(column) for column in zip(*rows, strict=True))
    return diagonal, off[:-1]


def quadrature(operator: Operator, key: Any, steps: int = 80, draws: int = 1) -> Quadrature:
    """The spectral measure by stochastic Lanczos quadrature: `steps` products for each of `draws` random vectors.

    Moments up to 2 steps - 1 of each draw's measure are exact; between draws they scatter by about sqrt(2/size) of the
    spectrum's spread, whose standard error over draws is the error bar. Raises `InvalidValue` for fewer than one step or
    draw. Memory: a few vectors of the weights' size, whatever the steps. Source: Golub & Welsch (1969); Lin, Saad & Yang
    (2016).

    >>> ones = Operator(lambda v: 2 * v, 10, jnp.float32, lambda v: v)
    >>> f"{quadrature(ones, jax.random.key(0), steps=1).nodes[0, 0]:.3f}"
    '2.000'
    """
    require_between("the number of Lanczos steps", steps, 1)
    require_between("the number of random vectors (draws)", draws, 1)
    steps = min(steps, operator.size)

    def one(key: Any) -> tuple[Array, Array]:
        start = signs(key, operator)
        diagonal, off = tridiagonal(operator, start / jnp.sqrt(float(operator.size)), steps)
        values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
        return values, vectors[0] ** 2

    return Quadrature(*each(operator, one, jax.random.split(key, draws)))


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: Float[Array, ""]
    error: Float[Array, ""]


def estimate(draws: Float[Array, " draw"]) -> Estimate:
    """The mean of independent draws; the error is nan for a single one."""
    count = len(draws)
    error = jnp.std(draws, ddof=1) / jnp.sqrt(float(count)) if count > 1 else jnp.asarray(jnp.nan, draws.dtype)
    return Estimate(jnp.mean(draws), error)


def trace(operator: Operator, key: Any, draws: int = 32, low_rank: int = 0) -> Estimate:
    """The trace, from `draws` products with random signs (Hutchinson), with its standard error.

    With `low_rank` = r, 2 r more products find the span of the r strongest directions, whose trace is taken exactly and
    only the rest is sampled (Hutch++, Meyer, Musco, Musco & Woodruff 2021): for spectra with outliers the error falls
    many times. Raises `InvalidValue` for fewer than one draw or a rank above half the size.
    """
    require_between("the number of random vectors (draws)", draws, 1)
    require_between("low_rank", low_rank, 0, operator.size // 2, note="half the number of weights")
    key_span, key_rest = jax.random.split(key)
    exact, span = jnp.zeros((), operator.dtype), jnp.zeros((0, operator.size), operator.dtype)
    if low_rank:
        sketch = each(operator, lambda k: operator.product(signs(k, operator)), jax.random.split(key_span, low_rank))
        span = jnp.linalg.qr(sketch.T)[0].T
        exact = jnp.sum(span * each(operator, operator.product, span))

    def one(key: Any) -> Array:
        v = signs(key, operator)
        v = v - (span @ v) @ span
        return v @ operator.product(v)

    rest = estimate(each(operator, one, jax.random.split(key_rest, draws)))
    return Estimate(exact + rest.value, rest.error)


def squared_norm(operator: Operator, key: Any, draws: int = 32) -> Estimate:
    """The squared Frobenius norm, the mean of |H v|² over random signs v, with its standard error."""
    require_between("the number of random vectors (draws)", draws, 1)
    one = lambda k: jnp.sum(operator.product(signs(k, operator)) ** 2)
    return estimate(each(operator, one, jax.random.split(key, draws)))


def dense(operator: Operator, limit: int = 5000) -> Float[Array, "parameter parameter"]:
    """The matrix itself, for small networks. Raises `InvalidValue` above `limit` weights."""
    require_between(
        "the number of weights", operator.size, 1, limit, note="a dense matrix; restrict it, or raise limit"
    )
    rows = each(operator, operator.product, jnp.eye(operator.size, dtype=operator.dtype))
    return (rows + rows.T) / 2
