"""Functions compiled for each structure and each shapes of their arguments, as carefully as they are worth."""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax

from armillary.executables import executable
from armillary.work import equations, operations

_ONE_BY_ONE = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Operations run one after another: without it programs could not run side by side (see `armillary.cores`)."""

LIGHT = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""For what is small: compiled in three fifths of the time; arithmetic on large batches then takes up to twice as long."""

FASTEST = {**LIGHT, "xla_backend_optimization_level": 0}
"""For what runs now and then: compiled in a quarter of the time, but rounded differently inside a loop and outside."""

KEPT = 32
"""Programs of a function that stay. One takes up to 30 MB, and a study may have hundreds of shapes."""


class Form(NamedTuple):
    """What arguments are but for the values of their arrays; these have `shapes` and types, in the order of the tree."""

    tree: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    rest: Any
    constants: tuple[Any, ...]

    def whole(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments of this form with these arrays."""
        return eqx.combine(jax.tree.unflatten(self.tree, leaves), jax.tree.unflatten(self.rest, self.constants))


def form_of(*args: Any) -> tuple[Form, list[Any]]:
    """The form of arguments, and their arrays (or arrays' shapes); what is no array must be hashable."""
    arrays, static = eqx.partition(args, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))
    leaves, tree = jax.tree.flatten(arrays)
    constants, rest = jax.tree.flatten(static)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return Form(tree, shapes, rest, tuple(constants)), leaves


class Compiled:
    """`function` compiled for each structure and each shapes of its arguments: equinox's `filter_jit`, but it lets
    go of programs that are no longer used, and `bind` takes the looking at structures out of a loop.

    Arrays are traced; everything else in the arguments is a constant of the program and must be hashable.
    `options` are XLA's, such as `LIGHT`.
    """

    def __init__(
        self, function: Callable[..., Any], options: Mapping[str, Any] = MappingProxyType({}), *, kept: int = KEPT
    ):
        self._program = functools.lru_cache(kept)(self._made)
        self._lookup = threading.Lock()
        self._function, self._options = function, options

    def _made(self, form: "Form") -> "_Program":
        outcome: list[Any] = []

        def run(leaves: list[jax.Array]) -> list[jax.Array]:
            returned, other = eqx.partition(self._function(*form.whole(leaves)), eqx.is_array)
            arrays, kind = jax.tree.flatten(returned)
            outcome[:] = [kind, other]
            return arrays

        run.__name__ = self._function.__name__  # in logs and profiles
        return _Program(run, outcome, {}, [], threading.Lock())

    def bind(self, *args: Any) -> "Bound":
        """The program for arguments like these; where it is not to be called, arrays' shapes do."""
        form, leaves = form_of(*args)
        with self._lookup:
            return Bound(self._program(form), leaves, self._options)

    def __call__(self, *args: Any) -> Any:
        bound = self.bind(*args)
        return bound.whole(bound(bound.leaves))


class _Program(NamedTuple):
    """A function of lists of arrays, what else it returns and its extent (once it is traced), and its compiled forms."""

    run: Callable[[list[Any]], list[Any]]
    outcome: list[Any]
    forms: dict[tuple, Any]
    extent: list[float]
    first: threading.Lock


class Bound(NamedTuple):
    """A program with the arrays it was bound to: it takes and returns lists of arrays."""

    program: _Program
    leaves: list[jax.Array]
    options: Mapping[str, Any]

    def under(self, options: Mapping[str, Any]) -> "Bound":
        """The same, compiled with other `options`; it is not traced again."""
        return self._replace(options=options)

    def __call__(self, leaves: list[Any]) -> list[jax.Array]:
        form = self.program.forms.get(tuple(self.options.items()))
        if form is not None:
            return form(leaves)
        with self.program.first:  # compiled once, also when two threads want it
            form = self.program.forms.get(tuple(self.options.items())) or executable(
                self._function(), leaves, self.options
            )
            arrays = form(leaves)
            self.program.forms[tuple(self.options.items())] = form
            return arrays

    def _function(self) -> Any:
        return jax.jit(self.program.run, compiler_options={**_ONE_BY_ONE, **self.options})

    def whole(self, arrays: list[Any]) -> Any:
        """What the function returns, of the arrays that the program returned."""
        kind, other = self.program.outcome
        return eqx.combine(jax.tree.unflatten(kind, arrays), other)

    def shapes(self) -> Any:
        """What the function returns, with shapes in the place of arrays; a call then does not trace it again."""
        return self.whole(jax.tree.leaves(self._function().trace(self.leaves).out_info))

    def work(self) -> float:
        """Elementary operations of one pass (see `armillary.work`); a call then does not trace it again."""
        return self._extent()[0]

    def size(self) -> int:
        """Its number of equations, to which the time of compiling is about proportional."""
        return int(self._extent()[1])

    def _extent(self) -> list[float]:
        if not self.program.extent:
            traced = self._function().trace(self.leaves).jaxpr
            self.program.extent[:] = operations(traced), equations(traced)
        return self.program.extent
