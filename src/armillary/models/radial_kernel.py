"""Kernels that depend on the distance of two inputs' directions alone, singular ones too, as logarithms in a table."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from armillary.errors import InvalidValue, require_between
from armillary.models.tangent_kernel import Kernel

NODES = 2048
"""Of the table, even in the logarithm of the gap."""

NEAREST, FARTHEST = -69.0, float(np.log(2.0))
"""Logarithms of the smallest gap 1 - cosine that is told from 0 in float64, about 1e-30, and of the largest."""

STEEP = 1e6
"""The order that stands for an infinite one: of two distances that differ by 2e-5 of themselves, the farther one counts as 0."""


def table_of_gaps() -> Float[np.ndarray, " node"]:
    """The gaps 1 - cosine at which a `RadialKernel` is given."""
    return np.minimum(np.exp(np.linspace(NEAREST, FARTHEST, NODES)), 2.0)


class RadialKernel(Kernel):
    """A function of 1 - cosine: `sizes`, log |k|, and `signs` at the gaps of `table_of_gaps`, linear between them in log-log.

    Where k grows without bound as inputs approach, it is inf at equal ones. All kernels of the kind share a program. Raises
    `InvalidValue` for a table of another length.
    """

    sizes: Any
    signs: Any

    def __init__(self, sizes: Any, signs: Any):
        for name, table in (("sizes", sizes), ("signs", signs)):
            if hasattr(table, "shape") and table.shape[-1:] != (NODES,):
                raise InvalidValue(
                    f"{name} has shape {table.shape}, but must be a value for each of the {NODES} table_of_gaps()"
                )
        self.sizes, self.signs = sizes, signs

    def logarithm(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> tuple[Array, Array]:
        """log |k| and the sign of k, [left, right]."""
        near = gaps(x, y)
        sizes, signs = (jnp.asarray(table, near.dtype) for table in (self.sizes, self.signs))
        log = jnp.log(jnp.maximum(near, jnp.finfo(near.dtype).tiny))
        place = jnp.clip((log - NEAREST) / (FARTHEST - NEAREST), 0.0, 1.0) * (NODES - 1)
        node = jnp.minimum(place.astype(jnp.int32), NODES - 2)
        share = place - node
        size = (1 - share) * sizes[node] + share * sizes[node + 1]
        size = jnp.where((near == 0) & (sizes[0] > sizes[1]), jnp.inf, size)
        return size, signs[jnp.round(place).astype(jnp.int32)]

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Float[Array, "left right"]:
        size, sign = self.logarithm(x, y)
        return sign * jnp.exp(size)


def gaps(x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Float[Array, "left right"]:
    """1 - cosine of all pairs, by the squared distance of the directions, which keeps its digits where they are near; 0 where
    they are the same to rounding."""
    left, right = (a / jnp.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    near = jnp.sum((left[:, None] - right) ** 2, axis=-1) / 2
    return jnp.where(near > (8 * jnp.finfo(near.dtype).eps) ** 2, jnp.minimum(near, 2.0), 0.0)


def distance_kernel(order: float) -> RadialKernel:
    """|x - x'|^(-order) of two unit vectors: at order 0 a vote is the majority's, at the data's dimension the Hilbert estimate
    (Devroye, Györfi & Krzyżak 1998), and at inf the nearest neighbour's. Raises `InvalidValue` for a negative order.

    >>> kernel = distance_kernel(2)
    >>> print(kernel(jnp.eye(2), jnp.eye(2)[:1]).round(3).T)
    [[inf 0.5]]
    """
    require_between("the order", order, 0.0)
    sizes = -min(order, STEEP) / 2 * np.log(2 * table_of_gaps())
    return RadialKernel(sizes, np.ones_like(sizes))
