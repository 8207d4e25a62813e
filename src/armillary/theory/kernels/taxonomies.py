"""Which classifier a wide network becomes as its depth grows, from a few numbers of its activation.

Interpolation with the tangent kernel of infinitely wide networks on the sphere without biases tends to the nearest neighbour, the
majority, or a smoother of singular kernel psi. Source: Radhakrishnan, Belkin & Uhler (2022), arXiv:2204.14126; the singular
order, and that a majority needs g'(1) > 1, derived here.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between
from armillary.models.activations import Activation, Hermite, activation
from armillary.models.radial_kernel import RadialKernel, distance_kernel, table_of_gaps
from armillary.theory.kernels.depth import GRID, dual_at
from armillary.theory.kernels.duals import dual, require_slope
from armillary.theory.kernels.series import hermite, nodes, require_integrable

Kind = Literal["nearest neighbour", "majority", "singular kernel", "slow majority", "none"]

NONE = 1e-10
"""Squares of coefficients, and distances of g'(1) from 1, that count as 0."""

SMALLEST = -1e290
"""What stands for the logarithm of 0."""

BOUND = 1e3
"""Of log |psi| in a table."""


class Taxonomy(NamedTuple):
    """What depth makes of an activation of mean square 1.

    - `kind`: "nearest neighbour", "majority" or "singular kernel"; "slow majority" where g'(1) = 1 (off-diagonal over diagonal
      tends to 1/4, as 1/depth); "none" where g'(1) < 1, or g is linear: the kernel then becomes flat and is none of the three.
    - `mean`, `linear`: the squares of the first two Hermite coefficients, g(0) and g'(0); `slope`: g'(1).
    - `order`: alpha, with psi ~ |x - x'|^(-alpha); 0 for a majority, inf for the nearest neighbour, nan for "none".
    - `fixed_point`: to what g's iterates tend from 0.
    """

    kind: Kind
    mean: float
    linear: float
    slope: float
    order: float
    fixed_point: float


def singular_order(linear: float, slope: float) -> float:
    """alpha = 2 log(1/g'(0))/log g'(1), the order of psi's singularity in the distance. Derived here from Koenigs' equation.

    Raises `InvalidValue` unless 0 < g'(0) < 1 < g'(1).

    >>> singular_order(0.5, 2.0), singular_order(0.25, 2.0)
    (2.0, 4.0)
    """
    require_between("g'(0)", linear, 0.0, 1.0 - 1e-15, open_low=True)
    require_between("g'(1)", slope, 1.0, open_low=True)
    return float(2 * np.log(1 / linear) / np.log(slope))


@functools.lru_cache(64)
def taxonomy(phi: str | Activation) -> Taxonomy:
    """The class of an activation, a name, a `Hermite` list or any function; it is divided by its root mean square.

    Raises `UnknownName` for an unknown name, `InvalidValue` for one that jumps or is not square-integrable.

    >>> taxonomy(optimal_activation(2)).kind, taxonomy(optimal_activation(2)).order
    ('singular kernel', 2.0)
    >>> taxonomy(Hermite((0.0, 0.0, 1.0))).kind, taxonomy("relu").kind, taxonomy("cos").kind
    ('nearest neighbour', 'slow majority', 'none')
    """
    found = dual(phi)
    require_slope(phi, found)
    if not found.closed:
        require_integrable(phi, 1.0)
    values, slopes = _dual(phi, GRID)
    mean, linear, steep = (0.0 if abs(v) < NONE else float(v) for v in (values[0], slopes[0], slopes[-1]))
    still = _fixed_point(lambda xi: _dual(phi, xi)[0] - xi) if mean else 0.0
    if abs(linear - 1) < NONE or steep < 1 - NONE:
        return Taxonomy("none", mean, linear, steep, float("nan"), still)
    if mean:
        return Taxonomy("majority" if steep > 1 + NONE else "slow majority", mean, linear, steep, 0.0, still)
    if not linear:
        return Taxonomy("nearest neighbour", mean, linear, steep, float("inf"), 0.0)
    return Taxonomy("singular kernel", mean, linear, steep, singular_order(linear, steep), 0.0)


