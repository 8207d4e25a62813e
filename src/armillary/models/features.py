"""Fixed random features under a trained read-out."""

import equinox as eqx
import jax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.activations import activation
from armillary.models.model import Model


class FeatureNetwork(eqx.Module):
    """x -> a phi(W x) with W fixed: `readout` is [output, feature], `projection` [feature, input]."""

    readout: Float[Array, "output feature"]
    projection: Float[Array, "feature input"]
    activation: str = eqx.field(static=True)

    def features(self, x: Float[Array, " input"]) -> Float[Array, " feature"]:
        """What the read-out sees."""
        return activation(self.activation)(lax.stop_gradient(self.projection) @ x)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return self.readout @ self.features(x)


class RandomFeatures(Model):
    """A two-layer network whose first layer stays at its random values (Rahimi & Recht 2007).

    Projections are N(0, 1) times `projection_scale`; the read-out starts N(0, scale²) and is all that a rule
    changes. Both scales can be swept in one program. Raises `InvalidValue` for a width below 1.

    >>> import jax
    >>> import jax
    >>> import jax.numpy as jnp
    >>> RandomFeatures(width=8)(jax.random.key(0), inputs=4, outputs=1)(jnp.ones(4)).shape
    (1,)
    """

    width: int = eqx.field(static=True, default=128)
    activation: str = eqx.field(static=True, default="relu")
    scale: float = 0.0
    projection_scale: float = 1.0

    def __check_init__(self):
        require_between("width", self.width, 1)
        require_between("scale", self.scale, 0.0)
        activation(self.activation)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> FeatureNetwork:
        key_readout, key_projection = jax.random.split(key)
        readout = self.scale * jax.random.normal(key_readout, (outputs, self.width))
        projection = self.projection_scale * jax.random.normal(key_projection, (self.width, inputs))
        return FeatureNetwork(readout, projection, self.activation)
