"""Gradient descent on factorised matrices: signal directions are learned exponentially, surplus ones vanish slowly.

Steps are those of X <- X - rate (Z - M) X with Z = X Xᵀ, and of F <- F - rate (Z - M) G, G <- G - rate (Z - M)ᵀ F with
Z = F Gᵀ: descent on `MatrixSensing`'s loss, where the symmetric network halves its rate for it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.experiment import Experiment
from armillary.models.factorised import SymmetricFactors
from armillary.rules import SGD, Descent, FullBatch
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.theory.random_matrix import MarchenkoPastur
from armillary.trajectory import Trajectory, numbered

Numbers = Any

SMALLEST_START = 0.1
"""Initial eigenvalues over the smallest signal up to which directions are learned one by one."""

LARGEST_RATE = 0.3
"""Rate times the largest signal up to which every step shrinks what it should."""


def direction(steps: int, rate: float, signal: Numbers, initial: Numbers) -> Float[np.ndarray, "time ..."]:
    """An eigenvalue of X Xᵀ along an eigenvector of M: z <- z (1 - rate (z - signal))², at steps 0 to `steps`.

    `signal` is M's eigenvalue there, 0 for a surplus direction; arguments broadcast. Exact where X Xᵀ and M commute.
    Source: Xiong, Ding & Du (2023); the recursion is derived here.

    >>> z = direction(1000, 0.1, 0.0, 0.01)
    >>> bool(abs(z[-1] / surplus_eigenvalue(1000, 0.1, 0.01) - 1) < 0.01)
    True
    """
    signal, z = np.broadcast_arrays(np.asarray(signal, float), np.asarray(initial, float))
    course = np.empty((steps + 1, *z.shape))
    course[0] = z
    for step in range(steps):
        z = z * (1 - rate * (z - signal)) ** 2
        course[step + 1] = z
    return course


def surplus_eigenvalue(steps: Numbers, rate: float, initial: Numbers) -> Numbers:
    """A surplus eigenvalue after so many steps: 1/(1/initial + 2 rate steps), for small rate times initial.

    Its square, summed over surplus directions, is the squared error that is left: it falls as the number of steps to
    the power -2. Derived here.
    """
    return 1 / (1 / np.asarray(initial, float) + 2 * rate * np.asarray(steps, float))


def surplus_error(steps: Numbers, rate: float, surplus: float) -> Numbers:
    """The squared error after many steps, whatever the start: surplus/(2 rate steps)², with `surplus` extra columns."""
    return surplus / (2 * rate * np.asarray(steps, float)) ** 2


def asymmetric_decay(rate: float, smallest_left: Numbers) -> Numbers:
    """The rate per step at which the squared error of F Gᵀ ends: the smaller factor's surplus directions shrink by
    1 - rate * (smallest eigenvalue of Fᵀ F), their squares by twice that in the logarithm. Derived here.

    >>> round(float(asymmetric_decay(0.1, 1.0)), 4)
    0.2107
    """
    return -2 * np.log1p(-rate * np.asarray(smallest_left, float))


def signal_decay(rate: float, signal: Numbers) -> Numbers:
    """The rate per step at which the squared error ends with no surplus columns, for the smallest eigenvalue `signal`.

    Along M's own directions the error shrinks by 1 - 2 rate signal a step, but where it couples them to the rest of the
    space by 1 - rate signal only, which decides. Derived here.
    """
    return -2 * np.log1p(-rate * np.asarray(signal, float))


def rebalanced_decay(rate: float, size: float, signal: Numbers) -> Numbers:
    """The rate per step at which the squared error of F Gᵀ ends once F's columns are orthonormal times `size`.

    The surplus of G then shrinks by 1 - rate size² a step; what F holds beside the signal sees G only, which balances the
    product with signal/size, and shrinks by 1 - rate signal²/size². The slower of the two, with the smallest singular value
    as `signal`: no dependence on the initial scale. Derived here.
    """
    return -2 * np.log1p(-rate * np.minimum(size**2, np.asarray(signal, float) ** 2 / size**2))


def typical_start(dimension: int, width: int, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Typical initial eigenvalues of the signal directions and of the surplus ones, for X with entries
    N(0, scale²/dimension).

    The strongest signal takes its own direction in X's columns; each later one only what those before it leave, one
    column fewer. The surplus starts at equal-share quantiles of the Marchenko-Pastur law of what all leave over, in the
    rows beside the signal. Derived here.

    >>> signal, surplus = typical_start(20, 4, 2, 0.1)
    >>> signal.round(5).tolist(), surplus.shape
    ([0.002, 0.0015], (2,))
    """
    signal = scale**2 * (width - np.arange(rank)) / dimension
    left = width - rank
    if not left or dimension == rank:
        return signal, np.zeros(left)
    nodes, weights = MarchenkoPastur((dimension - rank) / left).quadrature(2000)
    order = np.argsort(nodes)
    share = np.cumsum(weights[order]) / weights.sum()
    quantiles = np.interp((np.arange(left) + 0.5) / left, share, nodes[order])
    return signal, scale**2 * quantiles * left / dimension