def _dual(phi: str | Activation, xi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g and g' of an activation divided by its root mean square."""
    if not isinstance(phi, Hermite):
        return dual_at(phi, xi)
    weights, orders = series_of(phi)
    g = np.polynomial.Polynomial(np.bincount(orders.astype(int), weights))
    return g(xi), g.deriv()(xi)


@functools.lru_cache(16)
def _projected(phi: str | Activation, terms: int) -> np.ndarray:
    """Hermite coefficients at variance 1 by the quadrature of `coefficients`, in NumPy: it need not be compiled for one call."""
    z, weights = nodes()
    with jax.enable_x64(True):
        above, below = (np.asarray(activation(phi)(jnp.asarray(side))) for side in (z, -z))
    table = hermite(z, terms) * weights
    return np.where(np.arange(terms) % 2 == 0, table @ (above + below), table @ (above - below))


def _fixed_point(gap: Callable[[np.ndarray], np.ndarray]) -> float:
    """The smallest root of g(xi) - xi in [0, 1], which is above 0 at 0: sought on finer and finer grids."""
    low, high = 0.0, 1.0
    for _ in range(5):
        grid = low + (high - low) * GRID
        crossed = np.flatnonzero(gap(grid) <= 0)
        if not len(crossed):
            return 1.0
        low, high = grid[crossed[0] - 1], grid[crossed[0]]
    return float(high)


def optimal_activation(dimension: int) -> Hermite:
    """An activation whose wide and deep networks are consistent on data of that many dimensions: its order is the dimension.

    One dimension: (h_1 + h_7)/sqrt(2); more: sqrt(q) h_1 + sqrt(1 - 2q) h_2 + sqrt(q) h_3 with q = 2^(-dimension/2), where g'(1) = 2.
    Raises `InvalidValue` for fewer than one dimension.

    >>> print(np.round(optimal_activation(4).coefficients, 4))
    [0.     0.5    0.7071 0.5   ]
    """
    require_between("the dimension", dimension, 1)
    if dimension == 1:
        return Hermite((0.0, 0.5**0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5**0.5))
    q = 2.0 ** (-dimension / 2)
    return Hermite((0.0, q**0.5, max(1 - 2 * q, 0.0) ** 0.5, q**0.5))


def series_of(phi: str | Activation, terms: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Weights and orders of g's power series: exact for a `Hermite` list, else up to `terms`, the rest on the others."""
    if isinstance(phi, Hermite):
        squares = np.asarray(phi.coefficients) ** 2
    else:
        squares = _projected(phi, terms) ** 2
        squares = np.where(squares < 1e-17 * squares.sum(), 0.0, squares)
    orders = np.flatnonzero(squares)
    return squares[orders] / squares.sum(), orders.astype(float)


def log_koenigs(phi: str | Activation, gap: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """log |psi| and the sign of psi at xi = 1 - gap, gap in [0, 2]; inf at gap 0.

    psi is the limit of g'(0)^(-L) g(g(...)), the Koenigs function: psi(g(xi)) = g'(0) psi(xi), psi'(0) = 1. Iterated in
    u = log |S|, by log1p and expm1 where S is near 1, so that it has all its digits at gaps of 1e-30 too. Raises `InvalidValue`
    for an activation that is not of the class "singular kernel", and for gaps outside [0, 2].

    >>> size, sign = log_koenigs(optimal_activation(2), [0.5, 0.1])
    >>> print(np.exp(size).round(6), sign)
    [0.713599 5.591164] [1. 1.]
    """
    found = taxonomy(phi)
    if found.kind != "singular kernel":
        raise InvalidValue(
            f"the activation {phi!r} has no Koenigs function: it is of the class {found.kind!r} (g(0) = {found.mean:.3g}, "
            f"g'(0) = {found.linear:.3g}, g'(1) = {found.slope:.3g}), and it needs g(0) = 0 and 0 < g'(0) < 1 < g'(1)"
        )
    gap = np.asarray(gap, float)
    require_between("the gap 1 - xi", gap, 0.0, 2.0)
    weights, orders = (a[:, None] for a in series_of(phi))
    flat = gap.ravel()
    with np.errstate(divide="ignore"):
        size = np.where(flat < 0.5, np.log1p(-np.minimum(flat, 0.5)), np.log(np.abs(1 - flat)))
    size, sign, total = np.maximum(size, SMALLEST), np.where(flat > 1, -1.0, 1.0), np.zeros_like(flat)
    # The nearest gap has left 1 after the first of these numbers of layers, and S is rounding after the second.
    for _ in range(int(np.ceil(75 / np.log(found.slope) + 40 / np.log(1 / found.linear))) + 5):
        near = (size > -0.5) & (sign > 0)
        far = ~near & (size > np.log(1e-18))  # below, S is psi already
        total[near | far] -= np.log(found.linear)
        # g(S)/S in the far part, whose terms are of the sign of S to the power order - 1.
        rest = np.sum(weights * np.where(orders % 2 == 0, sign[far], 1.0) * np.exp((orders - 1) * size[far]), axis=0)
        size[near] = np.log1p(np.sum(weights * np.expm1(orders * size[near]), axis=0))
        with np.errstate(divide="ignore"):
            size[far] = np.maximum(size[far] + np.log(np.abs(rest)), SMALLEST)
        sign[far] = np.where(rest < 0, -sign[far], sign[far])
    size = np.where(size > -1e-3, np.inf, size + total)  # what is at 1 or -1 still has never left it
    return size.reshape(gap.shape), sign.reshape(gap.shape)


def koenigs(phi: str | Activation, xi: ArrayLike) -> Float[np.ndarray, "..."]:
    """psi(xi), xi in [-1, 1]; inf at 1. Errors as of `log_koenigs`."""
    size, sign = log_koenigs(phi, 1 - np.asarray(xi, float))
    return np.asarray(sign * np.exp(size))


@functools.lru_cache(16)
def koenigs_kernel(phi: str | Activation) -> RadialKernel:
    """The singular kernel psi of an activation on the sphere, as weights by distance. Errors as of `log_koenigs`."""
    size, sign = log_koenigs(phi, table_of_gaps())
    return RadialKernel(np.clip(size, -BOUND, BOUND), sign)  # a zero of psi, and opposite inputs, between two nodes


def limit_kernel(phi: str | Activation) -> RadialKernel:
    """The kernel of whose votes the classifier of a wide network of infinite depth is the outcome: that of the nearest
    neighbour, of the majority, or psi. Raises `InvalidValue` for an activation outside the taxonomy ("none").

    >>> bool((limit_kernel("relu").sizes == 0).all())
    True
    """
    found = taxonomy(phi)
    if found.kind == "none":
        raise InvalidValue(
            f"the activation {phi!r} is outside the taxonomy: g'(1) is {found.slope:.3g}, but must be 1 or above"
        )
    return koenigs_kernel(phi) if found.kind == "singular kernel" else distance_kernel(found.order)
