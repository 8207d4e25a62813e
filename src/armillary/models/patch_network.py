"""Two-layer networks that look at patches with shared weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.model import Model


class PatchNetwork(eqx.Module):
    """f(x) = (1/m) sum over patches p of [sum_r phi(w⁺_r · x_p) - sum_r phi(w⁻_r · x_p)], phi(z) = max(z, 0)².

    `weights[sign, unit, dimension]`, the sign + first; x is [patch, dimension] and the output has one entry.
    """

    weights: Float[Array, "sign unit dimension"]

    def activity(self, x: Float[Array, "patch dimension"]) -> Float[Array, "sign unit patch"]:
        """What each unit sees of each patch, negative values cut off."""
        return jax.nn.relu(self.weights @ x.T)

    def __call__(self, x: Float[Array, "patch dimension"]) -> Float[Array, " output"]:
        for_sign = jnp.sum(self.activity(x) ** 2, axis=(1, 2)) / self.weights.shape[1]
        return (for_sign[0] - for_sign[1])[None]

    def squared_gradient(self, x: Float[Array, "patch dimension"]) -> Float[Array, ""]:
        """|grad f|² with respect to the weights, for patches orthogonal to each other: the Gauss-Newton sharpness
        of half the squared error of this one sample."""
        sizes = jnp.sum(x**2, axis=1)
        return 4 / self.weights.shape[1] ** 2 * jnp.sum(self.activity(x) ** 2 * sizes)


class PatchModel(Model):
    """Draws `PatchNetwork`s: `units` for each sign, weights N(0, scale²), the second layer fixed at ±1/units.

    `scale` can be swept in one program. Source: Lu, Wu, Yang & Zou (2023), with weights shared over patches.
    Raises `InvalidValue` for fewer than one unit or a negative scale.

    >>> PatchModel(units=3)(jax.random.key(0), inputs=5, outputs=1)(jnp.ones((2, 5))).shape
    (1,)
    """

    units: int = eqx.field(static=True, default=10)
    scale: float = 0.01

    def __check_init__(self):
        require_between("the number of units for each sign", self.units, 1)
        require_between("scale", self.scale, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> PatchNetwork:
        return PatchNetwork(self.scale * jax.random.normal(key, (2, self.units, inputs)))
