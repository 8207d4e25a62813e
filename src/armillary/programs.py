"""A program of a run: members that differ in numbers and seeds alone, so that one compilation does for all of them.

It is laid out (how many members a block has, how many run side by side), and then run block by block. A block may be
kept in a store: one that is finished is read instead of run, one that was interrupted goes on from its last checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import numpy as np

from armillary import engine
from armillary.compiled import FASTEST, LIGHT
from armillary.cores import all_of, side_by_side
from armillary.devices import mesh_of, spread
from armillary.errors import InvalidValue
from armillary.members import as_arrays, bytes_of
from armillary.stages import Stages
from armillary.starting import Members, Start
from armillary.store.blocks import Block, joined

CACHE = 1 << 19
"""Bytes of states and data that run side by side on a CPU: they stay in a core's cache (measured in `benchmarks/`)."""

LONG_RUN = 4e9
"""Steps times bytes from which a run is spread over the cores (about a second's work)."""

FLOW_STEPS = 100
"""Solver steps that a unit of flow time is taken to need, for that estimate."""

OPERATIONS_A_SECOND = 1e9
"""Elementary operations that small networks get done on a core, for estimates (see `armillary.work`)."""

LARGE_DRAW = 1 << 25
"""Bytes of data and states from which on a draw is worth more than the quickest compilation."""

WIDEST = 32
"""Members side by side on a CPU at most: beyond, nothing is gained."""


class Saved(NamedTuple):
    """Where a block stands: in which stage, after how much of its clock, what it saw (stage by stage; when it is saved,
    since the last save) and its arrays."""

    stage: int
    looks: int
    records: list[tuple[np.ndarray, dict]]
    arrays: list[np.ndarray]


@runtime_checkable
class Keeper(Protocol):
    """What keeps the blocks of a program (see `armillary.store.keeper`)."""

    def finished(self, first: int) -> Block | None: ...
    def finish(self, first: int, block: Block) -> None: ...
    def resume(self, first: int) -> Saved | None: ...
    def due(self, first: int) -> bool: ...
    def save(self, first: int, saved: Saved) -> None: ...


class Stretch(NamedTuple):
    """What is left of a stage: from the `at`-th time of its clock on, of which the first `skip` are not looked at."""

    number: int
    clock: np.ndarray
    at: int
    skip: int


class Layout(NamedTuple):
    """How the members of a program are run: `size` in a block, `width` of them side by side; bytes of `each`."""

    size: int
    width: int
    each: int


