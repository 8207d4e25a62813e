"""Lazy training of networks with given macroscopic scales: its speed, and how far each layer moves.

With weights W_l ~ N(0, alpha_l²/m) and kappa the product of the alpha_l, layer l's part of the tangent kernel is (kappa/alpha_l)² K_l
with K_l free of the width m. While the kernel stays, W_l moves by J_lᵀ u, u what the residual has been integrated to, so that
|change of W_l|² = uᵀ G_l u, and uᵀ G u stays below the residual's part that is gone. Hence a relative motion of the order
|y - f_0|/kappa w_l, w_l = alpha_l^-2/(sum of alpha_k^-2), and 1/√m times that for hidden matrices in the Frobenius norm. Derived here; the
scales and the rate are Li, Luo & Zhou (2024), arXiv:2404.04859, as far as a summary of it tells.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue
from armillary.experiment import Experiment
from armillary.models.macroscopic import Macroscopic
from armillary.models.scaled_output import ScaledOutput
from armillary.once import drawn
from armillary.rules import SGD, CurvatureRate, Descent, FullBatch, GradientFlow
from armillary.tasks.data import Samples
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.theory.kernels.by_layer import layer_kernels
from armillary.theory.kernels.of_model import kernel
from armillary.theory.kernels.training import Rule, largest_stable_rate, relaxation, stable_modes
from armillary.theory.wide_network import MOST_SAMPLES, NARROWEST
from armillary.trajectory import Trajectory, numbered

LARGEST_START = 0.1
"""Root mean square target over kappa up to which a network counts as lazy: its kernel then moves by some per cent at the
widths of desks (our limit)."""


def learning_speed(scales: ArrayLike) -> float:
    """The sum of kappa²/alpha_l², to which the rate of learning is proportional; kappa is the product of `scales`.

    >>> learning_speed([2.0, 1.0, 0.5])  # kappa is 1
    5.25
    """
    alpha = np.asarray(scales, float)
    return float(np.prod(alpha) ** 2 * np.sum(alpha**-2.0))


def layer_shares(scales: ArrayLike) -> Float[np.ndarray, " layer"]:
    """w_l, the layers' shares of learning: they add up to 1, and the smallest alpha has most.

    >>> print(layer_shares([1.0, 1.0, 0.5]).round(3))
    [0.167 0.167 0.667]
    """
    inverse = np.asarray(scales, float) ** -2.0
    return inverse / inverse.sum()


def motion_exponent(exponent: ArrayLike, *, centred: bool = True, hidden: bool = False) -> Float[np.ndarray, "..."]:
    """The power of the width with which the relative motion of a layer goes, for kappa = width^exponent and scales in fixed
    proportions.

    -exponent where outputs are centred. Where they are not, the start of size kappa/√width has to be unlearned as well: -min(exponent,
    1/2). `hidden`: of a matrix between hidden layers in the Frobenius norm, 1/2 less. Derived here.

    >>> print(motion_exponent([-0.25, 0.5, 0.75], centred=False))
    [ 0.25 -0.5  -0.5 ]
    """
    p = np.asarray(exponent, float)
    return -(p if centred else np.minimum(p, 0.5)) - (0.5 if hidden else 0.0)


def lazy_motion(
    parts: Float[np.ndarray, "layer sample sample"],
    residual: Float[np.ndarray, "sample output"],
    times: Sequence[float] | np.ndarray,
    *,
    rule: Rule = "flow",
    learning_rate: float = 1.0,
    spread: Float[np.ndarray, "sample sample"] | None = None,
) -> Float[np.ndarray, "time layer"]:
    """How far each layer's weights have moved, in the Frobenius norm, while the tangent kernel is the sum of `parts`.

    - `parts`: the layers' tangent kernels on the training samples. `residual`: targets minus outputs at the start.
    - `times`, `rule`, `learning_rate`: as in `relaxation`, for the loss ½ sum (f - y)² (divide the rate by the number of samples for
      the mean).
    - `spread`: a covariance of the residual over starts for each output; root mean squares over starts come out.

    Directions that the kernel does not see move nothing. Exact for networks that are linear in their weights. Raises
    `InvalidValue` for parts and residuals of different samples, and as `relaxation`. Derived here.

    >>> lazy_motion(np.array([[[1.0]], [[3.0]]]), np.array([[2.0]]), [np.inf]).round(3).tolist()
    [[0.5, 0.866]]
    """
    if len(residual) != parts.shape[1]:
        raise InvalidValue(
            f"the parts are of {parts.shape[1]} samples and the residual of {len(residual)}; these must agree"
        )
    values, vectors = stable_modes(parts.sum(axis=0), rule, learning_rate, 0.0)
    gain = relaxation(values, times, rule, learning_rate).gain
    gain = np.where(values > 0, gain, 0.0)
    along = vectors.T @ np.asarray(residual, float)
    second = along @ along.T
    if spread is not None:
        second = second + residual.shape[1] * vectors.T @ spread @ vectors
    rotated = vectors.T @ parts @ vectors
    squares = np.einsum("tm,lmk,tk,mk->tl", gain, rotated, gain, second)
    return np.sqrt(np.maximum(squares, 0.0))


class Motion(NamedTuple):
    """The end of lazy training in closed form: `relative` motion of each layer, and `parts`, its tangent kernels."""

    relative: Float[np.ndarray, " layer"]
    parts: Float[np.ndarray, "layer sample sample"]


def macroscopic_motion(model: Macroscopic, inputs: Any, targets: Any, *, centred: float = 0.0) -> Motion:
    """How far each layer has moved when a lazy network has fit its samples, over its start, in the Frobenius norm: the root mean
    square over starts.

    `inputs` [sample, input], `targets` [sample, output]; `centred` is the share of the output at the start that is taken away. It
    is exact in the limit of kappa and then the width, and says how an answer scales below. Raises `InvalidValue` as `layer_kernels`.
    Derived here.

    >>> model = Macroscopic(width=100, depth=2, exponent=0.5)
    >>> print(macroscopic_motion(model, np.eye(2), np.ones((2, 1)), centred=1.0).relative.round(4))
    [0.0431 0.07  ]
    """
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    parts, start, norms = _limit(_Parts(x, y, model, 1.0, float(centred)))
    return Motion(lazy_motion(parts, y, [np.inf], spread=start)[0] / norms, parts)


class _Parts(NamedTuple):
    """What an experiment comes down to: samples, the network's recipe, the factor on its outputs and the share taken away."""

    inputs: np.ndarray
    targets: np.ndarray
    model: Macroscopic
    scale: float
    centred: float


