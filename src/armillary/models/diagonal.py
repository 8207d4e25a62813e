"""Diagonal linear networks: a linear map whose coefficients are differences of powers."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.model import Model, matvec


class DiagonalNetwork(eqx.Module):
    """x -> (u^depth - v^depth).x, elementwise powers; one output."""

    u: Float[Array, " input"]
    v: Float[Array, " input"]
    depth: int = eqx.field(static=True, default=2)

    @property
    def coefficients(self) -> Float[Array, " input"]:
        """The linear map as a vector."""
        return self.u**self.depth - self.v**self.depth

    @property
    def matrix(self) -> Float[Array, "1 input"]:
        """The linear map as a matrix with one row."""
        return self.coefficients[None]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " 1"]:
        return matvec(self.matrix, x)


class DiagonalLinear(Model):
    """Diagonal linear networks that start at u = v = `scale` in every entry, so that the map starts at 0.

    Large scales learn as a kernel method does, small ones find sparse maps (Woodworth et al. 2020). `scale` can be
    swept in one program. Raises `InvalidValue` for a depth below 2, a scale that is not positive, and more than one
    output.

    >>> import jax
    >>> DiagonalLinear(scale=0.1)(jax.random.key(0), inputs=3, outputs=1).coefficients.tolist()
    [0.0, 0.0, 0.0]
    """

    scale: float = 1.0
    depth: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        require_between("the initial scale", self.scale, 0.0, open_low=True)
        require_between("depth", self.depth, 2)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> DiagonalNetwork:
        if outputs != 1:
            raise InvalidValue(f"a diagonal linear network has one output, but the task has {outputs}")
        start = self.scale * jnp.ones(inputs)
        return DiagonalNetwork(start, start, self.depth)
