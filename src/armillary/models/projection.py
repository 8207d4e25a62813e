"""A linear read-out of random projections: the simplest model with a size of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.deep_linear import LinearChain
from armillary.models.features import FeatureNetwork
from armillary.models.model import Model, matvec


class ProjectedNetwork(FeatureNetwork):
    """x -> w P x with the projection P fixed: a `FeatureNetwork` with linear features.

    w P is formed first: a batch shares it.
    """

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return matvec(self.matrix, x)

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The end-to-end map."""
        return self.readout @ lax.stop_gradient(self.projection)


class RandomProjection(Model):
    """f(x) = w . A x/sqrt(width), A with independent entries N(0, 1) that stay, w from 0: a linearised network of that width.

    `width` None stands for infinitely many projections, whose kernel is that of the inputs: a linear read-out of these, a
    `LinearChain` of one layer. Raises `InvalidValue` for a width below 1.

    >>> network = RandomProjection(width=8)(jax.random.key(0), inputs=4, outputs=1)
    >>> network.features(jnp.ones(4)).shape, network.matrix.tolist()
    ((8,), [[0.0, 0.0, 0.0, 0.0]])
    """

    width: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("the width", 1 if self.width is None else self.width, 1)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> ProjectedNetwork | LinearChain:
        if self.width is None:
            return LinearChain((jnp.zeros((1, outputs, inputs)),))
        projection = jax.random.normal(key, (self.width, inputs)) / np.sqrt(self.width)
        return ProjectedNetwork(jnp.zeros((outputs, self.width)), projection, "linear")
