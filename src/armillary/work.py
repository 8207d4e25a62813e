"""How much a traced program works out, which decides how carefully it is worth compiling."""

import math
from typing import Any

DRAWN = 100
"""Operations in which a random number is worked out."""


def operations(jaxpr: Any) -> float:
    """Elementary operations of one pass through a traced program (a `jax.core.Jaxpr`, closed or not).

    A loop of known length counts with its length, one whose end is found out while it runs counts once; of branches
    the longest counts. Factorisations count as their results alone: they are library calls, which no compiler changes.

    >>> import jax, jax.numpy as jnp
    >>> operations(jax.jit(lambda a, b: jnp.sin(a @ b)).trace(jnp.ones((2, 3)), jnp.ones((3, 4))).jaxpr)
    56.0
    """
    return sum(_of_equation(one) for one in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _of_equation(equation: Any) -> float:
    kind, parameters = equation.primitive.name, equation.params
    inner = [operations(part) for part in programs_within(parameters)]
    if kind == "cond":
        return max(inner)
    if inner:
        return parameters.get("length", 1) * sum(inner)
    results = sum(math.prod(getattr(one.aval, "shape", ())) for one in equation.outvars)
    if kind == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return 2.0 * results * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = parameters["dimension_numbers"].rhs_spec[0]
        return 2.0 * results * math.prod(kernel) / kernel[features]
    return float(DRAWN * results if kind in ("threefry2x32", "random_bits") else results)


def equations(jaxpr: Any) -> int:
    """How many equations a traced program has, those of the programs within included.

    >>> import jax, jax.numpy as jnp
    >>> equations(jax.jit(lambda a, b: jnp.sin(a @ b)).trace(jnp.ones((2, 3)), jnp.ones((3, 4))).jaxpr)
    2
    """
    ours = getattr(jaxpr, "jaxpr", jaxpr).eqns
    return sum(1 + sum(equations(part) for part in programs_within(one.params)) for one in ours)


def programs_within(parameters: Any) -> list[Any]:
    """The programs that an operation runs: the bodies of loops, the branches, the functions called."""
    values = [part for value in parameters.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]
