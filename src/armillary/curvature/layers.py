"""Each layer's block of the Hessian as Kronecker factors: the layer's inputs, and how the outputs depend on it.

With u_k = W_k z_{k-1} the block of one sample is nearly A_k ⊗ z zᵀ, A_k = B_kᵀ H B_k, B_k the outputs' derivative in
u_k and H the loss's second derivative in the outputs. What is dropped is the gradient times the outputs' own
curvature in W_k: nothing for piecewise linear networks, off their kinks. It is the layer's block of the Gauss-Newton
matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Float, PyTree

from armillary.errors import InvalidValue
from armillary.models.activations import activation
from armillary.models.mlp import MLPNetwork
from armillary.models.model import is_linear_layer
from armillary.tasks.data import Samples


class LayerFactors(NamedTuple):
    """One layer's factors for each sample: its inputs z [sample, input], times its multiplier, and H^(1/2) B
    [sample, output, unit]; the block of a sample is the Kronecker product of their squares."""

    below: Float[Array, "sample _input"]
    above: Float[Array, "sample output _unit"]


class LayerNorms(NamedTuple):
    """Means over samples of the spectral norm and the trace of each layer's approximate block."""

    norm: Float[Array, " layer"]
    trace: Float[Array, " layer"]


class _Watched(eqx.Module):
    """A layer that is seen when it is called."""

    layer: Any
    index: int = eqx.field(static=True)
    visit: Callable = eqx.field(static=True)

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        return self.visit(self.index, self.layer, x, self.layer(x, **kwargs))


def linear_layers(network: PyTree) -> list[Any]:
    """The network's linear layers, in the order in which it holds them. Raises `InvalidValue` where there are none."""
    layers = [node for node in jax.tree.leaves(network, is_leaf=is_linear_layer) if is_linear_layer(node)]
    if not layers:
        raise InvalidValue(
            f"a {type(network).__name__} has no linear layers (Dense or equinox.nn.Linear); give it some"
        )
    return layers


def _called(network: PyTree, x: Array) -> Array:
    """The output, of an MLP without its compiled loop, inside which layers are out of sight."""
    if not isinstance(network, MLPNetwork):
        return network(x)
    phi = activation(network.activation)
    for layer in network.layers[:-1]:
        x = phi(layer(x))
    return network.layers[-1](x)


def _traversed(network: PyTree, x: Array, shifts: list[Array] | None) -> tuple[Array, dict[int, Array], dict[int, Any]]:
    """The outputs when `shifts` are added to what layers compute, layers' inputs, and shapes of what they compute."""
    here = get_opaque_trace_state(convention="nnx")
    inputs: dict[int, Array] = {}
    shapes: dict[int, Any] = {}

    def visit(index: int, layer: Any, z: Array, u: Array) -> Array:
        if get_opaque_trace_state(convention="nnx") != here:
            raise InvalidValue(
                "a linear layer runs inside a compiled loop, out of sight; write the network's layers out"
            )
        if index in inputs:
            raise InvalidValue("a linear layer is used twice for one input; its block is no Kronecker product")
        inputs[index] = getattr(layer, "multiplier", 1.0) * z
        shapes[index] = jax.ShapeDtypeStruct(u.shape, u.dtype)
        return u if shifts is None else u + shifts[index]

    layers = iter(range(len(linear_layers(network))))
    replace = lambda node: _Watched(node, next(layers), visit) if is_linear_layer(node) else node
    outputs = _called(jax.tree.map(replace, network, is_leaf=is_linear_layer), x)
    if len(inputs) < len(linear_layers(network)):
        raise InvalidValue(
            f"only {len(inputs)} of {len(linear_layers(network))} linear layers are used; drop the others"
        )
    return outputs, inputs, shapes


def _root(matrix: Float[Array, "row row"]) -> Float[Array, "row row"]:
    """The square root of a symmetric matrix's positive part."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


def layer_factors(network: PyTree, samples: Samples, loss: Any) -> list[LayerFactors]:
    """The factors of every linear layer's block, in the order in which the module holds the layers.

    `loss` is an `armillary.rules.Loss` (one with `per_sample`); of its second derivative in the outputs the positive
    part counts, which for convex losses is all of it. Raises `InvalidValue` for another loss, and for networks
    without linear layers, with unused ones, with one that is used twice, or with a compiled loop (that of
    `MLP` is written out). Cost: a backward pass for each output. Source: Skorski, Temperoni & Theobald (2020), as recalled.

    >>> from armillary.rules import Loss
    >>> line = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    >>> one = layer_factors(line, Samples(jnp.ones((4, 2)), jnp.zeros((4, 3))), Loss())[0]
    >>> one.below.shape, one.above[0].round(3).tolist()
    ((4, 2), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    if not hasattr(loss, "per_sample") or not isinstance(samples, Samples):
        raise InvalidValue("layers' factors need samples and a loss of single samples; give an armillary.rules.Loss")
    count = len(linear_layers(network))

    def one(x: Array, target: Array) -> tuple[list[Array], list[Array]]:
        _, inputs, shapes = _traversed(network, x, None)
        flat = [jnp.zeros(shapes[index].shape, shapes[index].dtype) for index in range(count)]
        outputs, back = jax.vjp(lambda shifts: _traversed(network, x, shifts)[0], flat)
        bend = jax.hessian(lambda f: jnp.sum(loss.per_sample(f[None], target[None])))(outputs)
        above = jax.vmap(lambda row: back(row)[0])(_root(bend))
        return [inputs[index] for index in range(count)], above

    below, above = jax.vmap(one)(samples.inputs, samples.targets)
    return [LayerFactors(*each) for each in zip(below, above, strict=True)]


def layer_norms(factors: list[LayerFactors]) -> LayerNorms:
    """Means over samples of |z|² λ_max(H^(1/2) B Bᵀ H^(1/2)) and of |z|² tr, for each layer.

    The mean of samples' norms bounds the norm of their mean from above (`batch_product`); traces are equal.

    >>> factors = [LayerFactors(jnp.ones((1, 4)), jnp.array([[[2.0, 0.0], [0.0, 1.0]]]))]
    >>> [value.tolist() for value in layer_norms(factors)]
    [[16.0], [20.0]]
    """
    grams = jnp.stack(
        [jnp.einsum("son,spn->sop", above, above) for _, above in factors]
    )  # [layer, sample, output, output]
    squares = jnp.stack([jnp.sum(below**2, axis=1) for below, _ in factors])
    largest = jnp.linalg.eigvalsh(grams)[..., -1]
    return LayerNorms(
        jnp.mean(squares * largest, axis=1), jnp.mean(squares * jnp.trace(grams, axis1=-2, axis2=-1), axis=1)
    )


def batch_product(factors: LayerFactors, vector: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
    """The mean over samples of a layer's approximate blocks times a vector of its weights, flat, [unit, input] row
    by row.

    Cost: some 4 samples (outputs units + units inputs) multiplications; the network is not asked again.
    """
    below, above = factors
    weights = vector.reshape(above.shape[-1], below.shape[-1])
    moved = jnp.einsum("son,sn->so", above, below @ weights.T)
    back = jnp.einsum("so,son->sn", moved, above)
    return (back.T @ below / len(below)).ravel()
