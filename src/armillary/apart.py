"""Work in processes of its own, one a core: tracing and lowering are Python's, which keeps one core of a process busy.

The processes are forked, so that nothing is imported twice. That is safe only while there is one thread, which is before
JAX's backend has begun; where it is not (`can_fork`), the caller works in threads, as in `armillary.cores`.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from typing import Any, Self

from armillary.cores import cores
from armillary.errors import ArmillaryError
from armillary.progress import Progress

Work = Callable[[Any, Progress], Any]
Kinds = Collection[Hashable]

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
    """Processes for work on items, one a core or `count`; each calls `begin` first. Use as a context, made while
    `can_fork` holds.

    A process does one thing at a time, so that no two threads of it wait for Python. Work, items, results and
    errors go through pipes, pickled. When this process ends, however it does, the others end.
    """

    def __init__(self, begin: Callable[[], None], count: int | None = None):
        context = multiprocessing.get_context("fork")
        self._signs = context.SimpleQueue()
        self._crew: list[tuple[BaseProcess, Any]] = []
        for _ in range(count or cores()):  # all are forked now, while there is one thread
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, begin, self._signs, os.getpid()), daemon=True)
            process.start()
            there.close()
            self._crew.append((process, here))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for process, _ in self._crew:
            process.kill()  # what it did has come back, or is not wanted any more
            process.join()

    def begin(self, work: Work, items: Sequence[Any], kinds: Sequence[Kinds], progress: Progress) -> list[Future]:
        """`work(item, progress)` on each item, begun about in this order. Once only.

        Items that have some of their `kinds` in common share compiled programs: one process does them while others have
        something else.
        """
        threading.Thread(target=self._listen, args=(progress,), daemon=True).start()
        shared = _Shared(list(zip(items, kinds, strict=True)))
        for process, pipe in self._crew:
            threading.Thread(target=_lead, args=(shared, process.pid, pipe, work), daemon=True).start()
        return shared.futures

    def _listen(self, progress: Progress) -> None:
        advances: dict[Any, Callable[[float], None]] = {}
        while True:
            run, told = self._signs.get()
            if run in advances:
                advances[run](told)
            else:
                advances[run] = progress.begin(*told)


class _Shared:
    """Items, each of some kinds, that several processes take in turn."""

    def __init__(self, items: Sequence[tuple[Any, Kinds]]):
        self.futures = [Future() for _ in items]
        self._items, self._left, self._lock = items, list(range(len(items))), threading.Lock()
        self._known: dict[Any, set[Hashable]] = {}

    def take(self, mine: Any) -> tuple[Any, Future] | None:
        """The next item for a process: the first that is not mostly of programs which it lacks and another has, or else the
        first; None: all are taken."""
        with self._lock:
            if not self._left:
                return None
            known = self._known.setdefault(mine, set())
            foreign = set().union(*self._known.values()) - known
            elsewhere = lambda kinds: 2 * len(foreign.intersection(kinds)) > len(kinds)
            index = min(self._left, key=lambda index: (elsewhere(self._items[index][1]), index))
            self._left.remove(index)
            item, kinds = self._items[index]
            known.update(kinds)
            return item, self.futures[index]


def _lead(shared: _Shared, number: Any, pipe: Any, work: Work) -> None:
    """Give items to a process and take its results, until there are no more."""
    while (taken := shared.take(number)) is not None:
        item, future = taken
        try:
            pipe.send((work, item))
            error, result = pipe.recv()
        except (EOFError, OSError):
            lost = "a process of this run was killed (out of memory?); the same command goes on from what is kept"
            while taken:  # the rest too: there may be nobody left to do it
                taken[1].set_exception(ArmillaryError(lost))
                taken = shared.take(number)
            return
        except Exception as failure:  # what cannot be pickled
            error, result = failure, None
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)


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


def _serve(pipe: Any, begin: Callable[[], None], queue: Any, parent: int) -> None:
    """What a process does: it works on what it is given, ends with its parent, and leaves Ctrl-C to it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["NPROC"] = "1"  # one program at a time: each process has a core
    signs = Signs(queue)
    begin()
    while True:
        work, item = pipe.recv()
        try:
            told = None, work(item, signs)
        except Exception as error:
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
            told = error, None
        signs.flush()
        try:
            pipe.send(told)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            pipe.send((ArmillaryError(f"what an experiment gave cannot be sent between processes: {error}"), None))
