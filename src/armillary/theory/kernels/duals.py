"""Dual activations: what a layer of infinitely many units does to the covariance of two inputs.

Of an activation phi and a Gaussian pair (u, v) with variances q, q' and covariance c they are D = E phi(u) phi(v) and
its derivative in c, D' = E phi'(u) phi'(v) (Price's theorem). Closed forms are here; any other function has a series
(`series`). Sources: Williams (1997), Cho & Saul (2009), Daniely, Frostig & Singer (2016); GELU derived by Stein's lemma.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from armillary.errors import InvalidValue
from armillary.models.activations import ACTIVATIONS, Activation, Hermite, Polynomial, Rectified, activation
from armillary.theory.kernels.series import hermite_dual, listed_dual

Pair = tuple[Array, Array]
"""D and D', of the same shape. D' is infinite where the activation jumps and both inputs are the same."""


class Dual(NamedTuple):
    """`pair(q, q', c)` gives D and D' for arrays that broadcast; `same(q)` gives them for one input with itself. `closed`
    says whether they are closed forms or a series."""

    pair: Callable[[Array, Array, Array], Pair]
    same: Callable[[Array], Pair]
    differentiable: bool = True
    closed: bool = True


def dual(phi: str | Activation, terms: int = 64) -> Dual:
    """The dual of an activation: its closed form where there is one, else a Hermite series of that many terms.

    Raises `UnknownName` for an unknown name.

    >>> q, c = jnp.asarray(1.0), jnp.asarray(0.0)
    >>> print([round(float(d), 4) for d in dual("relu").pair(q, q, c)])  # 1/(2 pi), 1/4
    [0.1592, 0.25]
    """
    if isinstance(phi, Rectified):
        size = phi.a**2 + phi.b**2
        return _rectified(phi.a / size**0.5, phi.b / size**0.5)
    if isinstance(phi, Hermite):
        return listed_dual(phi)
    if isinstance(phi, Polynomial):
        return hermite_dual(phi, len(phi.coefficients))
    if isinstance(phi, str) and phi in CLOSED:
        return CLOSED[phi]
    for name, function in ACTIVATIONS.items():
        if function is phi and name in CLOSED:
            return CLOSED[name]
    return hermite_dual(activation(phi), terms)


def angle(cosine: Array) -> Array:
    """arccos of numbers in [-1, 1]; in float32 by a polynomial, exact to 1e-7 and many times faster on a CPU.

    Source: Abramowitz & Stegun (1964), 4.4.46
    """
    if cosine.dtype != jnp.float32:
        return jnp.arccos(cosine)
    size = jnp.abs(cosine)
    value = jnp.full_like(size, _ARCCOS[0])
    for coefficient in _ARCCOS[1:]:
        value = value * size + coefficient
    value = jnp.sqrt(1 - size) * value
    return jnp.where(cosine < 0, jnp.pi - value, value)


_ARCCOS = (-0.0012624911, 0.0066700901, -0.0170881256, 0.0308918810, -0.0501743046, 0.0889789874, -0.2145988016, 1.5707963050)  # fmt: skip


def _cosine(q: Array, p: Array, c: Array) -> Pair:
    """The geometric mean of two variances, and the correlation; within rounding of 1 it is 1, or equal inputs would be an
    angle apart of the root of that."""
    size = jnp.sqrt(q) * jnp.sqrt(p)
    rho = c / size
    edge = 1 - 4 * jnp.finfo(rho.dtype).eps
    return size, jnp.where(rho > edge, 1, jnp.where(rho < -edge, -1, rho))


def _rectified(a: float, b: float) -> Dual:
    """a s + b |s|: the product of odd and even part vanishes by parity."""

    def pair(q: Array, p: Array, c: Array) -> Pair:
        size, rho = _cosine(q, p, c)
        theta = angle(rho)
        slope = 1 - (2 / jnp.pi) * theta
        even = size * ((2 / jnp.pi) * jnp.sqrt((1 - rho) * (1 + rho)) + slope * rho)
        return a**2 * c + b**2 * even, a**2 + b**2 * slope

    return Dual(pair, lambda q: ((a**2 + b**2) * q, jnp.full_like(q, a**2 + b**2)))


def _smooth(product: Callable[[Array, Array, Array], Array], slope: Callable[[Array, Array, Array], Array]) -> Dual:
    """A dual that is smooth up to equal inputs."""
    pair = lambda q, p, c: (product(q, p, c), slope(q, p, c))
    return Dual(pair, lambda q: pair(q, q, q))


def _rectified_quadratic() -> Dual:
    """max(s, 0)²."""

    def pair(q: Array, p: Array, c: Array) -> Pair:
        size, rho = _cosine(q, p, c)
        theta, sine = angle(rho), jnp.sqrt((1 - rho) * (1 + rho))
        value = size**2 * (3 * sine * rho + (jnp.pi - theta) * (1 + 2 * rho**2)) / (2 * jnp.pi)
        return value, 2 * size * (sine + (jnp.pi - theta) * rho) / jnp.pi

    return Dual(pair, lambda q: (1.5 * q**2, 2 * q))


def _jump(low: float) -> Dual:
    """sign (low -1) and step (low 0): no slope that is square-integrable, hence no tangent kernel."""
    half, mean = (1 - low) / 2, (1 + low) / 2

    def pair(q: Array, p: Array, c: Array) -> Pair:
        size, rho = _cosine(q, p, c)
        inside = jnp.sqrt(jnp.maximum((1 - rho) * (1 + rho), 0))
        return half**2 * (1 - (2 / jnp.pi) * angle(rho)) + mean**2, half**2 * (2 / jnp.pi) / (inside * size)

    return Dual(pair, lambda q: (jnp.full_like(q, half**2 + mean**2), jnp.full_like(q, jnp.inf)), differentiable=False)


def _erf() -> Dual:
    size = lambda q, p: (1 + 2 * q) * (1 + 2 * p)
    return _smooth(
        lambda q, p, c: (2 / jnp.pi) * jnp.arcsin(2 * c / jnp.sqrt(size(q, p))),
        lambda q, p, c: (4 / jnp.pi) / jnp.sqrt(size(q, p) - 4 * c**2),
    )


def _gelu() -> Dual:
    """s times the Gaussian's distribution function."""

    def product(q: Array, p: Array, c: Array) -> Array:
        size = (1 + q) * (1 + p)
        inside = (2 / jnp.pi) * jnp.arcsin(c / jnp.sqrt(size))
        beside = (q * p + c**2 - c**2 * (q / (1 + q) + p / (1 + p))) / jnp.sqrt(size - c**2)
        return (c + c * inside + (2 / jnp.pi) * beside) / 4

    def slope(q: Array, p: Array, c: Array) -> Array:
        q, p, c = jnp.broadcast_arrays(q, p, c)
        return jax.jvp(lambda c: product(q, p, c), (c,), (jnp.ones_like(c),))[1]

    return _smooth(product, slope)


