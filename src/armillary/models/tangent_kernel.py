"""Kernels of two-layer networks: at infinite width (ReLU), and sums over the neurons of a finite one."""

from abc import abstractmethod
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.models.activations import GAINS, Activation, activation
from armillary.models.model import Model

Gram = Float[Array, "left right"]
Interaction = Float[Array, "input sample"]

BLOCK = 64
"""Neurons that are drawn and added at a time."""


def linear_kernel(x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
    """Inner products <x, y> of all pairs."""
    return x @ y.T


def _cosines(x: Array, y: Array) -> tuple[Array, Array]:
    """Products of lengths and cosines of angles of all pairs (0 where a length is 0)."""
    lengths = jnp.linalg.norm(x, axis=1)[:, None] * jnp.linalg.norm(y, axis=1)
    cosines = jnp.where(lengths > 0, x @ y.T / jnp.where(lengths > 0, lengths, 1.0), 0.0)
    return lengths, jnp.clip(cosines, -1.0, 1.0)


def arc_cosine_tangent(x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
    """The tangent kernel of the first layer of an infinitely wide ReLU network: <x, y> (pi - angle)/pi.

    It is |x|² at y = x and 0 for opposite vectors. Source: Cho & Saul (2009), degree 0; Jacot et al. (2018)

    >>> [round(float(k), 3) for k in arc_cosine_tangent(jnp.eye(2), jnp.array([[1.0, 1.0]]))[:, 0]]
    [0.75, 0.75]
    """
    lengths, cosines = _cosines(x, y)
    return lengths * cosines * (jnp.pi - jnp.arccos(cosines)) / jnp.pi


def arc_cosine_features(x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
    """Infinitely many random ReLU features, 2 E max(0, w.x) max(0, w.y) over w ~ N(0, I): the read-out's kernel.

    |x| |y| (sin angle + (pi - angle) cos angle)/pi; it is |x|² at y = x. Source: Cho & Saul (2009), degree 1

    >>> print(arc_cosine_features(jnp.eye(2), jnp.array([[2.0, 0.0]])).round(3).T)
    [[2.    0.637]]
    """
    lengths, cosines = _cosines(x, y)
    sines = jnp.sqrt(1 - cosines**2)
    return lengths * (sines + (jnp.pi - jnp.arccos(cosines)) * cosines) / jnp.pi


READ_OUTS = ("signs", "gaussian")


def _neurons(key: PRNGKeyArray, block: Array, width: Array, inputs: int, law: str) -> tuple[Array, Array, Array]:
    """One block of neurons: weights [neuron, input], read-out weights [neuron], and 1 for those within the width, else 0."""
    key = jax.random.fold_in(key, block)
    alive = jnp.where(block * BLOCK + jnp.arange(BLOCK) < width, 1.0, 0.0).astype(width.dtype)
    if law == "gaussian":
        both = jax.random.normal(key, (BLOCK, inputs + 1), width.dtype)
        return both[:, :-1], both[:, -1], alive
    signs = jax.random.rademacher(jax.random.fold_in(key, 1), (BLOCK,), width.dtype)
    return jax.random.normal(key, (BLOCK, inputs), width.dtype), signs, alive


def _summed(add: Any, sums: Any, width: Array) -> Any:
    """`add(block, sums)` over the blocks that so many neurons take."""
    return lax.fori_loop(0, jnp.ceil(width / BLOCK).astype(jnp.int32), add, sums)


def finite_width_kernels(
    key: PRNGKeyArray, width: ArrayLike, x: Float[Array, "left input"], y: Float[Array, "right input"],
    phi: str | Activation = "relu", law: Literal["signs", "gaussian"] = "signs",
) -> tuple[Gram, Gram]:  # fmt: skip
    """The two layers' kernels of `width` neurons w ~ N(0, I), as (first layer's, read-out's).

    (g/width) sum of a² phi'(w.x) phi'(w.y) <x, y>, and (g/width) sum of phi(w.x) phi(w.y), with the activation's gain g (2
    for ReLU, where they tend to `arc_cosine_tangent` and `arc_cosine_features`; 1 for those that are not in `GAINS`) and
    read-out weights a of variance 1, random signs or N(0, 1). Neurons are drawn block by block and not kept: a network of
    fewer neurons is the beginning of a wider one, `width` may be traced, and the cost is width (left + right) input +
    2 width left right.
    """
    width = jnp.asarray(width, x.dtype)
    function = activation(phi)
    slope = jnp.vectorize(jax.grad(function))

    def add(block: Array, sums: tuple[Gram, Gram]) -> tuple[Gram, Gram]:
        weights, read_out, alive = _neurons(key, block, width, x.shape[1], law)
        seen = [(slope(h), function(h)) for h in ((x @ weights.T,) if x is y else (x @ weights.T, y @ weights.T))]
        squares = alive if law == "signs" else alive * read_out**2
        return sums[0] + (squares * seen[0][0]) @ seen[-1][0].T, sums[1] + (alive * seen[0][1]) @ seen[-1][1].T

    nothing = jnp.zeros((x.shape[0], y.shape[0]), x.dtype)
    slopes, features = _summed(add, (nothing, nothing), width)
    gain = GAINS.get(phi, 1.0) if isinstance(phi, str) else 1.0
    return slopes * (x @ y.T) * gain / width, features * gain / width


class Kernel(eqx.Module):
    """A positive semi-definite function of two inputs: `kernel(x, y)` is the matrix of all pairs of rows."""

    @abstractmethod
    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        """All pairs."""

    def gradients(self, point: Float[Array, " input"], centres: Float[Array, "sample input"]) -> Interaction:
        """The interaction matrix: gradients of k(point, centre) in the point. Cost: inputs times the kernel of all pairs.

        >>> print(LinearKernel().gradients(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]])))  # the centres themselves
        [[1. 3.]
         [2. 4.]]
        """
        return jax.jacfwd(lambda z: self(z[None], centres)[0])(point).T


class LinearKernel(Kernel):
    """Inner products: linear regression."""

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        return linear_kernel(x, y)


class TangentKernel(Kernel):
    """The first layer's tangent kernel of an infinitely wide two-layer ReLU network."""

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        return arc_cosine_tangent(x, y)


class FiniteWidthKernel(Kernel):
    """The tangent kernel of a drawn two-layer network; `key` draws its neurons."""

    key: PRNGKeyArray
    width: Any
    first_layer: Any
    read_out: Any
    activation: str | Activation = eqx.field(static=True, default="relu")
    law: Literal["signs", "gaussian"] = eqx.field(static=True, default="signs")

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        first, second = finite_width_kernels(self.key, self.width, x, y, self.activation, self.law)
        return self.first_layer * first + self.read_out * second

    def outputs(self, x: Float[Array, "sample input"]) -> Float[Array, "sample 1"]:
        """What the network itself says: its read-out weights, of variance `first_layer`, times its features."""
        width, function = jnp.asarray(self.width, x.dtype), activation(self.activation)
        gain = GAINS.get(self.activation, 1.0) if isinstance(self.activation, str) else 1.0

        def add(block: Array, total: Array) -> Array:
            weights, read_out, alive = _neurons(self.key, block, width, x.shape[1], self.law)
            return total + function(x @ weights.T) @ (alive * read_out)

        total = _summed(add, jnp.zeros(x.shape[0], x.dtype), width)
        return (jnp.sqrt(jnp.asarray(self.first_layer * gain, x.dtype) / width) * total)[:, None]

    def gradients(self, point: Float[Array, " input"], centres: Float[Array, "sample input"]) -> Interaction:
        """The interaction matrix, neuron by neuron: x phi'(w.z) phi'(w.x) + w <x, z> phi''(w.z) phi'(w.x) for the first
        layer, w phi'(w.z) phi(w.x) for the read-out. Cost: 2 width x inputs x samples; tangents are never written out."""
        width, function = jnp.asarray(self.width, point.dtype), activation(self.activation)
        slope, curvature = (jnp.vectorize(f) for f in (jax.grad(function), jax.grad(jax.grad(function))))
        gain = GAINS.get(self.activation, 1.0) if isinstance(self.activation, str) else 1.0
        along = centres @ point

        def add(block: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            weights, read_out, alive = _neurons(self.key, block, width, len(point), self.law)
            here, there = weights @ point, centres @ weights.T
            squares = self.first_layer * (alive if self.law == "signs" else alive * read_out**2)
            slopes = slope(there)
            turned = (squares * curvature(here)) * slopes * along[:, None]
            turned = turned + (self.read_out * alive * slope(here)) * function(there)
            return sums[0] + slopes @ (squares * slope(here)), sums[1] + turned @ weights

        kept, turned = _summed(add, (jnp.zeros_like(along), jnp.zeros_like(centres)), width)
        return (centres * kept[:, None] + turned).T * (gain / width)


class FiniteWidth(Model):
    """Tangent kernels of two-layer networks with `width` random neurons.

    The layers' kernels are added with the weights `first_layer` and `read_out`, their rates or squared initial scales:
    (1, 1) is the usual tangent kernel, (0, 1) random features, (1, 0) the first layer alone. They have width x
    inputs and width parameters. `law` is that of the read-out weights, "signs" or "gaussian", whose squares weigh the
    neurons in the first layer's kernel; see `finite_width_kernels` for the activation's gain. All three numbers can be
    swept in one program. Raises `InvalidValue` for a width below 1 or negative weights, `UnknownName` for another law or
    activation.

    >>> kernel = FiniteWidth(width=3)(jax.random.key(0), inputs=2, outputs=1)
    >>> kernel(jnp.ones((4, 2)), jnp.ones((5, 2))).shape
    (4, 5)
    """

    width: float = 100.0
    first_layer: float = 1.0
    read_out: float = 1.0
    activation: str | Activation = eqx.field(static=True, default="relu")
    law: Literal["signs", "gaussian"] = eqx.field(static=True, default="signs")

    def __check_init__(self):
        require_between("width", self.width, 1)
        require_between("the first layer's weight", self.first_layer, 0.0)
        require_between("the read-out's weight", self.read_out, 0.0)
        activation(self.activation)
        if self.law not in READ_OUTS:
            raise unknown("law of read-out weights", self.law, READ_OUTS)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> FiniteWidthKernel:
        return FiniteWidthKernel(key, self.width, self.first_layer, self.read_out, self.activation, self.law)
