"""Traced programs worked out in NumPy, operation by operation: nothing is compiled for them.

For what is done once for each member of a run and is small, such as drawing it: compiling that takes a hundred times longer
than doing it. Results differ from a compiled program's in their last digits.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from armillary import threefry
from armillary.members import is_key
from armillary.numpy_rules import rule
from armillary.work import operations, programs_within

CALL, NUMBER, OPERATION, FACTOR = 5e-6, 5e-9, 2e-10, 2e-9
"""Seconds that NumPy takes for an operation on arrays, besides for each number of its results, for what is done for them
(multiplications of matrices; see `armillary.work`), and for each number and row of what is factorised."""

QUICK = 0.25
"""Seconds that compiling something small takes, so that it is not worth it for less."""

FACTORISATIONS = {"cholesky", "eigh", "qr", "svd", "triangular_solve"}

Arrays = list[Any]
Work = Callable[..., Arrays]


class TooLong(ArithmeticError):
    """A loop had more rounds than are worth it here."""


GAVE_UP = ValueError, TooLong
"""What a program raises that had better be compiled: `ValueError` is NumPy's, of a factorisation that fails for one."""


def interpreted(program: ClosedJaxpr) -> Work | None:
    """A traced program as a function of NumPy arrays (random keys: as in `armillary.numpy_rules`); None where NumPy lacks an
    operation of it.

    The function raises one of `GAVE_UP` where NumPy refuses (a factorisation that fails), or where loops that end nobody
    knows when have taken too long, all its calls together.

    >>> import jax, jax.numpy as jnp
    >>> program = jax.make_jaxpr(lambda x: jnp.linalg.cholesky(x.T @ x))(jnp.eye(2))
    >>> interpreted(program)(2 * np.eye(2, dtype=np.float32))[0].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    try:
        return _Interpreter().program(program)
    except NotImplementedError:
        return None


def is_quick(program: Any, times: int = 1) -> bool:
    """Whether so many passes through a traced program are done sooner in NumPy than compiled. Only on a CPU."""
    return jax.default_backend() == "cpu" and seconds(program) * times < QUICK


def seconds(program: Any) -> float:
    """About how long a traced program takes in NumPy."""
    return OPERATION * operations(program) + _calls(program)


def _calls(program: Any) -> float:
    total = 0.0
    for one in getattr(program, "jaxpr", program).eqns:
        inner = sum(map(_calls, programs_within(one.params)))
        numbers = sum(math.prod(getattr(var.aval, "shape", ())) for var in one.outvars)
        total += one.params.get("length", 1) * inner if inner else CALL + NUMBER * numbers
        if one.primitive.name in FACTORISATIONS:
            shape = one.invars[0].aval.shape
            total += FACTOR * math.prod(shape) * min(shape[-2:])
    return total


class _Interpreter:
    """Makes functions of programs, whose loops of unknown end together may take `left` seconds, by the estimate."""

    def __init__(self):
        self.left = QUICK

    def program(self, program: Any) -> Work:
        """A program as a list of functions, each with the places of what it takes and gives."""
        jaxpr, constants = getattr(program, "jaxpr", program), map(in_numpy, getattr(program, "consts", ()))
        places: dict[Any, int] = {}
        start: Arrays = []

        def place(atom: Any) -> int:
            if isinstance(atom, Literal):
                start.append(np.asarray(atom.val, cast(Any, atom.aval).dtype))
                return len(start) - 1
            if atom not in places:
                places[atom] = len(start)
                start.append(None)
            return places[atom]

        for var, value in zip(jaxpr.constvars, constants, strict=True):
            start[place(var)] = value
        inputs = list(map(place, jaxpr.invars))
        steps = [
            (self.function(one), tuple(map(place, one.invars)), tuple(map(place, one.outvars))) for one in jaxpr.eqns
        ]
        outputs = list(map(place, jaxpr.outvars))

        def work(*arrays: Any) -> Arrays:
            known = start.copy()
            for at, array in zip(inputs, arrays, strict=True):
                known[at] = array
            for function, taken, given in steps:
                results = function(*[known[at] for at in taken])
                if type(results) is not list:
                    known[given[0]] = results
                else:
                    for at, result in zip(given, results, strict=True):
                        known[at] = result
            return [known[at] for at in outputs]

        return work

    def function(self, equation: Any) -> Callable[..., Any]:
        """What an equation does."""
        kind, given = equation.primitive.name, equation.params
        for var in (*equation.invars, *equation.outvars):  # bfloat16 and its like are strangers to NumPy
            dtype = getattr(var.aval, "dtype", None)
            if dtype is None or (not is_key(var.aval) and np.dtype(dtype).kind not in "biufc"):
                raise NotImplementedError(dtype)
        if kind in _CALLS:
            return self.program(given[_CALLS[kind]])
        if kind in ("cond", "scan", "while"):
            return getattr(self, f"_{kind}")(**given)
        # `armillary.threefry` knows JAX's usual way of making many numbers of a key, and no other.
        other = kind.startswith("random_") and not cast(Any, jax.config).jax_threefry_partitionable
        try:
            found = None if other else rule(kind, given)
        except TypeError:  # another version's parameters, whose meaning is not known here
            found = None
        if found is None:
            raise NotImplementedError(kind)
        return found

    def _cond(self, branches: Sequence[Any], **_: Any) -> Work:
        ways = list(map(self.program, branches))
        return lambda which, *arrays: ways[min(max(int(which), 0), len(ways) - 1)](*arrays)

    def _scan(self, jaxpr: Any, length: int, reverse: bool, num_consts: int, num_carry: int, **_: Any) -> Work:
        if not length:
            raise NotImplementedError("a loop of no rounds")
        body, first = self.program(jaxpr), num_consts + num_carry

        def scan(*arrays: Any) -> Arrays:
            fixed, carry, given = arrays[:num_consts], list(arrays[num_consts:first]), arrays[first:]
            found: list[Arrays] = [[]] * length
            for index in reversed(range(length)) if reverse else range(length):
                results = body(*fixed, *carry, *(array[index] for array in given))
                carry, found[index] = results[:num_carry], results[num_carry:]
            return [*carry, *map(np.stack, zip(*found, strict=True))]

        return scan

    def _while(self, cond_jaxpr: Any, cond_nconsts: int, body_jaxpr: Any, body_nconsts: int) -> Work:
        goes_on, body = self.program(cond_jaxpr), self.program(body_jaxpr)
        each, first = seconds(cond_jaxpr) + seconds(body_jaxpr), cond_nconsts + body_nconsts

        def loop(*arrays: Any) -> Arrays:
            asked, fixed, carry = arrays[:cond_nconsts], arrays[cond_nconsts:first], list(arrays[first:])
            while np.any(more := goes_on(*asked, *carry)[0]):
                self.left -= each
                if self.left < 0:
                    raise TooLong
                after = body(*fixed, *carry)
                if more.ndim:  # several loops side by side: those that are done stay as they are
                    stay = lambda new, old, more=more: np.where(
                        more.reshape(more.shape + (1,) * (new.ndim - more.ndim)), new, old
                    )
                    after = list(map(stay, after, carry))
                carry = after
            return carry

        return loop


_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Operations that call a function, and which of their parameters it is."""


def in_numpy(constant: Any) -> Any:
    """An array of JAX's in NumPy; keys as integers."""
    if is_key(constant):
        if str(jax.random.key_impl(constant)) != threefry.NAME:
            raise NotImplementedError(constant.dtype)
        return threefry.as_integers(np.asarray(jax.random.key_data(constant)))
    return np.asarray(constant)


def from_numpy(array: Any, kind: jax.ShapeDtypeStruct) -> jax.Array:
    """A result as an array of JAX's, of the type that it has in the program."""
    if is_key(kind):
        return jax.random.wrap_key_data(jax.device_put(threefry.of_integers(array)), impl=threefry.NAME)
    return jax.device_put(np.asarray(array).astype(kind.dtype, copy=False))
