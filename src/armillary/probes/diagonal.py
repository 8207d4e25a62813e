"""What an interpolating linear map is like, and how far a network's tangent kernel has moved."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from armillary.errors import ProbeError
from armillary.models.model import end_to_end, parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def _coefficients(now: Snapshot, probe: Probe) -> Float[Array, " input"]:
    inputs = data_of(now, probe).train.inputs
    found = end_to_end(now.network, inputs.shape[1])
    if found.shape[0] != 1:
        raise ProbeError(f"{type(probe).__name__} needs one output, and this network has {found.shape[0]}")
    return found[0]


class Coefficients(Probe):
    """The linear map of a network with one output. Returns `coefficients`, float[feature].

    Raises `ProbeError` without data or for more outputs. Meant for networks that are linear without bias.
    """

    def __call__(self, now: Snapshot) -> Observation:
        return {"coefficients": Quantity(_coefficients(now, self), "feature", long_name="coefficients")}


class SolutionNorms(Probe):
    """Norms of the linear map b of a network with one output, and its distances from teacher and min-l2 solution.

    Returns `l1_norm` and `l2_norm`; `distance_to_min_l2`, |b - b2| with b2 the interpolator of smallest l2 norm; and,
    where the data have a teacher, `population_error` |b - teacher|², the excess risk for inputs N(0, 1) (its mean
    square, without ½). Raises `ProbeError` without data or for more outputs. Cost: one SVD of the inputs. The
    distance to the min-l1 solution needs a linear program: `armillary.theory.implicit_bias.minimum_l1` on
    `Coefficients`.
    """

    def __call__(self, now: Snapshot) -> Observation:
        found, data = _coefficients(now, self), data_of(now, self)
        smallest = jnp.linalg.pinv(data.train.inputs) @ data.train.targets[:, 0]
        seen = {
            "l1_norm": Quantity(jnp.sum(jnp.abs(found)), long_name="l1 norm of the map"),
            "l2_norm": Quantity(jnp.linalg.norm(found), long_name="l2 norm of the map"),
            "distance_to_min_l2": Quantity(jnp.linalg.norm(found - smallest), long_name="distance to min l2"),
        }
        if data.teacher is not None:
            error = jnp.sum((found - data.teacher[0]) ** 2)
            seen["population_error"] = Quantity(error, long_name="population error")
        return seen


class KernelDistance(Probe):
    """How far the tangent kernel has moved: |K - K(0)| over |K(0)|, Frobenius norms.

    K = J Jᵀ with J the Jacobian of all outputs on the first `samples` training inputs by all parameters. Returns
    `kernel_distance` (0 in the lazy limit; it grows with the kernel's size) and `kernel_alignment`, the cosine
    <K, K(0)>/(|K| |K(0)|), blind to size. Raises `ProbeError` without data or the initial network. Cost: one backward
    pass a sample and output, at both networks.
    """

    samples: int = eqx.field(static=True, default=50)

    def __call__(self, now: Snapshot) -> Observation:
        if now.initial is None:
            raise ProbeError("KernelDistance needs the network before training; pass initial=...")
        inputs = data_of(now, self).train.inputs[: self.samples]
        kernel, start = _tangent_kernel(now.network, inputs), _tangent_kernel(now.initial, inputs)
        size, size0 = jnp.linalg.norm(kernel), jnp.linalg.norm(start)
        return {
            "kernel_distance": Quantity(jnp.linalg.norm(kernel - start) / size0, long_name="relative kernel movement"),
            "kernel_alignment": Quantity(jnp.sum(kernel * start) / (size * size0), long_name="kernel alignment"),
        }


def _tangent_kernel(network: PyTree, inputs: Array) -> Float[Array, "row row"]:
    trained, rest = parameters(network), eqx.filter(network, eqx.is_inexact_array, inverse=True)
    outputs = lambda weights: jax.vmap(eqx.combine(weights, rest))(inputs).ravel()
    jacobians = jax.tree.leaves(jax.jacrev(outputs)(trained))
    flat = jnp.concatenate([j.reshape(j.shape[0], -1) for j in jacobians], axis=1)
    return flat @ flat.T
