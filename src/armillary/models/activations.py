"""Activation functions by name, so that an experiment can be written down and read back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array

from armillary.errors import unknown

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "abs": jnp.abs,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "erf": erf,
    "sin": jnp.sin,
    "quadratic": jnp.square,
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
