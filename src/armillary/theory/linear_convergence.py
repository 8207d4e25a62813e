"""How fast linear networks converge, and where to: contraction from orthogonal weights, conserved imbalance, bias."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.normalised_chain import NormalisedLinear
from armillary.models.two_layer_linear import Opposed, TwoLayerLinear, WidthScaled
from armillary.rules import Descent
from armillary.tasks import Correlations, LinearTeacher
from armillary.tasks.regression import FixedDesign
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.theory.deep_linear import unbalanced_mode
from armillary.trajectory import Trajectory

Times = Float[np.ndarray, " time"]

WIDTH_CONSTANT = 0.1
"""The theorem's constant in front of the width that orthogonal weights need. The paper gives none; this one lies
between widths at which the bound was seen to fail (16) and to hold (32) on ten orthonormal inputs and five outputs."""

CONFIDENCE = 0.1
"""The share of draws for which the theorem may fail."""

LARGEST_SHARE = 0.1
"""(rank + outputs)/width up to which a random two-layer network is near its wide limit (to about a fifth)."""


def contraction_bound(learning_rate: float, depth: int, outputs: int, smallest: float) -> float:
    """Factor by which a step of descent from wide orthogonal weights shrinks the excess loss, at least.

    1 - learning_rate depth smallest/(2 outputs), with `smallest` the least non-zero eigenvalue of X Xᵀ: for rates
    up to outputs/(2 depth |X|²), 3/4 at the largest on orthonormal inputs. Source: Hu, Xiao & Pennington (2020).

    >>> contraction_bound(5 / 128, depth=64, outputs=5, smallest=1.0)
    0.75
    """
    return 1 - learning_rate * depth * smallest / (2 * outputs)


def wide_contraction(learning_rate: float, depth: int, outputs: int, smallest: float) -> float:
    """The same factor in the limit of infinite width, where the Gram operator stays at its start.

    Orthogonal weights start with all its eigenvalues depth/outputs times those of X Xᵀ; so the residual's slowest part
    shrinks by 1 - learning_rate depth smallest/outputs a step and the loss by its square. Source: derived here.

    >>> wide_contraction(5 / 128, depth=64, outputs=5, smallest=1.0)
    0.25
    """
    return (1 - learning_rate * depth * smallest / outputs) ** 2


def needed_width(rank: float, condition: float, outputs: int, solution: float, directions: int) -> float:
    """The width that the theorem of `contraction_bound` asks for, independent of depth (with `WIDTH_CONSTANT`).

    constant rank condition² (outputs (1 + solution) + ln(directions/confidence)), with `rank` the stable rank
    |X|_F²/|X|² and `solution` the squared spectral norm of the best map. Source: Hu, Xiao & Pennington (2020).
    """
    return WIDTH_CONSTANT * rank * condition**2 * (outputs * (1 + solution) + np.log(directions / CONFIDENCE))


def log_norm_law(layers: Any, width: int) -> tuple[Any, Any]:
    """Mean and variance of ln(|W_l ... W_1 x|²/|x|²) for l = `layers` Gaussian layers of entries N(0, 1/width).

    Each layer multiplies the squared norm by an independent chi-square over its `width` degrees of freedom: the
    logarithm is a random walk of mean digamma(width/2) - ln(width/2), about -1/width a step, and variance
    trigamma(width/2), about 2/width. Exact at any width. Source: derived here; the mechanism is that of Hu, Xiao &
    Pennington (2020).

    >>> mean, variance = log_norm_law(1, width=100)
    >>> round(mean, 4), round(variance, 4)
    (-0.01, 0.0202)
    """
    from scipy.special import digamma, polygamma  # loads slowly

    return layers * float(digamma(width / 2) - np.log(width / 2)), layers * float(polygamma(1, width / 2))


def opposed_mode(time: Times, target: float, product: float, imbalance: float) -> Times:
    """Strength of one mode whose conserved a² - b² (or its rotation) is `imbalance`, from any `product`, also below 0.

    du/dt = sqrt(imbalance² + 4 u²)(target - u), for white unit inputs: the squared norms of the two layers along the
    mode close on K² - 4 u² = imbalance². Without imbalance a negative product ends in the saddle at 0.
    Source: derived here; see `unbalanced_mode`.

    >>> opposed_mode(np.array([0.0, 9.0]), 1.0, -0.5, imbalance=1.0).round(3).tolist()
    [-0.5, 1.0]
    """
    if imbalance > 0:
        return unbalanced_mode(time, target, product, imbalance)
    require_between("the initial product", product, high=0.0)
    if product == 0:
        return np.zeros_like(time)
    return -target / ((1 - target / product) * np.exp(2 * target * time) - 1)


def wide_null_part(
    time: Times, width: int, exponent: float, eigenvalues: Float[np.ndarray, "draw mode"], null: int,
    signal: float, noise: float, outputs: int = 1,
) -> Times:  # fmt: skip
    """Root mean square of the map on inputs without data, of a wide random two-layer network, over time.

    Entries N(0, width^(-2a)) in both layers; the flow then sees P = 2 width^(1-2a) X Xᵀ, and the second layer moves
    by E = (1 - exp(-2 width^(1-2a) λ t))/(2 width^(1-2a)) times the missing part of each data mode. Its product with
    the `null` frozen directions has mean square null outputs width^(1-4a) (1 + sum over modes of E² (signal² +
    noise²/λ + width^(1-4a))), averaged over the draws of the data's `eigenvalues`. It falls as width^(-(2a - 1/2)).
    Leading order in 1/width. Source: derived here; the exponent is that of Min, Tarmoun, Vidal & Mallada (2021).
    """
    speed, variance = float(width) ** (1 - 2 * exponent), float(width) ** (1 - 4 * exponent)
    moved = -np.expm1(-2 * speed * np.asarray(time)[:, None, None] * eigenvalues) / (2 * speed)
    missing = signal**2 + noise**2 / eigenvalues + variance
    growth = (moved**2 * missing).sum(axis=-1).mean(axis=-1)
    return np.sqrt(null * outputs * variance * (1 + growth))


def _trajectory(experiment: Experiment, **values: Any) -> Trajectory:
    """Quantities over time as a dataset on the experiment's clock; a number is the same at all times."""
    times = experiment.times
    variables = {n: ("time", np.broadcast_to(v, times.shape), {"units": "1"}) for n, v in values.items()}
    return xr.Dataset(variables, coords={"time": times})


