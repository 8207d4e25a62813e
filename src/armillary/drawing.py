"""A traced draw without its random integers: they are worked out in NumPy and handed to it.

Random numbers are most of what a draw compiles, and compiling takes a hundred times longer than drawing. The integers, and
all that is done with keys to get them, follow from the keys alone; `armillary.threefry` gives the same ones bit for bit.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array

from armillary import threefry
from armillary.dependence import variables
from armillary.members import is_key
from armillary.threefry import Words

FEW = 1 << 16
"""Numbers of one call, for one key, up to which they are worked out here: more are drawn faster than they are handed over."""


class Step(NamedTuple):
    """Keys or integers worked out of keys, each with a leading axis for the members' seeds."""

    result: Var
    work: Callable[[Words], Words]
    keys: Var


@dataclass(frozen=True, eq=False)
class Draw:
    """A traced program of keys and other arrays, with its random integers as inputs.

    - `program`: of (`handed`..., other arrays...), with the constants given last (see `draw_of`) still open.
    - `keys`: the variables of the keys; `steps`: how `handed` is worked out of them.
    """

    program: Jaxpr
    constants: tuple[Any, ...]
    keys: tuple[Var, ...]
    steps: tuple[Step, ...]
    handed: tuple[Var, ...]

    @property
    def words(self) -> int:
        """32-bit words that are handed over for one member."""
        return sum(map(_words, self.handed))

    def arrays(self, *keys: Words) -> list[np.ndarray]:
        """What `program` is handed for keys of shape (seeds, 2) each, with a leading axis for the seeds; a key is two words."""
        known = dict(zip(self.keys, keys, strict=True))
        for result, work, source in self.steps:
            known[result] = work(known[source])
        return [known[var] for var in self.handed]

    def numbers(self, *keys: Words) -> Words:
        """The same as words: an array (seeds, words)."""
        seeds = len(keys[0])
        parts = [np.ascontiguousarray(array).reshape(seeds, -1) for array in self.arrays(*keys)]
        return np.concatenate([np.zeros((seeds, 0), np.uint32), *map(_as_words, parts)], 1)

    def integers(self, numbers: Array) -> list[Array]:
        """What `program` is handed, of one member's words."""
        parts, first = [], 0
        for var in self.handed:
            part = lax.slice(numbers, (first,), (first + _words(var),))
            first += _words(var)
            parts.append(_of_words(part, var.aval))
        return parts

    def closed(self, constants: Sequence[Array]) -> ClosedJaxpr:
        """The program of (`handed`..., other arrays...) with its open constants given."""
        return ClosedJaxpr(self.program, [*self.constants, *constants])


def draw_of(program: ClosedJaxpr, constants: int, keys: int) -> Draw:
    """A program of so many arrays that will be constants, so many keys, and others.

    >>> import jax, jax.numpy as jnp
    >>> from armillary import threefry
    >>> def noise(scale, key, power):
    ...     return scale * jax.random.normal(key, (3,)) ** power
    >>> traced = jax.make_jaxpr(noise)(jnp.ones(()), jax.random.key(0), 2.0)
    >>> draw = draw_of(traced, constants=1, keys=1)
    >>> [words] = draw.numbers(threefry.key_of(0)[None])
    >>> squares = jax.extend.core.jaxpr_as_fun(draw.closed([jnp.ones(())]))(*draw.integers(jnp.asarray(words)), 2.0)[0]
    >>> np.allclose(squares, noise(1.0, jax.random.key(0), 2.0))
    True
    """
    jaxpr, ends = program.jaxpr, constants + keys
    fixed, own, others = jaxpr.invars[:constants], jaxpr.invars[constants:ends], jaxpr.invars[ends:]
    work = _Lifting(set(own))
    results = work.of(jaxpr, {})
    work.hand_keys(results)
    effects = frozenset().union(*(equation.effects for equation in work.kept))
    about = jaxpr.debug_info.with_unknown_names()
    rest = Jaxpr([*jaxpr.constvars, *fixed], [*work.handed, *others], results, work.kept, effects, about)
    return Draw(rest, tuple(program.consts), tuple(own), tuple(work.steps), tuple(work.handed))


