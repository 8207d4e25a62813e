"""A sweep run: its blocks computed here or on a cluster, each written as soon as it is finished, failures kept."""

import dataclasses
import json
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import xarray as xr

from armillary.cores import all_of
from armillary.errors import ArmillaryError, InvalidValue, require_between
from armillary.experiment import Experiment, Sweep
from armillary.fields import Size
from armillary.register import study_class
from armillary.serialise import experiment_to_json
from armillary.store.files import Place, StoreError, place, write_text
from armillary.store.fingerprint import fingerprint
from armillary.study import Study
from armillary.sweeps.board import Board, Quiet
from armillary.sweeps.gather import as_one, gather
from armillary.sweeps.grid import Grid, checked_name, parse_values
from armillary.sweeps.plan import Part, plan
from armillary.sweeps.record import Job, Record, open_record, sweep_name

MEMORY = 1e9
"""Bytes that the members of one block may take."""


class Outcome(NamedTuple):
    """How a sweep ended: its folder, blocks done, and the errors of those that failed, by block."""

    folder: Place
    done: int
    failed: dict[str, str]


def sweep(
    what: str | Study | type[Study] | Experiment | Sweep,
    over: Mapping[str, Any],
    *,
    out: str | Place,
    seeds: int | Sequence[int] | None = None,
    key: int = 0,
    size: Size = "desk",
    experiments: Sequence[str] = (),
    cluster: str | None = None,
    retry: bool = False,
    memory: float = MEMORY,
) -> xr.Dataset:
    """Run a study or an experiment at every combination of values, kept in the folder (or URL) `out`.

    - `over`: an axis for each name. A name is a field of the study, or of its experiments (a path with dots, or its last
      part where that is unique); experiments that lack one are left out. Values are a sequence, or text such as
      `"log:1e-3:1e-1:16"`.
    - `seeds`: how many, or which; a study has its own number for each `size`.
    - `experiments`: which of a study's, all by default.
    - `cluster`: `"local:4"` (four processes) or the address of a Dask scheduler (`"tcp://host:port"`).
    - `retry`: run blocks again that failed before; without it they stay failed.

    The same call goes on where an earlier one stopped. A cell's numbers depend on its own values, its seed and `key` alone:
    any sub-grid, order and number of workers gives the same. Returns one dataset over the axes, the seeds and time; where a
    study has several experiments, it names their quantities, and the axes they do not share, `EXPERIMENT.QUANTITY`. Cells
    that failed are nan.

    Raises `InvalidValue` and `UnknownName` for axes that cannot be, `StoreError` for a folder that cannot be used,
    `ArmillaryError` where nothing could be finished.

    >>> import tempfile, armillary as arm
    >>> experiment = arm.Experiment(
    ...     arm.tasks.LinearTeacher(dimension=4, samples=8), arm.models.DeepLinear(depth=1),
    ...     arm.rules.Descent(steps=3), probes=[arm.probes.Losses()])
    >>> found = sweep(experiment, {"learning_rate": [0.1, 0.2]}, seeds=3, out=tempfile.mkdtemp())
    >>> dict(found.train_loss.sizes)
    {'learning_rate': 2, 'seed': 3, 'time': 4}
    """
    require_between("memory", memory, 1e6)
    axes = {checked_name(name): parse_values(name, _listed(values)) for name, values in over.items()}
    asked = prepare(what, axes, seeds=seeds, key=key, size=size, experiments=tuple(experiments))
    outcome = run(asked, out=out, cluster=cluster, retry=retry, memory=int(memory))
    if outcome.failed and not outcome.done:
        name, error = next(iter(outcome.failed.items()))
        raise ArmillaryError(
            f"every block failed, {name} with: {error} (kept in {outcome.folder}; retry=True tries again)"
        )
    return as_one(gather(outcome.folder))


class Asked(NamedTuple):
    """A sweep that is ready to be planned."""

    what: Any
    slug: str
    over: dict[str, tuple]
    seeds: list[int]
    key: int
    experiments: tuple[str, ...]
    said: dict[str, Any]

    def parts(self) -> list[Part]:
        """Its compiled programs."""
        return plan(self.what, self.over, self.seeds, self.key, self.experiments)