@theory
class OrthogonalContraction(Theory):
    """Geometric bound on the excess loss of a deep linear network from orthogonal weights, and its wide limit."""

    name = "orthogonal contraction"
    source = "Hu, Xiao & Pennington (2020), arXiv:2001.05992"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("regression on given inputs", task, FixedDesign)
        yield kind("a deep linear network normalised by its width", model, NormalisedLinear)
        yield kind("descent", rule, Descent)
        parts = isinstance(task, FixedDesign) and isinstance(model, NormalisedLinear) and isinstance(rule, Descent)
        if not parts:
            return
        yield Check(model.orthogonal, "orthogonal initial weights", "they are Gaussian")
        yield from flow_checks(experiment, 0.0)  # plain full-batch descent; of any step that the theorem allows
        if hasattr(rule.optimiser, "learning_rate"):
            rate = self._rate(experiment) * 2 * model.depth * task.singular_values[0] ** 2 / task.outputs
            given = rate if rate > 1 + 1e-9 else min(rate, 1.0)
            yield limit("a small learning rate", "the learning rate over outputs/(2 depth |X|²)", given, 1.0)
        values = np.array(task.singular_values)
        edges = 1 + np.sqrt(task.outputs / task.inputs), np.sqrt(len(values)) + np.sqrt(task.outputs)
        solution = (float(task.signal) * edges[0]) ** 2 + (float(task.noise) * edges[1] / values[-1]) ** 2
        stable = (values**2).sum() / values[0] ** 2
        needed = needed_width(stable, task.condition, task.outputs, solution, len(values))
        given = f"the width is {model.width} (at least {np.ceil(needed):.0f}, at any depth)"
        yield Check(model.width >= needed, "a wide network", given)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model, times = experiment.task, experiment.model, experiment.times
        given = (self._rate(experiment), model.depth, task.outputs, task.singular_values[-1] ** 2)
        return _trajectory(
            experiment,
            relative_excess_loss_bound=contraction_bound(*given) ** times,
            relative_excess_loss_wide=wide_contraction(*given) ** times,
        )

    def _rate(self, experiment: Experiment) -> float:
        """The theorem's learning rate: of its own weights, for the sum over samples."""
        model, rule = experiment.model, experiment.rule
        samples = experiment.task.design.shape[0] if rule.loss.reduction == "mean" else 1
        return float(rule.optimiser.learning_rate) / (model.depth if model.rate_by_depth else 1) / samples


@theory
class SignalWalk(Theory):
    """Mean log squared norm of a signal after each layer of an untrained normalised chain."""

    name = "signal walk"
    source = "derived here; the mechanism is that of Hu, Xiao & Pennington (2020), arXiv:2001.05992"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        yield kind("a deep linear network normalised by its width", experiment.model, NormalisedLinear)
        yield limit("an untrained network", "the length of training", float(experiment.rule.duration), 0.0)

    def predict(self, experiment: Experiment) -> Trajectory:
        model = experiment.model
        layers = np.arange(1, model.depth)
        mean = np.zeros(len(layers)) if model.orthogonal else log_norm_law(layers, model.width)[0]
        labels = {"units": "1", "long_name": "mean log squared norm of a signal"}
        coords = {"time": experiment.times, "gap": layers}
        return xr.Dataset({"log_squared_norm": (("time", "gap"), mean[None], labels)}, coords=coords)


