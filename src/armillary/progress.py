"""How far a run is: a bar for people, silence for pipes."""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What `simulate` tells while it runs: `begin` gives a function to call with the work done since.

    Work is counted in member-steps (or shares of flow time). Runs may overlap, and calls may come from threads.
    """

    def begin(self, description: str, total: float) -> Callable[[float], None]: ...


class Silent:
    """Says nothing."""

    def begin(self, description: str, total: float) -> Callable[[float], None]:
        return lambda done: None


class Bar:
    """A rich progress bar on standard error with steps a second and the time left; use as a context."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=False,
        )
        self._lines: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str, total: float) -> Callable[[float], None]:
        with self._lock:  # programs of one experiment share a line
            if description not in self._lines:
                self._lines[description] = self._bar.add_task(description, total=0.0, speed="compiling")
            line = self._lines[description]
            known = self._bar.tasks[self._bar.task_ids.index(line)].total or 0.0
            self._bar.update(line, total=known + max(total, 1e-12))

        def advance(done: float) -> None:
            with self._lock:
                self._bar.advance(line, done)
                speed = self._bar.tasks[self._bar.task_ids.index(line)].speed
                self._bar.update(line, speed=f"{speed:,.0f} steps/s" if speed else "")

        return advance


def default_progress() -> Silent | Bar:
    """A bar where a person is looking at standard error, silence elsewhere."""
    return Bar() if sys.stderr.isatty() else Silent()


def chosen_progress(progress: bool | Progress | None, *, worth_it: bool = True) -> Progress:
    """What a caller asked for: True or False for a bar or none, an object as it is, None for the default if it is worth it."""
    if progress is None:
        return default_progress() if worth_it else Silent()
    if isinstance(progress, bool):
        return Bar() if progress else Silent()
    return progress
