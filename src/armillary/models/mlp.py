"""Multi-layer perceptrons in any parametrisation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.activations import ACTIVATIONS, GAINS, Activation, activation
from armillary.models.initialisation import drawn_alike, gaussian_alike, haar_orthogonal
from armillary.models.model import UNROLLED, Dense, Model, stacked, through
from armillary.models.parametrisation import GROWTH, PARAMETRISATIONS, Parametrisation, Role, Scales, scales


class MLPNetwork(eqx.Module):
    """Dense layers with one activation between them."""

    layers: tuple[Dense, ...]
    activation: str | Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        phi = activation(self.activation)
        if self._looped:
            x = phi(self.layers[0](x))
            x = through(stacked(self.layers[1:-1]), lambda layer, h: phi(layer(h)), x)
            return self.layers[-1](x)
        for layer in self.layers[:-1]:
            x = phi(layer(x))
        return self.layers[-1](x)

    def preactivations(self, x: Float[Array, " input"]) -> list[Float[Array, " _unit"]]:
        """What each layer computes before the activation, the output last."""
        phi, seen = activation(self.activation), [self.layers[0](x)]
        if self._looped:
            arrays, static = eqx.partition(stacked(self.layers[1:-1]), eqx.is_array)

            def step(h: Array, layer: Any) -> tuple[Array, Array]:
                h = eqx.combine(layer, static)(phi(h))
                return h, h

            last, rows = lax.scan(step, seen[0], arrays)
            return [*seen, *rows, self.layers[-1](phi(last))]
        for layer in self.layers[1:]:
            seen.append(layer(phi(seen[-1])))
        return seen

    @property
    def _looped(self) -> bool:
        """Whether hidden layers are many and equal: one compiled loop then runs over them."""
        plain = all(isinstance(layer, Dense) for layer in self.layers)  # not while something listens to them
        return plain and len(self.layers) > UNROLLED and len({layer.weight.shape for layer in self.layers[1:-1]}) == 1


class MLP(Model):
    """A fully connected network of `depth` weight layers; hidden layer k (from 1) is width * k^growth wide, rounded.

    - `activation`: a name of `armillary.models.ACTIVATIONS` or a function. With "linear" and no biases it is a deep linear
      network in any parametrisation.
    - `parametrisation`: "standard", "ntk", "mean_field", "mup", "mup_ntk", "depth_mup" or "nup" (see `scales`), with
      `base_width` for those that have one.
    - `growth`: None takes the parametrisation's own, 2 for "nup" and 0 (equal widths) for the others.
    - `gain`: variance of the weights times fan-in (before the parametrisation's own factors); None takes the
      activation's: 2 for ReLU, 1 where no closed form is needed. Can be swept in one program, as can `scale`.
    - `scale`: factor on all initial weights.
    - `bias`: whether layers have one; drawn from N(0, bias_variance), or 0 at first where that is None. They enter
      multiplied by `bias_scale` (the beta of Jacot et al. 2018), so that they learn bias_scale² as fast.
    - `orthogonal`: Haar-orthogonal instead of Gaussian weights, of the same variance.

    Raises `InvalidValue` for sizes below 1 and negative scales, `UnknownName` for unknown names.

    >>> MLP(width=8, depth=3)(jax.random.key(0), inputs=4, outputs=2)(jnp.ones(4)).shape
    (2,)
    """

    width: int = eqx.field(static=True, default=128)
    depth: int = eqx.field(static=True, default=2)
    activation: str | Activation = eqx.field(static=True, default="relu")
    parametrisation: Parametrisation = eqx.field(static=True, default="standard")
    base_width: int = eqx.field(static=True, default=1)
    growth: float | None = eqx.field(static=True, default=None)
    bias: bool = eqx.field(static=True, default=True)
    orthogonal: bool = eqx.field(static=True, default=False)
    bias_scale: float = eqx.field(static=True, default=1.0)
    gain: float | None = None
    scale: float = 1.0
    bias_variance: float | None = None

    def __check_init__(self):
        require_between("width", self.width, 1)
        require_between("depth", self.depth, 1)
        require_between("scale", self.scale, 0.0)
        require_between("bias_scale", self.bias_scale, 0.0)
        require_between("gain", 1.0 if self.gain is None else self.gain, 0.0)
        require_between("growth", 0.0 if self.growth is None else self.growth, 0.0, 8.0)
        require_between("bias_variance", 0.0 if self.bias_variance is None else self.bias_variance, 0.0)
        if self.bias_variance is not None and not self.bias:
            raise InvalidValue("bias_variance is given, but there are no biases; set bias=True")
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.parametrisation not in PARAMETRISATIONS:
            raise unknown("parametrisation", self.parametrisation, PARAMETRISATIONS)

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """The widths of all neuron layers, input and output included."""
        growth = GROWTH.get(self.parametrisation, 0.0) if self.growth is None else self.growth
        return (inputs, *(round(self.width * k**growth) for k in range(1, self.depth)), outputs)

    def scales_of(self, role: Role, fan_in: int, fan_out: int) -> tuple[Scales, float | Array]:
        """What the parametrisation says of a layer, and the gain of its weights."""
        # A single layer is an output layer to muP and its kin, but has no width to scale with.
        kind = self.parametrisation if self.depth > 1 or self.parametrisation == "ntk" else "standard"
        usual = 1.0 if role == "output" else GAINS.get(str(self.activation), 1.0)
        s = scales(kind, role, fan_in, fan_out, self.base_width, width=self.width, depth=self.depth)
        return s, usual if self.gain is None else self.gain

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> MLPNetwork:
        sizes = self.sizes(inputs, outputs)
        if self.orthogonal:  # of the same variance as the Gaussian ones
            stacks = drawn_alike(lambda k, o, i: haar_orthogonal(k, o, i) * np.sqrt(max(o, i)), key, sizes)
        else:
            stacks = gaussian_alike(key, sizes)
        roles: list[Role] = ["hidden"] * len(stacks)
        roles[0], roles[-1] = "input", "output"  # a single layer is the output's
        keys = jax.random.split(jax.random.fold_in(key, 1), len(stacks))  # those of the biases
        parts = [self._layers(*each) for each in zip(roles, stacks, keys, strict=True)]
        return MLPNetwork(tuple(layer for part in parts for layer in part), self.activation)

    def _layers(self, role: Role, stack: Float[Array, "layer output input"], key: PRNGKeyArray) -> list[Dense]:
        layers, fan_out, fan_in = stack.shape
        s, gain = self.scales_of(role, fan_in, fan_out)
        weights = s.deviation * jnp.sqrt(gain) * self.scale * stack
        if not self.bias:
            return [Dense(weight, None, s.multiplier, s.rate, s.adaptive_rate) for weight in weights]
        biases = jnp.zeros((layers, fan_out))
        if self.bias_variance is not None:
            biases = jnp.sqrt(self.bias_variance) * jax.random.normal(key, (layers, fan_out))
        factors = (s.multiplier, s.rate, s.adaptive_rate, self.bias_scale)
        return [Dense(w, b, *factors) for w, b in zip(weights, biases, strict=True)]
