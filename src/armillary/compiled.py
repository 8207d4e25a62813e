"""How Armillary compiles and on how many cores it runs.

On a CPU, XLA gives batched matrix factorisations (QR, SVD, ...) to a pool of threads and waits for them on a
thread of that same pool. Two at once on a machine of two cores wait for each other for ever (seen with jax
0.10; the library's own issue list has more). Two rules avoid it:

- Within a program operations run one after another (`compiled` below asks for that schedule).
- Each program then waits with one thread of the pool at most, so programs run side by side only where the pool has
  threads to spare: twice as many as there are cores, and two. The environment variable NPROC tells XLA how many;
  the command line sets it for its own process before JAX is loaded. Elsewhere `simulate` runs one program at a
  time, and XLA spreads large products over the cores.
"""

import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax

from armillary.work import operations

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_CREW = "armillary"

_ONE_BY_ONE = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
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

    def _made(self, tree: Any, shapes: Any, rest: Any, static: tuple) -> "_Program":
        outcome: list[Any] = []

        def run(leaves: list[jax.Array]) -> list[jax.Array]:
            args = eqx.combine(jax.tree.unflatten(tree, leaves), jax.tree.unflatten(rest, static))
            returned, other = eqx.partition(self._function(*args), eqx.is_array)
            arrays, kind = jax.tree.flatten(returned)
            outcome[:] = [kind, other]
            return arrays

        run.__name__ = self._function.__name__  # in logs and profiles
        return _Program(run, outcome, {}, threading.Lock())

    def bind(self, *args: Any) -> "Bound":
        """The program for arguments like these; where it is not to be called, arrays' shapes do."""
        arrays, static = eqx.partition(args, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))
        leaves, tree = jax.tree.flatten(arrays)
        constants, rest = jax.tree.flatten(static)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        with self._lookup:
            return Bound(self._program(tree, shapes, rest, tuple(constants)), leaves, self._options)

    def __call__(self, *args: Any) -> Any:
        bound = self.bind(*args)
        return bound.whole(bound(bound.leaves))


class _Program(NamedTuple):
    """A function of lists of arrays, what else it returns (once it is traced), and its compiled forms."""

    run: Callable[[list[Any]], list[Any]]
    outcome: list[Any]
    forms: dict[tuple, Any]
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
            form = self._form()
            arrays = form(leaves)
            self.program.forms[tuple(self.options.items())] = form
            return arrays

    def _form(self) -> Any:
        known = self.program.forms.get(tuple(self.options.items()))
        return known or jax.jit(self.program.run, compiler_options={**_ONE_BY_ONE, **self.options})

    def whole(self, arrays: list[Any]) -> Any:
        """What the function returns, of the arrays that the program returned."""
        kind, other = self.program.outcome
        return eqx.combine(jax.tree.unflatten(kind, arrays), other)

    def shapes(self) -> Any:
        """What the function returns, with shapes in the place of arrays; a call then does not trace it again."""
        return self.whole(jax.tree.leaves(self._form().trace(self.leaves).out_info))

    def work(self) -> float:
        """Elementary operations of one pass (see `armillary.work`); a call then does not trace it again."""
        return operations(self._form().trace(self.leaves).jaxpr)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side() -> int:
    """How many programs may run at once."""
    pool = os.environ.get("NPROC", "")
    if jax.default_backend() != "cpu" or not pool.isdigit() or int(pool) < 2 * cores() + 2:
        return 1
    return cores()


@functools.cache
def _crew() -> ThreadPoolExecutor:
    """The threads in which programs run; no others run any while these do."""
    # JAX imports it when it first factorises, from inside: an import of `scipy.linalg` in another thread would
    # meet it halfway, and Python then gives up on both.
    importlib.import_module("scipy.linalg.cython_blas")
    return ThreadPoolExecutor(side_by_side(), thread_name_prefix=_CREW)


def all_of(work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """`work` done on each item, in threads where programs may run side by side; the first error is raised.

    Work may itself call `all_of`: what no idle thread has taken then runs in the caller's own, so that there are
    never more programs at once than `side_by_side` allows, and nothing waits for a thread to become free.
    """
    items = list(items)
    if side_by_side() == 1 or len(items) < 2:
        return [work(item) for item in items]
    futures = [_crew().submit(work, item) for item in items]
    try:
        if not threading.current_thread().name.startswith(_CREW):
            return [future.result() for future in futures]
        # The crew takes items from the front, the caller from the back.
        mine = {i: work(items[i]) for i in reversed(range(len(items))) if futures[i].cancel()}
        return [mine[i] if i in mine else future.result() for i, future in enumerate(futures)]
    finally:
        for future in futures:
            future.cancel()
