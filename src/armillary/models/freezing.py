"""Numbers inside a network that no rule trains."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PyTree


class Frozen(eqx.Module):
    """An array that stays: its bits are kept as whole numbers, which no rule trains, decays or perturbs.

    `value` is the array. A gradient that is stopped would not do: weight decay shrinks what has no gradient.

    >>> float(Frozen(jnp.float32(0.25)).value)
    0.25
    """

    bits: Integer[Array, "..."]
    kind: str = eqx.field(static=True)

    def __init__(self, value: Any):
        value = jnp.asarray(value, jnp.result_type(float))
        self.kind = str(value.dtype)
        self.bits = jax.lax.bitcast_convert_type(value, jnp.dtype(f"int{8 * value.dtype.itemsize}"))

    @property
    def value(self) -> Array:
        """The array itself."""
        return jax.lax.bitcast_convert_type(self.bits, jnp.dtype(self.kind))


class _Kept(eqx.Module):
    """What was frozen before the rest of its tree was, and stays so after."""

    node: Frozen


def frozen(tree: PyTree) -> PyTree:
    """A tree with all its floating-point arrays frozen."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, Frozen):
            return _Kept(leaf)
        return Frozen(leaf) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, Frozen))


def thawed(tree: PyTree) -> PyTree:
    """A tree as it was before `frozen`."""

    def of(node: Any) -> Any:
        if isinstance(node, _Kept):
            return node.node
        return node.value if isinstance(node, Frozen) else node

    return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, Frozen | _Kept))
