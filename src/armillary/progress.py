"""How far a run is: a bar for people, silence for pipes."""

import sys
import threading
from types import TracebackType
from typing import Any, Protocol, Self


class Progress(Protocol):
    """What `simulate` tells while it runs. `total` and `done` count member-steps (or shares of flow time)."""

    def begin(self, description: str, total: float) -> None: ...

    def advance(self, done: float) -> None: ...


class Silent:
    """Says nothing."""

    def begin(self, description: str, total: float) -> None:
        pass

    def advance(self, done: float) -> None:
        pass


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
        self._task: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str, total: float) -> None:
        with self._lock:
            self._task = self._bar.add_task(description, total=max(total, 1e-12), speed="compiling")

    def advance(self, done: float) -> None:
        with self._lock:
            self._bar.advance(self._task, done)
            speed = next(t.speed for t in self._bar.tasks if t.id == self._task)
            self._bar.update(self._task, speed=f"{speed:,.0f} steps/s" if speed else "")


def default_progress() -> Silent | Bar:
    """A bar where a person is looking at standard error, silence elsewhere."""
    return Bar() if sys.stderr.isatty() else Silent()
