"""How good a representation is: exact excess risk, subspace error, risk of the best head, and informativeness."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError
from armillary.models.model import matrices
from armillary.probes.losses import accuracy, data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.rules.pretraining import with_head
from armillary.tasks.data import Samples
from armillary.tasks.latent import GaussianPopulation, LatentData, LatentTeacher


class ExcessRisk(Probe):
    """Expected squared distance of a linear network's prediction to the best linear one's: tr (W - W*) C (W - W*)ᵀ.

    Returns `excess_risk`, a scalar, 0 at the optimum; exact. Raises `ProbeError` where the test set is no
    `GaussianPopulation` (`FactorModel` and `ContrastivePairs` have one). Cost: inputs².
    """

    def __call__(self, now: Snapshot) -> Observation:
        test = data_of(now, self).test
        if not isinstance(test, GaussianPopulation):
            raise ProbeError("ExcessRisk needs a Gaussian population; use FactorModel or ContrastivePairs")
        return {"excess_risk": Quantity(test.excess(now.network), long_name="excess risk")}


class SubspaceError(Probe):
    """How much of the latent directions the first layer misses: 1 - mean squared cosine of their principal angles.

    Returns `subspace_error`, a scalar from 0 (all directions are in the span of the first layer's rows) to 1; nothing
    else of the layer counts. Raises `ProbeError` without a `LatentTeacher`. Cost: one QR of the first layer.
    """

    def __call__(self, now: Snapshot) -> Observation:
        teacher = data_of(now, self).teacher
        if not isinstance(teacher, LatentTeacher):
            raise ProbeError("SubspaceError needs latent directions; use FactorModel or ContrastivePairs")
        return {
            "subspace_error": Quantity(missed(_encoder(now.network), teacher.directions), long_name="subspace error")
        }


class BestHead(Probe):
    """The excess risk that the first layer would have under a least-squares head on the labelled samples.

    Returns `best_head_risk`, a scalar: what a representation is worth while it is still learned from unlabelled data.
    Raises `ProbeError` without labelled samples and a `GaussianPopulation`. Cost: one small eigendecomposition.
    """

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        if not isinstance(data, LatentData) or not isinstance(data.test, GaussianPopulation):
            raise ProbeError("BestHead needs labelled samples and a Gaussian population; use FactorModel")
        risk = data.test.excess(with_head(_encoder(now.network), data.labelled))
        return {"best_head_risk": Quantity(risk, long_name="excess risk under the best head")}


class TeacherAccuracy(Probe):
    """The accuracy on the test samples that a task's own teacher has: of a mixture, Bayes's.

    Returns `teacher_accuracy`, a scalar in [0, 1]. Raises `ProbeError` where the teacher is no network, or without test
    samples. Cost: one pass over the test samples.
    """

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        if not callable(data.teacher) or not isinstance(data.test, Samples):
            raise ProbeError("TeacherAccuracy needs a teacher that is a network, and test samples; use GaussianMixture")
        return {"teacher_accuracy": Quantity(accuracy(data.teacher, data.test), long_name="the teacher's accuracy")}


def missed(encoder: Float[Array, "_found input"], directions: Float[Array, "factor input"]) -> Float[Array, ""]:
    """1 - the mean squared cosine of the principal angles between the rows' spans."""
    frame, triangle = jnp.linalg.qr(encoder.T)
    size = jnp.abs(jnp.diagonal(triangle))
    alive = size > 1e-7 * jnp.max(size)  # a dead factor has no direction
    return 1 - jnp.sum(jnp.where(alive, directions @ frame, 0.0) ** 2) / len(directions)


def _encoder(network: Any) -> Array:
    found = matrices(network)
    if not found:
        raise ProbeError("this network has no first layer; it must have weight matrices")
    return getattr(network, "encoder", found[0])
