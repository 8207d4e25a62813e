"""Curvature seen through noise: where random matrices move outlying eigenvalues, and which learning rates then stay stable.

The Hessian of a batch of b samples is H + E with E of mean 0. `noise` is throughout what one sample's deviation does to
a unit vector v, E |(H_s - H) v|² (P sigma² for P weights and independent entries of variance sigma²), over the effective
number of samples of the batch. E then has a semicircle of eigenvalues up to 2 sqrt(noise).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.deep_linear import DeepLinear
from armillary.models.initialisation import Gaussian
from armillary.probes.curvature import ExtremeEigenvalues
from armillary.rules import SGD, Descent, Online
from armillary.tasks.spiked import NoisyQuadratic
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.random_matrix import MarchenkoPastur, Semicircle
from armillary.trajectory import Trajectory

Numbers = Any
"""A number, or an array or list of them."""
Result = Any
"""The same: a number for numbers, else an array."""

SMALLEST_DIMENSION = 200
"""Weights below which the eigenvalues of one draw stray from their limit by several percent."""


def effective_batch(batch: Numbers, samples: float | None = None) -> Result:
    """The number of independent samples whose mean is as noisy as that of `batch` of N `samples`: 1/(1/b - 1/N).

    inf for all of them; the batch itself without `samples` (infinitely many, or drawn with replacement). Raises
    `InvalidValue` for batches below 1 or above the number of samples.

    >>> print(effective_batch(100, 200), effective_batch(100))
    200.0 100.0
    """
    require_between("the batch size", batch, 1, np.inf if samples is None else samples, note="the number of samples")
    if samples is None:
        return np.asarray(batch, float)[()]
    with np.errstate(divide="ignore"):
        return (1.0 / (1.0 / np.asarray(batch, float) - 1.0 / samples))[()]


def spiked_wigner(spike: Numbers, noise: Numbers) -> Result:
    """Where an eigenvalue of H (one of few that are not 0) is found in H + E: spike + noise/spike, outwards on either side.

    An eigenvalue of size below sqrt(noise) is lost: what is found is the bulk's edge, ±2 sqrt(noise). Source: Péché
    (2006); Benaych-Georges & Nadakuditi (2011). To first order in the noise it is second-order perturbation theory.

    >>> print(spiked_wigner(3.0, 1.0).round(3), spiked_wigner([0.5, -0.5], 1.0))
    3.333 [ 2. -2.]
    """
    spike, noise = np.asarray(spike, float), np.asarray(noise, float)
    require_between("the noise", noise, 0.0)
    seen = np.abs(spike) > np.sqrt(noise)
    edge = np.where(spike < 0, -2.0, 2.0) * np.sqrt(noise)
    return np.where(seen, spike + noise / np.where(spike == 0, 1.0, spike), edge)[()]


def wigner_overlap(spike: Numbers, noise: Numbers) -> Result:
    """Squared cosine of the eigenvector of H + E with that of H: 1 - noise/spike², 0 where the eigenvalue is lost.

    Source: Benaych-Georges & Nadakuditi (2011)

    >>> print(wigner_overlap([3.0, 0.5], 1.0).round(3))
    [0.889 0.   ]
    """
    spike, noise = np.asarray(spike, float), np.asarray(noise, float)
    require_between("the noise", noise, 0.0)
    square = np.where(spike == 0, np.finfo(float).tiny, spike**2)
    return np.where(noise == 0, 1.0, np.maximum(1 - noise / square, 0.0))[()]


def spiked_covariance(spike: Numbers, ratio: float) -> Result:
    """The sample covariance's eigenvalue for one of size `spike` (at least 1) over a bulk of ones: l (1 + c/(l - 1)).

    `ratio` is c, dimension over samples. Below 1 + sqrt(c) it is lost, and the edge (1 + sqrt(c))² of the
    Marchenko-Pastur law is found. A Gauss-Newton matrix of b samples is such a matrix: its noise multiplies, and leaves
    no negative outliers. Source: Baik & Silverstein (2006)

    >>> print(spiked_covariance([5.0, 1.2], 0.25).round(4))
    [5.3125 2.25  ]
    """
    spike = np.asarray(spike, float)
    require_between("the spike", spike, 1.0, note="the bulk's")
    require_between("the ratio of dimension to samples", ratio, 0.0, open_low=True)
    seen = spike > 1 + np.sqrt(ratio)
    return np.where(seen, spike * (1 + ratio / np.where(seen, spike - 1, 1.0)), MarchenkoPastur(ratio).edges[1])[()]


def covariance_overlap(spike: Numbers, ratio: float) -> Result:
    """Squared cosine of its eigenvector with the true one: (1 - c/(l - 1)²)/(1 + c/(l - 1)), 0 where it is lost.

    Source: Paul (2007)

    >>> print(covariance_overlap([5.0, 1.2], 0.25).round(4))
    [0.9265 0.    ]
    """
    spike = np.asarray(spike, float)
    require_between("the spike", spike, 1.0, note="the bulk's")
    require_between("the ratio of dimension to samples", ratio, 0.0, open_low=True)
    seen = spike > 1 + np.sqrt(ratio)
    above = np.where(seen, spike - 1, 1.0)
    return np.where(seen, (1 - ratio / above**2) / (1 + ratio / above), 0.0)[()]


def mean_square_limit(curvature: Numbers, noise: Numbers) -> Result:
    """The largest learning rate at which w <- w - rate (curvature + e) w, with fresh e of variance `noise`, stays bounded.

    2/(curvature + noise/curvature), where (1 - rate curvature)² + rate² noise = 1: also 2 over the eigenvalue that
    `spiked_wigner` moves outwards, and below its threshold still less than 2 over the bulk's edge. Linear in the batch
    where noise is large, then saturated at 2/curvature. Raises `InvalidValue` for a curvature that is not positive.

    >>> print(mean_square_limit(2.0, 0.0), mean_square_limit(2.0, 4.0))
    1.0 0.5
    """
    require_between("the curvature", curvature, 0.0, open_low=True)
    require_between("the noise", noise, 0.0)
    curvature = np.asarray(curvature, float)
    return (2 / (curvature + np.asarray(noise, float) / curvature))[()]


def crossover_batch(curvature: Numbers, sample_noise: Numbers) -> Result:
    """The batch size at which noise has halved the largest rate: one sample's noise over the squared curvature.

    Below it the rate is linear in the batch; it is also where an outlying eigenvalue is lost in the bulk.

    >>> print(crossover_batch(0.5, 4.0))
    16.0
    """
    require_between("the curvature", curvature, 0.0, open_low=True)
    require_between("the noise", sample_noise, 0.0)
    return (np.asarray(sample_noise, float) / np.asarray(curvature, float) ** 2)[()]


def coupled_limit(eigenvalues: Float[np.ndarray, " eigenvalue"], noise: float) -> float:
    """`mean_square_limit` of a whole matrix, whose directions the noise couples: the rate at which
    sum of rate s²/(2 λ - rate (λ² + s²)) is 1, with s² = noise/P for P eigenvalues.

    The second moments of w in the eigenvectors of H obey m <- ((1 - rate λ)² + rate² s²) m + rate² s² sum(m), for E with
    independent Gaussian entries of variance s² (2 s² on the diagonal). For equal eigenvalues it is the one-direction
    formula up to 1/P. Else it may lie on either side of it: noise leaves the sharpest direction for others, where it is
    damped more, or less. 0 where an eigenvalue is not positive: noise then always grows. Derived here.

    >>> print(round(coupled_limit(np.ones(100), 1.0), 3), coupled_limit(np.array([1.0, 0.0]), 0.1))
    0.995 0.0
    """
    require_between("the noise", noise, 0.0)
    values = np.asarray(eigenvalues, float)
    if noise == 0:
        return float(2 / values.max())
    if values.min() <= 0:
        return 0.0
    spread = noise / len(values)
    high = float((2 * values / (values**2 + spread)).min())
    excess = lambda rate: np.sum(rate * spread / (2 * values - rate * (values**2 + spread))) - 1
    low, high = 0.0, high * (1 - 1e-15)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def second_moments(
    eigenvalues: Float[np.ndarray, " eigenvalue"], noise: float, rate: float, start: Float[np.ndarray, " eigenvalue"], steps: int
) -> Float[np.ndarray, "time eigenvalue"]:  # fmt: skip
    """The mean squares of w along the eigenvectors of H at steps 0 to `steps`, by the recursion of `coupled_limit`.

    >>> print(second_moments(np.array([1.0]), 0.5, 1.0, np.array([1.0]), 1)[1])
    [1.]
    """
    require_between("the number of steps", steps, 0)
    values, spread = np.asarray(eigenvalues, float), noise / len(eigenvalues)
    moments = [np.asarray(start, float)]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            last = moments[-1]
            kept = ((1 - rate * values) ** 2 + rate**2 * spread) * last
            moments.append(kept + rate**2 * spread * last.sum())
    return np.stack(moments)


def _of_quadratic(experiment: Experiment) -> Iterator[Check]:
    """That the loss is the noisy quadratic's own, of one vector of weights."""
    yield kind("a noisy quadratic", experiment.task, NoisyQuadratic)
    model = experiment.model
    yield kind("one linear layer", model, DeepLinear)
    if isinstance(model, DeepLinear):
        yield limit("one linear layer", "the depth", model.depth, 1)
    yield kind("descent", experiment.rule, Descent)


