"""Two-layer networks that average their units, with an activation that is linear and a little quadratic."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.freezing import Frozen
from armillary.models.model import Dense, Model


class QuadraticForm(NamedTuple):
    """The function a . x + xᵀ Q x: `linear` a [input] and the symmetric `quadratic` Q [input, other]."""

    linear: Float[Array, " input"]
    quadratic: Float[Array, "input other"]


class MeanReadoutNetwork(eqx.Module):
    """f(x) = (scale/units) sum over units of phi(w . x) - phi(w_0 . x), phi(z) = z + curvature z²/2, w_0 the unit at the start.

    What is trained is `moved`, the weights' displacement times scale/sqrt(units): in this unit its tangent kernel is of
    order one for any scale and width, and one learning rate suits all. The difference is computed as one expression, exact
    where weights hardly move.
    """

    moved: Dense
    start: Frozen
    scale: Frozen
    curvature: Frozen

    @property
    def units(self) -> int:
        """How many units are averaged."""
        return self.start.bits.shape[0]

    @property
    def displacement(self) -> Float[Array, "unit input"]:
        """How far each unit's weights have moved."""
        return self.moved.weight * (self.units**0.5 / self.scale.value)

    @property
    def weights(self) -> Float[Array, "unit input"]:
        """The units' weights."""
        return self.start.value + self.displacement

    @property
    def mean(self) -> Float[Array, " input"]:
        """The mean of the weights over units."""
        return jnp.mean(self.weights, axis=0)

    @property
    def second(self) -> Float[Array, "input other"]:
        """Their second moment, Wᵀ W/units."""
        return self.weights.T @ self.weights / self.units

    @property
    def form(self) -> QuadraticForm:
        """The network as a function: its linear and its quadratic coefficients."""
        start, moved = self.start.value, self.displacement
        crossed = start.T @ moved
        grown = (crossed + crossed.T + moved.T @ moved) / self.units
        scale = self.scale.value
        return QuadraticForm(scale * jnp.mean(moved, axis=0), scale * self.curvature.value / 2 * grown)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " 1"]:
        before = self.start.value @ x
        change = self.moved(x) * (self.units**0.5 / self.scale.value)
        each = change * (1 + self.curvature.value * (before + change / 2))
        return self.scale.value * jnp.mean(each, keepdims=True)


class MeanReadout(Model):
    """Draws `MeanReadoutNetwork`s of one output with weights N(0, 1) and read-outs that stay.

    - `scale`: of the output; the larger, the lazier.
    - `curvature`: of the activation; the smaller, the less of a quadratic target the kernel sees at the start.
    - `width`: units, or None for infinitely many. A regular simplex of inputs + 1 units then stands for them: their
      mean is 0 and their second moment 1, as those of infinitely many Gaussian ones, and training depends on no more.

    Outputs are centred: 0 at the start. `SGD(rate)` is the rate `rate * width / scale²` of the weights themselves. `scale` and
    `curvature` can be swept in one program. Raises `InvalidValue` for a width below 1, a scale that is not above 0 and a
    negative curvature. Source: Kumar, Bordelon, Gershman & Pehlevan (2023); the simplex is ours.

    >>> MeanReadout(width=5)(jax.random.key(0), inputs=3, outputs=1)(jnp.ones(3)).tolist()
    [0.0]
    """

    width: int | None = eqx.field(static=True, default=None)
    scale: float = 1.0
    curvature: float = 0.05

    def __check_init__(self):
        require_between("the width", 1 if self.width is None else self.width, 1)
        require_between("scale", self.scale, 0.0, open_low=True)
        require_between("curvature", self.curvature, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> MeanReadoutNetwork:
        require_between("the number of outputs", outputs, 1, 1, note="the mean of all units is one number")
        if self.width is None:
            start = jnp.asarray(simplex(inputs), jnp.result_type(float))
        else:
            start = jax.random.normal(key, (self.width, inputs))
        return MeanReadoutNetwork(
            Dense(jnp.zeros_like(start), None), Frozen(start), Frozen(self.scale), Frozen(self.curvature)
        )


def simplex(dimension: int) -> Float[np.ndarray, "corner input"]:
    """The dimension + 1 corners of a regular simplex around 0, with second moment 1.

    >>> corners = simplex(3)
    >>> bool(np.allclose(corners.T @ corners / 4, np.eye(3)) and np.allclose(corners.sum(axis=0), 0))
    True
    """
    corners = np.zeros((dimension + 1, dimension))
    for k in range(1, dimension + 1):  # Helmert's contrasts
        corners[:k, k - 1], corners[k, k - 1] = 1.0, -k
        corners[:, k - 1] *= ((dimension + 1) / (k * (k + 1))) ** 0.5
    return corners
