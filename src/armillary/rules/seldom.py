"""What a rule does at few of its steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PyTree


def where_due(due: bool | Bool[Array, ""], work: Callable[[Any], Any], state: PyTree) -> PyTree:
    """`work(state)` where it is `due`, and else the `state` as it is, which has the same shapes and types.

    Members that run side by side (vmap) do the work only at steps where one of them is due. Of `lax.cond` they would compute
    both branches at every step, and out of a loop of one round or none XLA takes what does not depend on the round.

    >>> where_due(jnp.array(True), lambda x: 2 * x, jnp.ones(2)).tolist()
    [2.0, 2.0]
    """

    def done(state: PyTree) -> PyTree:
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), work(state), state)

    return lax.cond(_any_of(jnp.asarray(due)), done, lambda state: state, state)


@custom_vmap
def _any_of(due: Bool[Array, "..."]) -> Bool[Array, "..."]:
    return due


@_any_of.def_vmap
def _(size: int, batched: Any, due: Bool[Array, "..."]) -> tuple[Bool[Array, "..."], bool]:
    return _any_of(due.any(0)), False
