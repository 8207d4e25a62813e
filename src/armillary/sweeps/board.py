"""A live table of a sweep: each compiled program with its blocks done, failed and to do."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from armillary.sweeps.record import Job, Record

ROWS = 24
"""Programs that are shown at most; the others are counted in one row."""


class Quiet:
    """Says nothing."""

    def begin(self, record: Record, done: set[str], failed: dict[str, str]) -> None: ...
    def started(self, job: Job) -> None: ...
    def finished(self, job: Job) -> None: ...
    def failed(self, job: Job, error: str) -> None: ...

    def progress(self, job: Job, duration: float) -> Callable[[float], None]:
        return lambda done: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


class Board(Quiet):
    """The table on standard error, where a person is looking; use as a context."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._lock = threading.Lock()
        self._drawn = 0.0
        self._record: Record | None = None

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._draw(always=True)
        self._live.__exit__(*error)

    def begin(self, record: Record, done: set[str], failed: dict[str, str]) -> None:
        self._record = record
        self._blocks: dict[str, dict[str, float]] = {name: {} for name in record.parts}
        self._errors = dict(failed)
        for job in record.jobs:
            self._blocks[job.part][job.name] = 1.0 if job.name in done else 0.0
        self._begun, self._before = time.monotonic(), self._share()
        self._draw(always=True)

    def finished(self, job: Job) -> None:
        with self._lock:
            self._blocks[job.part][job.name] = 1.0
            self._errors.pop(job.name, None)
        self._draw()

    def failed(self, job: Job, error: str) -> None:
        with self._lock:
            self._errors[job.name] = error
        self._draw()

    def progress(self, job: Job, duration: float) -> Callable[[float], None]:
        assert self._record is not None
        program, layout = self._record.parts[job.part].program, self._record.layouts[job.part]
        total = max(duration * min(layout.size, program.members - job.first), 1e-12)

        def advance(done: float) -> None:
            with self._lock:
                before = self._blocks[job.part][job.name]
                self._blocks[job.part][job.name] = min(before + done / total, 0.999)
            self._draw()

        return advance

    def _share(self) -> float:
        shares = [share for blocks in self._blocks.values() for share in blocks.values()]
        return sum(shares) / max(len(shares), 1)

    def _draw(self, *, always: bool = False) -> None:
        if self._record is None or (not always and time.monotonic() - self._drawn < 0.2):
            return
        with self._lock:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.table import Table

        assert self._record is not None
        share, gone = self._share(), time.monotonic() - self._begun
        left = gone * (1 - share) / max(share - self._before, 1e-9) if share > self._before else float("nan")
        table = Table(
            title=f"{share:.0%}, {gone:.0f} s" + (f", {left:.0f} s left" if left == left and share < 1 else "")
        )
        for heading in ("program", "experiment", "at", "cells", "blocks", "failed", "done"):
            table.add_column(heading, justify="left" if heading in ("program", "experiment", "at") else "right")
        for name, part in list(self._record.parts.items())[:ROWS]:
            blocks = self._blocks[name]
            wrong = sum(job in self._errors for job in blocks)
            table.add_row(
                name, part.experiment, where(part.entries), str(part.program.members),
                f"{sum(v == 1.0 for v in blocks.values())}/{len(blocks)}", f"[red]{wrong}[/]" if wrong else "0",
                f"{sum(blocks.values()) / len(blocks):.0%}",
            )  # fmt: skip
        if len(self._record.parts) > ROWS:
            table.add_row("...", f"{len(self._record.parts) - ROWS} more", *[""] * 5)
        return table


def where(entries: list) -> str:
    """The values that make a program another one than its neighbours."""
    from armillary.trajectory import label_of

    first = ", ".join(f"{name} {label_of(value)}" for name, value in entries[0].at.items())
    return f"{first} ... ({len(entries)} points)" if len(entries) > 1 else first


def default_board(*, quiet: bool = False) -> Quiet:
    """A table where a person is looking at standard error."""
    return Board() if sys.stderr.isatty() and not quiet else Quiet()