@theory
class SymmetricSensing(Theory):
    """Squared error of X Xᵀ on population measurements from a small start, direction by direction."""

    name = "matrix sensing, symmetric factors"
    source = "Xiong, Ding & Du (2023), arXiv:2310.01769"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("a sensed matrix", task, MatrixSensing)
        yield kind("symmetric factors", model, SymmetricFactors)
        yield kind("gradient descent", rule, Descent)
        if (
            not isinstance(task, MatrixSensing)
            or not isinstance(model, SymmetricFactors)
            or not isinstance(rule, Descent)
        ):
            return
        yield Check(task.symmetric, "a symmetric matrix", "its left and right singular vectors differ")
        yield Check(task.measurements is None, "all measurements", f"there are {task.measurements}")
        values = np.array([float(s) for s in task.singular_values])
        enough = float(model.width) >= len(values)
        yield Check(enough, "as many columns as the rank", f"there are {model.width:g} for rank {len(values)}")
        # The largest eigenvalue of X Xᵀ at the start, by the Marchenko-Pastur law's edge.
        start = float(model.scale) ** 2 * (1 + np.sqrt(float(model.width) / task.dimension)) ** 2
        yield limit(
            "a small start", "the initial matrix over the smallest singular value", start / values.min(), SMALLEST_START
        )
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        yield Check(
            plain,
            "plain gradient descent",
            f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule",
        )
        yield squared_error(experiment)
        yield kind("full batches", rule.feed, FullBatch)
        if isinstance(rule.optimiser, SGD):
            step = float(rule.optimiser.learning_rate) * values.max()
            yield limit("small steps", "learning rate times largest singular value", step, LARGEST_RATE)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        rate, steps = float(experiment.rule.optimiser.learning_rate), experiment.times.astype(int)
        values = np.array([float(s) for s in task.singular_values])
        signal, surplus = typical_start(task.dimension, round(float(model.width)), len(values), float(model.scale))
        beside = direction(int(steps[-1]), rate, 0.0, surplus)[steps]
        # What couples the signal to the rest of the space, both blocks of it, shrinks as the signal has grown.
        free = float(model.scale) ** 2 * (task.dimension - len(values)) / task.dimension
        course = direction(int(steps[-1]), rate, values, signal)
        shrunk = np.cumprod((1 - rate * course) ** 2, axis=0) / (1 - rate * course) ** 2
        coupled = 2 * free * (course * shrunk).sum(axis=1)[steps]
        along = course[steps]
        error = ((along - values) ** 2).sum(axis=1) + coupled + (beside**2).sum(axis=1)
        said = {
            "squared_error": ("time", error, {"units": "1", "long_name": "squared error of the matrix"}),
            "surplus_error": (
                "time",
                (beside**2).sum(axis=1),
                {"units": "1", "long_name": "squared size of the surplus"},
            ),
            "train_loss": ("time", error / 2, {"units": "1", "long_name": "training loss"}),
        }
        return numbered(xr.Dataset(said, coords={"time": experiment.times}))
