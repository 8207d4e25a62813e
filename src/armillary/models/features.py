"""Fixed random features under a trained read-out."""

from typing import Any

import equinox as eqx
import jax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.activations import activation
from armillary.models.model import Model, matvec
from armillary.models.tangent_kernel import Gram, Kernel


class FeatureNetwork(eqx.Module):
    """x -> a phi(W x) with W fixed: `readout` is [output, feature], `projection` [feature, input]."""

    readout: Float[Array, "output feature"]
    projection: Float[Array, "feature input"]
    activation: str = eqx.field(static=True)

    def features(self, x: Float[Array, " input"]) -> Float[Array, " feature"]:
        """What the read-out sees."""
        return activation(self.activation)(matvec(lax.stop_gradient(self.projection), x))

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return matvec(self.readout, self.features(x))


class FeaturesKernel(Kernel):
    """Inner products of a network's `features`, over their number: fitting its read-out by least squares.

    >>> network = RandomFeatures(width=8)(jax.random.key(0), inputs=4, outputs=1)
    >>> FeaturesKernel(network)(jax.numpy.ones((2, 4)), jax.numpy.ones((3, 4))).shape
    (2, 3)
    """

    network: Any

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        left, right = (jax.vmap(self.network.features)(inputs) for inputs in (x, y))
        return left @ right.T / left.shape[1]


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
