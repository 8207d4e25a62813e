"""Experiment → measured trajectory."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import xarray as xr

from armillary import engine
from armillary.compiled import all_of, side_by_side
from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment, Sweep
from armillary.members import as_arrays, bytes_of
from armillary.process import Process
from armillary.progress import Bar, Progress, chosen_progress
from armillary.stages import Stage, Stages
from armillary.trajectory import Trajectory, combine, dataset, describe

CACHE = 1 << 19
"""Bytes of states and data that run side by side on a CPU: they stay in a core's cache (measured in `benchmarks/`)."""

LONG_RUN = 4e9
"""Steps times bytes from which a run is spread over the cores (about a second's work)."""

FLOW_STEPS = 100
"""Solver steps that a unit of flow time is taken to need, for that estimate."""

LARGE_DRAW = 1 << 25
"""Bytes of data and states from which drawing them is worth a well-optimised program."""

WIDEST = 32
"""Members side by side on a CPU at most: beyond, nothing is gained."""


class Settings(NamedTuple):
    """How members are run: `width` side by side (None: choose), `memory` bytes of them at a time."""

    width: int | None
    memory: int
    progress: Progress
    key: int
    seeds: list[int]
    precision: str | None


def simulate(
    what: Experiment | Sweep | Stages | Process,
    *,
    seeds: int | Sequence[int] = 1,
    times: Sequence[float] | None = None,
    key: int = 0,
    members: Literal["auto", "map", "vmap"] | int = "auto",
    memory: float = 1e9,
    precision: Literal["float32", "float64"] | None = None,
    progress: bool | Progress | None = None,
) -> Trajectory:
    """Run an experiment, a sweep, stages or a bare process, and return what its probes saw.

    - `seeds`: how many (0, 1, ...) or which. A member's random numbers depend on `key` and its seed alone, so
      a member is the same alone, in a sweep and in any grouping (bitwise for equal `members`, else to
      rounding), and members that differ in a swept number share their draws.
    - `times`: observation times of a bare process; an experiment has its own.
    - `members`: "map" runs them one after another in one program, "vmap" all side by side, a number so many
      side by side; "auto" chooses by backend and size.
    - `memory`: bytes that members may take at once; more of them go in blocks, one after another. A
      member counts its state and its own data three times over (state, gradient, update).
    - `precision`: overrides the experiment's for this run, without touching the process's setting.
    - `progress`: True or False, or any object with `begin`; None shows a bar to a terminal.

    Returns an `xarray.Dataset` with dimensions (each swept axis, seed, time, and the probes' own).
    Members that become nan or inf are kept: `diverged_at` holds the first such step (or flow time), nan for
    the others, and everything observed from then on is nan.

    Raises `InvalidValue` for impossible arguments.

    >>> import armillary as arm
    >>> experiment = arm.Experiment(
    ...     arm.tasks.LinearTeacher(dimension=4, samples=8), arm.models.DeepLinear(depth=1),
    ...     arm.rules.Descent(steps=3), probes=[arm.probes.Losses()])
    >>> dict(arm.simulate(experiment, seeds=3).train_loss.sizes)
    {'seed': 3, 'time': 4}
    """
    require_between("memory", memory, 1e6)
    if isinstance(members, str) and members not in ("auto", "map", "vmap"):
        raise InvalidValue(f"members is {members!r}, but must be 'auto', 'map', 'vmap' or a number")
    width = {"auto": None, "map": 1, "vmap": 1 << 30}[members] if isinstance(members, str) else int(members)
    require_between("members", 1 if width is None else width, 1)
    if not isinstance(what, Experiment | Sweep | Stages | Process):
        raise InvalidValue(f"cannot simulate a {type(what).__name__}; give an Experiment, Sweep, Stages or Process")
    shown = chosen_progress(progress)
    with shown if isinstance(shown, Bar) else nullcontext():
        settings = Settings(width, int(memory), shown, key, _seeds(seeds), precision)
        if isinstance(what, Sweep):
            numeric = {what.paths[name]: what.axes[name] for name in what.numeric}
            points, parts = zip(*what.programs(), strict=True)
            runs = all_of(lambda part: _program(_stages(part, None), numeric, settings), parts)
            seen = combine(list(zip(points, runs, strict=True)), list(what.axes))
            return describe(seen, what.experiment, what.axes, key)
        return describe(_program(_stages(what, times), {}, settings), what, {}, key)


def _stages(what: Any, times: Sequence[float] | None) -> Stages:
    if isinstance(what, Stages):
        return what
    if isinstance(what, Experiment):
        return Stages([Stage(what)])
    if times is None or len(times) == 0:
        raise InvalidValue("a bare process has no observation times of its own; pass times=[0, ...]")
    if list(times) != sorted(set(times)) or times[0] < 0:
        raise InvalidValue(f"observation times are {list(times)}, but must increase from 0 or later")
    return Stages([Stage(what, tuple(float(t) for t in times))])


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        require_between("the number of seeds", seeds, 1)
        return list(range(seeds))
    chosen = [int(s) for s in seeds]
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise InvalidValue(f"seeds are {chosen}, but must be one or more different numbers from 0 up")
    return chosen


