"""The tangent kernel of a finite network as it is, without the Jacobian of its dense layers."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from armillary.compiled import Compiled
from armillary.errors import InvalidValue, require_between
from armillary.members import rows_of_block
from armillary.tangents.listening import Heard, Jacobian, layers_of, listen

Outputs = Literal["mean", "each", "full"]

Features = list[Heard | Jacobian]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "mean": ("sample", "other"),
    "each": ("sample", "other", "output"),
    "full": ("sample", "output", "other", "other_output"),
}
"""Dimensions of the kernel by what is asked of its outputs."""


def features(network: PyTree, inputs: Float[Array, "sample *input"], *, own_metric: bool) -> Features:
    """What all parts of the network contribute with, sample by sample."""
    return jax.vmap(lambda x: listen(network, x, own_metric=own_metric))(inputs)


def contracted(left: Heard | Jacobian, right: Heard | Jacobian, outputs: Outputs) -> Array:
    """The kernel that one part of the network contributes, in the dimensions of `OUTPUTS`."""
    if isinstance(left, Jacobian) or isinstance(right, Jacobian):
        return _products(left.derivatives, right.derivatives, outputs)
    positions, fan_in = left.inputs.shape[-2:]
    units, k = left.derivatives.shape[-1], left.derivatives.shape[1]
    weight, bias = left.weight_factor[0], left.bias_factor[0]
    if positions == 1:
        said = _products(left.derivatives[:, :, 0], right.derivatives[:, :, 0], outputs)
        heard = left.inputs[:, 0] @ right.inputs[:, 0].T
        return said * (weight * _spread(heard, outputs) + bias)
    n, m = len(left.inputs), len(right.inputs)
    by_gradient = (n + m) * k * positions * fan_in * units + n * m * k * k * fan_in * units
    by_positions = n * m * positions**2 * (fan_in + k * k * units)
    biases = _products(left.derivatives.sum(2), right.derivatives.sum(2), outputs)
    if by_gradient < by_positions:
        first, second = (
            jnp.einsum("npa,nkpb->nkab", h.inputs, h.derivatives).reshape(len(h.inputs), k, -1) for h in (left, right)
        )
        return weight * _products(first, second, outputs) + bias * biases
    heard = jnp.einsum("npa,mqa->nmpq", left.inputs, right.inputs)
    how = {"mean": "nmpq,nkpb,mkqb->nm", "each": "nmpq,nkpb,mkqb->nmk", "full": "nmpq,nkpb,mlqb->nkml"}[outputs]
    total = jnp.einsum(how, heard, left.derivatives, right.derivatives, optimize="optimal")
    return weight * total / (k if outputs == "mean" else 1) + bias * biases


def _products(left: Array, right: Array, outputs: Outputs) -> Array:
    """Inner products of derivatives [sample, output, number]."""
    (n, k), m = left.shape[:2], len(right)
    if outputs == "mean":
        return left.reshape(n, -1) @ right.reshape(m, -1).T / k
    if outputs == "each":
        return jnp.einsum("nka,mka->nmk", left, right)
    return (left.reshape(n * k, -1) @ right.reshape(m * k, -1).T).reshape(n, k, m, k)


def _spread(heard: Array, outputs: Outputs) -> Array:
    """A kernel over samples, in a shape that broadcasts over outputs."""
    return {"mean": heard, "each": heard[:, :, None], "full": heard[:, None, :, None]}[outputs]


def traced_kernel(
    network: PyTree,
    x: Float[Array, "left *input"],
    y: Any = None,
    *,
    outputs: Outputs,
    own_metric: bool,
    by_layer: bool = False,
) -> Array:
    """`empirical_kernel` inside a program of one's own, all at once: a leading axis of parts with `by_layer`."""
    left = features(network, x, own_metric=own_metric)
    right = left if y is None else features(network, y, own_metric=own_metric)
    parts = [contracted(a, b, outputs) for a, b in zip(left, right, strict=True)]
    return jnp.stack(parts) if by_layer else sum(parts[1:], parts[0])


@Compiled
def _features(network: PyTree, x: Array, own_metric: bool) -> Features:
    return features(network, x, own_metric=own_metric)


@Compiled
def _contracted(left: Features, right: Features, outputs: Outputs, by_layer: bool) -> Array:
    parts = [contracted(a, b, outputs) for a, b in zip(left, right, strict=True)]
    return jnp.stack(parts) if by_layer else sum(parts[1:], parts[0])


def empirical_kernel(
    network: PyTree,
    x: Any,
    y: Any = None,
    *,
    outputs: Outputs = "mean",
    by_layer: bool = False,
    own_metric: bool = True,
    memory: float = 1e9,
) -> Float[np.ndarray, "..."]:
    """The tangent kernel of a network at its weights: inner products of its outputs' gradients at all pairs of inputs.

    - `network`: any equinox module that maps one input to its outputs. Dense layers and convolutions (Armillary's and
      equinox's) are contracted by their structure; other weights, and networks that call layers inside a loop or `vmap` of
      their own, by their Jacobian.
    - `outputs`: "mean" over outputs, float[left, right]; "each", float[left, right, output]; "full", float[left, output,
      right, output].
    - `by_layer`: the parts that add up to it, in a leading axis in the order of `layers_of(network)` (one part, where
      layers cannot listen).
    - `own_metric`: whether each weight counts with its layer's learning rate, as descent in the network's parametrisation
      moves it.
    - `memory`: bytes that blocks may take at once, beside the result and each sample's features (layers' inputs and
      outputs' derivatives), which are kept where they fit and computed again where not.

    `y` None takes `x`, each half once. Raises `InvalidValue` for inputs that the network does not take, a network without
    trainable weights and unknown `outputs`. Source: Jacot et al. (2018); the structure: Novak, Sohl-Dickstein & Schoenholz
    (2022)

    >>> network = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    >>> empirical_kernel(network, np.ones((5, 3), np.float32), outputs="full").shape
    (5, 2, 5, 2)
    """
    require_known(outputs, memory)
    trained = [leaf for leaf in jax.tree.leaves(network) if eqx.is_inexact_array(leaf)]
    if not trained:
        raise InvalidValue(f"a {type(network).__name__} has no trainable weights, hence no tangent kernel")
    dtype = np.result_type(*[leaf.dtype for leaf in trained])
    with jax.enable_x64(dtype == np.float64):
        x = jnp.asarray(x, dtype)
        other = None if y is None else jnp.asarray(y, dtype)
        k, each = _sizes(network, x, own_metric)
        of = lambda inputs, rows: _features(network, inputs[rows], own_metric)
        return kernel_in_blocks(of, x, other, (k, each), outputs, dtype, by_layer=by_layer, memory=memory)


