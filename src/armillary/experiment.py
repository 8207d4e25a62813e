"""What is run: an experiment, and a sweep over some of its numbers."""

import dataclasses
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from armillary.clock import Clock, LogSpaced
from armillary.errors import InvalidValue, unknown
from armillary.models.model import draw_network
from armillary.once import in_one_go
from armillary.process import Process
from armillary.settings import given, rebuilt
from armillary.tasks.data import Task


class Experiment(eqx.Module):
    """A task, a model and a rule; what is probed and when.

    - `task`: an `armillary.tasks.Task`. `model`: an `armillary.models.Model`, a function from a key to an equinox
      module, or a module (then every seed starts from it). `rule`: an `armillary.rules` rule.
    - `probes`: what is observed. `observe`: when (`LogSpaced`, `Evenly` or `At`).
    - `precision`: "float32" or "float64" for this experiment alone; the process's setting is left alone.

    >>> import armillary as arm
    >>> arm.Experiment(arm.tasks.Digits(), arm.models.MLP(), arm.rules.Descent()).times[-1].item()
    1000.0
    """

    task: Any
    model: Any
    rule: Any
    probes: Sequence[Any] = ()
    observe: Clock = eqx.field(static=True, default=LogSpaced())
    precision: Literal["float32", "float64"] = eqx.field(static=True, default="float32")

    def __post_init__(self):
        self.probes = tuple(self.probes)

    def __check_init__(self):
        if not isinstance(self.task, Task):
            raise InvalidValue(f"the task is a {type(self.task).__name__}, but must be an armillary.tasks.Task")
        if not hasattr(self.rule, "process"):
            raise InvalidValue(f"the rule is a {type(self.rule).__name__}, but must be an armillary.rules rule")
        if self.precision not in ("float32", "float64"):
            raise unknown("precision", self.precision, ("float32", "float64"))

    @property
    def times(self) -> np.ndarray:
        """Observation times: steps, or flow time."""
        return self.observe.times(self.rule.duration, discrete=self.rule.discrete)

    @property
    def discrete(self) -> bool:
        """Whether time counts whole steps."""
        return self.rule.discrete

    @property
    def timeless(self) -> "Experiment":
        """The experiment without its times, which its draws do not depend on: one program draws for any duration."""
        rule = rebuilt(self.rule, **self.rule.no_time) if hasattr(self.rule, "no_time") else self.rule
        return rebuilt(self, rule=rule, observe=LogSpaced())

    @in_one_go
    def draw(self, key: PRNGKeyArray) -> Process:
        """One member: its data and its initial network, ready to run."""
        key_data, key_network = jax.random.split(key)
        data = self.task.draw(key_data)
        network = draw_network(self.model, key_network, self.task.inputs, self.task.outputs)
        return self.rule.process(self.task, data, network, self.probes)


