"""Experiment → the theory's trajectory."""

import itertools
import json
from typing import Any

import xarray as xr

from armillary.errors import InvalidValue, unknown
from armillary.experiment import Experiment, Sweep
from armillary.trajectory import Trajectory, combine, describe


def predict(what: Experiment | Sweep, *, theory: str | None = None) -> Trajectory:
    """What theory says of an experiment, under the same names and on the same clock as the probes.

    Every theory whose assumptions hold is asked; where two give the same observable, the one defined first
    counts. `theory` names the only one to ask. Of a sweep each cell is predicted, and cells where no theory
    applies are nan.

    Returns an `xarray.Dataset`: its attribute `theories` names those that spoke and their sources,
    `refusals` is a JSON object with, for each theory that did not apply, the assumptions that failed and by
    how much (see `refusals`). Where none applies the dataset has no variables.

    Raises `UnknownName` for a theory that there is not, `InvalidValue` for what is no experiment.

    >>> import armillary as arm, jax.numpy as jnp
    >>> task = arm.tasks.Correlations(jnp.diag(jnp.array([1.0, 10.0])), jnp.eye(2))
    >>> model = arm.models.DeepLinear(initialisation=arm.models.Decoupled(jnp.eye(2)))
    >>> nothing = predict(arm.Experiment(task, model, arm.rules.GradientFlow()))
    >>> len(nothing), refusals(nothing)["deep linear modes"]
    (0, ["needs white inputs; the covariance's condition number is 10 (allowed 1.01)"])
    """
    if isinstance(what, Experiment):
        return describe(_predict(what, theory), what, {}, None)
    if not isinstance(what, Sweep):
        raise InvalidValue(f"cannot predict a {type(what).__name__}; give an Experiment or a Sweep")
    cells = []
    for values in itertools.product(*what.axes.values()):
        at = dict(zip(what.axes, values, strict=True))
        cells.append((at, _predict(what.at(at), theory)))
    refused: dict[str, list[str]] = {}
    for _, cell in cells:
        refused.update(refusals(cell))
    spoke = {cell.attrs["theories"] for _, cell in cells if cell.attrs["theories"]}
    answered = [(at, cell) for at, cell in cells if len(cell)]
    if not answered:
        return describe(cells[0][1].assign_attrs(refusals=json.dumps(refused)), what.experiment, what.axes, None)
    whole = combine(answered, list(what.axes))
    plain = {n: list(v) for n, v in what.axes.items() if all(isinstance(x, int | float | str) for x in v)}
    whole = whole.reindex(plain)  # cells where no theory applies are there, and nan
    whole = whole.assign_attrs(theories="; ".join(sorted(spoke)), refusals=json.dumps(refused))
    return describe(whole, what.experiment, what.axes, None)


def refusals(prediction: Trajectory) -> dict[str, list[str]]:
    """Theory by theory, which assumptions failed and by how much."""
    return json.loads(prediction.attrs.get("refusals", "{}"))


def _predict(experiment: Experiment, only: str | None) -> Trajectory:
    from armillary.theory import theories

    known = {theory.name: theory for theory in theories()}
    if only is not None and only not in known:
        raise unknown("theory", only, known)
    spoke: list[str] = []
    refused: dict[str, list[str]] = {}
    said: dict[Any, xr.DataArray] = {}
    for name, theory in known.items():
        if only not in (None, name):
            continue
        failed = [str(check) for check in theory.checks(experiment) if not check.holds]
        if failed:
            refused[name] = failed
            continue
        spoke.append(f"{name} ({theory.source})")
        for observable, values in theory.predict(experiment).data_vars.items():
            said.setdefault(observable, values)
    return xr.Dataset(said, attrs={"theories": "; ".join(spoke), "refusals": json.dumps(refused)})
