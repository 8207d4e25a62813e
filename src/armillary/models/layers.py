"""The dense layers of any network that is a chain of them, and the network with some of its hidden units dropped."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from armillary.errors import InvalidValue, is_traced, require_between
from armillary.models.model import is_linear_layer


class Weights(NamedTuple):
    """Weights [output, input] and bias [output] (or None) of one layer."""

    weight: Float[Array, "_output _input"]
    bias: Float[Array, " _output"] | None


def dense_layers(network: PyTree) -> list[Weights]:
    """The layers of a network that is made of `Dense` or `eqx.nn.Linear` layers alone, two or more, input first.

    They count in the order in which the module holds them, and must be applied in that order with functions of single
    units between them. Raises `InvalidValue` where there are other weights, fewer layers, or one layer's outputs are
    not as many as the next one's inputs.

    >>> network = eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(0))
    >>> [layer.weight.shape for layer in dense_layers(network)]
    [(4, 3), (1, 4)]
    """
    nodes = jax.tree.leaves(network, is_leaf=is_linear_layer)
    found = [Weights(node.weight, node.bias) for node in nodes if is_linear_layer(node)]
    others = any(eqx.is_inexact_array(node) for node in nodes if not is_linear_layer(node))
    chained = all(a.weight.shape[0] == b.weight.shape[1] for a, b in itertools.pairwise(found))
    if others or not chained or len(found) < 2:
        why = "other weights" if others else "layers that do not fit" if not chained else f"{len(found)} dense layers"
        raise InvalidValue(
            f"a {type(network).__name__} with {why} has no hidden units to drop or align; give a chain of two or more "
            "Dense or eqx.nn.Linear layers"
        )
    return found


def hidden_widths(network: PyTree) -> tuple[int, ...]:
    """The number of units of each hidden layer. Raises `InvalidValue` as `dense_layers`."""
    return tuple(layer.weight.shape[0] for layer in dense_layers(network)[:-1])


def with_layers(network: PyTree, layers: Sequence[Weights]) -> PyTree:
    """The network with other weights in its dense layers."""
    fresh = iter(layers)

    def replaced(node: Any) -> Any:
        if not is_linear_layer(node):
            return node
        weight, bias = next(fresh)
        return eqx.tree_at(lambda n: (n.weight, n.bias), node, (weight, bias), is_leaf=lambda leaf: leaf is None)

    return jax.tree.map(replaced, network, is_leaf=is_linear_layer)


def as_masks(kept: Any, widths: Sequence[int]) -> list[Any]:
    """Units that are kept, one mask (or None for all) for each hidden layer; a single mask for a single hidden
    layer."""
    masks = list(kept) if isinstance(kept, tuple | list) else [kept]
    if len(masks) != len(widths):
        raise InvalidValue(
            f"there are {len(masks)} sets of kept units for {len(widths)} hidden layers; give one for each"
        )
    for mask, width in zip(masks, widths, strict=True):
        if mask is not None and jnp.shape(mask) != (width,):
            raise InvalidValue(
                f"a set of kept units has shape {jnp.shape(mask)}, but the layer has {width} units; give a mask"
            )
        if mask is not None and not is_traced(mask):
            require_between("the number of units kept", int(np.sum(np.asarray(mask, bool))), 1)
    return masks


def dropped(network: PyTree, kept: Any) -> PyTree:
    """The network without the hidden units outside `kept`: what goes out of the others is multiplied by N/|kept|.

    `kept` is a mask bool[unit] for one hidden layer of N units, or a list of them (None keeps all), one for each
    hidden layer. Incoming weights and all biases stay: a layer's bias is no unit's. Masks may be traced. Raises
    `InvalidValue` for masks of other shapes, empty ones, and networks that are no chain of dense layers. Source: the
    dropout map of Shevchenko & Mondelli (2020).

    >>> network = eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(0))
    >>> half = dropped(network, jnp.array([True, True, False, False]))
    >>> jnp.abs(half.layers[1].weight / network.layers[1].weight).tolist()
    [[2.0, 2.0, 0.0, 0.0]]
    """
    layers = dense_layers(network)
    for index, mask in enumerate(as_masks(kept, hidden_widths(network))):
        if mask is not None:
            on = jnp.asarray(mask, bool)
            weight, bias = layers[index + 1]
            share = len(on) / jnp.sum(on).astype(weight.dtype)
            layers[index + 1] = Weights(jnp.where(on, share * weight, 0.0), bias)
    return with_layers(network, layers)
