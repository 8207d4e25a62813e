"""A study: one paper made executable."""

import dataclasses
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from armillary.apart import Apart
from armillary.cores import all_of
from armillary.errors import InvalidValue
from armillary.experiment import Experiment, Sweep, likeness
from armillary.fields import Size, check_fields, of_size
from armillary.prediction import predict, refusals
from armillary.process import Process
from armillary.progress import Progress
from armillary.report.figure import Figure
from armillary.simulation import simulate
from armillary.stages import Stages
from armillary.store.keeper import Keep, keeping
from armillary.trajectory import Trajectory
from armillary.verdict import Claim as Claim
from armillary.verdict import Paper as Paper
from armillary.verdict import Verdict as Verdict

Runnable = Experiment | Sweep | Stages | Process
Trajectories = Mapping[str, Trajectory]


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """One paper: its experiments, its theory, its claims and its figures.

    A subclass is a frozen, keyword-only dataclass in a file of its own under `studies/FAMILY/`; the file's
    name is its slug, its fields (see `armillary.fields`) are its knobs and the command line's flags. It gives
    `paper`, `experiments()`, `claims()` and `figures()`; `theory()` is what `predict` says of each experiment
    unless overridden.
    """

    paper: ClassVar[Paper]
    seeds: ClassVar[Mapping[str, int]] = {"smoke": 2, "desk": 8, "paper": 32}
    """How many seeds each size runs unless told otherwise."""

    def __post_init__(self):
        check_fields(self)

    @classmethod
    def at_size(cls, size: Size = "desk", **fields: Any) -> Self:
        """The study at one of its sizes, with some fields set."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                from armillary.errors import unknown

                raise unknown("field", name, known)
        return cls(**{**of_size(cls, size), **fields})

    @abstractmethod
    def experiments(self) -> Mapping[str, Runnable]:
        """What is run, by name; what takes longest had better come first, so that no core waits at the end."""

    def measure(self, name: str, what: Runnable, seeds: int, key: int, progress: Progress) -> Trajectory:
        """One of the experiments run; override where an experiment wants other seeds or times."""
        return simulate(what, seeds=seeds, key=key, progress=progress)

    def theory(self) -> dict[str, Trajectory]:
        """What theory says, by the same names."""
        known = {n: e for n, e in self.experiments().items() if isinstance(e, Experiment | Sweep)}
        predicted = {name: predict(experiment) for name, experiment in known.items()}
        return Predictions(predicted)

    @abstractmethod
    def claims(self, measured: Trajectories, theory: Trajectories) -> Iterator[Claim]:
        """The paper's claims, decided."""

    @abstractmethod
    def figures(self, measured: Trajectories, theory: Trajectories) -> Iterator[Figure]:
        """What one would publish."""


class Predictions(dict[str, Trajectory]):
    """Theory's trajectories by experiment, those that have any; asking for another says which assumption fails."""

    def __init__(self, predicted: Mapping[str, Trajectory]):
        super().__init__({name: said for name, said in predicted.items() if len(said)})
        self._refused = {name: refusals(said) for name, said in predicted.items() if not len(said)}

    def __missing__(self, name: str) -> Trajectory:
        if name not in self._refused:
            raise KeyError(name)
        # A theory that knows all the parts and misses a number is nearer than one of another kind of network.
        of_another_kind = lambda failed: any("; this is " in one for one in failed)
        nearest, failed = min(self._refused[name].items(), key=lambda item: (of_another_kind(item[1]), len(item[1])))
        raise InvalidValue(
            f"no theory applies to the experiment {name!r} with these settings; the nearest, {nearest}, {failed[0]}"
        )


@dataclass(frozen=True)
class Result:
    """A study that was run."""

    study: Study
    size: str
    seeds: int
    key: int
    seconds: float
    measured: Trajectories
    theory: Trajectories
    claims: list[Claim]

    @property
    def diverged(self) -> dict[str, tuple[int, int]]:
        """By experiment: how many members diverged, of how many (experiments without any are left out)."""
        counts = {}
        for name, trajectory in self.measured.items():
            if "diverged_at" in trajectory and trajectory.diverged_at.notnull().any():
                counts[name] = (int(trajectory.diverged_at.notnull().sum()), trajectory.diverged_at.size)
        return counts


def run_study(
    study: Study,
    *,
    size: str,
    seeds: int | None,
    key: int,
    progress: Progress,
    keep: Keep | None = None,
    crew: Apart | None = None,
) -> Result:
    """Run all experiments of a study, ask its theory, and decide its claims. What is done goes into `keep` on the way.

    Several experiments run in the processes of `crew`, where there is one. Raises `InvalidValue` for fewer than one seed.
    """
    count = type(study).seeds[size] if seeds is None else seeds
    if count < 1:
        raise InvalidValue(f"seeds is {count}, but must be at least 1 (--seeds)")
    begun = time.perf_counter()
    experiments = study.experiments()
    names = list(experiments)
    if crew and len(names) > 1:  # members of a single one had better have all cores
        kinds = [likeness(what) for what in experiments.values()]
        runs = crew.begin(functools.partial(_measured_apart, study, count, key, keep), names, kinds, progress)
        theory, measured = study.theory(), [run.result() for run in runs]
    else:
        ask = lambda progress: study.theory()
        measure = functools.partial(_measured, study, experiments, count, key, keep)
        jobs: list[Callable[[Progress], Any]] = [ask, *(functools.partial(measure, name) for name in names)]
        theory, *measured = all_of(lambda job: job(progress), jobs)
    trajectories = dict(zip(names, measured, strict=True))
    claims = list(study.claims(trajectories, theory))
    seconds = time.perf_counter() - begun
    return Result(study, size, count, key, seconds, trajectories, theory, claims)


def _measured(
    study: Study,
    experiments: Mapping[str, Runnable],
    seeds: int,
    key: int,
    keep: Keep | None,
    name: str,
    progress: Progress,
) -> Trajectory:
    with keeping(keep):
        return study.measure(name, experiments[name], seeds, key, Named(progress, name))


_known: list[tuple[Study, Mapping[str, Runnable]]] = []
"""The experiments of the study at which this process works."""


def _measured_apart(study: Study, seeds: int, key: int, keep: Keep | None, name: str, progress: Progress) -> Trajectory:
    if not _known or _known[0][0] != study:
        _known[:] = [(study, study.experiments())]
    return _measured(study, _known[0][1], seeds, key, keep, name, progress)


@dataclass(frozen=True)
class Named:
    """A progress whose runs are called by the experiment's name."""

    inner: Progress
    name: str

    def begin(self, description: str, total: float) -> Callable[[float], None]:
        return self.inner.begin(self.name, total)
