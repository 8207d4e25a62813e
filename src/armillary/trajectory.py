"""Trajectories: what was measured or predicted, as labelled xarray datasets."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from armillary.serialise import experiment_from_json, experiment_to_json

Trajectory = xr.Dataset
"""An `xarray.Dataset` with a `time` axis, one dimension for each swept number, `seed`, and the probes' own."""

TIME = {True: {"units": "steps", "long_name": "step"}, False: {"units": "1/rate", "long_name": "flow time"}}


def dataset(blocks: list, axes: Mapping[str, Sequence[float]], discrete: bool) -> Trajectory:
    """One program's blocks of members as a dataset with the dimensions `axes` (seed last), time, ...

    From the moment at which a member diverged its observations are nan, so that no mean can use them.
    """
    shape = tuple(len(values) for values in axes.values())
    diverged = np.concatenate([diverged for _, diverged in blocks]).astype(float)
    stages = []
    for number in range(len(blocks[0][0])):
        clock = blocks[0][0][number][0]
        variables = {}
        for name, first in blocks[0][0][number][1].items():
            values = np.concatenate([records[number][1][name].values for records, _ in blocks], axis=1)
            values = np.moveaxis(values, 0, 1)  # member, time, ...
            gone = (diverged[:, None] >= 0) & (clock >= diverged[:, None])
            if gone.any():
                values = np.where(gone.reshape(*gone.shape, *[1] * (values.ndim - 2)), np.nan, values)
            labels = {"units": first.unit, "long_name": first.long_name or name.replace("_", " ")}
            variables[name] = (
                (*axes, "time", *first.dims), values.reshape(*shape, len(clock), *values.shape[2:]), labels
            )  # fmt: skip
        stages.append(labelled(variables, {**{k: list(v) for k, v in axes.items()}, "time": clock}))
    whole = stages[0] if len(stages) == 1 else _joined(stages)
    diverged = np.where(diverged < 0, np.nan, diverged).reshape(shape)
    whole["diverged_at"] = (tuple(axes), diverged, {**TIME[discrete], "long_name": "where the run diverged"})
    whole["time"].attrs.update(TIME[discrete])
    return whole


def labelled(variables: Mapping[str, tuple], coords: Mapping[str, Any]) -> Trajectory:
    """A dataset of (dims, values, attributes), with 1, 2, ... along every dimension that has no coordinate.

    Where two variables have a dimension in common (`rank`) but not its size, the shorter one ends in nan.
    """
    sizes: dict[str, set[int]] = {}
    for dims, values, _ in variables.values():
        for dim, size in zip(dims, np.shape(values), strict=True):
            sizes.setdefault(dim, set()).add(size)
    if all(len(found) == 1 for found in sizes.values()):
        return numbered(xr.Dataset(variables, coords))
    alone = [numbered(xr.Dataset({name: variable}, coords)) for name, variable in variables.items()]
    return xr.merge(alone, join="outer", combine_attrs="override", compat="override")


def numbered(part: Trajectory) -> Trajectory:
    """The dataset with 1, 2, ... along every dimension that has no coordinate (layers, modes, ...)."""
    return part.assign_coords({d: np.arange(1, n + 1) for d, n in part.sizes.items() if d not in part.coords})


def _joined(stages: list[Trajectory]) -> Trajectory:
    """Stages one after another in time, with the stage's number as a coordinate."""
    marked = [s.assign_coords(stage=("time", np.full(s.sizes["time"], i + 1))) for i, s in enumerate(stages)]
    return xr.concat(marked, "time", join="outer", data_vars="all", coords="minimal", combine_attrs="override")


def combine(parts: Sequence[Any], order: Sequence[str]) -> Trajectory:
    """Datasets at different values of some axes as one, missing cells as nan, dimensions in the given order."""
    for axis in reversed(list(parts[0][0])):
        groups: dict[str, tuple[dict, dict]] = {}
        for at, part in parts:
            rest = {k: v for k, v in at.items() if k != axis}
            groups.setdefault(repr(rest), (rest, {}))[1][label_of(at[axis])] = part
        parts = [  # one axis fewer
            (rest, xr.concat(
                list(found.values()), pd.Index(list(found), name=axis), join="outer", data_vars="all",
                coords="minimal", compat="override", combine_attrs="override",
            ))
            for rest, found in groups.values()
        ]  # fmt: skip
    whole = parts[0][1]
    return whole.transpose(*[d for d in order if d in whole.dims], "seed", "time", ..., missing_dims="ignore")


def label_of(value: Any) -> Any:
    """A coordinate for a swept value: itself if it is a number or a word, a list as text, else its class's name."""
    if isinstance(value, int | float | str | bool):
        return value
    return str(value) if isinstance(value, tuple) else str(type(value).__name__)


def describe(trajectory: Trajectory, what: Any, axes: Mapping[str, Sequence[Any]], key: int | None) -> Trajectory:
    """The trajectory with the experiment that made it in its attributes, the versions and the key."""
    attributes: dict[str, Any] = {
        "experiment": experiment_to_json(what),
        "sweep": json.dumps({name: [label_of(v) for v in values] for name, values in axes.items()}),
        "armillary": importlib.metadata.version("armillary"),
        "jax": importlib.metadata.version("jax"),
    }
    if key is not None:
        attributes["key"] = key
    return trajectory.assign_attrs(attributes)


def experiment_from(trajectory: Trajectory) -> Any:
    """The experiment that made `trajectory` (the swept one's base, for a sweep), from its attributes.

    Raises `InvalidValue` where it held parts that cannot be written down (a user's own function or module).
    """
    return experiment_from_json(trajectory.attrs.get("experiment", ""))


def healthy(trajectory: Trajectory) -> Trajectory:
    """Only the members that did not diverge: theirs are the values to average. Others become missing.

    Count what was left out with `trajectory.diverged_at.notnull().sum()`.
    """
    if "diverged_at" not in trajectory:
        return trajectory
    fine = trajectory.diverged_at.isnull()
    with_seeds = [name for name in trajectory.data_vars if name != "diverged_at"]
    masked = {n: trajectory[n].where(fine) if "seed" in trajectory[n].dims else trajectory[n] for n in with_seeds}
    return trajectory.assign(masked)


def over_seeds(variable: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean over seeds and its standard error, both over the members that are there (nan ones left out)."""
    if "seed" not in variable.dims:
        return variable, xr.zeros_like(variable)
    values, axis = variable.values, variable.get_axis_num("seed")
    there = ~np.isnan(values)
    count = there.sum(axis)
    with np.errstate(invalid="ignore", divide="ignore"):  # none there: nan
        mean = np.where(there, values, 0).sum(axis) / count
        away = np.where(there, (values - np.expand_dims(mean, axis)) ** 2, 0).sum(axis)
        error = np.sqrt(away / np.where(count > 1, count - 1, np.nan) / count)
    like = variable.isel(seed=0, drop=True)
    return like.copy(data=mean), like.copy(data=error)
