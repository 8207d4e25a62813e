"""The plan of a sweep: which compiled programs it needs, which cells each of them has, in which blocks.

Axes over a study's own fields make its experiments anew at each value; axes over an experiment's fields are swept in it.
What differs in numbers alone is fused into one program, whatever it came from: equal structure, equal shapes.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from armillary.errors import InvalidValue, UnknownName, unknown
from armillary.experiment import Experiment, Sweep, find_field
from armillary.members import as_arrays
from armillary.programs import Layout, Program, of_points
from armillary.stages import Stage, Stages

ENOUGH, PLENTY = 2.0, 20.0
"""Seconds that a block is to take at least and at most, as estimated."""


class Entry(NamedTuple):
    """One experiment of a sweep at one point of the axes that are not numbers inside it."""

    at: dict[str, Any]
    stages: Stages
    numeric: dict[tuple[str, ...], tuple]


@dataclass(frozen=True)
class Part:
    """One compiled program of a sweep: entries that differ in numbers alone, at each of its numbers and seeds."""

    name: str
    experiment: str
    entries: list[Entry]
    program: Program

    @property
    def axes(self) -> dict[str, Sequence[Any]]:
        """The axes of its cells, outermost first."""
        numeric = {path[-1]: values for path, values in self.entries[0].numeric.items()}
        return {"entry": range(len(self.entries)), **numeric}

    def layout(self, memory: int) -> Layout:
        """Blocks of a few seconds. How many members run side by side does not depend on how many there are, and never is
        there one group alone, so that a cell has the same numbers in any sweep."""
        try:
            given = self.program.layout(memory, None)
        except Exception:  # what cannot be laid out fails when it is run, and is written down then
            return Layout(self.program.members, 1, 0)
        width = self.program.usual_width(given.each)
        seconds = max(self.program.seconds(), 1e-9)
        rounds = max(1, round(seconds / np.clip(seconds / 8, ENOUGH, PLENTY)))
        size = min(-(-self.program.members // rounds), max(given.size, 2 * width))
        return Layout(max(-(-size // width), 2) * width, width, given.each)


def plan(
    what: Any, over: Mapping[str, tuple], seeds: Sequence[int], key: int, experiments: Sequence[str] = ()
) -> list[Part]:
    """The programs of a sweep of a study (an instance) or an experiment.

    Raises `UnknownName` for an axis that no field has and for an unknown experiment, `InvalidValue` for values that a field
    refuses.
    """
    own = [name for name in over if name in _fields(what)]
    inner = {name: values for name, values in over.items() if name not in own}
    points = [dict(zip(own, values, strict=True)) for values in itertools.product(*(over[name] for name in own))]
    found: dict[str, list[Entry]] = {}
    left_out: dict[str, str] = {}
    for at in points:
        runnables = {"experiment": what} if isinstance(what, Experiment | Sweep) else _made(what, at).experiments()
        for name in experiments:
            if name not in runnables:
                raise unknown("experiment", name, runnables)
        for name, runnable in runnables.items():
            if name in left_out or (experiments and name not in experiments):
                continue
            try:
                entries = _entries(runnable, at, inner)
            except UnknownName as error:
                left_out[name] = str(error)
                continue
            found.setdefault(name, []).extend(entries)
    if not found:
        raise UnknownName(next(iter(left_out.values())))
    parts = []
    for name, entries in found.items():
        for alike in _alike(entries):
            program = of_points([e.stages for e in alike], alike[0].numeric, seeds, key=key)
            parts.append(Part(f"p{len(parts)}", name, alike, program))
    return parts


def _fields(what: Any) -> set[str]:
    return set() if isinstance(what, Experiment | Sweep) else {field.name for field in dataclasses.fields(what)}


def _made(study: Any, at: Mapping[str, Any]) -> Any:
    try:
        return dataclasses.replace(study, **{name: _like(getattr(study, name), value) for name, value in at.items()})
    except (TypeError, AttributeError) as error:
        raise InvalidValue(f"the study cannot be at {at}: {error}") from None


def _like(old: Any, value: Any) -> Any:
    """A value of the kind of the one that it replaces: 1.0 for 1, a list of one for one."""
    if isinstance(old, tuple):
        return tuple(_like(old[0], one) for one in (value if isinstance(value, tuple) else (value,)))
    made = value
    if isinstance(old, int) and isinstance(value, float) and value.is_integer():
        made = int(value)
    elif isinstance(old, float) and type(value) is int:
        made = float(value)
    if isinstance(old, bool | int | float | str) and type(made) is not type(old):
        raise InvalidValue(f"a value is {value!r}, but must be of type {type(old).__name__}, as {old!r} is")
    return made


def _entries(runnable: Any, at: Mapping[str, Any], inner: Mapping[str, tuple]) -> list[Entry]:
    """An experiment's programs at a point of the study's axes, with the inner axes swept."""
    if not isinstance(runnable, Experiment | Sweep):
        if inner:
            raise unknown("field", next(iter(inner)), ())  # stages and processes have none to sweep
        if not isinstance(runnable, Stages):
            raise unknown("field", "times", ())
        return [Entry(dict(at), runnable, {})]
    experiment = runnable.experiment if isinstance(runnable, Sweep) else runnable
    replaced = {find_field(experiment, name)[-1] for name in inner}
    kept = {name for name in runnable.axes if name not in replaced} if isinstance(runnable, Sweep) else set()
    axes = (
        {".".join(runnable.paths[n]): v for n, v in runnable.axes.items() if n in kept}
        if isinstance(runnable, Sweep)
        else {}
    )
    sweep = Sweep(experiment, {**axes, **inner})
    numeric = {sweep.paths[name]: sweep.axes[name] for name in sweep.numeric}
    return [Entry({**at, **static}, Stages([Stage(one)]), numeric) for static, one in sweep.programs()]


def _alike(entries: list[Entry]) -> list[list[Entry]]:
    """Entries in groups that one compiled program does for."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        dtype = np.float64 if entry.stages.precision == "float64" else np.float32
        with jax.enable_x64(dtype is np.float64):
            arrays, static = eqx.partition(as_arrays(entry.stages.stages[0].what, dtype), eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        constants, rest = jax.tree.flatten((static, entry.stages.stages[1:]))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        try:
            kind = (tree, shapes, rest, tuple(constants), tuple(entry.numeric.items()))
            groups.setdefault(kind, []).append(entry)
        except TypeError:  # a constant that cannot be compared: a program by itself
            groups[len(groups)] = [entry]
    return list(groups.values())
