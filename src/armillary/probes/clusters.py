"""The Gauss-Newton matrix of data in clusters, from one mean gradient of each output on each cluster."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from armillary.errors import ProbeError
from armillary.models.model import parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.clusters import nearest_centre


class ClusterCurvature(Probe):
    """The clusters' part of the Gauss-Newton matrix of the squared error: what predicts the Hessian's outliers.

    With every sample's output gradients replaced by their mean over its cluster the matrix has clusters x outputs
    eigenvalues, those of the Gram matrix of the mean gradients. Returns `cluster_eigenvalues`, float[eigenvalue], the
    largest first; what samples add within their clusters is left out, so that the i-th is at most the Gauss-Newton
    matrix's. Raises `ProbeError` without data whose `teacher` is the centres, float[cluster, input] (as
    `GaussianClusters` gives), and for another loss. Cost: a backward pass for each cluster and output. Derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        centres = data.teacher
        if getattr(centres, "ndim", 0) != 2 or centres.shape[1:] != data.train.inputs.shape[1:]:
            raise ProbeError(
                "ClusterCurvature needs a task whose teacher is the clusters' centres, as GaussianClusters"
            )
        if getattr(now.loss, "kind", None) != "squared_error" or now.loss.reduction == "log_mean":
            raise ProbeError("ClusterCurvature needs the squared error, whose curvature in the outputs is 1")
        share = jax.nn.one_hot(nearest_centre(data.train.inputs, centres), len(centres), dtype=centres.dtype)
        sizes = jnp.sum(share, axis=0)
        flat, tree = ravel_pytree(parameters(now.network))
        rest = eqx.filter(now.network, eqx.is_inexact_array, inverse=True)

        def summed(v):
            outputs = jax.vmap(eqx.combine(tree(v), rest))(data.train.inputs)
            return share.T @ outputs

        sums = jax.jacrev(summed)(flat).reshape(-1, flat.size)
        # sqrt(size) times the mean gradient is the sum over sqrt(size).
        each = jnp.repeat(sizes, sums.shape[0] // len(centres))
        scaled = sums / jnp.sqrt(jnp.maximum(each, 1.0))[:, None]
        counted = data.train.count if now.loss.reduction == "mean" else 1.0
        values = jnp.linalg.eigvalsh(scaled @ scaled.T / counted)[::-1]
        return {"cluster_eigenvalues": Quantity(values, "eigenvalue", long_name="eigenvalues of the clusters' part")}
