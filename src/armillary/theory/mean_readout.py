"""Descent on a mean read-out with a slightly quadratic activation, in closed form: a recursion of two moments.

A network f(x) = (scale/N) sum of phi(w . x) - phi(w_0 . x) with phi(z) = z + curvature z²/2 depends on its weights by their mean
and second moment alone, and so does what descent makes of these: exactly, step by step, for every width. Infinite width
is a mean of 0 and a second moment of 1 at the start. All of it is derived here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment
from armillary.models.mean_readout import MeanReadout
from armillary.once import once
from armillary.rules import SGD, Descent, FullBatch
from armillary.tasks.data import Samples
from armillary.tasks.single_index import QuadraticSingleIndex
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.trajectory import Trajectory, numbered

LONGEST = 20_000
"""Steps up to which the theory answers by itself: it takes every one of them."""


class Target(NamedTuple):
    """A target a . x + xᵀ Q x of Gaussian inputs x ~ N(0, 1/D): `linear` a [input], `quadratic` Q [input, other]."""

    linear: Float[np.ndarray, " input"]
    quadratic: Float[np.ndarray, "input other"]


class MomentCourse(NamedTuple):
    """The moments of the weights at each step asked for, the mean squared training error and the parts of the test error
    (variance, misalignment, linear), which add up to it."""

    mean: Float[np.ndarray, "time input"]
    second: Float[np.ndarray, "time input other"]
    train_error: Float[np.ndarray, " time"]
    parts: Float[np.ndarray, "time part"]


def moment_descent(
    steps: Any, rate: float, scale: float, curvature: float, target: Target, inputs: Any = None,
    mean: Any = None, second: Any = None,
) -> MomentCourse:  # fmt: skip
    """The course of full-batch descent on ½ mean (f - y)², at the given `steps` (increasing), for any width.

    With residuals r_p, u = mean r x, V = mean r x xᵀ, c = rate/scale and B = 1 - c curvature V the moments go as
    m <- B m - c u and M <- B M B - c (B m uᵀ + u mᵀ B) + c² u uᵀ. `rate` is `SGD`'s in the network's own unit: rate
    N/scale² for the weights themselves. `inputs` [sample, input] are trained on, or None for all that there are, where u and V are
    moments of Gaussians. `mean` and `second` are the moments at the start (None: infinite width). Cost: samples inputs²
    a step. Raises `InvalidValue` for steps that do not increase from 0 or later. Derived here.

    >>> z = np.array([1.0, 0.0])
    >>> course = moment_descent([0, 2000], 0.1, 1.0, 0.5, Target(0 * z, np.outer(z, z) / 2))
    >>> bool(course.parts[0].sum() > 0.1 > 1e4 * course.parts[1].sum())
    True
    """
    steps = np.asarray(steps, int)
    if steps.size == 0 or steps[0] < 0 or np.any(np.diff(steps) <= 0):
        raise InvalidValue(f"steps are {steps.tolist()}, but must increase from 0 or later")
    size = len(target.linear)
    x = None if inputs is None else np.asarray(inputs, float)
    mean0 = mean = np.zeros(size) if mean is None else np.asarray(mean, float)
    second0 = second = np.eye(size) if second is None else np.asarray(second, float)
    c, seen = rate / scale, []
    for step in range(int(steps[-1]) + 1):
        a = scale * (mean - mean0) - target.linear
        q = scale * curvature / 2 * (second - second0) - target.quadratic
        residual = None if x is None else x @ a + np.sum(x @ q * x, axis=1)
        if step == steps[len(seen)]:
            parts = np.array([np.trace(q) ** 2 / size**2, 2 * np.sum(q**2) / size**2, a @ a / size])
            train = parts.sum() if residual is None else np.mean(residual**2)
            seen.append((mean, second, train, parts))
            if len(seen) == len(steps):
                break
        if x is None or residual is None:
            u, v = a / size, (np.trace(q) * np.eye(size) + 2 * q) / size**2
        else:
            u, v = residual @ x / len(x), x.T @ (residual[:, None] * x) / len(x)
        b = np.eye(size) - c * curvature * v
        moved = b @ mean
        second = b @ second @ b - c * (np.outer(moved, u) + np.outer(u, moved)) + c**2 * np.outer(u, u)
        mean = moved - c * u
    return MomentCourse(*(np.array(each) for each in zip(*seen, strict=True)))


def tangent_kernel(
    curvature: float, x: Float[np.ndarray, "left input"], y: Float[np.ndarray, "right input"], mean: Any = None, second: Any = None,
) -> Float[np.ndarray, "left right"]:  # fmt: skip
    """The network's tangent kernel in its own unit: (1 + eps m . (x + y) + eps² xᵀ M y) x . y, eps the `curvature`.

    With the moments of infinite width unless given: x . y + eps² (x . y)² then, which hardly sees a quadratic target. Derived
    here.

    >>> print(tangent_kernel(0.5, np.eye(2), np.ones((1, 2))).ravel())
    [1.25 1.25]
    """
    size = x.shape[1]
    mean = np.zeros(size) if mean is None else np.asarray(mean, float)
    second = np.eye(size) if second is None else np.asarray(second, float)
    tilted = 1 + curvature * ((x @ mean)[:, None] + y @ mean) + curvature**2 * x @ second @ y.T
    return tilted * (x @ y.T)


def start_alignment(curvature: float, inputs: Float[np.ndarray, "sample input"], targets: Any) -> float:
    """The centred alignment of the tangent kernel at the start with targets [sample, 1]: `KernelTargetAlignment`'s, at infinite
    width. Derived here.
    """
    centre = np.eye(len(inputs)) - 1 / len(inputs)
    kernel = centre @ tangent_kernel(curvature, inputs, inputs) @ centre
    y = centre @ np.asarray(targets, float).ravel()
    return float(y @ kernel @ y / (np.linalg.norm(kernel) * (y @ y)))


def largest_rates(dimension: int, samples: float, scale: float, curvature: float) -> tuple[float, float]:
    """Rates (`SGD`'s) above which the linear part, and the learned quadratic part of a misaligned target, diverge.

    2 D/(1 + sqrt(D/P))² from the Marchenko-Pastur law's edge, and 2 scale D/(3 curvature) once the second moment
    has grown along the target's direction to where the target is fit: 1 + D/(scale curvature), with curvature² times it (times
    E z⁴ = 3) the kernel's eigenvalue. Derived here.

    >>> linear, quadratic = largest_rates(40, 160, 1.0, 0.05)
    >>> round(linear, 2), round(quadratic, 1)
    (35.56, 533.3)
    """
    require_between("curvature", curvature, 0.0, open_low=True)
    return 2 * dimension / (1 + (dimension / samples) ** 0.5) ** 2, 2 * scale * dimension / (3 * curvature)


class Problem(NamedTuple):
    """A draw of a task in NumPy: training and test samples (None where it is the population), and the target."""

    inputs: Any
    targets: Any
    test_inputs: Any
    test_targets: Any
    target: Target


def _drawn(task: QuadraticSingleIndex, key: Any) -> tuple[Any, Any]:
    data = task.draw(key)
    return data, data.teacher.form


def drawn_problem(task: QuadraticSingleIndex, precision: str = "float64") -> Problem:
    """What all seeds of a numbered problem are given, as a run in that precision draws it."""
    with jax.enable_x64(precision == "float64"):
        numbers = jax.tree.map(jnp.asarray, eqx.filter(task, eqx.is_inexact_array_like))  # one program for all problems
        data, form = once(_drawn, eqx.combine(numbers, task), jax.random.key(0))
    samples = []
    for part in (data.train, data.test):
        known = isinstance(part, Samples)
        samples += [np.asarray(part.inputs, float), np.asarray(part.targets, float)] if known else [None, None]
    target = Target(np.asarray(form.linear, float), np.asarray(form.quadratic, float))
    return Problem(samples[0], samples[1], samples[2], samples[3], target)


@theory
class MeanReadoutDescent(Theory):
    """Losses, moments of the weights and parts of the test error of an infinitely wide mean read-out, exactly."""

    name = "mean read-out, moment recursion"
    source = "derived here; setting of Kumar, Bordelon, Gershman & Pehlevan (2023), arXiv:2310.06110"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("a quadratic single-index target", task, QuadraticSingleIndex)
        yield kind("a mean read-out", model, MeanReadout)
        yield kind("gradient descent", rule, Descent)
        if (
            not isinstance(task, QuadraticSingleIndex)
            or not isinstance(model, MeanReadout)
            or not isinstance(rule, Descent)
        ):
            return
        yield Check(model.width is None, "infinite width (None)", f"the width is {model.width}")
        known = task.samples is None or task.problem is not None
        yield Check(known, "a numbered problem, or the whole population", "each seed draws its own samples")
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        what = f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule"
        yield Check(plain, "plain gradient descent", what)
        yield squared_error(experiment)
        said = rule.loss.reduction
        yield Check(
            said == "mean" or task.samples is None, "the mean over samples", f"the loss is the {said} over them"
        )
        yield kind("full batches", rule.feed, FullBatch)
        yield limit("a course that can be followed", "the number of steps", float(rule.steps), LONGEST)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        problem = drawn_problem(task, experiment.precision)  # the population's course is that of any direction
        rate = float(experiment.rule.optimiser.learning_rate)
        course = moment_descent(
            experiment.times, rate, float(model.scale), float(model.curvature), problem.target, problem.inputs
        )
        total = course.parts.sum(axis=1)
        values = {
            "train_loss": (("time",), course.train_error / 2, "training loss"),
            "test_loss": (("time",), total / 2, "test loss"),
            "population_error": (("time",), total, "mean squared test error"),
            "variance_error": (("time",), course.parts[:, 0], "error by a wrong variance"),
            "misalignment_error": (("time",), course.parts[:, 1], "error by misaligned weights"),
            "linear_error": (("time",), course.parts[:, 2], "error by linear power"),
            "weight_growth": (("time",), np.sqrt(np.trace(course.second, axis1=1, axis2=2) / task.dimension), "norm"),
        }
        if problem.inputs is not None:  # the direction, and with it all else, is the problem's own
            values["mean_weights"] = (("time", "input"), course.mean, "mean weights of the units")
            values["second_moment"] = (("time", "input", "other"), course.second, "second moment of the weights")
        said = {k: (dims, v, {"units": "1", "long_name": name}) for k, (dims, v, name) in values.items()}
        return numbered(xr.Dataset(said, coords={"time": experiment.times}))
