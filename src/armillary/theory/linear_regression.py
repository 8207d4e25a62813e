"""Learning curves of high-dimensional linear regression under gradient flow (Advani & Saxe 2017)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.experiment import Experiment
from armillary.models import DeepLinear, Gaussian
from armillary.tasks import LinearTeacher
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.theory.random_matrix import MarchenkoPastur
from armillary.trajectory import Trajectory

Times = Float[np.ndarray, " time"]

SMALLEST_DIMENSION = 100
"""Inputs below which single draws stray from the high-dimensional limit by more than a few percent."""


def spectral_errors(
    time: Times, nodes: Float[np.ndarray, " node"], weights: Float[np.ndarray, " node"], atom: float,
    ratio: float, excess: float, noise: float,
) -> tuple[Times, Times]:  # fmt: skip
    """Test and training error from any spectrum: `weights` of mass min(1, ratio) at `nodes`, `atom` at 0.

    test = noise + sum_w [excess e^(-2 x t) + noise (1 - e^(-x t))²/x] + atom excess,
    train = (1/ratio) sum_w (x excess + noise) e^(-2 x t) + max(0, 1 - 1/ratio) noise,
    with `excess` the variance of initial weights plus teacher and `noise` that of the labels; the noise floor
    is in the test error. Pass measured eigenvalues with equal weights for a given data set.
    Source: Advani & Saxe (2017)
    """
    decay = np.exp(-np.outer(time, nodes))
    test = noise + (excess * decay**2 + noise * (1 - decay) ** 2 / nodes) @ weights + atom * excess
    train = (decay**2 * (nodes * excess + noise)) @ weights / ratio + max(0.0, 1 - 1 / ratio) * noise
    return test, train


def regression_curve(time: Times, ratio: float, excess: float, noise: float = 1.0) -> tuple[Times, Times]:
    """Test and training error of the high-dimensional limit at samples/inputs = `ratio` (see `spectral_errors`).

    Time is that of dw/dt = (y - w X) Xᵀ, inputs having variance 1/inputs.

    >>> test, train = regression_curve(np.array([0.0, 1e9]), ratio=2.0, excess=5.0)
    >>> test.round(6).tolist()
    [6.0, 2.0]
    """
    law = MarchenkoPastur(ratio)
    return spectral_errors(np.asarray(time, float), *law.quadrature(), law.atom, ratio, excess, noise)


def final_error(ratio: float, excess: float, noise: float = 1.0) -> float:
    """Test error after infinite time: noise ratio/(ratio - 1), or (1 - ratio) excess + noise/(1 - ratio); inf at 1."""
    if ratio == 1:
        return np.inf
    return noise * ratio / (ratio - 1) if ratio > 1 else (1 - ratio) * excess + noise / (1 - ratio)


def best_stopping(ratio: float, excess: float, noise: float = 1.0) -> tuple[float, float]:
    """The time that minimises the test error, and that error (a one-dimensional search in log time)."""
    from scipy.optimize import minimize_scalar  # loads slowly

    error = lambda log_time: regression_curve(np.exp([log_time]), ratio, excess, noise)[0][0]
    grid = np.linspace(np.log(1e-3), np.log(1e5), 60)
    start = grid[int(np.argmin([error(x) for x in grid]))]
    found: Any = minimize_scalar(error, bounds=(start - 0.5, start + 0.5), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)), float(found.fun)


def best_ridge_error(ratio: float, signal: float, noise: float = 1.0) -> float:
    """Test error of ridge regression with the Bayes-optimal penalty noise/signal, from zero initial weights."""
    law = MarchenkoPastur(ratio)
    nodes, weights = law.quadrature()
    return float(noise + noise * (weights / (nodes + noise / signal)).sum() + law.atom * signal)


@theory
class HighDimensionalRegression(Theory):
    """Test and training error of linear regression when samples and inputs are both many."""

    name = "high-dimensional regression"
    source = "Advani & Saxe (2017), arXiv:1710.03667"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a linear teacher", task, LinearTeacher)
        yield kind("a linear student (DeepLinear of depth 1)", model, DeepLinear)
        if not isinstance(task, LinearTeacher) or not isinstance(model, DeepLinear):
            return
        yield limit("a single layer", "the depth", model.depth, 1)
        spectrum = np.diag(task.input_covariance)
        yield limit("white inputs", "the covariance's condition number", spectrum.max() / spectrum.min(), 1.01)
        yield Check(
            task.dimension >= SMALLEST_DIMENSION,
            "many inputs",
            f"there are {task.dimension} (at least {SMALLEST_DIMENSION})",
        )
        yield kind("independent Gaussian initial weights", model.initialisation, Gaussian)
        largest = MarchenkoPastur(task.samples / task.dimension).edges[1]
        mean = getattr(getattr(experiment.rule, "loss", None), "reduction", "sum") == "mean"
        yield from flow_checks(experiment, largest / (task.samples if mean else 1))

    def predict(self, experiment: Experiment) -> Trajectory:
        task, initial = experiment.task, experiment.model.initialisation
        scale = float(initial.scale) / (1.0 if initial.per_entry else np.sqrt(task.dimension))
        excess, noise = float(task.signal) ** 2 + scale**2, float(task.noise) ** 2
        time = flow_times(experiment) / (task.samples if experiment.rule.loss.reduction == "mean" else 1)
        test, train = regression_curve(time, task.samples / task.dimension, excess, noise)
        label = {"units": "1"}
        return xr.Dataset(
            {
                "generalisation_error": ("time", test * task.outputs, {**label, "long_name": "test error"}),
                "training_error": ("time", train * task.outputs, {**label, "long_name": "training error"}),
            },
            coords={"time": experiment.times},
        )
