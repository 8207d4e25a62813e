"""What each linear layer of any network hears and says: its inputs, and the outputs' derivatives by what it computes.

A layer's weight gradient is the outer product of the two, so that inner products of gradients, which is all that a tangent
kernel is made of, need neither gradients nor Jacobians. Layers are found by their type; while they listen they stand in
the network in place of the layers themselves. Weights that no such layer holds (and all of a network whose layers run
inside a loop of their own, where nothing can listen) have their Jacobian taken.
"""

import contextvars
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from armillary.models.convolutional import Convolution
from armillary.models.model import Dense, learning_rate_scales


class Heard(NamedTuple):
    """Of one layer and one sample: inputs [position, input] and derivatives of the outputs [output, position, unit], and the
    factors with which weights and biases enter the kernel."""

    inputs: Float[Array, "*sample position input"]
    derivatives: Float[Array, "*sample output position unit"]
    weight_factor: Float[Array, "*sample"]
    bias_factor: Float[Array, "*sample"]


class Jacobian(NamedTuple):
    """Of weights that no layer holds: derivatives [output, weight] of one sample, times the root of their rates."""

    derivatives: Float[Array, "*sample output weight"]


_book: contextvars.ContextVar[Any] = contextvars.ContextVar("book")


class _Book:
    """What listening layers note, call by call."""

    def __init__(self, shifts: list[Array] | None):
        self.shifts = None if shifts is None else iter(shifts)
        self.calls: list[tuple[int, Array]] = []
        self.said: list[Array] = []


class _Listening(eqx.Module):
    """A layer that notes its inputs, and whose outputs are shifted by a variable of their own."""

    layer: Any
    slot: int = eqx.field(static=True)

    def __call__(self, x: Array, **_: Any) -> Array:
        book = _book.get()
        out = self.layer(x)
        book.calls.append((self.slot, x))
        book.said.append(out)
        return out if book.shifts is None else out + next(book.shifts)


def is_structured(node: Any) -> bool:
    """Whether a part of a network is a layer that can listen: dense, or a convolution of one group, that is not frozen."""
    if not eqx.is_inexact_array(getattr(node, "weight", None)):
        return False
    if isinstance(node, eqx.nn.Conv):
        return node.groups == 1 and not isinstance(node.padding, str)
    return isinstance(node, Dense | Convolution | eqx.nn.Linear)


def _patches(layer: Any, x: Array) -> Array:
    """What each position of the layer's output sees, [position, input]."""
    if isinstance(layer, Convolution):
        seen = layer.patches(x)
        return seen.reshape(-1, seen.shape[-1])
    if isinstance(layer, eqx.nn.Conv):
        seen = lax.conv_general_dilated_patches(
            x[None], layer.kernel_size, layer.stride, layer.padding, rhs_dilation=layer.dilation
        )[0]
        return seen.reshape(seen.shape[0], -1).T
    return jnp.atleast_1d(x)[None]


def _units(layer: Any, values: Array) -> Array:
    """Derivatives [output, ...] by what a layer computes as [output, position, unit]."""
    if isinstance(layer, eqx.nn.Conv):
        return values.reshape(*values.shape[:2], -1).swapaxes(1, 2)
    return values.reshape(values.shape[0], -1, values.shape[-1])


def layers_of(network: PyTree) -> list[str]:
    """Names of the parts of which a kernel by layers is made where all layers can listen, in the order of the network;
    "rest" for other weights."""
    paths = jax.tree_util.tree_flatten_with_path(network, is_leaf=is_structured)[0]
    names = [jax.tree_util.keystr(path).lstrip(".") for path, node in paths if is_structured(node)]
    return [*names, "rest"] if any(jax.tree.leaves(_outside(network))) else names


def _outside(network: PyTree) -> PyTree:
    """For each leaf, whether it is trainable and no listening layer's."""
    of = lambda node: jax.tree.map(lambda _: False, node) if is_structured(node) else eqx.is_inexact_array(node)
    return jax.tree.map(of, network, is_leaf=is_structured)


