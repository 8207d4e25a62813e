"""Kernels of two-layer ReLU networks: at infinite width, and sums over the neurons of a finite one."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.model import Model

Gram = Float[Array, "left right"]

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


def finite_width_kernels(
    key: PRNGKeyArray, width: ArrayLike, x: Float[Array, "left input"], y: Float[Array, "right input"]
) -> tuple[Gram, Gram]:
    """The two layers' kernels of `width` ReLU neurons w ~ N(0, I), as (first layer's, read-out's).

    (2/width) sum of 1[w.x > 0] 1[w.y > 0] <x, y>, and (2/width) sum of max(0, w.x) max(0, w.y): they tend to
    `arc_cosine_tangent` and `arc_cosine_features`. Neurons are drawn block by block and not kept: a network of fewer
    neurons is the beginning of a wider one, `width` may be traced, and the cost is width (left + right) input +
    2 width left right.
    """
    width = jnp.asarray(width, x.dtype)

    def add(block: Array, sums: tuple[Gram, Gram]) -> tuple[Gram, Gram]:
        weights = jax.random.normal(jax.random.fold_in(key, block), (BLOCK, x.shape[1]), x.dtype)
        alive = block * BLOCK + jnp.arange(BLOCK) < width
        left, right = x @ weights.T, y @ weights.T
        gates = jnp.where(alive & (left > 0), 1.0, 0.0).astype(x.dtype)
        both = gates @ (right > 0).astype(x.dtype).T
        return sums[0] + both, sums[1] + (gates * left) @ jax.nn.relu(right).T

    nothing = jnp.zeros((x.shape[0], y.shape[0]), x.dtype)
    blocks = jnp.ceil(width / BLOCK).astype(jnp.int32)
    gates, features = lax.fori_loop(0, blocks, add, (nothing, nothing))
    return gates * (x @ y.T) * 2 / width, features * 2 / width


class Kernel(eqx.Module):
    """A positive semi-definite function of two inputs: `kernel(x, y)` is the matrix of all pairs of rows."""

    @abstractmethod
    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        """All pairs."""


class LinearKernel(Kernel):
    """Inner products: linear regression."""

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        return linear_kernel(x, y)


class TangentKernel(Kernel):
    """The first layer's tangent kernel of an infinitely wide two-layer ReLU network."""

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        return arc_cosine_tangent(x, y)


class FiniteWidthKernel(Kernel):
    """The tangent kernel of a drawn two-layer ReLU network; `key` draws its neurons."""

    key: PRNGKeyArray
    width: Any
    first_layer: Any
    read_out: Any

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        first, second = finite_width_kernels(self.key, self.width, x, y)
        return self.first_layer * first + self.read_out * second


class FiniteWidth(Model):
    """Tangent kernels of two-layer ReLU networks with `width` random neurons.

    The layers' kernels are added with the weights `first_layer` and `read_out`, their rates or squared initial scales:
    (1, 1) is the usual tangent kernel, (0, 1) random features, (1, 0) the first layer alone. They have width x
    inputs and width parameters. All three fields can be swept in one program. Raises `InvalidValue` for a width
    below 1 or negative weights.

    >>> kernel = FiniteWidth(width=3)(jax.random.key(0), inputs=2, outputs=1)
    >>> kernel(jnp.ones((4, 2)), jnp.ones((5, 2))).shape
    (4, 5)
    """

    width: float = 100.0
    first_layer: float = 1.0
    read_out: float = 1.0

    def __check_init__(self):
        require_between("width", self.width, 1)
        require_between("the first layer's weight", self.first_layer, 0.0)
        require_between("the read-out's weight", self.read_out, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> FiniteWidthKernel:
        return FiniteWidthKernel(key, self.width, self.first_layer, self.read_out)
