"""A traced program in two halves: what some of its arguments have no part in, and the rest."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

Arrays = list[Any]


class Halves(NamedTuple):
    """Functions of arrays: `common(*first)` gives what `rest(*common's, *own)` goes on from."""

    common: Callable[..., Arrays]
    rest: Callable[..., Arrays]


def halves(function: Callable[..., Arrays], first: Sequence[Any], own: Sequence[Any]) -> Halves:
    """`function(*first, *own)`, of arrays of these shapes, in two: what does not depend on `own` is worked out by itself.

    For a loop over `own` in which `first` is the same. Equations are told apart as they stand in the program: one that calls
    a function belongs to the rest with all of it.

    >>> import jax.numpy as jnp
    >>> scaled = lambda a, b: [b * jnp.linalg.inv(a)]
    >>> common, rest = halves(scaled, [jnp.eye(2)], [jnp.ones(())])
    >>> [inverse] = common(2 * jnp.eye(2))
    >>> rest(inverse, 3.0)[0].tolist()
    [[1.5, 0.0], [0.0, 1.5]]
    """
    whole = jax.make_jaxpr(function)(*first, *own)
    inputs, outputs = whole.jaxpr.invars, whole.jaxpr.outvars
    touched: set[Var] = set(inputs[len(first) :])
    parts: tuple[list[JaxprEqn], list[JaxprEqn]] = [], []
    for equation in whole.jaxpr.eqns:
        theirs = bool(equation.effects) or not touched.isdisjoint(_variables(equation.invars))
        parts[theirs].append(equation)
        if theirs:
            touched.update(equation.outvars)
    wanted = [*(var for equation in parts[1] for var in equation.invars), *outputs]
    known = {*inputs[: len(first)], *(var for equation in parts[0] for var in equation.outvars)}
    between = list(dict.fromkeys(var for var in _variables(wanted) if var in known))
    return Halves(
        _function(whole, inputs[: len(first)], between, parts[0]),
        _function(whole, [*between, *inputs[len(first) :]], outputs, parts[1]),
    )


def _variables(atoms: Sequence[Any]) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _function(whole: ClosedJaxpr, inputs: Sequence[Var], outputs: Sequence[Any], equations: list[JaxprEqn]) -> Any:
    effects = frozenset().union(*(equation.effects for equation in equations))
    names = whole.jaxpr.debug_info.with_unknown_names()
    part = Jaxpr(whole.jaxpr.constvars, inputs, outputs, equations, effects, names)
    return jaxpr_as_fun(ClosedJaxpr(part, whole.consts))
