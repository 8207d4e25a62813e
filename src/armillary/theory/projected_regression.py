"""Linear regression in steps or flow, on few samples and few random projections, as an experiment's theory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.deep_linear import DeepLinear
from armillary.models.initialisation import Gaussian
from armillary.models.projection import RandomProjection
from armillary.rules import SGD, Descent, FullBatch, GradientFlow, LinearFlow, Online
from armillary.tasks.eigenfeatures import Eigenfeatures
from armillary.tasks.linear import LinearTeacher
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.theory.deterministic_equivalents import Spectrum
from armillary.theory.linear_dynamics import MOST_STEPS, Course, LinearDynamics
from armillary.trajectory import Trajectory, numbered

FEWEST = 20
"""Samples, projections and modes below which single draws stray from the limit by more than a few per cent on average."""


def online_errors(
    spectrum: Spectrum, power: ArrayLike, learning_rate: float, batch: float, steps: int, noise: float = 0.0
) -> Float[np.ndarray, " step"]:
    """Test error (without label noise) of all modes at steps 0 to `steps` of one-pass SGD on Gaussian modes, width infinite.

    Mode by mode v² <- (1 - rate lambda)² v² + rate²/batch (lambda (error + noise²) + lambda² v²): exact on average.
    Raises `InvalidValue` for no steps or a batch below 1. Derived here.

    >>> from armillary.theory.power_laws import power_law_modes
    >>> spectrum, power = power_law_modes(1.5, 2.0, modes=200)
    >>> online_errors(spectrum, power, 0.2, 10, 300)[[1, 50, 300]].round(2).tolist()
    [1.24, 0.12, 0.03]
    """
    require_between("the number of steps", steps, 0)
    require_between("the batch size", batch, 1)
    require_between("learning_rate", learning_rate, 0.0)
    values, counts = spectrum
    left, errors = np.array(power, float), []
    for _ in range(steps + 1):
        errors.append(left.sum())
        drawn = counts * values**2 * (errors[-1] + noise**2) + values**2 * left
        left = (1 - learning_rate * values) ** 2 * left + learning_rate**2 / batch * drawn
    return np.array(errors)


@theory
class ProjectedRegression(Theory):
    """Training and test error of linear models on Gaussian inputs of any spectrum, at any time, width and number of samples."""

    name = "linear dynamics in high dimension"
    source = "Bordelon, Atanasov & Pehlevan (2024), arXiv:2402.01092"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind(
            "a linear target of Gaussian inputs (Eigenfeatures, LinearTeacher)", task, Eigenfeatures, LinearTeacher
        )
        yield kind("a linear read-out of inputs or projections (RandomProjection, DeepLinear of depth 1)", model, RandomProjection, DeepLinear)  # fmt: skip
        yield kind("gradient flow or descent", rule, GradientFlow, LinearFlow, Descent)
        if not (
            isinstance(task, Eigenfeatures | LinearTeacher)
            and isinstance(model, RandomProjection | DeepLinear)
            and isinstance(rule, GradientFlow | LinearFlow | Descent)
        ):
            return
        yield squared_error(experiment)
        if isinstance(model, DeepLinear):
            yield limit("a single layer", "the depth", model.depth, 1)
            yield kind("independent Gaussian initial weights", model.initialisation, Gaussian)
            mixed = isinstance(task, Eigenfeatures) and float(getattr(model.initialisation, "scale", 0.0)) > 0
            yield Check(not mixed, "weights that start at 0", "they are random; use RandomProjection()")
            if model.depth > 1 or not isinstance(model.initialisation, Gaussian) or mixed:
                return
        positive = bool(np.all(_eigenvalues(task) > 0))
        yield Check(positive, "positive eigenvalues", "some inputs have variance 0; leave them out")
        if not positive:
            return
        dynamics = _dynamics(experiment)
        online = isinstance(rule, Descent) and isinstance(rule.feed, Online)
        counted = {"modes": float(dynamics.spectrum.counts.sum())}
        if np.isfinite(dynamics.width):
            counted["projections"] = dynamics.width
        if np.isfinite(dynamics.samples) and not online:
            counted["samples"] = dynamics.samples
        for what, given in counted.items():
            exact = online or len(counted) == 1
            yield Check(exact or given >= FEWEST, f"many {what}", f"there are {given:g} (at least {FEWEST})")
        if isinstance(rule, Descent):
            yield from _descent_checks(experiment, dynamics, online)

    def predict(self, experiment: Experiment) -> Trajectory:
        dynamics, rule = _dynamics(experiment), experiment.rule
        if isinstance(rule, Descent) and isinstance(rule.feed, Online):
            return _online(experiment, dynamics)
        times = experiment.times * _per_time(experiment)
        course: Course = dynamics.flow(times)
        if isinstance(rule, Descent) and isinstance(rule.optimiser, SGD):
            rate = float(rule.optimiser.learning_rate) * _per_time(experiment)
            course = dynamics.descent(experiment.times, rate, float(rule.optimiser.momentum or 0.0))
        outputs = experiment.task.outputs
        reduced = experiment.task.samples if rule.loss.reduction == "sum" else 1
        train = course.train * outputs
        if isinstance(experiment.task, LinearTeacher):
            floor = float(experiment.task.noise) ** 2
            said = {
                "generalisation_error": ((course.test + floor) * outputs, "test error"),
                "training_error": (train, "training error"),
            }
            return _labelled(said, experiment)
        if experiment.task.samples is None:
            train, reduced = course.test, experiment.task.inputs if reduced is None else 1
        said = {
            "train_loss": (train / 2 * reduced, "training loss"),
            "test_loss": (course.test / 2, "test loss"),
            "excess_risk": (course.test, "excess risk"),
            "risk_of_mean": (course.bias, "excess risk of the mean model"),
        }
        return _labelled(said, experiment, course.unlearned[:, np.argsort(_order(experiment))])


def _eigenvalues(task: Any) -> np.ndarray:
    if isinstance(task, LinearTeacher):
        return np.diag(task.input_covariance)
    return np.asarray(task.eigenvalues, float)


def _order(experiment: Experiment) -> np.ndarray:
    """The modes from the smallest eigenvalue up, as they are grouped."""
    return np.argsort(_eigenvalues(experiment.task), kind="stable")


def _dynamics(experiment: Experiment) -> LinearDynamics:
    task, model = experiment.task, experiment.model
    values = _eigenvalues(task)
    samples = np.inf if task.samples is None else float(task.samples)
    if isinstance(task, LinearTeacher):
        scale = 0.0
        if isinstance(model, DeepLinear) and isinstance(model.initialisation, Gaussian):
            scale = float(model.initialisation.scale) / (1.0 if model.initialisation.per_entry else len(values) ** 0.5)
        grouped, counts = np.unique(values, return_counts=True)
        spectrum = Spectrum(grouped, counts.astype(float))
        power = grouped * counts * (float(task.signal) ** 2 + scale**2)
    else:
        order = _order(experiment)
        spectrum = Spectrum(values[order], np.ones(len(values)))
        power = np.asarray(task.target_coefficients, float)[order] ** 2
    width = model.width if isinstance(model, RandomProjection) and model.width is not None else np.inf
    return LinearDynamics(spectrum, power, float(width), samples, float(task.noise))


def _per_time(experiment: Experiment) -> float:
    """Units of the mean loss's time in one of the experiment's."""
    task = experiment.task
    return (
        1.0
        if experiment.rule.loss.reduction == "mean"
        else float(task.inputs if task.samples is None else task.samples)
    )


def _descent_checks(experiment: Experiment, dynamics: LinearDynamics, online: bool) -> Iterator[Check]:
    optimiser, steps = experiment.rule.optimiser, float(experiment.rule.steps)
    plain = isinstance(optimiser, SGD) and not optimiser.weight_decay and optimiser.schedule is None
    what = f"the optimiser is {type(optimiser).__name__}, or has decay or a schedule"
    yield Check(plain, "gradient descent, with or without momentum", what)
    yield kind("full batches, or fresh samples at every step", experiment.rule.feed, FullBatch, Online)
    if not isinstance(optimiser, SGD):
        return
    momentum = float(optimiser.momentum or 0.0)
    rate = float(optimiser.learning_rate)
    if online:
        yield Check(
            np.isinf(dynamics.width),
            "all inputs where samples are fresh",
            f"the width is {dynamics.width:g}; take None",
        )
        yield limit("no momentum where samples are fresh", "the momentum", momentum, 0.0)
        known = isinstance(experiment.task, Eigenfeatures) and experiment.rule.loss.reduction == "mean"
        yield Check(known, "a mean over fresh samples of Eigenfeatures", "this is a sum, or a LinearTeacher")
        return
    stable = 2 * (1 + momentum) / dynamics.spectral_edge / _per_time(experiment)
    yield limit("a stable learning rate", "the learning rate over the largest stable one", rate / stable, 1.0)
    smooth = momentum == 0 and rate / stable < 0.5
    needed = "few steps, or plain descent below half of the largest stable rate"
    yield Check(smooth or steps <= MOST_STEPS, needed, f"there are {steps:g} steps (at most {MOST_STEPS})")


def _online(experiment: Experiment, dynamics: LinearDynamics) -> Trajectory:
    rule, times = experiment.rule, experiment.times.astype(int)
    rate = float(rule.optimiser.learning_rate)
    errors = online_errors(
        dynamics.spectrum, dynamics.power, rate, rule.feed.size, int(times.max()), dynamics.noise
    )[times]  # fmt: skip
    values = _eigenvalues(experiment.task)
    said = {"test_loss": (errors / 2, "test loss"), "excess_risk": (errors, "excess risk")}
    return _labelled(said, experiment, (1 - rate * values) ** times[:, None])


def _labelled(said: dict[str, tuple], experiment: Experiment, unlearned: np.ndarray | None = None) -> Trajectory:
    found: dict[str, Any] = {
        name: ("time", values, {"units": "1", "long_name": words}) for name, (values, words) in said.items()
    }
    if unlearned is not None:
        words = {"units": "1", "long_name": "share of a mode that is not learned"}
        found["unlearned"] = (("time", "mode"), unlearned, words)
    return numbered(xr.Dataset(found, coords={"time": experiment.times}))