def _model(experiment: Experiment) -> tuple[Any, float, float]:
    whole = experiment.model
    if isinstance(whole, ScaledOutput):
        return whole.model, float(whole.scale), float(whole.centred)
    return whole, 1.0, 0.0


@theory
class MacroscopicLaziness(Theory):
    """Loss and relative motion of each layer of a wide network with a large macroscopic scale, root mean squares over starts."""

    name = "macroscopic scales, lazy"
    source = "Li, Luo & Zhou (2024), arXiv:2404.04859; the layers' motion is derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        (model, scale, _), rule = _model(experiment), experiment.rule
        yield kind("a network given by its macroscopic scales", model, Macroscopic)
        yield kind("gradient descent or flow", rule, Descent, GradientFlow)
        if not isinstance(model, Macroscopic) or not isinstance(rule, Descent | GradientFlow):
            return
        yield squared_error(experiment)
        if isinstance(rule, Descent):
            yield kind("full batches", rule.feed, FullBatch)
            plain = isinstance(rule.optimiser, CurvatureRate) or (
                isinstance(rule.optimiser, SGD) and rule.optimiser.plain
            )
            what = f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule"
            yield Check(plain, "plain gradient descent", what)
            if not plain:
                return
        data, other = (drawn(experiment.task, seed).train for seed in (0, 1))
        if not isinstance(data, Samples):
            yield Check(False, "a finite set of training samples", f"this is a {type(data).__name__}")
            return
        same = np.array_equal(data.inputs, other.inputs) and np.array_equal(data.targets, other.targets)
        yield Check(same, "one data set for all seeds", "this task draws another for each")
        few = data.count <= MOST_SAMPLES
        yield Check(few, f"at most {MOST_SAMPLES} samples", f"there are {data.count}")
        size = float(np.sqrt(np.mean(np.asarray(data.targets, float) ** 2)))
        over = size / (float(model.kappa) * scale)
        yield limit("a large macroscopic scale", "the root mean square target over kappa", over, LARGEST_START)
        yield limit("a wide network", "samples over width", data.count / model.width, NARROWEST)
        if few and isinstance(rule, Descent):
            share = _learning_rate(experiment, _parts(experiment)) / largest_stable_rate(_modes(experiment))
            yield limit("a stable learning rate", "the learning rate over the largest stable one", share, 1.0)

    def predict(self, experiment: Experiment) -> Trajectory:
        known, times = _parts(experiment), experiment.times
        n = len(known.inputs)
        rule: Rule = "descent" if isinstance(experiment.rule, Descent) else "flow"
        slower = n if experiment.rule.loss.reduction == "mean" else 1
        rate = _learning_rate(experiment, known) if rule == "descent" else 1.0
        how: dict[str, Any] = {"rule": rule, "learning_rate": rate / slower}
        parts, start, norms = _limit(known)
        moved = lazy_motion(parts, known.targets, times, spread=start, **how)
        values, vectors = stable_modes(parts.sum(axis=0), rule, how["learning_rate"], 0.0)
        left = relaxation(values, times, rule, how["learning_rate"]).left
        along = vectors.T @ known.targets
        second = (along**2).sum(axis=1) + along.shape[1] * np.einsum("sm,st,tm->m", vectors, start, vectors)
        labels = lambda words: {"units": "1", "long_name": words}
        found = {
            "train_loss": ("time", (left**2 @ second) / (2 * slower), labels("training loss")),
            "distance_from_initialisation": (
                ("time", "layer"),
                moved / norms,
                labels("relative distance from the start"),
            ),
            "kernel_drift": ("time", np.zeros(len(times)), labels("relative change of the tangent kernel")),
            "layer_kernels": (
                ("time", "layer", "sample", "other"),
                np.broadcast_to(parts, (len(times), *parts.shape)),
                labels("tangent kernel of a layer"),
            ),
        }
        return numbered(xr.Dataset(found, coords={"time": times}))