class Program:
    """Members of `stages`, each with its own values at `paths` of the first stage (`columns`, an array each with a leading
    member axis) and its own seed."""

    def __init__(
        self,
        stages: Stages,
        paths: Sequence[tuple[Any, ...]],
        columns: Sequence[np.ndarray],
        seeds: np.ndarray,
        *,
        key: int,
        precision: str | None = None,
        devices: int = 1,
    ):
        for name, given in (("key", [key]), ("a seed", np.unique(seeds))):
            for number in given:
                if not 0 <= number < 2**32 or number != int(number):
                    raise InvalidValue(f"{name} is {number}, but must be a whole number from 0 to {2**32 - 1}")
        self.devices = devices
        self.double = (precision or stages.precision) == "float64"
        dtype = np.dtype("float64" if self.double else "float32")
        with self.numbers():
            self.template: Stages = as_arrays(stages, dtype)
        first = self.template.stages[0].what
        self.beginning = getattr(first, "timeless", first)
        self.paths = tuple(paths)
        self.columns = [np.asarray(c, dtype) if c.dtype.kind == "f" else c for c in map(np.asarray, columns)]
        self.seeds = seeds.astype(np.uint32)
        self.key = key
        self.duration = float(sum(stage.clock[-1] for stage in stages.stages))

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: not the shapes, which are traced anew there."""
        return {name: value for name, value in self.__dict__.items() if name != "_shapes"}

    @property
    def members(self) -> int:
        """How many there are."""
        return self.seeds.size

    def numbers(self) -> AbstractContextManager:
        """The precision of this program's numbers: a thread's own setting, so to be entered in each."""
        return jax.enable_x64(True) if self.double else nullcontext()

    @cached_property
    def _shapes(self) -> Members:
        with self.numbers():
            return self._start(np.arange(self.members)).shapes()

    @property
    def each(self) -> int:
        """Bytes of one member: its state, its own data and what its probes remember."""
        begun = self._shapes
        return max(bytes_of((begun.drawn.own, begun.state, begun.memory)) // self.members, 1)

    def seconds(self) -> float:
        """About how long all members take on one core, once compiled: their operations at a usual speed. Nothing is run."""
        done = 0.0
        with self.numbers():
            for stage in self.template.stages[:1]:
                advance, look = engine.work(self._shapes, stage.clock, discrete=self.template.discrete)
                done += advance + look
        return done * len(self.template.stages) / OPERATIONS_A_SECOND

    def usual_width(self, each: int) -> int:
        """How many members of so many bytes run side by side where there are enough of them."""
        if jax.default_backend() != "cpu":
            return self.members
        # Each flow takes solver steps of its own: side by side all would wait for the slowest.
        return int(np.clip(CACHE // each, 1, WIDEST)) if self.template.discrete else 1

    def _start(self, index: np.ndarray) -> Start:
        """These members, to be drawn and begun."""
        mine = [column[index] for column in self.columns]
        seeds, which = self.seeds[index], np.arange(index.size)
        if self.columns:  # members of one seed share what their values have no part in
            rows = min(index.size, np.unique(self.seeds).size)
            seeds, which = np.unique(seeds, return_inverse=True)
            seeds = np.resize(seeds, rows)  # as many in a block that is filled up
        return Start(self.beginning, self.paths, mine, self.key, seeds, which)

    def layout(self, memory: int, width: int | None) -> Layout:
        """Blocks that take at most `memory` bytes, with so many members side by side (None: choose)."""
        count, discrete, given = self.members, self.template.discrete, width
        steps = self.duration * (1 if discrete else FLOW_STEPS)
        width = width or self.usual_width(self.each)
        cores = side_by_side()
        most = int(max(memory // (3 * self.each * cores), 1))
        worth_it = steps * count * self.each > LONG_RUN
        rounds = max(-(-count // most), min(cores, count) if worth_it else 1)
        size = -(-count // rounds)
        width = min(width, size)
        if given is None:  # of the widths down to half, the one that leaves the fewest places to fill up
            width = min(range(width, width // 2, -1), key=lambda w: -(-size // w) * w)
        return Layout(-(-size // width) * width, width, self.each)

    def begin(self, first: int, layout: Layout) -> Members:
        """The members of the block that starts at `first`."""
        index = np.clip(np.arange(first, first + layout.size), 0, self.members - 1)  # the last block is filled up
        with self.numbers():
            start = self._start(index)
            # All members count, not this block's: how one is drawn must not depend on how they are laid out.
            members = start.in_numpy() if start.is_quick(self.members) else None
            if members is None:
                large = layout.size * layout.each > LARGE_DRAW
                draw = start.compiled(company=start.seeds.size == 1 and not large).under(LIGHT if large else FASTEST)
                members = draw.whole(draw(draw.leaves))
            mesh = mesh_of(self.devices)
            return spread(members, mesh) if mesh else members

    def block(
        self,
        first: int,
        layout: Layout,
        progress: Callable[[float], None],
        keeper: Keeper | None = None,
        members: Members | None = None,
    ) -> Block:
        """One block of members through all stages."""
        wanted = min(layout.size, self.members - first)
        known = keeper.finished(first) if keeper else None
        if known is not None:
            progress(self.duration * wanted)
            return known
        members = self.begin(first, layout) if members is None else members
        with self.numbers():
            block = self._through_stages(members, layout.width, wanted, progress, keeper, first)
        if keeper:
            keeper.finish(first, block)
        return block

    def _through_stages(
        self, members: Members, width: int, wanted: int, progress: Callable, keeper: Keeper | None, first: int
    ) -> Block:
        saved = keeper.resume(first) if keeper else None
        records: list[tuple[np.ndarray, dict]] = []
        begun = 0.0
        for number, stage in enumerate(self.template.stages):
            if number:
                members = engine.hand_over(members, stage.what, stage.enter, number, width)
            clock = begun + stage.clock
            skip = 1 if number and len(clock) and clock[0] == begun else 0
            if clock[0] > begun:  # the stage's first observation is later than its start
                clock, skip = np.concatenate([[begun], clock]), 1
            done = 0
            if saved and number <= saved.stage:
                # Members that were not advanced go through the stages that are done, for their structure alone.
                done = saved.looks if number == saved.stage else len(clock)
                progress((clock[done - 1] - begun) * wanted)
                if number < saved.stage:
                    records.append(saved.records[number])
                    begun = clock[-1]
                    continue
                members = engine.restored(members, saved.arrays)
            stretch = Stretch(number, clock, max(done - 1, 0), 1 if done else skip)
            members, found = self._stage(members, stretch, width, wanted, progress, keeper, first)
            earlier = [saved.records[number][1]] if saved and done else []
            records.append((clock[skip:], joined([part for part in (*earlier, found) if part])))
            begun = clock[-1]
        return Block(records, np.asarray(members.diverged)[:wanted])

    def _stage(
        self,
        members: Members,
        stretch: "Stretch",
        width: int,
        wanted: int,
        progress: Callable[[float], None],
        keeper: Keeper | None,
        first: int,
    ) -> tuple[Members, dict]:
        """The rest of one stage, saved now and then."""
        number, clock, at, skip = stretch
        cut = lambda seen: jax.tree.map(lambda a: a[:, :wanted], seen)

        def save(looks: int, fresh: int, seen: dict, arrays: list) -> None:
            assert keeper is not None
            done = at + looks
            keeper.save(first, Saved(number, done, [(clock[done - fresh : done], cut(seen))], arrays))

        def due(looks: int) -> bool:
            ended = at + looks == len(clock)  # a stage's end is saved if another follows, whose checkpoints count on it
            return number + 1 < len(self.template.stages) if ended else keeper is not None and keeper.due(first)

        saver = engine.Saver(due, save) if keeper else None
        discrete = self.template.discrete
        members, seen = engine.follow(
            members, clock[at:], width, progress, discrete=discrete, counted=wanted, skip=skip, saver=saver
        )
        return members, cut(seen)

    def blocks(self, layout: Layout, progress: Callable[[float], None], keeper: Keeper | None = None) -> list[Block]:
        """All blocks, side by side where the machine allows it."""
        firsts = range(0, self.members, layout.size)
        # Programs on several devices wait for one another: two of them at once might do so for ever.
        if len(firsts) == 1 or side_by_side() == 1 or self.devices > 1:
            return [self.block(first, layout, progress, keeper) for first in firsts]
        head = self.begin(0, layout)  # compile before several threads want it
        with self.numbers():
            engine.warm(head, layout.width, self.template.stages[0].clock, discrete=self.template.discrete)
        return all_of(lambda first: self.block(first, layout, progress, keeper, None if first else head), firsts)


def of_grid(
    stages: Stages,
    numeric: Mapping[tuple[str, ...], Sequence[float]],
    seeds: Sequence[int],
    *,
    key: int,
    precision: str | None,
    devices: int = 1,
) -> Program:
    """The program of every combination of some numbers and seeds, seeds innermost."""
    return of_points([stages], numeric, seeds, key=key, precision=precision, devices=devices)


def of_points(
    points: Sequence[Stages],
    numeric: Mapping[tuple[str, ...], Sequence[float]],
    seeds: Sequence[int],
    *,
    key: int,
    precision: str | None = None,
    devices: int = 1,
) -> Program:
    """The same of several stages of one structure that differ in numbers of the first stage alone; points outermost."""
    which, *grid, numbers = np.meshgrid(range(len(points)), *numeric.values(), np.asarray(seeds), indexing="ij")
    columns = [values.ravel().astype(float) for values in grid]
    paths: list[tuple[Any, ...]] = list(numeric)
    if len(points) > 1:
        dtype = np.dtype("float64" if (precision or points[0].precision) == "float64" else "float32")
        with jax.enable_x64(dtype == np.float64):
            trees = [jax.tree_util.tree_leaves_with_path(as_arrays(point.stages[0].what, dtype)) for point in points]
        for leaves in zip(*trees, strict=True):
            path = tuple(_name(part) for part in leaves[0][0])
            values = [np.asarray(leaf) for _, leaf in leaves] if eqx.is_array(leaves[0][1]) else []
            if path not in paths and any(not np.array_equal(values[0], other) for other in values):
                paths.append(path)
                columns.append(np.stack(values)[which.ravel()])
    return Program(points[0], paths, columns, numbers.ravel(), key=key, precision=precision, devices=devices)


def _name(part: Any) -> Any:
    """One step of a path in a tree, as `getattr` or an index takes it."""
    for kind in ("name", "key", "idx"):
        if hasattr(part, kind):
            return getattr(part, kind)
    raise TypeError(f"no path leads through {part}")
