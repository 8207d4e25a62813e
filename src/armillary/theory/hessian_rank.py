"""How many eigenvalues of a loss's Hessian cannot be 0, and how many stand out: rank bounds, Gram matrices, clusters."""

import itertools
from collections.abc import Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.mlp import MLP
from armillary.rules import SGD, Descent
from armillary.tasks.clusters import GaussianClusters
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.trajectory import Trajectory

LARGEST_SPREAD = 0.25
"""Noise over radius up to which clusters count as tight: the gradients' spread within them is then a tenth or so."""

SHORTEST_TRAINING = 100.0
"""Learning rate times steps from which the residual's part of the Hessian counts as small."""

LOOKED_AT = 40
"""Eigenvalues among which the largest gap is looked for."""


def rank_bound(samples: int, outputs: int, parameters: int) -> int:
    """The largest rank that a Gauss-Newton matrix can have: min(parameters, samples times outputs).

    Each sample adds one direction for each output. Raises `InvalidValue` for numbers below 1. Source: Sagun et al. (2017)

    >>> rank_bound(30, 2, 122), 122 - rank_bound(30, 2, 122)
    (60, 62)
    """
    for name, value in (("samples", samples), ("outputs", outputs), ("parameters", parameters)):
        require_between(f"the number of {name}", value, 1)
    return min(parameters, samples * outputs)


def gram_spectrum(
    jacobians: Float[np.ndarray, "sample output parameter"],
    curvatures: Float[np.ndarray, "sample output output"] | None = None,
) -> Float[np.ndarray, " eigenvalue"]:
    """The samples times outputs eigenvalues of (1/N) S J Jᵀ Sᵀ, largest first: the Gauss-Newton matrix's that are not 0.

    J holds the outputs' gradients and Sᵀ S the loss's second derivatives in the outputs (None: the squared error's, 1).
    With fewer parameters the rest are 0. Raises `numpy.linalg.LinAlgError` for curvatures that are not symmetric positive
    semi-definite to 1e-9 of their size. Derived here from A Aᵀ and Aᵀ A sharing their spectrum.

    >>> gram_spectrum(np.array([[[2.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])).tolist()
    [2.0, 0.5]
    """
    count, outputs, size = jacobians.shape
    rooted = jacobians
    if curvatures is not None:
        values, vectors = np.linalg.eigh(curvatures)
        if (values < -1e-9 * np.abs(curvatures).max()).any() or not np.allclose(curvatures, curvatures.mT):
            raise np.linalg.LinAlgError("the loss's second derivatives are not symmetric positive semi-definite")
        root = np.sqrt(np.maximum(values, 0.0))[:, :, None] * vectors.mT
        rooted = root @ jacobians
    flat = rooted.reshape(count * outputs, size)
    return np.linalg.eigvalsh(flat @ flat.T / count)[::-1]


def cluster_outliers(clusters: int, outputs: int, *, softmax: bool = False) -> int:
    """How many eigenvalues stand out where the inputs form tight clusters: clusters times outputs.

    Within a tight cluster each output's gradient is nearly constant, so that a cluster adds one large direction for each
    output. A `softmax` does not see a constant added to all its outputs, which takes one of them away. Raises
    `InvalidValue` for numbers below 1. Derived here.

    >>> cluster_outliers(3, 3), cluster_outliers(3, 3, softmax=True)
    (9, 6)
    """
    require_between("the number of clusters", clusters, 1)
    require_between("the number of outputs", outputs, 2 if softmax else 1)
    return clusters * (outputs - 1 if softmax else outputs)


def parameter_count(model: MLP, inputs: int, outputs: int) -> int:
    """How many weights and biases an MLP has.

    >>> parameter_count(MLP(width=8), 12, 3)
    131
    """
    sizes = [inputs, *[model.width] * (model.depth - 1), outputs]
    return sum(a * b + (b if model.bias else 0) for a, b in itertools.pairwise(sizes))


@theory
class ClusterOutliers(Theory):
    """The number of the Hessian's outliers once a network has learned tight clusters: clusters times outputs.

    Predicts `hessian_outliers` and `gauss_newton_outliers`, constant over time, nan while learning rate times steps is
    below `SHORTEST_TRAINING`: the residual's part of the Hessian still counts then.
    """

    name = "cluster outliers"
    source = "Sagun et al. (2017), arXiv:1706.04454; the count is derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("Gaussian clusters", task, GaussianClusters)
        yield kind("an MLP", model, MLP)
        yield kind("descent", rule, Descent)
        if not isinstance(task, GaussianClusters) or not isinstance(model, MLP) or not isinstance(rule, Descent):
            return
        spread = float(task.noise) / max(float(task.radius), np.finfo(float).tiny)
        yield limit("tight clusters", "noise over radius", spread, LARGEST_SPREAD)
        yield squared_error(experiment)
        count = cluster_outliers(task.clusters, task.outputs)
        yield limit("an outlier count that the gap can show", "clusters times outputs", count, LOOKED_AT - 1)
        size = parameter_count(model, task.inputs, task.outputs)
        yield limit("more weights than outliers", "clusters times outputs over weights", count / size, 0.5)
        yield limit("several samples in each cluster", "clusters over samples", task.clusters / task.samples, 0.2)
        yield kind("gradient descent", rule.optimiser, SGD)
        if isinstance(rule.optimiser, SGD):
            done = float(rule.optimiser.learning_rate) * rule.steps
            needed = f"training for learning rate times steps of {SHORTEST_TRAINING:g}"
            yield Check(done >= SHORTEST_TRAINING, needed, f"it is {done:.3g}")

    def predict(self, experiment: Experiment) -> Trajectory:
        task, rule = experiment.task, experiment.rule
        rate = float(rule.optimiser.learning_rate)
        count = float(cluster_outliers(task.clusters, task.outputs))
        values = np.where(experiment.times * rate >= SHORTEST_TRAINING, count, np.nan)
        labels = {"units": "1", "long_name": "eigenvalues above the largest gap"}
        names = ("hessian_outliers", "gauss_newton_outliers")
        return xr.Dataset({name: ("time", values, labels) for name in names}, coords={"time": experiment.times})
