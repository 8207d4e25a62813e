"""Experiment → measured trajectory."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import xarray as xr

from armillary.cores import all_of
from armillary.devices import mesh_of
from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment, Sweep
from armillary.process import Process
from armillary.programs import of_grid
from armillary.progress import Bar, Progress, chosen_progress
from armillary.stages import Stage, Stages
from armillary.store.files import Place
from armillary.store.keeper import Keep, kept_here
from armillary.trajectory import Trajectory, combine, dataset, describe


class Settings(NamedTuple):
    """How members are run: `width` side by side (None: choose), `memory` bytes of them at a time."""

    width: int | None
    memory: int
    progress: Progress
    key: int
    seeds: list[int]
    precision: str | None
    keep: Keep | None
    devices: int


def simulate(
    what: Experiment | Sweep | Stages | Process,
    *,
    seeds: int | Sequence[int] = 1,
    times: Sequence[float] | None = None,
    key: int = 0,
    members: Literal["auto", "map", "vmap"] | int = "auto",
    memory: float = 1e9,
    precision: Literal["float32", "float64"] | None = None,
    keep: str | Place | None = None,
    devices: int = 1,
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
    - `keep`: a folder (or URL) for finished blocks and for checkpoints of long ones at their observation times. The
      same call after an interruption goes on from there and ends with the same numbers; the folder can be removed then.
    - `devices`: over so many devices of this process each network's training samples are spread (the weights are on all
      of them); the numbers are those of one device, to rounding. The samples must be a multiple of it.
    - `progress`: True or False, or any object with `begin`; None shows a bar to a terminal.

    Returns an `xarray.Dataset` with dimensions (each swept axis, seed, time, and the probes' own).
    Members that become nan or inf are kept: `diverged_at` holds the first such step (or flow time), nan for
    the others, and everything observed from then on is nan.

    Raises `InvalidValue` for impossible arguments, `StoreError` for a folder that cannot be written.

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
    mesh_of(devices)  # what cannot be is said now
    shown = chosen_progress(progress)
    with shown if isinstance(shown, Bar) else nullcontext():
        kept = kept_here() if keep is None else Keep(keep)
        settings = Settings(width, int(memory), shown, key, _seeds(seeds), precision, kept, devices)
        if isinstance(what, Sweep):
            numeric = {what.paths[name]: what.axes[name] for name in what.numeric}
            points, parts = zip(*what.programs(), strict=True)
            work = lambda part: _program(_stages(part, None), numeric, settings)
            runs = all_of(work, parts) if devices == 1 else [work(part) for part in parts]
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
    given = {"key": settings.key, "precision": settings.precision, "devices": settings.devices}
    program = of_grid(stages, numeric, settings.seeds, **given)
    layout = program.layout(settings.memory, settings.width)
    advance = settings.progress.begin(type(stages.stages[0].what).__name__.lower(), program.duration * program.members)
    keeper = settings.keep.of(program, layout) if settings.keep else None
    blocks = program.blocks(layout, advance, keeper)
    axes = {path[-1]: values for path, values in numeric.items()}
    return dataset(blocks, {**axes, "seed": settings.seeds}, stages.discrete)
