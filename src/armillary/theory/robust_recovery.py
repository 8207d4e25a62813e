"""Robust matrix recovery: the expected sub-gradient method on the absolute error of a factorised matrix.

With many Gaussian measurements the sub-gradient has the direction of the error itself, whatever the outliers: U moves by
-rate phi(|D|) D U/|D|, with D = U Uᵀ - M. That is the flow of matrix factorisation at a speed that does not fade with the
error. Rates are those of `SGD` on `SymmetricFactors`, which halves them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.experiment import Experiment
from armillary.models.factorised import SymmetricFactors
from armillary.rules import SGD, Descent, FullBatch
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.trajectory import Trajectory, numbered

Numbers = Any
Values = Sequence[float] | Float[np.ndarray, " direction"]
Strength = Callable[[Any], Any]
"""phi: the expected size of the sub-gradient at an error of some norm (`MatrixSensing.sign_strength`)."""

LARGEST_SHARE = 0.15
"""Free numbers of the matrix over the measurements up to which the early course is near its expectation."""

SMALLEST_START = 0.1
"""Squared initial scale over the smallest singular value up to which directions are learned one by one."""


def expected_descent(
    rates: Float[np.ndarray, " step"], signal: Values, initial: Values, strength: Strength
) -> Float[np.ndarray, "time direction"]:
    """Eigenvalues of U Uᵀ along M's eigenvectors, before each step and after the last.

    z <- z (1 - rate phi (z - signal)/|D|)² with |D|² the sum of (z - signal)² over all directions; `signal` is 0 for those
    beside M. Exact for infinitely many measurements where U Uᵀ and M commute, as from U = alpha 1. Derived here.

    >>> z = expected_descent(0.2 * 0.99 ** np.arange(800), [1.0, 0.0], [1e-8, 1e-8], lambda error: 0.8)
    >>> bool(abs(z[-1, 0] - 1) < 1e-3), bool(z[-1, 1] < 1e-7)
    (True, True)
    """
    target, z = np.asarray(signal, float), np.array(initial, float)
    course = np.empty((len(rates) + 1, z.size))
    course[0] = z
    for step, rate in enumerate(rates):
        wrong = z - target
        size = np.linalg.norm(wrong)
        speed = rate * float(strength(size)) / size if size > 0 else 0.0
        z = z * (1 - speed * wrong) ** 2
        course[step + 1] = z
    return course


def expected_flow(
    time: Float[np.ndarray, " time"], signal: Values, initial: Values, strength: Strength
) -> Float[np.ndarray, "time direction"]:
    """The same in the limit of small rates: dz/dt = -2 phi (z - signal) z/|D|, time counting the sum of the rates.

    Its speed does not fade, so that the error reaches 0 in finite time: from a ten-thousandth of the initial one the
    state is held. Source: Ma & Fattahi (2022); the form by directions is derived here.
    """
    from scipy.integrate import solve_ivp  # loads slowly

    target = np.asarray(signal, float)

    def velocity(_: float, logarithm: np.ndarray) -> np.ndarray:
        wrong = np.exp(logarithm) - target
        size = np.linalg.norm(wrong)
        return -2 * float(strength(size)) * wrong / size

    def arrived(_: float, logarithm: np.ndarray) -> float:
        return float(np.linalg.norm(np.exp(logarithm) - target)) - least

    times, least = np.asarray(time, float), 1e-4 * float(np.linalg.norm(np.asarray(initial) - target))
    arrived.terminal = True  # pyright: ignore[reportFunctionMemberAccess]
    ends = (0.0, float(times.max()))
    run = solve_ivp(velocity, ends, np.log(initial), "LSODA", times, events=arrived, rtol=1e-9, atol=1e-9)
    held = np.repeat(run.y_events[0][:1], len(times) - run.y.shape[1], axis=0)
    return np.exp(np.concatenate([run.y.T.reshape(-1, target.size), held.reshape(-1, target.size)]))


def learning_time(signal: Values, initial: float, strength: float) -> float:
    """Sum of the rates until all directions are learned, from equal small eigenvalues `initial`.

    One after another, the strongest first: while |D| is the norm of what is still missing, each eigenvalue grows as
    exp(2 phi signal t/|D|), and a direction counts as learned when its growth reaches `signal`. Affine in
    log(1/initial), with slope 1/(2 phi) times the sum over k of |M_k..r| (1/signal_k - 1/signal_k-1). Derived here.

    >>> round(learning_time([1.0], np.exp(-10.0), strength=0.5), 6)
    10.0
    """
    values = np.sort(np.asarray(signal, float))[::-1]
    logarithms = np.full(values.shape, np.log(initial))
    total = 0.0
    for index, value in enumerate(values):
        size = np.linalg.norm(values[index:])
        needed = max(np.log(value) - logarithms[index], 0.0) * size / (2 * strength * value)
        logarithms = logarithms + 2 * strength * values * needed / size
        total += needed
    return float(total)


def geometric_steps(total: Numbers, first: float, ratio: float) -> Numbers:
    """How many steps of rates first ratio^t add up to `total`; inf where all of them together do not.

    >>> float(geometric_steps(0.75, 0.5, 0.5)), float(geometric_steps(1.0, 0.5, 0.5))
    (2.0, inf)
    """
    left = 1 - np.asarray(total, float) * (1 - ratio) / first
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(left, 0.0)) / np.log(ratio)


def statistical_error(noise: float, dimension: int, rank: int, measurements: Numbers) -> Numbers:
    """Frobenius error of least absolute deviations over symmetric matrices of that rank, under dense Gaussian noise.

    noise sqrt((pi/2) (dimension rank - rank (rank - 1)/2)/measurements): the asymptotic variance of a median, for each
    free number of the matrix. For many measurements, and many more than free numbers. Derived here.

    >>> round(float(statistical_error(0.1, 20, 2, 400)), 4)
    0.0391
    """
    return noise * np.sqrt(np.pi / 2 * free_numbers(dimension, rank) / np.asarray(measurements, float))


def free_numbers(dimension: int, rank: int) -> int:
    """How many numbers a symmetric matrix of that rank has: dimension rank - rank (rank - 1)/2."""
    return dimension * rank - rank * (rank - 1) // 2


def orthonormal_start(dimension: int, width: int, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Initial eigenvalues along the signal directions, and of the surplus, for orthonormal columns times scale.

    The surplus columns are exactly scale² each. A signal direction finds the share of a random subspace that the stronger
    ones leave, in the mean (width - k)/(dimension - k); with as many columns as inputs all are scale². Derived here.

    >>> orthonormal_start(4, 3, 1, 1.0)
    (array([0.75]), array([1., 1.]))
    """
    taken = np.arange(rank)
    return scale**2 * (width - taken) / (dimension - taken), np.full(width - rank, scale**2)


