"""How many programs run at once, on how many cores, and who runs them.

On a CPU, XLA gives batched matrix factorisations (QR, SVD, ...) to a pool of threads and waits for them on a
thread of that same pool. Two at once on a machine of two cores wait for each other for ever (seen with jax
0.10; the library's own issue list has more). Two rules avoid it:

- Within a program operations run one after another (`armillary.compiled` asks for that schedule).
- Each program then waits with one thread of the pool at most, so programs run side by side only where the pool has
  one thread more than there are cores. (With as many threads as programs they stop within seconds; more threads than
  needed cost time, for idle ones spin.) The environment variable NPROC tells XLA how many; the command line sets it
  for its own process before JAX is loaded. Elsewhere `simulate` runs one program at a time, and XLA spreads large
  products over the cores.
"""

import functools
import importlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

import jax

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

PATIENCE = 0.05
"""Seconds after which a helper that waits for a core looks whether it is still wanted."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side() -> int:
    """How many programs may run at once."""
    pool = os.environ.get("NPROC", "")
    if jax.default_backend() != "cpu" or not pool.isdigit() or int(pool) < cores() + 1:
        return 1
    return cores()


@functools.cache
def _spare() -> threading.Semaphore:
    return threading.Semaphore(side_by_side() - 1)


@functools.cache
def _begin_threads() -> None:
    # JAX imports it when it first factorises, from inside: an import of `scipy.linalg` in another thread would
    # meet it halfway, and Python then gives up on both. What draws use imports parts of the same.
    for name in ("scipy.linalg.cython_blas", "scipy.special"):
        importlib.import_module(name)


def all_of(work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """`work` done on each item, in threads where programs may run side by side; the first error is raised.

    The caller takes items in turn, and so do helpers while there are cores to spare. Work may itself call `all_of`:
    there are never more programs at once than `side_by_side` allows, and nothing waits for a core to become free.
    """
    items = list(items)
    if side_by_side() == 1 or len(items) < 2:
        return [work(item) for item in items]
    _begin_threads()
    shared = _Shared(work, items)
    helpers = [
        threading.Thread(target=shared.help, args=(_spare(),), daemon=True)
        for _ in range(min(side_by_side(), len(items)) - 1)
    ]
    for helper in helpers:
        helper.start()
    shared.go_on()
    for helper in helpers:
        helper.join()
    return shared.outcomes()


class _Shared(Generic[Item, Outcome]):
    """Items that several threads take in turn."""

    def __init__(self, work: Callable[[Item], Outcome], items: list[Item]):
        self._work, self._left = work, deque(enumerate(items))
        self._found: dict[int, Outcome] = {}
        self._errors: dict[int, BaseException] = {}

    def help(self, spare: threading.Semaphore) -> None:
        """Take items whenever there is a core to spare."""
        while self._left:
            if spare.acquire(timeout=PATIENCE):
                with suppress(BaseException):  # it is kept, and the caller raises it
                    self.go_on()
                spare.release()

    def go_on(self) -> None:
        """Take items until there are none, or one failed."""
        while True:
            try:
                index, item = self._left.popleft()
            except IndexError:
                return
            try:
                self._found[index] = self._work(item)
            except BaseException as error:
                self._errors[index] = error
                self._left.clear()
                if not isinstance(error, Exception):  # an interruption does not wait for helpers
                    raise

    def outcomes(self) -> list[Outcome]:
        """In the order of the items; raises the first error."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._found[index] for index in sorted(self._found)]
