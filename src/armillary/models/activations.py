"""Activation functions by name, so that an experiment can be written down and read back."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_context
from jax.scipy.special import erf
from jaxtyping import Array

from armillary.errors import InvalidValue, require_between, unknown

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "abs": jnp.abs,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "erf": erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "exp": jnp.exp,
    "gaussian": lambda x: jnp.exp(-(x**2)),
    "quadratic": jnp.square,
    "rectified_quadratic": lambda x: jnp.square(jax.nn.relu(x)),
    "sign": jnp.sign,
    "step": lambda x: jnp.heaviside(x, 0.5),
}

GAINS = {"relu": 2.0, "leaky_relu": 2.0 / (1 + 0.01**2), "abs": 1.0, "linear": 1.0}
"""Weight variance times fan-in at which a layer keeps the size of its input (He et al. 2015)."""


def activation(name: str | Activation) -> Activation:
    """The function of that name; a function is returned as it is. Raises `UnknownName`.

    >>> print(activation("relu")(jnp.array([-1.0, 2.0])))
    [0. 2.]
    """
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


@dataclass(frozen=True)
class Rectified:
    """The (a, b)-ReLU of unit gain: (a x + b |x|)/sqrt(a² + b²).

    Of z ~ N(0, 1) it has E f(z)² = E f'(z)² = 1, so that weights of variance 1/fan-in keep both signals and gradients:
    the edge of chaos. (0, 1) is the absolute value, (1, 1) the ReLU times sqrt(2), (1, 0) the identity. Raises
    `InvalidValue` where both are 0 or one is not finite. Source: Terjék (2025), arXiv:2502.13110.

    >>> print(Rectified(1.0, 1.0)(jnp.array([-1.0, 1.0])).round(3))
    [0.    1.414]
    """

    a: float = 0.0
    b: float = 1.0

    def __post_init__(self):
        for name in ("a", "b"):
            require_between(name, getattr(self, name), -1e30, 1e30)
        if not self.a and not self.b:
            raise InvalidValue("a and b are both 0, but one of them must not be: the activation would be 0")

    def __call__(self, x: Array) -> Array:
        size = (self.a**2 + self.b**2) ** 0.5
        return (self.a / size) * x + (self.b / size) * jnp.abs(x)


@dataclass(frozen=True)
class Polynomial:
    """The polynomial with those coefficients, the constant first. Raises `InvalidValue` where there is none.

    >>> print(Polynomial((1.0, 0.0, 2.0))(jnp.array([3.0])))
    [19.]
    """

    coefficients: tuple[float, ...]

    def __post_init__(self):
        require_between("the number of coefficients", len(self.coefficients), 1, 64)

    def __call__(self, x: Array) -> Array:
        return jnp.polyval(jnp.asarray(self.coefficients[::-1], x.dtype), x)


@dataclass(frozen=True)
class Hermite:
    """The sum of a_n He_n(x)/sqrt(n!), the probabilists' Hermite polynomials of unit mean square, with a_0 first.

    Of z ~ N(0, 1) it has the mean square sum of a_n², and E f(u) f(v) = sum of a_n² rho^n at correlation rho: a layer's kernel
    is written down by its coefficients. Raises `InvalidValue` where there is none, or more than 64.

    >>> print(Hermite((0.0, 0.0, 1.0))(jnp.array([0.0, 1.0])).round(4))  # (x² - 1)/sqrt(2)
    [-0.7071  0.    ]
    """

    coefficients: tuple[float, ...]

    def __post_init__(self):
        require_between("the number of coefficients", len(self.coefficients), 1, 64)
        require_between("a coefficient", self.coefficients, -1e30, 1e30)

    def __call__(self, x: Array) -> Array:
        below, now = jnp.zeros_like(x), jnp.ones_like(x)
        total = self.coefficients[0] * now
        for n, coefficient in enumerate(self.coefficients[1:]):
            below, now = now, (x * now - n**0.5 * below) / (n + 1) ** 0.5
            total = total + coefficient * now
        return total


@dataclass(frozen=True)
class Centred:
    """An activation less its mean over N(0, 1), so that random features of it have no constant part.

    Raises `UnknownName` for an activation that there is not.

    >>> print(Centred("relu")(jnp.array([-1.0])).round(4))  # minus 1/sqrt(2 pi)
    [-0.3989]
    """

    activation: str = "relu"

    def __post_init__(self):
        activation(self.activation)

    def __call__(self, x: Array) -> Array:
        return activation(self.activation)(x) - _gaussian_mean(self.activation)


@functools.lru_cache(maxsize=64)
def _gaussian_mean(name: str) -> float:
    """The mean of an activation over N(0, 1), each side of 0 for itself: kinks are there."""
    nodes, weights = np.polynomial.legendre.leggauss(100)
    z = 6 * (nodes + 1)

    with eval_context(), jax.enable_x64(True):  # it is asked for while networks are traced
        values = np.asarray(activation(name)(jnp.asarray(np.stack([z, -z])))).sum(0)
    return float(6 * np.sum(weights * values * np.exp(-(z**2) / 2)) / np.sqrt(2 * np.pi))