@theory
class SpikedWigner(Theory):
    """The extreme eigenvalues of a batch's Hessian, whose true one has few eigenvalues that are not 0.

    Predicts `hessian_eigenvalues`, as many at each end as the experiment's `ExtremeEigenvalues` seeks: spikes that stand out of
    the noise, moved outwards, then the edge of the bulk. Exact for infinitely many weights.
    """

    name = "spiked Wigner"
    source = "Granziol, Zohren & Roberts (2020), arXiv:2006.09092, after Benaych-Georges & Nadakuditi (2011)"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        yield from _of_quadratic(experiment)
        if not isinstance(experiment.task, NoisyQuadratic):
            return
        task = experiment.task
        many = f"many weights (at least {SMALLEST_DIMENSION})"
        yield Check(task.dimension >= SMALLEST_DIMENSION, many, f"there are {task.dimension}")
        spikes = np.asarray(task.eigenvalues, float)
        yield limit("few eigenvalues that are not 0", "their share", len(spikes) / task.dimension, 0.02)
        yield limit("a bulk at 0", "the rest of the spectrum", abs(float(task.rest)), 0.0)
        sought = [p for p in experiment.probes if isinstance(p, ExtremeEigenvalues) and p.matrix == "hessian"]
        yield Check(len(sought) == 1, "one ExtremeEigenvalues of the Hessian", f"there are {len(sought)}")

    def predict(self, experiment: Experiment) -> Trajectory:
        task = experiment.task
        probe = next(p for p in experiment.probes if isinstance(p, ExtremeEigenvalues))
        noise = float(task.noise) / float(task.batch)
        moved = spiked_wigner(np.asarray(task.eigenvalues, float), noise)
        edge = Semicircle(noise).edges[1]
        ends = [sorted(moved[moved > edge])[::-1], sorted(-moved[moved < -edge])[::-1]]
        up, down = (
            np.array([*end[:n], *[edge] * (n - len(end))])
            for end, n in zip(ends, (probe.top, probe.bottom), strict=True)
        )
        values = np.concatenate([up, -down[::-1]])
        times = experiment.times
        labels = {"units": "1", "long_name": "extreme eigenvalues"}
        seen = {"hessian_eigenvalues": (("time", "eigenvalue"), np.tile(values, (len(times), 1)), labels)}
        return xr.Dataset(seen, coords={"time": times, "eigenvalue": np.arange(1, len(values) + 1)})