def can_listen(network: PyTree, x: Array) -> bool:
    """Whether every structured layer of the network is called outside loops, and in no other way than as a layer."""
    try:
        slots = {slot for slot, _ in _calls(network, x)}
    except (jax.errors.UnexpectedTracerError, AttributeError, TypeError):
        return False
    return slots == set(range(len(_structured(network))))


def _structured(network: PyTree) -> list[Any]:
    return [node for node in jax.tree.leaves(network, is_leaf=is_structured) if is_structured(node)]


def _listening(network: PyTree) -> PyTree:
    slots = iter(range(len(_structured(network))))
    wrap = lambda node: _Listening(node, next(slots)) if is_structured(node) else node
    return jax.tree.map(wrap, network, is_leaf=is_structured)


def _run(network: PyTree, x: Array, shifts: list[Array] | None) -> tuple[Array, _Book]:
    book = _Book(shifts)
    token = _book.set(book)
    try:
        return _listening(network)(x).ravel(), book
    finally:
        _book.reset(token)


def _calls(network: PyTree, x: Array) -> list[tuple[int, Any]]:
    """Slot and output of each call, in order."""
    slots: list[int] = []

    def said(x: Array) -> list[Array]:
        _, book = _run(network, x, None)
        slots[:] = [slot for slot, _ in book.calls]
        return [out + 0 for out in book.said]  # raises for what has left a loop of the network's own

    shapes = jax.eval_shape(said, x)
    return list(zip(slots, shapes, strict=True))


def listen(network: PyTree, x: Float[Array, "*input"], *, own_metric: bool) -> "list[Heard | Jacobian]":
    """What every part of the network contributes with, for one sample; the parts in the order of `layers_of`."""
    rates = learning_rate_scales(network, adaptive=False)
    if not can_listen(network, x):
        every = jax.tree.map(eqx.is_inexact_array, network)
        return [_jacobian(network, every, x, rates, own_metric=own_metric)]
    layers, calls = _structured(network), _calls(network, x)
    slots = [slot for slot, _ in calls]

    def shifted(shifts: list[Array]) -> tuple[Array, list[Array]]:
        out, book = _run(network, x, shifts)
        return out, [inputs for _, inputs in book.calls]

    out, pull, inputs = jax.vjp(shifted, [jnp.zeros(s.shape, s.dtype) for _, s in calls], has_aux=True)
    derivatives = jax.vmap(lambda v: pull(v)[0])(jnp.eye(out.size, dtype=out.dtype))
    found: list[Heard | Jacobian] = []
    for slot, layer in enumerate(layers):
        mine = [i for i, s in enumerate(slots) if s == slot]
        heard = jnp.concatenate([_patches(layer, inputs[i]) for i in mine])
        said = jnp.concatenate([_units(layer, derivatives[i]) for i in mine], axis=1)
        rate = getattr(layer, "rate", 1.0) if own_metric else 1.0
        weight = rate * getattr(layer, "multiplier", 1.0) ** 2
        bias = 0.0 if layer.bias is None else rate * getattr(layer, "bias_multiplier", 1.0) ** 2
        found.append(Heard(heard, said, jnp.asarray(weight, said.dtype), jnp.asarray(bias, said.dtype)))
    if any(jax.tree.leaves(_outside(network))):
        found.append(_jacobian(network, _outside(network), x, rates, own_metric=own_metric))
    return found


def _jacobian(network: PyTree, which: PyTree, x: Array, rates: PyTree, *, own_metric: bool) -> Jacobian:
    """Derivatives of the outputs by the leaves of `which`."""
    mine, others = eqx.partition(network, which)
    jacobian = jax.jacrev(lambda weights: eqx.combine(weights, others)(x).ravel())(mine)
    chosen = zip(jax.tree.leaves(network), jax.tree.leaves(which), strict=True)
    kept = [here for leaf, here in chosen if eqx.is_inexact_array(leaf)]
    factors = [
        rate**0.5 if own_metric else 1.0 for rate, here in zip(jax.tree.leaves(rates), kept, strict=True) if here
    ]
    leaves = jax.tree.leaves(jacobian)
    flat = [factor * leaf.reshape(leaf.shape[0], -1) for leaf, factor in zip(leaves, factors, strict=True)]
    return Jacobian(jnp.concatenate(flat, axis=1))
