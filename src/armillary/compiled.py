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
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import equinox as eqx
import jax

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_ONE_BY_ONE = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

compiled: Any = functools.partial(cast(Any, eqx.filter_jit), compiler_options=_ONE_BY_ONE)
"""`equinox.filter_jit` for everything that Armillary runs."""

compiled_fast: Any = functools.partial(
    cast(Any, eqx.filter_jit), compiler_options={**_ONE_BY_ONE, "xla_backend_optimization_level": 0}
)
"""The same for what runs once or now and then: less optimised, compiled in less time."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side() -> int:
    """How many programs may run at once."""
    pool = os.environ.get("NPROC", "")
    if jax.default_backend() != "cpu" or not pool.isdigit() or int(pool) < 2 * cores() + 2:
        return 1
    return cores()


def all_of(work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """`work` done on each item, in threads where programs may run side by side; the first error is raised."""
    items = list(items)
    if side_by_side() == 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(side_by_side()) as threads:
        return list(threads.map(work, items))
