"""What a model is: a recipe that draws networks."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue
from armillary.once import in_one_go


class Model(eqx.Module):
    """A recipe for networks: `model(key, inputs, outputs)` draws one, an `equinox.Module`.

    A network maps one input to one output. Numbers that may be swept in one compiled program (an initial
    scale) are plain float fields; what changes shapes or the program is a static field. Asked by itself, a model draws as
    in a run (`armillary.once.in_one_go`).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = cast(Any, in_one_go(cls.__call__))

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> eqx.Module:
        raise NotImplementedError


def draw_network(model: Any, key: PRNGKeyArray, inputs: int, outputs: int) -> PyTree:
    """A network from a `Model`, from a user's `key -> network` function, or a network that is there already.

    Raises `InvalidValue` for anything else.
    """
    if isinstance(model, Model):
        return model(key, inputs, outputs)
    if isinstance(model, eqx.Module):
        return model
    if isinstance(model, Callable):
        return model(key)
    raise InvalidValue(
        f"the model is a {type(model).__name__}, but must be a Model, an equinox.Module or a function of a key"
    )


def matvec(matrix: Float[Array, "*output input"], x: Float[Array, " input"]) -> Float[Array, "*output"]:
    """`matrix @ x`, whose batches need no transposition: gradients and Hessian products are a fifteenth shorter.

    Contracts the last axis of both. Raises `TypeError` where these differ in length.

    >>> matvec(jnp.array([[1.0, 2.0], [0.0, 3.0]]), jnp.array([1.0, 10.0])).tolist()
    [21.0, 30.0]
    """
    dtype, last = jnp.result_type(matrix, x), ((x.ndim - 1,), (matrix.ndim - 1,))
    return lax.dot_general(jnp.asarray(x, dtype), jnp.asarray(matrix, dtype), (last, ((), ())))


class Dense(eqx.Module):
    """One layer: multiplier * W x + bias_multiplier * b, with its learning rates relative to the rule's.

    `weight` is [output, input] and `bias` [output] or None; x is [input].
    """

    weight: Float[Array, "output input"]
    bias: Float[Array, " output"] | None
    multiplier: float = eqx.field(static=True, default=1.0)
    rate: float = eqx.field(static=True, default=1.0)
    adaptive_rate: float = eqx.field(static=True, default=1.0)
    bias_multiplier: float = eqx.field(static=True, default=1.0)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        h = matvec(self.weight, x)
        h = h if self.multiplier == 1.0 else self.multiplier * h
        if self.bias is None:
            return h
        return h + (self.bias if self.bias_multiplier == 1.0 else self.bias_multiplier * self.bias)


def is_linear_layer(node: Any) -> bool:
    """Whether a part of a network is a linear layer with weights [output, input]: `Dense` or `equinox.nn.Linear`."""
    return isinstance(node, Dense | eqx.nn.Linear)


def learning_rate_scales(network: PyTree, *, adaptive: bool) -> PyTree:
    """A tree like `network`'s arrays with each one's factor on the learning rate; ones in foreign modules.

    A module that has its own factors says so by the fields `rate` and `adaptive_rate` (see `Dense`).
    """
    has_rates = lambda node: isinstance(node, eqx.Module) and hasattr(node, "adaptive_rate")

    def of(node: PyTree) -> PyTree:
        rate = (node.adaptive_rate if adaptive else node.rate) if has_rates(node) else 1.0
        return jax.tree.map(lambda _: rate, eqx.filter(node, eqx.is_inexact_array))

    return jax.tree.map(of, network, is_leaf=has_rates)


UNROLLED = 8
"""Hidden layers up to which a network is written out layer by layer; beyond, one compiled loop runs over them
(it compiles in the same time at any depth)."""


def through(layers: PyTree, apply: Callable[[PyTree, Array], Array], x: Array, *, backwards: bool = False) -> Array:
    """x passed through equal layers one after another; `layers` is one tree whose arrays have a leading layer axis."""
    arrays, static = eqx.partition(layers, eqx.is_array)
    count = jax.tree.leaves(arrays)[0].shape[0]
    if count > UNROLLED:
        step = lambda h, layer: (apply(eqx.combine(layer, static), h), None)
        return lax.scan(step, x, arrays, reverse=backwards)[0]
    for index in range(count)[:: -1 if backwards else 1]:
        x = apply(eqx.combine(jax.tree.map(lambda a, i=index: a[i], arrays), static), x)
    return x


def stacked(layers: Sequence[PyTree]) -> PyTree:
    """Equal layers as one tree whose arrays have a leading layer axis."""
    arrays = [eqx.filter(layer, eqx.is_array) for layer in layers]
    return eqx.combine(
        jax.tree.map(lambda *parts: jnp.stack(parts), *arrays), eqx.filter(layers[0], eqx.is_array, inverse=True)
    )


def matrices(network: PyTree) -> list[Float[Array, "_output _input"]]:
    """The network's weight matrices in the order of its layers; what has other than two axes is skipped."""
    if isinstance(getattr(network, "weights", None), tuple):
        return list(network.weights)
    return [leaf for leaf in jax.tree.leaves(network) if eqx.is_inexact_array(leaf) and leaf.ndim == 2]


def parameters(network: PyTree) -> PyTree:
    """The trainable part: floating-point arrays, with None elsewhere."""
    return eqx.filter(network, eqx.is_inexact_array)


def end_to_end(network: PyTree, inputs: int) -> Float[Array, "output input"]:
    """The matrix of a network that is linear in its input (without bias): its values on the unit vectors."""
    known = getattr(network, "matrix", None)
    return jax.vmap(network)(jnp.eye(inputs)).T if known is None else known