class Sweep:
    """An experiment with axes: every combination of the given values.

    `axes` maps the name of a field to its values. A name is a path (`rule.optimiser.learning_rate`) or its
    last part where only one field of the experiment has it (`learning_rate`), which also names the
    dimension. Axes over plain numbers are run as one compiled program; axes that change shapes (`width`,
    `depth`, `samples`) or parts are separate programs.

    Raises `UnknownName` for a name that no field has, `InvalidValue` for one that several have, for an axis
    without values, and for values that the field refuses.

    >>> import armillary as arm
    >>> experiment = arm.Experiment(arm.tasks.Digits(), arm.models.MLP(), arm.rules.Descent())
    >>> sweep = Sweep(experiment, {"learning_rate": [0.1, 0.2], "width": [8, 16, 32]})
    >>> sweep.sizes, len(list(sweep.programs()))
    ({'learning_rate': 2, 'width': 3}, 3)
    """

    def __init__(self, experiment: Experiment, axes: Mapping[str, Sequence[Any]]):
        self.experiment = experiment
        self.axes: dict[str, tuple[Any, ...]] = {}
        self.paths: dict[str, tuple[str, ...]] = {}
        for name, values in axes.items():
            path = find_field(experiment, name)
            if path[-1] in self.axes:
                raise InvalidValue(f"two axes are called {path[-1]}; sweep one of them at a time")
            values = tuple(np.asarray(values).tolist()) if isinstance(values, np.ndarray) else tuple(values)
            if not values:
                raise InvalidValue(f"the axis {name} has no values; give at least one")
            for value in values:
                replace_field(experiment, path, value)  # the field's own checks speak now, not in the program
            self.axes[path[-1]] = values
            self.paths[path[-1]] = path

    @property
    def sizes(self) -> dict[str, int]:
        """How many values each axis has."""
        return {name: len(values) for name, values in self.axes.items()}

    @property
    def numeric(self) -> list[str]:
        """The axes that run as one compiled program."""
        return [name for name in self.axes if self._is_numeric(name)]

    @property
    def static(self) -> list[str]:
        """The axes of which each value is a program of its own."""
        return [name for name in self.axes if not self._is_numeric(name)]

    def _is_numeric(self, name: str) -> bool:
        values, path = self.axes[name], self.paths[name]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        return numbers and not is_static(self.experiment, path)

    def programs(self) -> Iterator[tuple[dict[str, Any], Experiment]]:
        """Each combination of the static axes with the experiment that has it."""
        for values in itertools.product(*(self.axes[name] for name in self.static)):
            chosen = dict(zip(self.static, values, strict=True))
            yield chosen, self.at(chosen)

    def at(self, values: Mapping[str, Any]) -> Experiment:
        """The experiment at these values of some axes."""
        experiment = self.experiment
        for name, value in values.items():
            experiment = replace_field(experiment, self.paths[name], value)
        return experiment

    def __repr__(self) -> str:
        return f"Sweep({self.sizes} of {type(self.experiment).__name__})"


def likeness(what: Any) -> frozenset[Hashable]:
    """What decides the programs that train an experiment or each part of a sweep (stages, a process): those with one in
    common share it, as far as their numbers of members allow. Values of numbers, initial weights and times decide none.

    >>> import armillary as arm
    >>> make = lambda rate, width: Experiment(
    ...     arm.tasks.Digits(), arm.models.MLP(width=width), arm.rules.Descent(arm.rules.SGD(rate), steps=5))
    >>> likeness(make(0.1, 8)) == likeness(make(0.2, 8)), likeness(make(0.1, 8)) == likeness(make(0.1, 9))
    (True, False)
    """
    parts = [part for _, part in what.programs()] if isinstance(what, Sweep) else [what]
    return frozenset(_form(getattr(part, "timeless", part)) for part in parts)


def _form(node: Any) -> Hashable:
    """What of a part decides programs, hashable."""
    if dataclasses.is_dataclass(node) or isinstance(node, dict):
        inner = ((name, _form(child)) for name, child in given(node).items() if name != "initialisation")
        return (type(node), *inner)
    if isinstance(node, list | tuple):
        return tuple(map(_form, node))
    if isinstance(node, float) or (eqx.is_array_like(node) and np.ndim(node) > 0):
        return np.shape(node)
    return node if isinstance(node, Hashable) else id(node)


def _paths(node: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, child in given(node).items():
        yield (*prefix, name)
        yield from _paths(child, (*prefix, name))


def find_field(experiment: Any, name: str) -> tuple[str, ...]:
    """The path of the field called `name` (a dotted path, or its last part where that is unique)."""
    wanted = tuple(name.split("."))
    paths = list(_paths(experiment))
    matches = [path for path in paths if path[-len(wanted) :] == wanted]
    if wanted in matches:
        return wanted
    if not matches:
        raise unknown("field", name, {path[-1] for path in paths})
    if len(matches) > 1:
        options = ", ".join(".".join(path) for path in matches)
        raise InvalidValue(f"{name} could be any of {options}; write the one you mean in full")
    return matches[0]


def replace_field(node: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `node` with the field at `path` set, checked as at construction."""
    if not path:
        return value
    head, *rest = path
    child = replace_field(given(node)[head], rest, value)
    return rebuilt(node, **{head: child})


def is_static(node: Any, path: Sequence[str]) -> bool:
    """Whether a change at `path` needs another compiled program."""
    for head in path:
        if dataclasses.is_dataclass(node):
            field = next(f for f in dataclasses.fields(node) if f.name == head)
            if field.metadata.get("static", False):
                return True
        node = given(node)[head]
    return False