def _program(stages: Stages, numeric: dict[tuple[str, ...], tuple], settings: Settings) -> xr.Dataset:
    """One compiled program (one for each stage): all its numeric axes and seeds, in blocks."""
    *grid, seeds = np.meshgrid(*numeric.values(), settings.seeds, indexing="ij")
    double = (settings.precision or stages.precision) == "float64"
    with jax.enable_x64(True) if double else nullcontext():
        dtype = np.dtype("float64" if double else "float32")
        columns = [values.ravel().astype(dtype) for values in grid]
        numbers = seeds.ravel().astype(np.uint32)
        template: Stages = as_arrays(stages, dtype)
        beginning = getattr(template.stages[0].what, "timeless", template.stages[0].what)
        duration = sum(stage.clock[-1] for stage in stages.stages)

        def draw(program: Any, index: np.ndarray) -> Any:
            mine = jax.device_put([column[index] for column in columns])
            return program(beginning, tuple(numeric), mine, engine.keys_of(settings.key, numbers[index]))

        shapes = draw(engine.start_fast.bind, np.arange(seeds.size)).shapes()
        each = max(bytes_of((shapes.drawn.own, shapes.state, shapes.memory)) // seeds.size, 1)
        size, width = _blocks(seeds.size, each, settings, duration, discrete=stages.discrete)
        advance = settings.progress.begin(type(stages.stages[0].what).__name__.lower(), duration * seeds.size)
    start = engine.start if size * each > LARGE_DRAW else engine.start_fast

    def begin(first: int) -> engine.Members:
        index = np.clip(np.arange(first, first + size), 0, seeds.size - 1)  # the last block is filled up
        with jax.enable_x64(True) if double else nullcontext():  # the setting is a thread's own
            return draw(start, index)

    def finish(first: int, members: engine.Members | None = None) -> Any:
        members = begin(first) if members is None else members
        with jax.enable_x64(True) if double else nullcontext():
            return _block(members, template, width, min(size, seeds.size - first), advance)

    firsts = range(0, seeds.size, size)
    if len(firsts) == 1 or side_by_side() == 1:
        blocks = [finish(first) for first in firsts]
    else:  # compile before several threads want it
        head = begin(0)
        with jax.enable_x64(True) if double else nullcontext():
            engine.warm(head, width, template.stages[0].clock, discrete=template.discrete)
        blocks = all_of(lambda first: finish(first, None if first else head), firsts)
    axes = {path[-1]: values for path, values in numeric.items()}
    return dataset(blocks, {**axes, "seed": settings.seeds}, stages.discrete)


def _block(
    members: engine.Members, template: Stages, width: int, wanted: int, progress: Callable[[float], None]
) -> tuple[list[tuple[np.ndarray, dict]], np.ndarray]:
    """One block of members through all stages: [(clock, observations)], and where each member diverged."""
    begun = 0.0
    records = []
    for number, stage in enumerate(template.stages):
        if number:
            members = engine.hand_over(members, stage.what, stage.enter, number, width)
        clock = begun + stage.clock
        skip = 1 if number and len(clock) and clock[0] == begun else 0
        if clock[0] > begun:  # the stage's first observation is later than its start
            clock, skip = np.concatenate([[begun], clock]), 1
        members, seen = engine.follow(
            members, clock, width, progress, discrete=template.discrete, counted=wanted, skip=skip
        )
        records.append((clock[skip:], jax.tree.map(lambda a: a[:, :wanted], seen)))
        begun = clock[-1]
    return records, np.asarray(members.diverged)[:wanted]


def _blocks(count: int, each: int, settings: Settings, duration: float, *, discrete: bool) -> tuple[int, int]:
    """How many of `count` members of `each` bytes a block has, and how many of them run side by side."""
    width = settings.width
    steps = duration * (1 if discrete else FLOW_STEPS)
    if width is None and jax.default_backend() == "cpu":
        # Each flow takes solver steps of its own: side by side all would wait for the slowest.
        width = int(np.clip(CACHE // each, 1, WIDEST)) if discrete else 1
    cores = side_by_side()
    most = int(max(settings.memory // (3 * each * cores), 1))
    worth_it = steps * count * each > LONG_RUN
    rounds = max(-(-count // most), min(cores, count) if worth_it else 1)
    size = -(-count // rounds)
    width = min(width or count, size)
    if settings.width is None:  # of the widths down to half, the one that leaves the fewest places to fill up
        width = min(range(width, width // 2, -1), key=lambda w: -(-size // w) * w)
    return -(-size // width) * width, width
