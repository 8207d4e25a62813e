"""Two-layer networks with a frozen second layer: only the units' input weights are trained."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.models.activations import ACTIVATIONS, Activation, activation
from armillary.models.model import Model, matvec

SIGNS = ("random", "balanced", "equal")


class CommitteeNetwork(eqx.Module):
    """f(x) = sum over units j of a_j phi(w_j . x), with a_j = signs_j times `size` fixed and `weights` [unit, input] trained.

    An input shorter than the weights stands for one with zeros beyond: samples given in the frame of their own span say
    no more. `slope` is that of "leaky_relu" below 0 (None elsewhere), and `smoothing` the width of its bend.
    """

    weights: Float[Array, "unit input"]
    signs: Int[Array, " unit"]  # whole numbers: no rule trains them
    slope: Float[Array, ""] | float | None
    smoothing: Float[Array, ""] | float | None
    size: float = eqx.field(static=True)
    activation: str | Activation = eqx.field(static=True)

    @property
    def second_layer(self) -> Float[Array, " unit"]:
        """a, the weights of the second layer."""
        return self.size * self.signs.astype(self.weights.dtype)

    def phi(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation."""
        if self.activation != "leaky_relu":
            return activation(self.activation)(z)
        slope = lax.stop_gradient(jnp.asarray(self.slope))
        if self.smoothing is None:
            return jnp.where(z > 0, z, slope * z)
        bend = lax.stop_gradient(jnp.asarray(self.smoothing))
        return slope * z + (1 - slope) * (z + jnp.hypot(z, bend) - bend) / 2

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " 1"]:
        return (self.second_layer @ self.phi(matvec(self.weights[:, : x.shape[0]], x)))[None]


class Committee(Model):
    """Draws `CommitteeNetwork`s of one output: weights N(0, scale²), a second layer of size 1/sqrt(width) that stays.

    - `activation`: a name of `armillary.models.ACTIVATIONS` or a function. "leaky_relu" is max(slope z, z), with `slope`;
      a `smoothing` s makes it slope z + (1 - slope)(z + sqrt(z² + s²) - s)/2, whose curvature is (1 - slope)/(2 s) at most.
    - `signs` of the second layer: "random", "balanced" (half of each, rounded up for +) or "equal" (all +).
    - `size`: of the second layer's entries, None for 1/sqrt(width).

    `scale`, `slope` and `smoothing` can be swept in one program. Raises `InvalidValue` for sizes below 1, a negative
    scale, a slope outside [0, 1] and a smoothing that is not above 0, `UnknownName` for unknown names.

    >>> network = Committee(width=4, slope=0.1, scale=1.0)(jax.random.key(0), inputs=3, outputs=1)
    >>> network(jnp.ones(3)).shape, network.phi(jnp.array([-1.0, 2.0])).tolist()
    ((1,), [-0.10000000149011612, 2.0])
    """

    width: int = eqx.field(static=True, default=50)
    activation: str | Activation = eqx.field(static=True, default="leaky_relu")
    slope: float = 0.1
    scale: float = 1e-3
    signs: Literal["random", "balanced", "equal"] = eqx.field(static=True, default="random")
    smoothing: float | None = None
    size: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("the width", self.width, 1)
        require_between("the slope", self.slope, 0.0, 1.0)
        require_between("scale", self.scale, 0.0)
        require_between("the smoothing", 1.0 if self.smoothing is None else self.smoothing, 0.0, open_low=True)
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.signs not in SIGNS:
            raise unknown("signs", self.signs, SIGNS)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> CommitteeNetwork:
        require_between("the number of outputs", outputs, 1, 1, note="a committee has one")
        key_weights, key_signs = jax.random.split(key)
        weights = self.scale * jax.random.normal(key_weights, (self.width, inputs))
        match self.signs:
            case "random":
                signs = jax.random.rademacher(key_signs, (self.width,), int)
            case "balanced":
                signs = 1 - 2 * (jnp.arange(self.width) % 2)
            case _:
                signs = jnp.ones(self.width, int)
        leaky = self.activation == "leaky_relu"
        size = self.width**-0.5 if self.size is None else self.size
        return CommitteeNetwork(
            weights, signs, self.slope if leaky else None, self.smoothing if leaky else None, size, self.activation
        )