def _parts(experiment: Experiment) -> _Parts:
    model, scale, centred = _model(experiment)
    data = drawn(experiment.task).train
    inputs, targets = np.asarray(data.inputs, float), np.asarray(data.targets, float).reshape(data.count, -1)
    return _Parts(inputs, targets, model, scale, centred)


def _limit(known: _Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Layers' kernels, the covariance of the outputs at the start, and the layers' Frobenius norms there."""
    wide = kernel(known.model, known.inputs.shape[1])
    parts = known.scale**2 * layer_kernels(wide, known.inputs)
    start = (1 - known.centred) ** 2 * known.scale**2 * wide.nngp(known.inputs)
    sizes = known.model.sizes(known.inputs.shape[1], known.targets.shape[1])
    entries = np.array([a * b for a, b in itertools.pairwise(sizes)])
    return parts, start, np.sqrt(entries / known.model.width) * np.array([float(a) for a in known.model.scales])


def _modes(experiment: Experiment) -> np.ndarray:
    """The largest eigenvalue of the curvature in the limit, as an array of one."""
    known = _parts(experiment)
    gram = known.scale**2 * kernel(known.model, known.inputs.shape[1]).ntk(known.inputs)
    most = np.linalg.eigvalsh(gram)[-1:]
    return most / len(known.inputs) if experiment.rule.loss.reduction == "mean" else most


def _learning_rate(experiment: Experiment, known: _Parts) -> float:
    """The rate of the steps: a constant one, or what the curvature makes of it while it stays."""
    optimiser = experiment.rule.optimiser
    if isinstance(optimiser, CurvatureRate):
        return min(float(optimiser.constant) / float(_modes(experiment)[0]), float(optimiser.cap))
    return float(optimiser.learning_rate)
