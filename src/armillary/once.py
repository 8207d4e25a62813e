"""What is worked out once, such as the data of a numbered problem for a theory: in NumPy if that is quick, else compiled."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.errors import NonConcreteBooleanIndexError
from jaxtyping import PRNGKeyArray

from armillary import threefry
from armillary.compiled import FASTEST, Compiled, Form, form_of
from armillary.interpreter import GAVE_UP, Work, from_numpy, in_numpy, interpreted, is_quick


def once(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`; what of the arguments is no array must be hashable, and `function` one of a module's own.

    Traced once for each form of the arguments. Raises what `function` does, and `TypeError` for what JAX cannot trace.

    >>> def mean_square(x, power):
    ...     return {"mean": jnp.mean(x**power)}
    >>> float(once(mean_square, jnp.arange(4.0), 2)["mean"])
    3.5
    """
    form, leaves = form_of(*args)
    double = jnp.result_type(float) == np.float64  # which no argument need show
    try:
        plan = _plan(function, form, double)
    except TypeError:  # what is no array cannot be hashed: it is planned anew each time
        plan = _plan.__wrapped__(function, form, double)
    if plan.work is not None:
        try:
            with np.errstate(all="ignore"):
                found = plan.work(*map(in_numpy, leaves))
            return eqx.combine(jax.tree.unflatten(plan.tree, map(from_numpy, found, plan.kinds)), plan.rest)
        except (*GAVE_UP, NotImplementedError):  # the latter: keys of another generator
            pass
    return _compiled(function, double)(*args)


def in_one_go(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A method that draws, done by `once` unless it is part of a program: operation by operation JAX would compile each.

    What JAX cannot trace is still drawn so, and so is what has arguments that cannot be told from others or go by name only.
    Returns what `draw` does, with JAX arrays, to rounding; raises what it raises.
    """
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def drawn(*args: Any, **named: Any) -> Any:
        if named:
            bound = signature.bind(*args, **named)
            args, named = bound.args, bound.kwargs
        if named or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args)):
            return draw(*args, **named)
        try:
            return once(draw, *args)
        except (TypeError, NonConcreteBooleanIndexError):
            return draw(*args)

    return drawn


class _Plan(NamedTuple):
    """A function in NumPy (None: it is compiled), the shapes and tree of its arrays, and what else it returns."""

    work: Work | None
    kinds: list[Any]
    tree: Any
    rest: Any


@functools.lru_cache(32)
def _plan(function: Callable[..., Any], form: Form, double: bool) -> _Plan:
    program, shapes, rest = eqx.filter_make_jaxpr(function)(*form.whole(form.shapes))
    kinds, tree = jax.tree.flatten(shapes)
    return _Plan(interpreted(program) if is_quick(program) else None, kinds, tree, rest)


def drawn(task: Any, key: int | PRNGKeyArray = 0) -> Any:
    """A task's data, drawn with a key, or a seed's."""
    return task.draw(jax.random.key(key, impl=threefry.NAME) if isinstance(key, int) else key)


@functools.lru_cache(32)
def _compiled(function: Callable[..., Any], double: bool) -> Compiled:
    return Compiled(function, FASTEST)