def require_known(outputs: str, memory: float) -> None:
    """Raise `InvalidValue` for what no kernel can be asked for."""
    if outputs not in OUTPUTS:
        raise InvalidValue(f"outputs is {outputs!r}, but must be 'mean', 'each' or 'full'")
    require_between("memory", memory, 1e6)


def kernel_in_blocks(
    features_of: Callable[[Any, np.ndarray], Features],
    x: Any,
    y: Any,
    sizes: tuple[int, int],
    outputs: Outputs,
    dtype: Any,
    *,
    by_layer: bool,
    memory: float,
) -> Float[np.ndarray, "..."]:
    """The kernel of all pairs of `x` and `y` (None: of `x`, each half once) from `features_of(inputs, rows)`, of which
    `sizes` tells the outputs and the bytes of one sample."""
    k, each = sizes
    rows = k if outputs != "mean" else 1
    symmetric, right_inputs = y is None, x if y is None else y
    side = min(BLOCK // rows, int((memory / 4 / dtype.itemsize) ** 0.5 / rows), int(memory / (8 * each)), len(x))
    side = max(side, 1)
    kept: dict[tuple[bool, int], Features] = {}
    room = each * (len(x) + (0 if symmetric else len(right_inputs))) <= memory

    def of(first: int, *, right: bool) -> Features:
        right = right and not symmetric
        inputs = right_inputs if right else x
        if (right, first) not in kept:
            found = features_of(inputs, rows_of_block(len(inputs), first, side))
            if not room:
                return found
            kept[right, first] = found
        return kept[right, first]

    return _assembled(of, len(x), len(right_inputs), side, outputs, k, dtype, by_layer, symmetric)


BLOCK = 256
"""Rows (samples, times outputs where they are apart) of a block at most: the sum over layers then stays in a core's cache,
and little of what is symmetric is done twice."""


def _assembled(
    of: Any, n: int, m: int, side: int, outputs: Outputs, k: int, dtype: Any, by_layer: bool, symmetric: bool
) -> np.ndarray:
    """All blocks in one array."""
    lengths = {"sample": n, "other": m, "output": k, "other_output": k}
    dims = OUTPUTS[outputs]
    axes, lead = (dims.index("sample"), dims.index("other")), int(by_layer)
    out: Any = None
    for i in range(0, n, side):
        left = of(i, right=False)
        for j in range(i if symmetric else 0, m, side):
            block = np.asarray(_contracted(left, of(j, right=True), outputs, by_layer))
            if out is None:
                out = np.empty((*block.shape[:lead], *(lengths[d] for d in dims)), dtype)
            place: list[Any] = [slice(None)] * out.ndim
            take = list(place)
            for axis, first, length in zip(axes, (i, j), (n, m), strict=True):
                place[lead + axis] = slice(first, min(first + side, length))
                take[lead + axis] = slice(0, min(side, length - first))
            out[tuple(place)] = block[tuple(take)]
            if symmetric and i != j:
                out[tuple(_swapped(place, lead, outputs))] = _transposed(block[tuple(take)], lead, outputs)
    return out


def _swapped(place: list[Any], lead: int, outputs: Outputs) -> list[Any]:
    half = 2 if outputs == "full" else 1
    a, b = place[lead : lead + half], place[lead + half : lead + 2 * half]
    return [*place[:lead], *b, *a, *place[lead + 2 * half :]]


def _transposed(block: np.ndarray, lead: int, outputs: Outputs) -> np.ndarray:
    half = 2 if outputs == "full" else 1
    order = [*range(lead), *range(lead + half, lead + 2 * half), *range(lead, lead + half)]
    return block.transpose(*order, *range(lead + 2 * half, block.ndim))


def _sizes(network: PyTree, x: Array, own_metric: bool) -> tuple[int, int]:
    """How many outputs the network has, and bytes of a sample's features."""
    if x.ndim < 2 or not len(x):
        raise InvalidValue(f"inputs have shape {x.shape}, but must be [sample, ...] with one sample or more")
    try:
        shapes = _features.bind(network, x[:1], own_metric).shapes()
    except (TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InvalidValue(f"a {type(network).__name__} does not take inputs of shape {x.shape[1:]}: {why}") from error
    return sizes_of(shapes)


def sizes_of(one: Features) -> tuple[int, int]:
    """Outputs and bytes of one sample's features."""
    return one[0].derivatives.shape[1], sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))


__all__ = [
    "OUTPUTS", "Features", "Outputs", "empirical_kernel", "features", "kernel_in_blocks", "layers_of", "require_known", "sizes_of",
    "traced_kernel",
]  # fmt: skip
