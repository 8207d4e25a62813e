"""Multi-layer perceptrons in any parametrisation."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.models.activations import ACTIVATIONS, GAINS, Activation, activation
from armillary.models.initialisation import drawn_alike, haar_orthogonal
from armillary.models.model import UNROLLED, Dense, Model, stacked, through
from armillary.models.parametrisation import PARAMETRISATIONS, Role, scales


class MLPNetwork(eqx.Module):
    """Dense layers with one activation between them."""

    layers: tuple[Dense, ...]
    activation: str | Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        phi = activation(self.activation)
        if len(self.layers) > UNROLLED:
            x = phi(self.layers[0](x))
            x = through(stacked(self.layers[1:-1]), lambda layer, h: phi(layer(h)), x)
            return self.layers[-1](x)
        for layer in self.layers[:-1]:
            x = phi(layer(x))
        return self.layers[-1](x)


class MLP(Model):
    """A fully connected network of `depth` weight layers, all hidden ones `width` wide.

    - `activation`: a name of `armillary.models.ACTIVATIONS` or a function.
    - `parametrisation`: "standard", "ntk", "mean_field" or "mup" (see `scales`), with `base_width` for "mup".
    - `gain`: variance of the weights times fan-in (before the parametrisation's own factors); None takes the
      activation's: 2 for ReLU, 1 where no closed form is needed. Can be swept in one program, as can `scale`.
    - `scale`: factor on all initial weights.
    - `bias`: whether layers have one (initially 0).
    - `orthogonal`: Haar-orthogonal instead of Gaussian weights, of the same variance.

    Raises `InvalidValue` for sizes below 1 and negative scales, `UnknownName` for unknown names.

    >>> MLP(width=8, depth=3)(jax.random.key(0), inputs=4, outputs=2)(jnp.ones(4)).shape
    (2,)
    """

    width: int = eqx.field(static=True, default=128)
    depth: int = eqx.field(static=True, default=2)
    activation: str | Activation = eqx.field(static=True, default="relu")
    parametrisation: Literal["standard", "ntk", "mean_field", "mup"] = eqx.field(static=True, default="standard")
    base_width: int = eqx.field(static=True, default=1)
    bias: bool = eqx.field(static=True, default=True)
    orthogonal: bool = eqx.field(static=True, default=False)
    gain: float | None = None
    scale: float = 1.0

    def __check_init__(self):
        require_between("width", self.width, 1)
        require_between("depth", self.depth, 1)
        require_between("scale", self.scale, 0.0)
        require_between("gain", 1.0 if self.gain is None else self.gain, 0.0)
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.parametrisation not in PARAMETRISATIONS:
            raise unknown("parametrisation", self.parametrisation, PARAMETRISATIONS)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> MLPNetwork:
        sizes = [inputs, *[self.width] * (self.depth - 1), outputs]
        if self.orthogonal:  # of the same variance as the Gaussian ones
            draw = lambda k, o, i: haar_orthogonal(k, o, i) * np.sqrt(max(o, i))
        else:
            draw = lambda k, o, i: jax.random.normal(k, (o, i))
        stacks = drawn_alike(draw, key, sizes)
        roles = ("input", "hidden", "output") if self.depth > 2 else ("input", "output")[-self.depth :]
        layers = [layer for role, stack in zip(roles, stacks, strict=True) for layer in self._layers(role, stack)]
        return MLPNetwork(tuple(layers), self.activation)

    def _layers(self, role: Role, stack: Float[Array, "layer output input"]) -> list[Dense]:
        # A single layer is an output layer to muP and its kin, but has no width to scale with.
        kind = "standard" if self.depth == 1 and self.parametrisation in ("mean_field", "mup") else self.parametrisation
        _, fan_out, fan_in = stack.shape
        s = scales(kind, role, fan_in, fan_out, self.base_width)
        usual = 1.0 if role == "output" else GAINS.get(str(self.activation), 1.0)
        weights = s.deviation * jnp.sqrt(usual if self.gain is None else self.gain) * self.scale * stack
        bias = jnp.zeros(fan_out) if self.bias else None
        return [Dense(weight, bias, s.multiplier, s.rate, s.adaptive_rate) for weight in weights]
