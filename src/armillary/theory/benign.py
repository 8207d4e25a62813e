"""When noise is interpolated harmlessly: bias and variance of linear interpolators under noisy covariates."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.tangent_kernel import LinearKernel
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.tasks.covariate_noise import CovariateNoise, WideCovariateNoise
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.deterministic_equivalents import Spectrum as Spectrum
from armillary.theory.deterministic_equivalents import effective_ridge as effective_ridge
from armillary.theory.deterministic_equivalents import linear_errors as linear_errors
from armillary.trajectory import Trajectory

SMALLEST_SAMPLES = 50
"""Samples below which single draws stray from the high-dimensional limit by more than a few percent."""

NEAREST_THRESHOLD = 0.2
"""|samples/inputs - 1| up to which an interpolator's variance is ruled by a few eigenvalues."""


def spiked_spectrum(dimension: float, rank: float, covariate_noise: float) -> Spectrum:
    """The covariance of x + t: `rank` eigenvalues 1/rank + s²/dimension, the others s²/dimension.

    >>> spiked_spectrum(100, 5, 1.0).values.round(3).tolist()
    [0.21, 0.01]
    """
    tail = covariate_noise**2 / dimension
    return Spectrum(np.array([1 / rank + tail, tail]), np.array([float(rank), float(dimension) - rank]))


def effective_ranks(eigenvalues: ArrayLike, skip: int) -> tuple[float, float]:
    """r_k and R_k of the eigenvalues beyond the `skip` largest: sum over largest, squared sum over sum of squares.

    Source: Bartlett et al. (2020)

    >>> effective_ranks([5.0, 1.0, 1.0, 1.0], skip=1)
    (3.0, 3.0)
    """
    values = np.sort(np.asarray(eigenvalues, float))[::-1]
    require_between("the number of skipped eigenvalues", skip, 0, len(values) - 1, note="fewer than there are")
    rest = values[skip:]
    return float(rest.sum() / rest[0]), float(rest.sum() ** 2 / (rest**2).sum())


def benign_variance(
    eigenvalues: ArrayLike, samples: int, noise: float = 1.0, factor: float = 1.0
) -> tuple[int | None, float]:
    """The split k* and noise² (k*/samples + samples/R_k*), to whose order an interpolator's variance is bounded both ways.

    k* is the first k with r_k >= factor * samples; where there is none the tail cannot hold the noise: (None, inf).
    Source: Bartlett et al. (2020); constants are left out

    >>> split, variance = benign_variance([1.0] * 2 + [0.01] * 200, samples=20)
    >>> split, round(variance, 6)
    (2, 0.2)
    """
    values = np.sort(np.asarray(eigenvalues, float))[::-1]
    tails = np.cumsum(values[::-1])[::-1]
    enough = np.nonzero(tails >= factor * samples * values)[0]
    if not enough.size or values[enough[0]] == 0:
        return None, np.inf
    split = int(enough[0])
    return split, noise**2 * (split / samples + samples / effective_ranks(values, split)[1])


def leading_variance(samples: ArrayLike, dimension: ArrayLike, rank: float, noise: float = 1.0) -> Any:
    """noise² (rank/samples + samples/dimension): for rank << samples << dimension and isotropic covariate noise.

    >>> round(float(leading_variance(200, 2828, 5, 0.5)), 4)
    0.0239
    """
    samples, dimension = np.asarray(samples, float), np.asarray(dimension, float)
    return noise**2 * (rank / samples + samples / dimension)


def noisy_covariate_errors(
    samples: float, dimension: float, rank: float, covariate_noise: float, noise: float, penalty: float = 0.0
) -> tuple[float, float]:
    """`linear_errors` of `CovariateNoise` with a linear teacher of second moment 1.

    The covariates' noise in the signal's own coordinates does two things to the best linear map: it shrinks it, and
    leaves a residual of variance about covariate_noise² rank/dimension. Derived here.
    """
    spectrum = spiked_spectrum(dimension, rank, covariate_noise)
    clean, tail = 1 / rank, covariate_noise**2 / dimension
    shrunk = clean / (clean + tail)
    return linear_errors(spectrum, [rank * shrunk**2, 0.0], rank * tail * shrunk, samples, noise, penalty)


@theory
class NoisyCovariateRegression(Theory):
    """Bias, variance and excess risk of linear kernel regression on covariates that carry noise."""

    name = "linear regression on noisy covariates"
    source = "Hastie et al. (2022), arXiv:1903.08560; setting of Li, Zhou & Gretton (2021), arXiv:2106.03212"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("covariates that carry noise", task, CovariateNoise, WideCovariateNoise)
        yield kind("a linear kernel", model, LinearKernel)
        yield kind("a learner that is solved", rule, Solved)
        if not isinstance(task, CovariateNoise | WideCovariateNoise) or not isinstance(rule, Solved):
            return
        yield kind("kernel ridge regression", rule.solver, KernelRidge)
        yield Check(task.teacher == "linear", "a linear teacher", f"the teacher is a {task.teacher}")
        enough = task.samples >= SMALLEST_SAMPLES
        yield Check(enough, "many samples", f"there are {task.samples} (at least {SMALLEST_SAMPLES})")
        inputs = float(task.dimension) if float(task.covariate_noise) > 0 else float(_rank(task))
        if isinstance(rule.solver, KernelRidge) and float(rule.solver.penalty) == 0:
            near = 1 - abs(task.samples / inputs - 1)
            yield limit(
                "another number of samples than inputs, or a ridge penalty", "1 - |samples/inputs - 1|",
                near, 1 - NEAREST_THRESHOLD,
            )  # fmt: skip

    def predict(self, experiment: Experiment) -> Trajectory:
        task, solver = experiment.task, experiment.rule.solver
        bias, variance = noisy_covariate_errors(
            task.samples, float(task.dimension), float(_rank(task)), float(task.covariate_noise), float(task.noise),
            float(solver.penalty),
        )  # fmt: skip
        said = {"bias": bias, "variance": variance, "excess_risk": bias + variance}
        names = {"bias": "squared bias", "variance": "variance", "excess_risk": "excess risk"}
        return xr.Dataset(
            {name: ("time", [value], {"units": "1", "long_name": names[name]}) for name, value in said.items()},
            coords={"time": experiment.times},
        )


def _rank(task: CovariateNoise | WideCovariateNoise) -> int:
    return task.dimension if task.rank is None else task.rank  # type: ignore[return-value]
