"""What a theory is: assumptions that are checked on an experiment, and a prediction where they hold."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from armillary.experiment import Experiment
from armillary.trajectory import Trajectory


class Check(NamedTuple):
    """One assumption on one experiment: what is needed, whether it holds, and by how much it is missed."""

    holds: bool
    needed: str
    given: str

    def __str__(self) -> str:
        return f"needs {self.needed}; {self.given}"


class Theory(ABC):
    """A theory of learning: `checks(experiment)` says what it assumes, `predict(experiment)` what follows.

    Predictions use the names, dimensions and clock of the probes, so that overlay is subtraction. A subclass is
    found by `armillary.predict` once it is decorated with `armillary.theory.theory`.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def checks(self, experiment: Experiment) -> Iterator[Check]:
        """Each assumption with its numbers. May stop early where a failed one makes the others meaningless."""

    @abstractmethod
    def predict(self, experiment: Experiment) -> Trajectory:
        """The observables at the experiment's own observation times; called only where all checks hold."""


_THEORIES: list[Theory] = []


def theory(kind: type[Theory]) -> type[Theory]:
    """Class decorator: `predict` will ask this theory."""
    _THEORIES.append(kind())
    return kind


def theories() -> list[Theory]:
    """Every theory that `predict` asks: Armillary's, by module, and then those of users in the order of their definition."""
    package = importlib.import_module("armillary.theory")
    for module in pkgutil.iter_modules(package.__path__, "armillary.theory."):
        importlib.import_module(module.name)
    home = lambda one: type(one).__module__
    own = [one for one in _THEORIES if home(one).startswith("armillary.theory.")]
    return sorted(own, key=home) + [one for one in _THEORIES if one not in own]


def limit(needed: str, what: str, given: float, allowed: float) -> Check:
    """The check that a number is at most what is allowed, as `needs white inputs; ... is 10 (allowed 1.01)`."""
    return Check(bool(given <= allowed), needed, f"{what} is {given:.3g} (allowed {allowed:.3g})")


def kind(needed: str, part: Any, *allowed: type) -> Check:
    """The check that a part of the experiment is of one of the kinds that the theory knows."""
    name = getattr(part, "__name__", type(part).__name__)
    return Check(isinstance(part, allowed), needed, f"this is {name}")
