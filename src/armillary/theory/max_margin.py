"""Leaky ReLU networks on nearly orthogonal data: the max-margin direction they end in, and the rank of their first step."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int

from armillary.experiment import Experiment
from armillary.models.committee import Committee
from armillary.rules import SGD, Descent, FullBatch
from armillary.tasks.classification import GaussianClasses
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.trajectory import Trajectory, numbered

LARGEST_SHARE = 0.1
"""Samples over dimensions up to which Gaussian inputs are near orthogonal enough for the first step (to about a tenth)."""

LARGEST_OUTPUT = 0.1
"""Initial outputs up to which all samples pull alike under the exponential loss."""


class MarginDirection(NamedTuple):
    """The candidate for a KKT point of min |W|²/2 subject to y_i f(x_i) >= 1.

    `multipliers` [sample]; `positive` and `negative` [input], the weights of the units of either sign; `holds` [sample],
    whether a sample's multiplier is not negative and its units are active as assumed. Where all hold it is a KKT point.
    """

    multipliers: Float[Array, " sample"]
    positive: Float[Array, " input"]
    negative: Float[Array, " input"]
    holds: Bool[Array, " sample"]


def margin_direction(
    inputs: Float[Array, "sample input"],
    labels: Float[Array, " sample"],
    slope: float | Array,
    signs: Int[Array, " unit"],
    size: float,
) -> MarginDirection:
    """The direction of a leaky ReLU `Committee` in which all margins are 1 and every sample is a support vector.

    All units of one sign share their weights, active (slope 1) on the samples of their own sign and on no others:
    v = size (sum of own multipliers times inputs - slope times the others'). All margins being 1 is then a linear system for
    the multipliers, (G_ik y_i y_k c_ik) lambda = 1 with the Gram matrix G: c is size² (p + slope² q) between samples
    of one sign with p units of it and q of the other, and size² slope (p + q) between the signs. Written in JAX, so that
    a probe can use it. Cost: one solve of samples x samples. Source: Frei et al. (2022); derived here.

    >>> found = margin_direction(jnp.eye(2), jnp.array([1.0, -1.0]), 0.5, jnp.array([1, -1]), 1.0)
    >>> print(found.multipliers, found.positive, found.holds)
    [0.8 0.8] [ 0.8 -0.4] [ True  True]
    """
    own = labels > 0
    plus, minus = jnp.sum(signs > 0), jnp.sum(signs < 0)
    same = jnp.where(own, plus + slope**2 * minus, minus + slope**2 * plus)
    alike = own[:, None] == own[None]
    coupling = size**2 * jnp.where(alike, same[:, None], slope * (plus + minus))
    gram = inputs @ inputs.T * labels[:, None] * labels
    multipliers = jnp.linalg.solve(gram * coupling, jnp.ones_like(labels))
    positive = size * (multipliers * jnp.where(own, 1.0, -slope)) @ inputs
    negative = size * (multipliers * jnp.where(own, -slope, 1.0)) @ inputs
    active = ((inputs @ positive > 0) == own) & ((inputs @ negative > 0) == ~own)
    return MarginDirection(multipliers, positive, negative, active & (multipliers >= 0))


def first_step_gradient(
    inputs: Float[np.ndarray, "sample input"],
    labels: Float[np.ndarray, " sample"],
    weights: Float[np.ndarray, "unit input"],
    second: Float[np.ndarray, " unit"],
    slope: float,
) -> Float[np.ndarray, "unit input"]:
    """Minus the gradient of the mean logistic loss at small outputs: mean over i of y_i a_j phi'(w_j . x_i) x_i/2.

    Source: Frei et al. (2022)

    >>> first_step_gradient(np.eye(2), np.ones(2), np.ones((1, 2)), np.ones(1), 0.1).tolist()
    [[0.25, 0.25]]
    """
    seen = np.where(weights @ inputs.T > 0, 1.0, slope)
    return second[:, None] * (seen * labels) @ inputs / (2 * len(labels))


def random_stable_rank(width: int, dimension: int) -> float:
    """Stable rank of a Gaussian matrix: width dimension/(sqrt(width) + sqrt(dimension))², by its spectrum's edge.

    >>> round(random_stable_rank(50, 1500), 1)
    35.8
    """
    return float(width * dimension / (np.sqrt(width) + np.sqrt(dimension)) ** 2)


def first_step_stable_rank(
    samples: int, dimension: int, width: int, slope: float, pull: float, scale: float, second: float = 1.0,
) -> float:  # fmt: skip
    """Stable rank of a leaky ReLU committee's weights after its first step on Gaussian inputs with random labels.

    Each sample moves unit j by `pull` y_i a_j phi'(w_j . x_i) x_i (its root mean square, where pulls differ); `second`
    is |a|. The mean of phi' makes a step of rank one and size theta = pull |a| (1 + slope)/2 sqrt(samples dimension);
    its scatter over units and the initial weights N(0, scale²) are noise. A spike amid noise of mean squares p on one
    side and q on the other has the squared singular value (theta² + p)(theta² + q)/theta² if theta⁴ > p q, and is lost
    in the noise's edge (sqrt(p) + sqrt(q))² otherwise. From tiny weights the rank is near 2 (1 + slope²)/(1 + slope)².
    For 1 << samples << dimension. Derived here.

    >>> round(first_step_stable_rank(30, 1500, 50, 0.1, 0.5 / 60, 1e-4), 2)
    1.61
    """
    mean, square = (1 + slope) / 2, (1 + slope**2) / 2
    theta = (pull * second * mean) ** 2 * samples * dimension
    scatter = (pull * second) ** 2 * dimension * (square - mean**2)
    p = scale**2 * width + scatter
    q = scale**2 * dimension + scatter * samples / width
    whole = theta + scatter * samples + scale**2 * width * dimension
    top = (theta + p) * (theta + q) / theta if theta**2 > p * q else (np.sqrt(p) + np.sqrt(q)) ** 2
    return float(whole / top)


@theory
class OneStepCollapse(Theory):
    """Stable rank of the weights before and after the first step, and at no other time."""

    name = "one-step collapse of leaky ReLU weights"
    source = "Frei et al. (2022), arXiv:2210.07082; the formula is derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("Gaussian classes", task, GaussianClasses)
        yield kind("a committee", model, Committee)
        yield kind("descent", rule, Descent)
        if not isinstance(task, GaussianClasses) or not isinstance(model, Committee) or not isinstance(rule, Descent):
            return
        yield Check(task.labels == "random", "random labels", f"they are by {task.labels}")
        yield limit("nearly orthogonal inputs", "samples over dimensions", task.samples / task.dimension, LARGEST_SHARE)
        leaky = model.activation == "leaky_relu" and model.smoothing is None
        yield Check(leaky, "a leaky ReLU", f"the activation is {model.activation}, or smoothed")
        loss = rule.loss
        yield Check(loss.kind in ("logistic", "exponential"), "the logistic or exponential loss", f"it is {loss.kind}")
        if loss.kind == "exponential" or loss.reduction == "log_mean":
            yield limit("small initial outputs", "their deviation", _output_size(experiment), LARGEST_OUTPUT)
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        given = f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule"
        yield Check(plain, "plain gradient descent", given)
        yield kind("full batches", rule.feed, FullBatch)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        second = _size(model) * np.sqrt(model.width)
        after = first_step_stable_rank(
            task.samples, task.dimension, model.width, float(model.slope), _pull(experiment), float(model.scale), second
        )
        before = random_stable_rank(model.width, task.dimension)
        times = experiment.times[experiment.times <= 1]
        values = np.array([[before if time == 0 else after] for time in times])
        labels = {"units": "1", "long_name": "stable rank"}
        said: dict[str, Any] = {"stable_rank": (("time", "layer"), values.reshape(-1, 1), labels)}
        return numbered(xr.Dataset(said, coords={"time": times}))


def _size(model: Committee) -> float:
    return model.width**-0.5 if model.size is None else float(model.size)


def _output_size(experiment: Experiment) -> float:
    """Standard deviation of the initial outputs."""
    task, model = experiment.task, experiment.model
    second = _size(model) * np.sqrt(model.width)
    return float(model.scale) * second * np.sqrt(task.dimension * (1 + float(model.slope) ** 2) / 2)


def _pull(experiment: Experiment) -> float:
    """Learning rate times the root mean square of the loss's derivative, for one sample."""
    rule, samples = experiment.rule, experiment.task.samples
    rate = float(rule.optimiser.learning_rate) / (1 if rule.loss.reduction == "sum" else samples)
    if rule.loss.kind == "exponential":
        return rate  # at small outputs the mean loss is 1, and so is its derivative
    if rule.loss.reduction == "log_mean":
        return rate / (2 * np.log(2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    derivative = 1 / (1 + np.exp(nodes * _output_size(experiment)))
    return rate * float(np.sqrt(weights @ derivative**2 / weights.sum()))