@theory
class OpposedFlow(Theory):
    """Excess loss of two linear layers that start against their target, and the bound from their imbalance."""

    name = "opposed two-layer flow"
    source = "after Min, Tarmoun, Vidal & Mallada (2021), arXiv:2105.06351; closure derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a task known by its correlations", task, Correlations)
        yield kind("two linear layers", model, TwoLayerLinear)
        if not isinstance(task, Correlations) or not isinstance(model, TwoLayerLinear):
            return
        spectrum = np.linalg.eigvalsh(np.asarray(task.input_correlation, float))
        away = float(np.abs(spectrum - 1).max())
        yield limit("white inputs of unit variance", "the covariance's largest distance from 1", away, 1e-6)
        yield kind("opposed initial weights", model.start, Opposed)
        target = np.asarray(task.input_output_correlation, float)
        if isinstance(model.start, Opposed) and target.shape == model.start.target.shape:
            frame = np.asarray(model.start.target, float)
            cosine = (target * frame).sum() / np.linalg.norm(target) / np.linalg.norm(frame)
            yield limit("a start against the task's own target", "1 - their cosine", 1 - float(cosine), 1e-6)
        yield limit("one output", "the number of outputs", task.outputs, 1)
        mean = getattr(experiment.rule.loss, "reduction", "mean") == "mean"
        yield Check(mean, "a mean over samples", "the loss is a sum")
        strength = float(np.linalg.norm(target))
        size = float(model.start.size) if isinstance(model.start, Opposed) else 0.0
        yield from flow_checks(experiment, 2 * max(strength, size) + size)

    def predict(self, experiment: Experiment) -> Trajectory:
        start, time = experiment.model.start, flow_times(experiment)
        target = float(np.linalg.norm(np.asarray(experiment.task.input_output_correlation, float)))
        size, imbalance = float(start.size), float(start.imbalance)
        product, constant = -size * np.sqrt(1 - imbalance**2), 2 * size * imbalance
        left = (target - opposed_mode(time, target, product, constant)) / (target - product)
        return _trajectory(
            experiment,
            relative_excess_loss=left**2,
            relative_excess_loss_bound=np.exp(-2 * constant * time),
            convergence_constant=constant,
        )


@theory
class WideTwoLayerFlow(Theory):
    """What a wide two-layer linear network learns where it has no data, and how fast it must converge elsewhere."""

    name = "wide two-layer flow"
    source = "after Min, Tarmoun, Vidal & Mallada (2021), arXiv:2105.06351; leading order derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a linear teacher", task, LinearTeacher)
        yield kind("two linear layers", model, TwoLayerLinear)
        if not isinstance(task, LinearTeacher) or not isinstance(model, TwoLayerLinear):
            return
        yield kind("initial weights scaled by the width", model.start, WidthScaled)
        few = f"there are {task.samples} for {task.dimension} inputs"
        yield Check(task.samples < task.dimension, "fewer samples than inputs", few)
        share = (min(task.samples, task.dimension) + task.outputs) / model.width
        yield limit("a wide network", "(rank + outputs)/width", share, LARGEST_SHARE)
        exponent = float(model.start.exponent) if isinstance(model.start, WidthScaled) else 0.5
        yield Check(0.25 <= exponent <= 0.5, "an exponent from 1/4 to 1/2", f"it is {exponent:g}")
        edge = np.diag(task.input_covariance).max() * (np.sqrt(task.dimension) + np.sqrt(task.samples)) ** 2
        mean = getattr(experiment.rule.loss, "reduction", "mean") == "mean"
        curvature = 2 * model.width ** (1 - 2 * exponent) * edge
        yield from flow_checks(experiment, float(curvature) / (task.samples if mean else 1))

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        time = flow_times(experiment) / (task.samples if experiment.rule.loss.reduction == "mean" else 1)
        scale = np.sqrt(np.diag(task.input_covariance))
        draws = np.random.default_rng(0).normal(size=(400, task.samples, task.dimension)) * scale
        eigenvalues = np.linalg.eigvalsh(draws @ draws.transpose(0, 2, 1))
        exponent, null = float(model.start.exponent), task.dimension - task.samples
        size = (float(task.signal), float(task.noise), task.outputs)
        part = wide_null_part(time, model.width, exponent, eigenvalues, null, *size)
        constant = 2 * float(model.width) ** (1 - 2 * exponent)
        return _trajectory(experiment, null_space_part=part, frozen_bias=part, convergence_constant=constant)