@theory
class RobustRecovery(Theory):
    """Error, signal and residual of the sub-gradient method from orthonormal columns, in expectation."""

    name = "robust matrix recovery"
    source = "Ma & Fattahi (2022), arXiv:2202.08788; by directions, derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("a sensed matrix", task, MatrixSensing)
        yield kind("symmetric factors", model, SymmetricFactors)
        yield kind("descent", rule, Descent)
        if (
            not isinstance(task, MatrixSensing)
            or not isinstance(model, SymmetricFactors)
            or not isinstance(rule, Descent)
        ):
            return
        yield Check(task.symmetric, "a symmetric matrix", "its left and right singular vectors differ")
        values, width = np.array([float(s) for s in task.singular_values]), float(model.width)
        if task.measurements is None:
            yield Check(False, "measurements", "training is on their population, whose absolute error is not known")
        else:
            share = free_numbers(task.dimension, len(values)) / task.measurements
            yield limit("many measurements", "free numbers of the matrix over measurements", share, LARGEST_SHARE)
        yield Check(not task.rank_one, "measurement matrices of independent entries", "they are of rank one")
        yield Check(model.orthonormal, "orthonormal initial columns", "they are independent Gaussian ones")
        given = f"there are {width:g} for rank {len(values)}"
        yield Check(width >= len(values), "as many columns as the rank", given)
        start = float(model.scale) ** 2 / values.min()
        yield limit("a small start", "squared scale over the smallest singular value", start, SMALLEST_START)
        yield from _descent_checks(rule)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model, steps = experiment.task, experiment.model, experiment.times.astype(int)
        values = np.array([float(s) for s in task.singular_values])
        start = orthonormal_start(task.dimension, round(float(model.width)), len(values), float(model.scale))
        rates = np.broadcast_to(experiment.rule.optimiser.rate(np.arange(steps[-1])), steps[-1]).astype(float)
        noise, share, size = (float(x) for x in (task.noise, task.outliers, task.outlier_size))

        def strength(error: float) -> float:  # the task's, in plain numbers: JAX would dispatch at every step
            gross = share / np.sqrt(error**2 + noise**2 + size**2)
            return np.sqrt(2 / np.pi) * error * ((1 - share) / np.hypot(error, noise) + gross)

        signal = np.concatenate([values, np.zeros(len(start[1]))])
        course = expected_descent(rates, signal, np.concatenate(start), strength)[steps]
        along, beside = course[:, : len(values)], course[:, len(values) :]
        residual = np.sqrt(beside.max(axis=1, initial=0.0))
        said = {
            "squared_error": ("time", ((course - signal) ** 2).sum(axis=1), "squared error of the matrix"),
            "signal": ("time", np.sqrt(along.min(axis=1)), "smallest singular value of the signal"),
            "residual": ("time", residual, "largest one of the residual"),
        }
        labelled = {name: (dim, v, {"units": "1", "long_name": words}) for name, (dim, v, words) in said.items()}
        return numbered(xr.Dataset(labelled, coords={"time": experiment.times}))


def _descent_checks(rule: Descent) -> Iterator[Check]:
    loss, optimiser = rule.loss, rule.optimiser
    right = loss.kind == "absolute_error" and loss.reduction == "mean"
    yield Check(right, "the mean absolute error", f"the loss is the {loss.reduction} of {loss.kind}")
    plain = isinstance(optimiser, SGD) and not optimiser.momentum and not optimiser.weight_decay
    given = f"the optimiser is {type(optimiser).__name__}, or has momentum or decay"
    yield Check(plain, "the sub-gradient method", given)
    yield kind("full batches", rule.feed, FullBatch)
