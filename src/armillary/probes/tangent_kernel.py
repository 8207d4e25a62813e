"""The tangent kernel of a network as it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between
from armillary.models.model import learning_rate_scales
from armillary.probes.losses import data_of
from armillary.probes.probe import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class EmpiricalTangentKernel(Probe):
    """The neural tangent kernel at the weights: inner products of the outputs' gradients at the training inputs.

    Returns `tangent_kernel`, float[sample, other], on the first `samples` training inputs, the mean over outputs.
    `own_metric` counts each weight by its layer's learning rate, as gradient descent in the network's parametrisation
    does. Cost: two gradients for each output and sample; memory: a few times the weights. Raises `ProbeError` without
    data or trainable weights. Source: Jacot et al. (2018)
    """

    samples: int = eqx.field(static=True, default=16)
    own_metric: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)

    def __call__(self, now: Snapshot) -> Observation:
        inputs = data_of(now, self).train.inputs[: self.samples]
        trained, rest = eqx.partition(now.network, eqx.is_inexact_array)
        if not jax.tree.leaves(trained):
            raise ProbeError(f"EmpiricalTangentKernel needs trainable weights; a {type(rest).__name__} has none")
        outputs, push = jax.linearize(lambda weights: jax.vmap(eqx.combine(weights, rest))(inputs), trained)
        pull = jax.linear_transpose(push, trained)
        count, outputs_each = len(inputs), outputs.size // len(inputs)
        rates = learning_rate_scales(now.network, adaptive=False)

        def row(index: Array) -> Float[Array, " sample"]:
            (gradient,) = pull(jnp.zeros(outputs.size, outputs.dtype).at[index].set(1.0).reshape(outputs.shape))
            if self.own_metric:
                gradient = jax.tree.map(jnp.multiply, rates, gradient)
            return push(gradient).reshape(count, -1)[:, index % outputs_each]

        rows = lax.map(row, jnp.arange(outputs.size)).reshape(count, outputs_each, count)
        kernel = Quantity(jnp.mean(rows, axis=1), ("sample", "other"), long_name="tangent kernel")
        return {"tangent_kernel": kernel}
