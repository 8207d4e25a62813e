"""Members of a run: many copies of one program that differ in their seed and in some numbers.

Members run one after another inside one compiled loop, `width` at a time side by side. What a member's
draw hands through untouched (a fixed data set) is kept once for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

MANY = 9
"""Arrays of one shape and type from which on `packed` makes one of them."""


def over_members(function: Callable[..., PyTree], width: int, *args: PyTree) -> PyTree:
    """`function` applied to each member of `args`, whose arrays have a leading member axis.

    `width` members are done side by side (vmap), the groups one after another (lax.map): a group's state then
    stays in cache on a CPU, while a GPU wants them all at once. Must be called while tracing; the number of
    members must be a multiple of `width`. What is no array passes through and must not differ.
    """
    arrays, static = eqx.partition(args, eqx.is_array)
    rest: list[PyTree] = []

    def body(member: PyTree) -> PyTree:
        out, other = eqx.partition(function(*eqx.combine(member, static)), eqx.is_array)
        rest.append(other)
        return out

    count = jax.tree.leaves(arrays)[0].shape[0]
    if width == 1:
        out = lax.map(body, arrays)
    elif width >= count:
        out = jax.vmap(body)(arrays)
    else:
        groups = jax.tree.map(lambda a: a.reshape(-1, width, *a.shape[1:]), arrays)
        out = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), lax.map(jax.vmap(body), groups))
    return eqx.combine(out, rest[-1])


class Pack(eqx.Module):
    """Arrays of one shape and type as one, with a leading axis; it stands where the first of them was."""

    arrays: Array


@dataclass(frozen=True)
class InPack:
    """Stands where another of them was: the tree's `pack`-th pack has it, at `place`."""

    pack: int
    place: int


def packed(tree: PyTree, together: Callable[[list[Any]], Array] = jnp.stack) -> PyTree:
    """The tree with arrays that are many and alike (a deep network's layers) as one, put `together`.

    For what enters and leaves a loop over members: XLA compiles a piece of code for each array at either end, which took
    most of the compilation of deep networks' draws.
    """
    leaves, structure = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = {}
    for index, leaf in enumerate(leaves):
        if eqx.is_array(leaf) and not is_key(leaf):
            alike.setdefault((leaf.shape, leaf.dtype), []).append(index)
    groups = [indices for indices in alike.values() if len(indices) >= MANY]  # in the order of the tree
    for pack, indices in enumerate(groups):
        arrays = together([leaves[index] for index in indices])
        for place, index in enumerate(indices):
            leaves[index] = InPack(pack, place) if place else Pack(arrays)
    return jax.tree.unflatten(structure, leaves)


def unpacked(tree: PyTree) -> PyTree:
    """The tree that was `packed`."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, Pack))
    packs = [leaf.arrays for leaf in leaves if isinstance(leaf, Pack)]
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Pack):
            leaves[index] = leaf.arrays[0]
        elif isinstance(leaf, InPack):
            leaves[index] = packs[leaf.pack][leaf.place]
    return jax.tree.unflatten(structure, leaves)


class Drawn(eqx.Module):
    """A process drawn for many members: `own` has a leading member axis (each member's part is `packed`), `shared` is the
    same for all."""

    own: PyTree
    shared: PyTree

    def whole(self, own: PyTree) -> Any:
        """One member's process, from its part of `own`."""
        return eqx.combine(unpacked(own), self.shared)


def as_arrays(tree: PyTree, dtype: Any) -> PyTree:
    """Floats as arrays of `dtype`, so that another value is no other program; integers and the rest stay."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, float) or (eqx.is_inexact_array_like(leaf) and not isinstance(leaf, int | bool)):
            return jax.device_put(np.asarray(leaf, dtype))  # a copy, not a program
        return leaf

    return jax.tree.map(convert, tree)


def rows_of_block(count: int, first: int, size: int) -> np.ndarray:
    """Indices of a block of `count` rows from `first` on; the last one is filled up, so that all have one program."""
    return np.minimum(np.arange(first, first + min(size, count)), count - 1)


def bytes_of(tree: PyTree) -> int:
    """The memory of all arrays (or array shapes) of a tree."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype") and hasattr(leaf, "size")]
    return sum(leaf.size * jax.dtypes.itemsize_bits(leaf.dtype) // 8 for leaf in leaves if not is_key(leaf))


def is_key(leaf: Any) -> bool:
    """Whether an array (or an array's shape) is of random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