@theory
class NoisyDescent(Theory):
    """The mean course of gradient descent on a quadratic whose Hessian each step sees with fresh noise.

    Predicts `test_loss`, the mean over runs of ½ wᵀ H w (see `second_moments`). Exact at any number of weights; where mean
    squares diverge, single runs may yet stay below their mean for long.
    """

    name = "noisy descent"
    source = "derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        yield from _of_quadratic(experiment)
        rule = experiment.rule
        if not isinstance(rule, Descent):
            return
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        yield Check(
            plain,
            "plain gradient descent",
            f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule",
        )
        yield kind("fresh noise at each step", rule.feed, Online)
        if isinstance(experiment.model, DeepLinear):
            yield kind("Gaussian initial weights", experiment.model.initialisation, Gaussian)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, rule = experiment.task, experiment.rule
        values = task.spectrum
        drawn = experiment.model.initialisation
        start = np.full(len(values), float(drawn.scale) ** 2 / (1 if drawn.per_entry else len(values)))
        noise = float(task.noise) / rule.feed.size
        moments = second_moments(values, noise, float(rule.optimiser.learning_rate), start, rule.steps)
        loss = (moments @ values / 2)[experiment.times.astype(int)]
        labels = {"units": "1", "long_name": "test loss"}
        return xr.Dataset({"test_loss": ("time", loss, labels)}, coords={"time": experiment.times})
