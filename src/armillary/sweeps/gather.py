"""Blocks of a sweep as labelled datasets, missing cells as missing. The plan in `run.json` and the blocks suffice."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from armillary.store.blocks import Block, over_parts, read_block
from armillary.store.files import Place, names_in
from armillary.sweeps.record import read_record
from armillary.trajectory import Trajectory, combine, dataset


def gather(folder: Place) -> dict[str, Trajectory]:
    """By experiment: one dataset over the swept axes, seeds and time. Cells that are not done are nan.

    Raises `StoreError` for a block that is damaged (see `verify`).
    """
    said = read_record(folder)
    done = set(names_in(folder / "blocks", ".nc"))
    pieces: dict[str, list[tuple[dict, Trajectory]]] = {}
    for part in said["parts"]:
        firsts = range(0, part["members"], part["size"])
        names = [f"{part['name']}-{first}.nc" for first in firsts]
        found = [read_block(folder / "blocks" / name) if name in done else None for name in names]
        if not any(found):
            continue
        sizes = [min(part["size"], part["members"] - first) for first in firsts]
        whole = dataset(
            _filled(found, sizes),
            {"entry": range(len(part["entries"])), **part["numeric"], "seed": said["seeds"]},
            part["discrete"],
        )
        pieces.setdefault(part["experiment"], []).extend(
            (at, whole.isel(entry=index, drop=True).drop_vars("entry", errors="ignore"))
            for index, at in enumerate(part["entries"])
        )
    return {name: _described(combine(parts, _order(name, said)), said) for name, parts in pieces.items()}


def _order(experiment: str, said: Mapping[str, Any]) -> list[str]:
    """Swept axes in the order in which they were asked for, an experiment's own after them."""
    mine = [part for part in said["parts"] if part["experiment"] == experiment]
    known = [*mine[0]["entries"][0], *mine[0]["numeric"]]
    asked = [name.split(".")[-1] for name in said["over"]]
    return [*(name for name in asked if name in known), *(name for name in known if name not in asked)]


def _filled(found: list[Block | None], sizes: list[int]) -> list[tuple[list, np.ndarray]]:
    """The blocks as `dataset` takes them, with nan where one is missing."""
    like = next(block for block in found if block)

    def empty(size: int) -> tuple[list, np.ndarray]:
        fill: Any = lambda parts: np.full((parts[0].shape[0], size, *parts[0].shape[2:]), np.nan)
        records = [(times, over_parts([seen], fill)) for times, seen in like.records]
        return records, np.full(size, -1)

    return [(block.records, block.diverged) if block else empty(size) for block, size in zip(found, sizes, strict=True)]


def _described(whole: Trajectory, said: Mapping[str, Any]) -> Trajectory:
    """With every value of the swept axes, also those without a finished cell, and what made it."""
    wanted = {name.split(".")[-1]: values for name, values in said["over"].items()}
    labels = {name: values for name, values in wanted.items() if name in whole.dims and len(values) > whole.sizes[name]}
    if labels:
        whole = whole.reindex({name: [_label(value) for value in values] for name, values in labels.items()})
    about = {name: str(said[name]) for name in ("what", "armillary", "jax", "key")}
    return whole.assign_attrs(about)


def _label(value: Any) -> Any:
    return str(tuple(value)) if isinstance(value, list) else value


def as_one(found: Mapping[str, Trajectory]) -> xr.Dataset:
    """One dataset. That of several experiments names a quantity `EXPERIMENT.QUANTITY`, and so each axis (time, most of all)
    on which the experiments do not agree; the others are shared.

    >>> two = {"few": xr.Dataset({"loss": ("time", [1.0])}, {"time": [0]}), "many": xr.Dataset({"loss": ((), 2.0)})}
    >>> as_one(two)["few.loss"].sizes, as_one(two)["many.loss"].item()
    (Frozen({'time': 1}), 2.0)
    """
    if len(found) == 1:
        return next(iter(found.values()))
    names = {str(name) for one in found.values() for name in (*one.dims, *one.coords)}
    apart = {
        name
        for name in names
        if not _agree([one for one in found.values() if name in one.dims or name in one.coords], name)
    }
    renamed = [
        one.rename({name: f"{experiment}.{name}" for name in (*one.data_vars, *(apart & {*one.dims, *one.coords}))})
        for experiment, one in found.items()
    ]
    return xr.merge(renamed, join="exact", compat="equals", combine_attrs="drop_conflicts")


def _agree(datasets: list[Trajectory], name: str) -> bool:
    """Whether all have the same values along an axis, or of a coordinate."""
    first, *others = datasets
    same = lambda one: one.sizes.get(name) == first.sizes.get(name) and (name in one.coords) == (name in first.coords)
    return all(
        same(one) and (name not in one.coords or one[name].variable.equals(first[name].variable)) for one in others
    )
