"""How the loss changes when the weights move along the curvature's eigenvectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from armillary.curvature import density
from armillary.errors import require_between
from armillary.models.model import parameters
from armillary.probes.curvature import CurvatureProbe
from armillary.probes.losses import data_of
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class EigenvectorLoss(CurvatureProbe):
    """The training loss a step away along each eigenvector of a curvature matrix, and along a random one near its null space.

    The step is `epsilon` times the norm of all weights, in both senses, whose mean is taken: what is left is λ/2 step²
    plus a fourth order. Returns `eigenvector_loss_change`, float[parameter], the largest eigenvalue's first;
    `eigenvector_curvature`, float[parameter], those eigenvalues; `step_size`; and `null_loss_change`, along a random
    combination of the eigenvectors whose |λ| is below `zero` times the largest (nan where there are none). Raises
    `InvalidValue` above `limit` weights and for an epsilon that is not positive. Cost: `DenseSpectrum`'s, and two passes
    over all samples for each weight.
    """

    epsilon: float = eqx.field(static=True, default=0.01)
    zero: float = eqx.field(static=True, default=1e-3)
    limit: int = eqx.field(static=True, default=2000)

    def __check_init__(self):
        require_between("epsilon", self.epsilon, 0.0, open_low=True)
        require_between("what counts as 0 (zero)", self.zero, 0.0)

    def __call__(self, now: Snapshot) -> Observation:
        samples = data_of(now, self).train
        values, vectors = jnp.linalg.eigh(density.dense(self.operator(now), self.limit))
        values, vectors = values[::-1], vectors[:, ::-1].T
        flat, tree = ravel_pytree(parameters(now.network))
        rest = eqx.filter(now.network, eqx.is_inexact_array, inverse=True)
        step = self.epsilon * jnp.linalg.norm(flat)
        moved = lambda v: now.loss(eqx.combine(tree(flat + v), rest), samples)
        here = moved(jnp.zeros_like(flat))

        def change(v: Float[Array, " parameter"]) -> Float[Array, ""]:
            return (moved(step * v) + moved(-step * v)) / 2 - here

        near = jnp.abs(values) <= self.zero * jnp.max(jnp.abs(values))
        mixed = jnp.where(near, jax.random.normal(self.key, flat.shape, flat.dtype), 0.0) @ vectors
        norm = jnp.linalg.norm(mixed)
        null = jnp.where(norm > 0, change(mixed / jnp.where(norm > 0, norm, 1.0)), jnp.nan)
        return {
            "eigenvector_loss_change": Quantity(lax.map(change, vectors), "parameter", long_name="change of the loss"),
            "eigenvector_curvature": Quantity(values, "parameter", long_name="eigenvalue"),
            "step_size": Quantity(step, long_name="length of the step"),
            "null_loss_change": Quantity(null, long_name="change of the loss near the null space"),
        }