def _decay(q: Array, p: Array) -> Array:
    return jnp.exp(-(q + p) / 2)


_hyper = lambda q, p, c, sign: (jnp.exp(c - (q + p) / 2) + sign * jnp.exp(-c - (q + p) / 2)) / 2
"""exp(-(q + q')/2) sinh or cosh c, without overflow."""

CLOSED: dict[str, Dual] = {
    "linear": _rectified(1.0, 0.0),
    "relu": _rectified(0.5, 0.5),
    "leaky_relu": _rectified(0.505, 0.495),
    "abs": _rectified(0.0, 1.0),
    "rectified_quadratic": _rectified_quadratic(),
    "sign": _jump(-1.0),
    "step": _jump(0.0),
    "erf": _erf(),
    "gelu": _gelu(),
    "sin": _smooth(lambda q, p, c: _hyper(q, p, c, -1), lambda q, p, c: _hyper(q, p, c, 1)),
    "cos": _smooth(lambda q, p, c: _hyper(q, p, c, 1), lambda q, p, c: _hyper(q, p, c, -1)),
    "exp": _smooth(lambda q, p, c: jnp.exp((q + p) / 2 + c), lambda q, p, c: jnp.exp((q + p) / 2 + c)),
    "gaussian": _smooth(
        lambda q, p, c: ((1 + 2 * q) * (1 + 2 * p) - 4 * c**2) ** -0.5,
        lambda q, p, c: 4 * c * ((1 + 2 * q) * (1 + 2 * p) - 4 * c**2) ** -1.5,
    ),
    "quadratic": _smooth(lambda q, p, c: 2 * c**2 + q * p, lambda q, p, c: 4 * c),
}
"""Activations of closed form, by their names in `armillary.models.ACTIVATIONS`."""


def require_slope(phi: Any, found: Dual) -> None:
    """Raise where a tangent kernel is asked of an activation that jumps."""
    if not found.differentiable:
        raise InvalidValue(
            f"the activation {phi!r} jumps: its slope is not square-integrable and it has no tangent kernel; "
            "ask for the NNGP kernel (kind='nngp'), or smooth it (erf)"
        )
