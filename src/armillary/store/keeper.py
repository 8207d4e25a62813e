"""Blocks and checkpoints of a simulation in a folder: what an interrupted one goes on from.

    FOLDER/PROGRAM-FIRST.nc                 a finished block
    FOLDER/checkpoints/PROGRAM-FIRST.npz    where an unfinished one stands; with
    FOLDER/checkpoints/PROGRAM-FIRST.S-A-B.nc   what it saw in stage S from its A-th to before its B-th look

A slice is written before the checkpoint that counts on it, so a kill at any moment leaves a state from which the block
goes on; slices beyond the checkpoint are written again, with the same content.
"""

import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np

from armillary.programs import Layout, Program, Saved
from armillary.quantity import Quantity
from armillary.store.blocks import Block, joined, read_block, write_block
from armillary.store.files import (
    Place,
    StoreError,
    local_copy,
    make_folder,
    names_in,
    place,
    remove_folder,
    write_whole,
)
from armillary.store.fingerprint import fingerprint, source

EVERY = 5.0
"""Seconds between two checkpoints of a block."""


class Keep:
    """A folder in which a simulation keeps what is done: blocks that took `worth` seconds, checkpoints `every` so many."""

    def __init__(self, folder: str | Place, *, every: float = EVERY, worth: float = 0.0):
        self.folder = make_folder(place(folder))
        self.every, self.worth = every, worth

    def of(self, program: Program, layout: Layout) -> "Kept | None":
        """Where the blocks of a program are kept: by the fingerprint of all that decides its numbers.

        None for a program that cannot be told from another (it holds an object without fields).
        """
        numbers = (program.paths, program.columns, program.seeds, program.key, program.double, program.devices, layout)
        name = fingerprint((source(), program.template, numbers))
        return Kept(self.folder, name[:16], every=self.every, worth=self.worth) if name else None

    def drop(self) -> None:
        """Remove the folder: what it held has been written elsewhere."""
        remove_folder(self.folder)


class Kept:
    """The kept blocks of one program; each is known by its first member."""

    def __init__(self, folder: Place, name: str, *, every: float = EVERY, worth: float = 0.0):
        self.folder, self.name, self.every, self.worth = folder, name, every, worth
        self._begun: dict[int, float] = {}
        self._told: dict[int, float] = {}

    def path(self, first: int) -> Place:
        """The file of the block that starts with this member."""
        return self.folder / f"{self.name}-{first}.nc"

    def finished(self, first: int) -> Block | None:
        """The block, if it is there and whole; a damaged one is run again."""
        self._begun[first] = self._told[first] = time.monotonic()
        if not self.path(first).exists():
            return None
        try:
            return read_block(self.path(first))
        except StoreError:
            return None

    def finish(self, first: int, block: Block) -> None:
        """Write a finished block, and drop its checkpoint."""
        if time.monotonic() - self._begun[first] >= self.worth:
            write_block(self.path(first), block)
        if first in self._saved_here or self._checkpoint(first).exists():
            self._forget(first)

    @property
    def _saved_here(self) -> set[int]:
        return {first for first, told in self._told.items() if told != self._begun[first]}

    def due(self, first: int) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._told[first] >= self.every

    def save(self, first: int, saved: Saved) -> None:
        """Write what was seen since the last save, then where the block stands."""
        folder = make_folder(self.folder / "checkpoints")
        [(times, seen)] = saved.records
        if len(times):
            begin, end = saved.looks - len(times), saved.looks
            write_block(
                folder / f"{self.name}-{first}.{saved.stage}-{begin:06d}-{end:06d}.nc",
                Block([(times, seen)], np.zeros(0)),
            )
        stands = np.array([saved.stage, saved.looks])
        save: Any = lambda hidden: np.savez(hidden, stands, *saved.arrays)
        write_whole(self._checkpoint(first), save)
        self._told[first] = time.monotonic()

    def resume(self, first: int) -> Saved | None:
        """Where the block stood when it was interrupted; None if it did not get far, or cannot be read."""
        if not self._checkpoint(first).exists():
            self._forget(first)  # slices that no checkpoint counts on
            return None
        try:
            with local_copy(self._checkpoint(first)) as local, np.load(local, allow_pickle=False) as file:
                stands, *arrays = [file[name] for name in file.files]
            stage, looks = map(int, stands)
            records = [self._seen(first, number, looks if number == stage else None) for number in range(stage + 1)]
        except (StoreError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # the block begins anew
        return Saved(stage, looks, records, arrays)

    def _seen(self, first: int, stage: int, looks: int | None) -> tuple[np.ndarray, dict[str, Quantity]]:
        """What the slices of a stage hold, up to so many looks."""
        parts, done = [], 0
        for name in names_in(self.folder / "checkpoints", ".nc"):
            if name.startswith(f"{self.name}-{first}.{stage}-"):
                begin, end = (int(text) for text in name.removesuffix(".nc").split("-")[-2:])
                if looks is not None and end > looks:
                    # Written after the last checkpoint: this run may cut its slices elsewhere.
                    (self.folder / "checkpoints" / name).unlink(missing_ok=True)
                    continue
                if parts and begin != done:
                    raise StoreError(f"{name} does not begin where the slice before it ends")
                parts.append(read_block(self.folder / "checkpoints" / name).records[0])
                done = end
        if looks is not None and parts and done != looks:
            raise StoreError(f"what was seen before look {looks} is not all there")
        return np.concatenate([times for times, _ in parts]) if parts else np.zeros(0), joined(
            [seen for _, seen in parts]
        )

    def _checkpoint(self, first: int) -> Place:
        return self.folder / "checkpoints" / f"{self.name}-{first}.npz"

    def _forget(self, first: int) -> None:
        self._checkpoint(first).unlink(missing_ok=True)
        for name in names_in(self.folder / "checkpoints", ".nc"):
            if name.startswith(f"{self.name}-{first}."):
                with suppress(FileNotFoundError):
                    (self.folder / "checkpoints" / name).unlink()


_here: ContextVar[Keep | None] = ContextVar("kept here", default=None)


def kept_here() -> Keep | None:
    """What simulations begun in this context keep their blocks in."""
    return _here.get()


@contextmanager
def keeping(keep: Keep | None) -> Iterator[None]:
    """Simulations begun inside, in this thread, keep their blocks there unless they are told otherwise."""
    token = _here.set(keep)
    try:
        yield
    finally:
        _here.reset(token)
