"""What is worked out once, such as the data of a numbered problem for a theory: in NumPy if that is quick, else compiled."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from armillary import threefry
from armillary.compiled import FASTEST, Compiled
from armillary.interpreter import GAVE_UP, from_numpy, in_numpy, interpreted, is_quick


def once(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`; what of the arguments is no array must be hashable, and `function` one of a module's own.

    >>> import jax.numpy as jnp
    >>> def mean_square(x, power):
    ...     return {"mean": jnp.mean(x**power)}
    >>> float(once(mean_square, jnp.arange(4.0), 2)["mean"])
    3.5
    """
    program, shapes, rest = eqx.filter_make_jaxpr(function)(*args)
    work = interpreted(program) if is_quick(program) else None
    if work is None:
        return _compiled(function)(*args)
    try:
        with np.errstate(all="ignore"):
            found = work(*map(in_numpy, jax.tree.leaves(eqx.filter(args, eqx.is_array))))
    except (*GAVE_UP, NotImplementedError):  # the latter: keys of another generator
        return _compiled(function)(*args)
    kinds, tree = jax.tree.flatten(shapes)
    return eqx.combine(jax.tree.unflatten(tree, map(from_numpy, found, kinds)), rest)


def drawn(task: Any, key: int | PRNGKeyArray = 0) -> Any:
    """A task's data, drawn with a key, or a seed's."""
    return task.draw(jax.random.key(key, impl=threefry.NAME) if isinstance(key, int) else key)


@functools.lru_cache(32)
def _compiled(function: Callable[..., Any]) -> Compiled:
    return Compiled(function, FASTEST)
