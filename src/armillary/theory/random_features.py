"""Ridge regression on a two-layer network's random features and tangents, samples, inputs and width in proportion.

Inputs are N(0, I/dimension), the target is linear. In high dimension a feature phi(w . x) is its linear part and a noise of
its own, and so is a slope phi'(w . x) times an input: the network's tangents are noisy random features in turn, one
set of `width` for each input. Source: Adlam & Pennington (2020), arXiv:2008.06786, for the limit in which the number of
parameters is far above that of samples; the form in which it is computed, and the tangents of finite number: derived here.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.activations import GAINS, Activation
from armillary.models.ensemble import Ensemble
from armillary.models.features import RandomFeatures
from armillary.models.tangent_kernel import FiniteWidth
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.tasks.covariate_noise import CovariateNoise
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.deterministic_equivalents import (
    Beside,
    FeatureKernel,
    RidgeErrors,
    Spectrum,
    feature_errors,
)
from armillary.theory.gaussian_means import half_line, mean, value_and_slope
from armillary.trajectory import Trajectory

SMALLEST_DIMENSION, SMALLEST_SAMPLES = 40, 80
"""Inputs and samples below which single draws stray from the limit by more than some ten percent."""

LARGEST_MEAN = 0.02
"""Mean of an activation over its deviation up to which the constant direction that it adds to the kernel is harmless."""


class ActivationConstants(NamedTuple):
    """Gaussian means of an activation phi at h ~ N(0, scale²): its `mean`; its `variance`; the part of that which is
    `linear` in h; `slope`, scale² times the mean square of phi', at least `linear`."""

    mean: float
    variance: float
    linear: float
    slope: float


@functools.lru_cache(maxsize=256)
def activation_constants(activation: str | Activation, scale: float = 1.0) -> ActivationConstants:
    """The constants that random-feature and tangent kernels of high dimension depend on; exact to about 1e-12.

    >>> print(np.round(activation_constants("tanh"), 6))
    [0.       0.394294 0.366879 0.464403]
    """
    require_between("the scale", scale, 0.0, open_low=True)
    phi, slope = value_and_slope(activation)
    at = lambda function: float(mean(lambda u, z: function(u), scale**2))
    centre = at(phi)
    linear, square = at(slope), at(lambda u: slope(u) ** 2)
    return ActivationConstants(centre, at(lambda u: (phi(u) - centre) ** 2), (scale * linear) ** 2, scale**2 * square)


def two_layer_kernel(
    constants: ActivationConstants, dimension: float, width: float, first_layer: float = 1.0, read_out: float = 1.0,
    *, finite: bool = True, law: Literal["signs", "gaussian"] = "gaussian",
) -> FeatureKernel:  # fmt: skip
    """The kernel first_layer <x, y>/width sum a² phi' phi' + read_out/width sum phi phi of a network of that width.

    The first layer's part, with s = `first_layer`, E phi' squared c and r the rest of E phi'² (so that s r is the part that
    is noise), is in the limit of many parameters per sample s c <x, y> + s r I: pass `finite=False`, or an infinite width.
    Otherwise the noise is dimension x width independent directions of size e = s r a²/width. Where inputs have the ridge
    K = dimension k, each then sees s c times the mean of a² K/(e + K), and uses the mean of e/(e + K) of its `width`
    directions. Finite numbers of parameters are heuristic (tangents of one neuron are not independent), but have both
    peaks, at parameters and at width equal to samples. Derived here.
    """
    require_between("the dimension", dimension, 0.0, open_low=True)
    require_between("the width", width, 0.0, open_low=True)
    require_between("the first layer's weight", first_layer, 0.0)
    require_between("the read-out's weight", read_out, 0.0)
    noise = first_layer * (constants.slope - constants.linear)
    spectrum = Spectrum(np.array([read_out * constants.linear / dimension]), np.array([float(dimension)]))
    tail = read_out * (constants.variance - constants.linear)

    def smooth(ridge: float) -> Beside:
        return Beside(first_layer * constants.linear / dimension, degrees=noise / ridge)

    z, half = half_line()
    a, weights = (np.ones(1), np.ones(1)) if law == "signs" else (z**2, 2 * half)  # of a read-out weight's square
    own = noise * a / width  # e, of each of them
    mixed = first_layer * constants.linear

    def rough(ridge: float) -> Beside:
        k = dimension * ridge
        inverse = 1 / (own + k)
        used = own * inverse
        seen = weights * a * inverse
        return Beside(
            mixed * k * np.sum(seen) / dimension,
            mixed * (seen @ used),
            -2 * mixed * (seen @ (used * inverse)) * dimension,
            float(dimension * width * (weights @ used)),
            float(dimension * width * (weights @ used**2)),
        )

    limiting = not finite or first_layer == 0 or np.isinf(width)
    return FeatureKernel(spectrum, float(width), tail, smooth if limiting else rough)