class _Lifting:
    """Takes a program apart: what is worked out of `keys` alone, and the equations that are kept."""

    def __init__(self, keys: set[Var]):
        self._keys = keys
        self.kept: list[JaxprEqn] = []
        self.steps: list[Step] = []
        self.handed: dict[Var, None] = {}

    def of(self, jaxpr: Jaxpr, names: dict[Var, Any]) -> list[Any]:
        """The equations of a program, `names` being what its variables are called outside; returns its results."""
        called = lambda atom: atom if isinstance(atom, Literal) else names.get(atom, atom)
        for equation in _needed(jaxpr):
            atoms = [called(atom) for atom in equation.invars]
            keyed = [var for var in variables(atoms) if var in self._keys]
            inner = equation.params.get("jaxpr") if equation.primitive.name == "jit" else None
            work = _work(equation) if keyed else None
            if keyed and inner is not None and not inner.consts:
                results = self.of(inner.jaxpr, dict(zip(inner.jaxpr.invars, atoms, strict=True)))
                names.update(zip(equation.outvars, results, strict=True))
                continue
            fresh = [Var(var.aval) for var in equation.outvars]  # a function may be called twice
            names.update(zip(equation.outvars, fresh, strict=True))
            if work:
                self.steps.append(Step(fresh[0], work, keyed[0]))
                (self._keys.add if is_key(fresh[0].aval) else self.handed.setdefault)(fresh[0])
            else:
                self.hand_keys(keyed)
                self.kept.append(equation.replace(invars=atoms, outvars=fresh))
        return [called(atom) for atom in jaxpr.outvars]

    def hand_keys(self, atoms: Sequence[Any]) -> None:
        """Keys that the program itself needs."""
        self.handed.update((var, None) for var in variables(atoms) if var in self._keys)


def _needed(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The equations on which results depend: what nobody wants need not be drawn."""
    wanted, needed = set(variables(jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not wanted.isdisjoint(equation.outvars):
            needed.append(equation)
            wanted.update(variables(equation.invars))
    return reversed(needed)


def _work(equation: JaxprEqn) -> Callable[[Words], Words] | None:
    """What an equation does with the words of its first input, keys; None for what stays in the program."""
    given, kind, settings = equation.params, equation.primitive.name, cast(Any, jax.config)
    keys, *others = equation.invars
    if not settings.jax_threefry_partitionable or not is_key(keys.aval):
        return None
    if kind == "random_split":
        return lambda keys: threefry.split(keys, given["shape"])
    if kind == "random_fold_in" and isinstance(number := others[0], Literal):
        return lambda keys: threefry.fold_in(keys, number.val)
    if kind == "random_bits" and math.prod(_shape(equation.outvars[0])) <= FEW:
        return lambda keys: threefry.bits(keys, given["bit_width"], given["shape"])
    if kind == "slice":
        steps = given["strides"] or [1] * len(given["start_indices"])
        cut = tuple(map(slice, given["start_indices"], given["limit_indices"], steps))
        return lambda keys: keys[:, *cut]
    if kind == "squeeze":
        return lambda keys: keys.squeeze(tuple(axis + 1 for axis in given["dimensions"]))
    return None


def _shape(var: Var) -> tuple[int, ...]:
    return cast(Any, var.aval).shape


def _words(var: Var) -> int:
    """How many words are handed over for a variable: integers of 64 bits and keys have two."""
    kind = cast(Any, var.aval)
    return math.prod(kind.shape) * (2 if is_key(kind) or kind.dtype == np.uint64 else 1)


def _as_words(integers: Words) -> Words:
    """Integers of one row each, of any width, as words: those of 64 bits as pairs, the low word first."""
    if integers.dtype != np.uint64:
        return integers.astype(np.uint32, copy=False)
    pairs = np.stack([integers & np.uint64(0xFFFFFFFF), integers >> np.uint64(32)], -1)
    return pairs.astype(np.uint32).reshape(len(integers), -1)


def _of_words(words: Array, kind: Any) -> Array:
    """The integers, or keys, of a shape and type that these words stand for."""
    if is_key(kind):
        return jax.random.wrap_key_data(words.reshape(*kind.shape, 2), impl=threefry.NAME)
    if kind.dtype == np.uint64:
        low, high = words.astype(kind.dtype).reshape(-1, 2).T
        return (high << 32 | low).reshape(kind.shape)
    return words.astype(kind.dtype).reshape(kind.shape)