def prepare(
    what: Any,
    over: Mapping[str, tuple],
    *,
    seeds: Any = None,
    key: int = 0,
    size: Size = "desk",
    experiments: tuple[str, ...] = (),
) -> Asked:
    """What is swept, with all that its folder's name depends on."""
    if not over:
        raise InvalidValue("there is nothing to sweep over; give at least one axis (--over NAME=VALUES)")
    if isinstance(what, str):
        what, slug = study_class(what).at_size(size), what
    elif isinstance(what, type) and issubclass(what, Study):
        what, slug = what.at_size(size), what.__name__.lower()
    elif isinstance(what, Study):
        slug = type(what).__module__.rsplit(".", 1)[-1].replace("_", "-").lower()
    elif isinstance(what, Experiment | Sweep):
        slug = "experiment"
    else:
        raise InvalidValue(f"cannot sweep a {type(what).__name__}; give a study, its name, an Experiment or a Sweep")
    slug = slug.rsplit("/", 1)[-1].removesuffix(".py").replace("_", "-").lower()
    count = seeds if seeds is not None else type(what).seeds[size] if isinstance(what, Study) else 1
    chosen = list(range(count)) if isinstance(count, int) else [int(seed) for seed in count]
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise InvalidValue(f"seeds are {chosen}, but must be one or more different numbers from 0 up")
    said: dict[str, Any] = {"over": {name: list(values) for name, values in over.items()}, "seeds": chosen, "key": key}
    if isinstance(what, Study):
        said |= {"what": slug, "size": size, "settings": dataclasses.asdict(what), "experiments": list(experiments)}
    else:
        experiment = what.experiment if isinstance(what, Sweep) else what
        own = dict(what.axes) if isinstance(what, Sweep) else {}
        if (digest := fingerprint((experiment, own))) is None:
            raise InvalidValue(
                "the experiment holds an object that cannot be told from another; make it of dataclasses and functions"
            )
        said |= {"what": experiment_to_json(experiment), "fingerprint": digest}
    return Asked(what, slug, dict(over), chosen, key, experiments, json.loads(json.dumps(said, default=str)))


def of_grid_file(grid: Grid) -> Asked:
    """The sweep that a TOML file asked for."""
    study = study_class(grid.study).at_size(grid.size, **grid.fields)
    return prepare(study, grid.over, seeds=grid.seeds, key=grid.key, size=grid.size, experiments=grid.experiments)


def run(
    asked: Asked,
    *,
    out: str | Place,
    cluster: str | None = None,
    retry: bool = False,
    memory: int = int(MEMORY),
    board: Any = None,
) -> Outcome:
    """Compute the blocks that are not there yet; an error of one is written down and does not end the others."""
    board = board or Quiet()
    folder = place(out) / sweep_name(asked.slug, asked.said)
    record = open_record(folder, asked.parts(), asked.said, memory)
    done, failed = record.done(), record.failed()
    todo = [job for job in record.jobs if job.name not in done and (retry or job.name not in failed)]
    board.begin(record, done, {} if retry else failed)
    if cluster is None:
        all_of(lambda job: compute(record, job, board), todo)
    elif todo:
        from armillary.sweeps.cluster import compute_on

        compute_on(cluster, record, todo, board)
    return Outcome(folder, len(record.done()), record.failed())


def compute(record: Record, job: Job, board: Board | Quiet) -> str:
    """One block, written when it is finished; the block's name. Only a folder that cannot be written ends the sweep."""
    program, layout = record.parts[job.part].program, record.layouts[job.part]
    board.started(job)
    try:
        program.block(job.first, layout, board.progress(job, program.duration), record.kept(job.part))
    except StoreError:
        raise
    except Exception as error:
        board.failed(job, write_failure(record, job, error))
        return job.name
    with suppress(FileNotFoundError):
        (record.folder / "failed" / f"{job.name}.json").unlink()
    board.finished(job)
    return job.name


def write_failure(record: Record, job: Job, error: BaseException) -> str:
    """Write down why a block failed; returns it in one line."""
    told = str(error).strip().splitlines() or [type(error).__name__]
    said = told[0] if isinstance(error, ArmillaryError) else f"{type(error).__name__}: {told[0]}"
    trace = "".join(traceback.format_exception(error))
    write_text(record.folder / "failed" / f"{job.name}.json", json.dumps({"error": said, "traceback": trace}))
    return said


def _listed(values: Any) -> Any:
    plain = isinstance(values, str | Mapping | list | tuple) or hasattr(values, "tolist")
    return values if plain else list(values)