def two_layer_errors(
    constants: ActivationConstants, samples: float, dimension: float, width: float, penalty: float,
    noise: float = 0.0, signal: float = 1.0, first_layer: float = 1.0, read_out: float = 1.0,
    *, finite: bool = True, law: Literal["signs", "gaussian"] = "gaussian", initial: bool = False,
) -> RidgeErrors:  # fmt: skip
    """Errors of ridge regression with `two_layer_kernel` on a linear target of deviation `signal`.

    Only ratios matter where `finite` is False or `first_layer` is 0 (random features): dimension 1 is then a unit of size.
    `initial` trains from the network's own output instead of from 0. Where the target has a non-linear part, its variance
    belongs to noise². Raises `InvalidValue` for sizes and penalties that are not positive.

    >>> erf = activation_constants("erf")
    >>> [round(two_layer_errors(erf, 800, 400, n, 1e-6, 0.2**0.5, finite=False).excess, 4) for n in (240, 800, 2400)]
    [0.1846, 0.1712, 0.1578]
    >>> round(two_layer_errors(erf, 2, 1, np.inf, 1e-6, 0.2**0.5).excess, 6)
    0.148518
    """
    kernel = two_layer_kernel(constants, dimension, width, first_layer, read_out, finite=finite, law=law)
    # The initial network is the features with weights of variance first_layer; the kernel has them with read_out.
    start = first_layer / read_out if initial and read_out else 0.0
    return feature_errors(kernel, [signal**2], samples, penalty, noise, output_variance=start)


def random_feature_errors(
    constants: ActivationConstants, samples: float, features: float, penalty: float, noise: float = 0.0,
    signal: float = 1.0,
) -> RidgeErrors:  # fmt: skip
    """Errors of ridge regression on random features phi(W x), with `samples` and `features` in units of the dimension.

    The kernel is the mean of products of features, and `penalty` is added to it (so lambda times samples, where a loss that
    is a mean over samples has lambda). Source: Mei & Montanari (2022) for the limit; this form derived here.

    >>> relu = activation_constants("relu")
    >>> [round(random_feature_errors(relu, 2.0, n, 1e-3, 0.5).excess, 3) for n in (0.5, 2.0, 20.0)]
    [0.982, 3.013, 0.233]
    """
    return two_layer_errors(constants, samples, 1.0, features, penalty, noise, signal, first_layer=0.0)


@theory
class TwoLayerRidge(Theory):
    """Excess errors of ridge regression with the features or tangents of a random two-layer network, and of ensembles."""

    name = "two-layer features and tangents in high dimension"
    source = "Adlam & Pennington (2020), arXiv:2008.06786; finite numbers of parameters derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, _single(experiment.model), experiment.rule
        yield kind("linear targets of Gaussian inputs (CovariateNoise)", task, CovariateNoise)
        yield kind("a two-layer network's kernel or random features", model, FiniteWidth, RandomFeatures)
        yield kind("a learner that is solved", rule, Solved)
        if not isinstance(task, CovariateNoise) or not isinstance(model, FiniteWidth | RandomFeatures):
            return
        yield Check(task.teacher == "linear", "a linear teacher", f"the teacher is a {task.teacher}")
        yield limit("inputs without noise", "the covariates' noise", float(task.covariate_noise), 0.0)
        rank = task.dimension if task.rank is None else task.rank
        yield Check(
            rank == task.dimension, "a signal in all inputs", f"its rank is {rank} of {task.dimension} dimensions"
        )
        for what, given, least in (
            ("inputs", task.dimension, SMALLEST_DIMENSION),
            ("samples", task.samples, SMALLEST_SAMPLES),
        ):
            yield Check(given >= least, f"many {what}", f"there are {given} (at least {least})")
        constants = _constants(model)
        yield limit(
            "an activation of mean 0", "its mean over its deviation",
            abs(constants.mean) / np.sqrt(constants.variance), LARGEST_MEAN,
        )  # fmt: skip
        if isinstance(rule, Solved):
            yield kind("kernel ridge regression", rule.solver, KernelRidge)
            penalty = float(getattr(rule.solver, "penalty", 1.0))
            yield Check(penalty > 0, "a ridge penalty", "it is 0; take a small one, such as 1e-6")

    def predict(self, experiment: Experiment) -> Trajectory:
        errors = [_errors(experiment, initial=initial) for initial in (False, True)]
        plain, started = errors
        count = experiment.model.count if isinstance(experiment.model, Ensemble) else 1
        said = {
            "member_risk": (plain.excess, "excess error"),
            "ensemble_risk": (plain.of_ensemble(count), "excess error of the mean prediction"),
            "initial_risk": (started.excess, "excess error with the initial output"),
        }
        if count == 1:
            said |= {
                "excess_risk": (plain.excess, "excess risk"),
                "bias": (plain.excess - plain.noise, "squared bias"),
                "variance": (plain.noise, "variance"),
                "training_error": (plain.training, "training error"),
            }
        if isinstance(_single(experiment.model), RandomFeatures):
            del said["initial_risk"]  # its read-out starts at a scale of its own
        return xr.Dataset(
            {name: ("time", [value], {"units": "1", "long_name": words}) for name, (value, words) in said.items()},
            coords={"time": experiment.times},
        )


def _single(model: Any) -> Any:
    return model.model if isinstance(model, Ensemble) else model


def _constants(model: FiniteWidth | RandomFeatures) -> ActivationConstants:
    return activation_constants(model.activation, float(getattr(model, "projection_scale", 1.0)))


def _errors(experiment: Experiment, *, initial: bool) -> RidgeErrors:
    task, model = experiment.task, _single(experiment.model)
    sizes = (task.samples, task.dimension, float(model.width))
    first, read_out, law = 0.0, 1.0, "gaussian"
    if isinstance(model, FiniteWidth):
        gain = GAINS.get(model.activation, 1.0) if isinstance(model.activation, str) else 1.0
        first, read_out, law = gain * float(model.first_layer), gain * float(model.read_out), model.law
    return two_layer_errors(
        _constants(model), *sizes, float(experiment.rule.solver.penalty), float(task.noise),
        first_layer=first, read_out=read_out, law=law, initial=initial,
    )  # fmt: skip
