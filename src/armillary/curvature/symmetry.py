"""Directions in which a network does not change: the rescaling of homogeneous hidden units."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from armillary.errors import InvalidValue
from armillary.models.activations import activation
from armillary.models.mlp import MLPNetwork

HOMOGENEOUS = ("relu", "leaky_relu", "abs", "linear")
"""Activations with phi(c x) = c phi(x) for c > 0."""


def check_homogeneous(network: Any) -> None:
    """Raise `InvalidValue` unless the network is an MLP with hidden units of a homogeneous activation."""
    if not isinstance(network, MLPNetwork):
        raise InvalidValue(f"rescaling needs an MLP, not a {type(network).__name__}")
    if network.activation not in HOMOGENEOUS:
        allowed = ", ".join(HOMOGENEOUS)
        raise InvalidValue(
            f"rescaling needs a homogeneous activation ({allowed}), and this network's is {network.activation}"
        )
    if len(network.layers) < 2:
        raise InvalidValue("rescaling needs hidden units, and this network has none")


def rescaling_signs(network: MLPNetwork) -> Float[Array, "unit parameter"]:
    """For each hidden unit, layer by layer: 1 at its incoming weights and bias, -1 at its outgoing weights, 0 elsewhere.

    The parameters are in the order of the curvature operators' flat vectors. Raises `InvalidValue` for other networks
    than MLPs with hidden units of a homogeneous activation.
    """
    check_homogeneous(network)
    trained = eqx.filter(network, eqx.is_inexact_array)
    nothing = jax.tree.map(jnp.zeros_like, trained)
    rows = []
    for index in range(len(network.layers) - 1):
        before, after = network.layers[index], network.layers[index + 1]
        for unit in range(before.weight.shape[0]):
            into = jnp.zeros_like(before.weight).at[unit].set(1.0)
            out = jnp.zeros_like(after.weight).at[:, unit].set(-1.0)
            marked = eqx.tree_at(lambda n, i=index: (n.layers[i].weight, n.layers[i + 1].weight), nothing, (into, out))
            if before.bias is not None:
                bias = jnp.zeros_like(before.bias).at[unit].set(1.0)
                marked = eqx.tree_at(lambda n, i=index: n.layers[i].bias, marked, bias)
            rows.append(ravel_pytree(marked)[0])
    return jnp.stack(rows)


def rescaling_directions(network: MLPNetwork) -> Float[Array, "unit parameter"]:
    """For each hidden unit the direction (w_in, b, -w_out) in which the network, and so the loss, does not change.

    Incoming weights times c and outgoing ones over c leave a homogeneous unit's share of the output as it is. Of v = D w,
    with D the `rescaling_signs`, the loss's invariance says v·g = 0 for its gradient g, and its derivative says

        H v = -D g

    wherever the loss is twice differentiable: v is a null vector of the Hessian where the unit's own gradient is 0, and
    only there. Derived here. Raises `InvalidValue` as `rescaling_signs`.

    >>> from armillary.models import MLP
    >>> network = MLP(width=3)(jax.random.key(0), 2, 1)
    >>> rescaling_directions(network).shape
    (3, 13)
    """
    return rescaling_signs(network) * ravel_pytree(eqx.filter(network, eqx.is_inexact_array))[0]


def live_units(network: MLPNetwork, inputs: Float[Array, "sample input"]) -> Bool[Array, " unit"]:
    """Which hidden units are not 0 on all inputs (a dead ReLU has weights of no effect: more null directions).

    Raises `InvalidValue` as `rescaling_signs`.
    """
    check_homogeneous(network)
    phi = activation(network.activation)
    alive, h = [], inputs
    for layer in network.layers[:-1]:
        h = phi(jax.vmap(layer)(h))
        alive.append(jnp.any(h != 0, axis=0))
    return jnp.concatenate(alive)
