"""Work in processes of its own, one a core: tracing and lowering are Python's, which keeps one core of a process busy.

The processes are forked, so that nothing is imported twice. That is safe only while there is one thread, which is before
JAX's backend has begun; where it is not (`can_fork`), the caller works in threads, as in `armillary.cores`.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from typing import Any, Self

from armillary.cores import cores
from armillary.errors import ArmillaryError
from armillary.progress import Progress

Work = Callable[[Any, Progress], Any]

SIGNS_EVERY = 0.2
"""Seconds between two signs of progress that a process sends."""

PR_SET_PDEATHSIG = 1


def can_fork() -> bool:
    """Whether this process can be forked, and the copies have a core each.

    Not on a machine with JAX for accelerators: each process would want the whole device.
    """
    if sys.platform != "linux" or cores() < 2:
        return False
    accelerated = find_spec("jax_plugins") is not None and os.environ.get("JAX_PLATFORMS") != "cpu"
    return not accelerated and len(os.listdir("/proc/self/task")) == 1


class Apart:
    """Processes for work on items, one a core; each calls `begin` first. Use as a context, made while `can_fork` holds.

    A process does one thing at a time, so that no two threads of it wait for Python. Work, items, results and
    errors go through pipes, pickled. When this process ends, however it does, the others end.
    """

    def __init__(self, begin: Callable[[], None]):
        context = multiprocessing.get_context("fork")
        self._signs = context.SimpleQueue()
        self._pool = ProcessPoolExecutor(cores(), context, _enter, (begin, self._signs, os.getpid()))
        self._pool.submit(int)  # all are forked now, while there is one thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def begin(self, work: Work, items: Sequence[Any], progress: Progress) -> list[Future]:
        """`work(item, progress)` on each item, begun in this order; `outcome` has the results. Once only."""
        threading.Thread(target=self._listen, args=(progress,), daemon=True).start()
        return [self._pool.submit(_do, work, item) for item in items]

    def _listen(self, progress: Progress) -> None:
        advances: dict[Any, Callable[[float], None]] = {}
        while True:
            run, told = self._signs.get()
            if run in advances:
                advances[run](told)
            else:
                advances[run] = progress.begin(*told)


def outcome(future: Future) -> Any:
    """What a process returned; raises what it raised, and `ArmillaryError` where it is gone."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise ArmillaryError(
            "a process that ran an experiment was killed (out of memory?); the same command goes on from what is kept"
        ) from None


class Signs:
    """The progress of a process: tells its parent, now and then, and all when its work is done (`flush`)."""

    def __init__(self, queue: Any):
        self._queue, self._last = queue, 0.0
        self._untold: dict[tuple[int, int], float] = {}

    def begin(self, description: str, total: float) -> Callable[[float], None]:
        run = (os.getpid(), len(self._untold))
        self._untold[run] = 0.0
        self._queue.put((run, (description, total)))

        def advance(done: float) -> None:
            self._untold[run] += done
            if time.monotonic() - self._last > SIGNS_EVERY:
                self.flush()

        return advance

    def flush(self) -> None:
        """Tell what has not been told."""
        for run, done in self._untold.items():
            if done:
                self._queue.put((run, done))
                self._untold[run] = 0.0
        self._last = time.monotonic()


_signs: Signs | None = None


def _enter(begin: Callable[[], None], signs: Any, parent: int) -> None:
    """A process begins: it ends with its parent, and leaves Ctrl-C to it."""
    global _signs
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["NPROC"] = "1"  # one program at a time: each process has a core
    _signs = Signs(signs)
    begin()


def _do(work: Work, item: Any) -> Any:
    assert _signs is not None
    try:
        return work(item, _signs)
    finally:
        _signs.flush()
