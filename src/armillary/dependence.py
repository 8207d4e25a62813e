"""A traced program in two halves: what some of its arguments have no part in, and the rest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


class Halves(NamedTuple):
    """Programs: `common` of the first inputs gives what `rest` of that and the other inputs goes on from."""

    common: ClosedJaxpr
    rest: ClosedJaxpr


def halves(program: ClosedJaxpr, first: int) -> Halves:
    """A traced program in two: what depends on its `first` inputs alone is worked out by itself.

    For a loop over the other inputs in which those are the same. Equations are told apart as they stand in the program: one
    that calls a function belongs to the rest with all of it.

    >>> import jax, jax.numpy as jnp
    >>> from jax.extend.core import jaxpr_as_fun
    >>> scaled = jax.make_jaxpr(lambda a, b: b * jnp.linalg.inv(a))(jnp.eye(2), 1.0)
    >>> common, rest = map(jaxpr_as_fun, halves(scaled, 1))
    >>> [inverse] = common(2 * jnp.eye(2))
    >>> rest(inverse, 3.0)[0].tolist()
    [[1.5, 0.0], [0.0, 1.5]]
    """
    inputs, outputs = program.jaxpr.invars, program.jaxpr.outvars
    touched: set[Var] = set(inputs[first:])
    parts: tuple[list[JaxprEqn], list[JaxprEqn]] = [], []
    for equation in program.jaxpr.eqns:
        theirs = bool(equation.effects) or not touched.isdisjoint(variables(equation.invars))
        parts[theirs].append(equation)
        if theirs:
            touched.update(equation.outvars)
    wanted = [*(var for equation in parts[1] for var in equation.invars), *outputs]
    known = {*inputs[:first], *(var for equation in parts[0] for var in equation.outvars)}
    between = list(dict.fromkeys(var for var in variables(wanted) if var in known))
    return Halves(
        _part(program, inputs[:first], between, parts[0]),
        _part(program, [*between, *inputs[first:]], outputs, parts[1]),
    )


def variables(atoms: Sequence[Any]) -> list[Var]:
    """Those of a program's atoms that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _part(
    program: ClosedJaxpr, inputs: Sequence[Var], outputs: Sequence[Any], equations: list[JaxprEqn]
) -> ClosedJaxpr:
    effects = frozenset().union(*(equation.effects for equation in equations))
    names = program.jaxpr.debug_info.with_unknown_names()
    return ClosedJaxpr(Jaxpr(program.jaxpr.constvars, inputs, outputs, equations, effects, names), program.consts)
