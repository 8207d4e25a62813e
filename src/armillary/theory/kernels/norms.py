"""Kernels of pairs of inputs on their way through the layers, and the variances of single inputs that layers ask for."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array


class Pair(NamedTuple):
    """Covariance and tangent kernel of the signals of pairs of inputs."""

    nngp: Array
    ntk: Array


class Norms:
    """Variances of single inputs at each place that asks for them, recorded in a first pass and read in later ones.

    `axes` is the number of spatial axes, `full` whether all pairs of positions are kept.
    """

    def __init__(self, axes: int, *, full: bool, known: Sequence[tuple[Array, Array]] | None = None):
        self.axes, self.full, self.record = axes, full, []
        self._known = None if known is None else iter(known)

    @property
    def alone(self) -> bool:
        """Whether this is the first pass: each input with itself."""
        return self._known is None

    def of(self, nngp: Array) -> tuple[Array, Array]:
        """Variances of the left and of the right input, in shapes that broadcast with `nngp`."""
        if self._known is None:
            found = self.diagonal(nngp)
            self.record.append(found)
            left = right = found
        else:
            left, right = next(self._known)
            left, right = jnp.expand_dims(left, 1), jnp.expand_dims(right, 0)
        if self.full:
            places = range(left.ndim - self.axes, left.ndim)
            left = jnp.expand_dims(left, [2 * p - places[0] + 1 for p in places])
            right = jnp.expand_dims(right, [2 * p - places[0] for p in places])
        return left, right

    def diagonal(self, values: Array) -> Array:
        """The entries at equal positions."""
        if not self.full:
            return values
        first = values.ndim - 2 * self.axes
        for _ in range(self.axes):  # what is taken goes to the end: the next pair of axes is then the first
            values = jnp.diagonal(values, axis1=first, axis2=first + 1)
        return values

    def at_same(self, values: Array, exact: Array) -> Array:
        """`values` with their entries at equal positions replaced: what rounding leaves of a correlation of 1 is not 1."""
        if not self.alone:
            return values
        if not self.full or not self.axes:
            return exact
        same = jnp.ones((1,) * (2 * self.axes), bool)
        for axis in range(self.axes):
            length = values.shape[values.ndim - 2 * (self.axes - axis)]
            shape = [1] * (2 * self.axes)
            shape[2 * axis] = shape[2 * axis + 1] = length
            same = same & jnp.eye(length, dtype=bool).reshape(shape)
        first = exact.ndim - self.axes
        return jnp.where(same, jnp.expand_dims(exact, [first + 2 * a + 1 for a in range(self.axes)]), values)
