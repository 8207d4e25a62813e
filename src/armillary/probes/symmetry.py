"""Whether the rescaling symmetry of homogeneous hidden units shows in the Hessian."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from armillary.curvature.operators import MEMORY, hessian
from armillary.curvature.symmetry import live_units, rescaling_signs
from armillary.errors import InvalidValue, ProbeError
from armillary.models.model import parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class RescalingSymmetry(Probe):
    """The curvature along each hidden unit's rescaling direction v = (w_in, b, -w_out), which is null at critical points.

    Returns, float[unit], hidden layers one after another: `rescaling_curvature`, |H v|/|v|; `rescaling_gradient`, |D g|/|v|
    with g the gradient and D the unit's signs, which theory says is the same (`rescaling_directions`);
    `rescaling_mismatch`, |H v + D g|/|v|; and `live`, 1 for units that are not 0 on all training inputs; nan for units whose
    weights are 0. Also `gradient_norm`. Raises `ProbeError` without data, and for networks that are not MLPs with hidden
    units of a homogeneous activation. Cost: one product for each unit.
    """

    memory: float = eqx.field(static=True, default=MEMORY)

    def __call__(self, now: Snapshot) -> Observation:
        samples = data_of(now, self).train
        try:
            signs = rescaling_signs(now.network)
        except InvalidValue as error:
            raise ProbeError(f"RescalingSymmetry: {error}") from error
        flat = ravel_pytree(parameters(now.network))[0]
        gradient = ravel_pytree(parameters(eqx.filter_grad(now.loss)(now.network, samples)))[0]
        images = lax.map(hessian(now.loss, now.network, samples, memory=self.memory).product, signs * flat)
        sizes = jnp.linalg.norm(signs * flat, axis=1)
        of = lambda rows: jnp.linalg.norm(rows, axis=1) / jnp.where(sizes > 0, sizes, jnp.nan)
        live = live_units(now.network, samples.inputs).astype(flat.dtype)
        return {
            "rescaling_curvature": Quantity(of(images), "unit", long_name="curvature along the rescaling"),
            "rescaling_gradient": Quantity(of(signs * gradient), "unit", long_name="gradient of the unit's weights"),
            "rescaling_mismatch": Quantity(of(images + signs * gradient), "unit", long_name="mismatch of the two"),
            "live": Quantity(live, "unit", long_name="whether the unit is live"),
            "gradient_norm": Quantity(jnp.linalg.norm(gradient), long_name="norm of the gradient"),
        }
