"""Convolutional networks on signals and images, in any parametrisation."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.activations import ACTIVATIONS, GAINS, Activation, activation
from armillary.models.model import Dense, Model
from armillary.models.parametrisation import PARAMETRISATIONS, Parametrisation, Role, Scales, scales

Padding = Literal["circular", "same", "valid"]

PADDINGS = ("circular", "same", "valid")


class Convolution(eqx.Module):
    """One layer on a grid: multiplier * (filters over taps and channels) + bias_multiplier * bias.

    `weight` is [tap..., input channel, output channel], x is [position..., input channel].
    """

    weight: Float[Array, "*tap input output"]
    bias: Float[Array, " output"] | None
    stride: int = eqx.field(static=True, default=1)
    padding: Padding = eqx.field(static=True, default="circular")
    multiplier: float = eqx.field(static=True, default=1.0)
    rate: float = eqx.field(static=True, default=1.0)
    adaptive_rate: float = eqx.field(static=True, default=1.0)
    bias_multiplier: float = eqx.field(static=True, default=1.0)

    def patches(self, x: Float[Array, "*position input"]) -> Float[Array, "*kept patch"]:
        """What each position that is kept sees: its taps and channels in the order of the weights."""
        sizes = self.weight.shape[:-2]
        axes = len(sizes)
        if self.padding != "valid":
            mode = "wrap" if self.padding == "circular" else "constant"
            x = jnp.pad(x, [(size // 2, size // 2) for size in sizes] + [(0, 0)], mode=mode)
        kept = [(length - size) // self.stride + 1 for length, size in zip(x.shape, sizes, strict=False)]
        parts = []
        for taps in np.ndindex(*sizes):
            ends = [tap + (k - 1) * self.stride + 1 for tap, k in zip(taps, kept, strict=True)]
            parts.append(lax.slice(x, (*taps, 0), (*ends, x.shape[-1]), (*[self.stride] * axes, 1)))
        return jnp.concatenate(parts, axis=-1)

    def __call__(self, x: Float[Array, "*position input"]) -> Float[Array, "*kept output"]:
        flat = self.weight.reshape(-1, self.weight.shape[-1])
        h = self.multiplier * (self.patches(x) @ flat)
        return h if self.bias is None else h + self.bias_multiplier * self.bias


class ConvolutionalNetwork(eqx.Module):
    """Convolutions with an activation after each, then a dense layer on all positions or on their mean."""

    convolutions: tuple[Convolution, ...]
    readout: Dense
    shape: tuple[int, ...] = eqx.field(static=True)
    activation: str | Activation = eqx.field(static=True)
    pooling: str = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*input"]) -> Float[Array, " output"]:
        phi, x = activation(self.activation), x.reshape(self.shape)
        for layer in self.convolutions:
            x = phi(layer(x))
        pooled = jnp.mean(x, axis=tuple(range(x.ndim - 1))) if self.pooling == "average" else x.ravel()
        return self.readout(pooled)


class ConvolutionalNet(Model):
    """`depth` convolutions of `channels` channels on inputs of `shape` (positions, then channels), and a dense read-out.

    - `size`, `stride`, `padding` ("circular", "same" or "valid") of all filters.
    - `pooling`: "flatten" gives the read-out all positions, "average" their mean.
    - `activation`, `parametrisation`, `gain`, `scale`, `bias`, `bias_variance`, `bias_scale`: as `MLP`'s; a filter's fan-in
      counts its taps.

    Inputs may be flat vectors, which are put into `shape`. Raises `InvalidValue` for sizes below 1, even filters where
    positions are to stay as many, and shapes that are not those of the inputs, `UnknownName` for unknown names.

    >>> model = ConvolutionalNet(shape=(4, 4, 1), channels=8, depth=2)
    >>> model(jax.random.key(0), inputs=16, outputs=2)(jnp.ones(16)).shape
    (2,)
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=(8, 8, 1))
    channels: int = eqx.field(static=True, default=32)
    depth: int = eqx.field(static=True, default=2)
    size: int = eqx.field(static=True, default=3)
    stride: int = eqx.field(static=True, default=1)
    padding: Padding = eqx.field(static=True, default="circular")
    pooling: Literal["flatten", "average"] = eqx.field(static=True, default="flatten")
    activation: str | Activation = eqx.field(static=True, default="relu")
    parametrisation: Parametrisation = eqx.field(static=True, default="standard")
    base_width: int = eqx.field(static=True, default=1)
    bias: bool = eqx.field(static=True, default=True)
    bias_scale: float = eqx.field(static=True, default=1.0)
    gain: float | None = None
    scale: float = 1.0
    bias_variance: float | None = None

    def __check_init__(self):
        for name in ("channels", "depth", "size", "stride"):
            require_between(name, getattr(self, name), 1)
        for name in ("scale", "bias_scale"):
            require_between(name, getattr(self, name), 0.0)
        require_between("gain", 1.0 if self.gain is None else self.gain, 0.0)
        require_between("bias_variance", 0.0 if self.bias_variance is None else self.bias_variance, 0.0)
        require_between("the number of axes of shape", len(self.shape), 2, 3)
        if self.padding not in PADDINGS:
            raise unknown("padding", self.padding, PADDINGS)
        if self.padding != "valid" and self.size % 2 == 0:
            raise InvalidValue(f"size is {self.size}, but must be odd for padding {self.padding!r}; or use 'valid'")
        if self.pooling not in ("flatten", "average"):
            raise unknown("pooling", self.pooling, ("flatten", "average"))
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.parametrisation not in PARAMETRISATIONS:
            raise unknown("parametrisation", self.parametrisation, PARAMETRISATIONS)
        require_between("the number of positions left", min(self.positions), 1)

    @property
    def positions(self) -> tuple[int, ...]:
        """The grid after all convolutions."""
        lengths = self.shape[:-1]
        for _ in range(self.depth):
            shrunk = self.size - 1 if self.padding == "valid" else 0
            lengths = tuple((length - shrunk - 1) // self.stride + 1 for length in lengths)
        return lengths

    def sizes(self, inputs: int) -> list[tuple[Role, int, int]]:
        """Role, fan-in and fan-out of each layer but the last's fan-out, which is 1."""
        if inputs != np.prod(self.shape):
            raise InvalidValue(f"shape is {self.shape}, but there are {inputs} inputs; give one of as many numbers")
        taps = self.size ** (len(self.shape) - 1)
        last = self.channels * (int(np.prod(self.positions)) if self.pooling == "flatten" else 1)
        hidden: list[tuple[Role, int, int]] = [("hidden", taps * self.channels, self.channels)] * (self.depth - 1)
        return [("input", taps * self.shape[-1], self.channels), *hidden, ("output", last, 1)]

    def scales_of(self, role: Role, fan_in: int, fan_out: int) -> tuple[Scales, float]:
        """What the parametrisation says of a layer, and the weights' gain."""
        usual = 1.0 if role == "output" else GAINS.get(str(self.activation), 1.0)
        kind = scales(
            self.parametrisation, role, fan_in, fan_out, self.base_width, width=self.channels, depth=self.depth + 1
        )
        return kind, usual if self.gain is None else self.gain

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> ConvolutionalNetwork:
        made = []
        for index, (role, fan_in, fan_out) in enumerate(self.sizes(inputs)):
            key_weight, key_bias = jax.random.split(jax.random.fold_in(key, index))
            fan_out = outputs if role == "output" else fan_out
            s, gain = self.scales_of(role, fan_in, fan_out)
            weight = s.deviation * jnp.sqrt(gain) * self.scale * jax.random.normal(key_weight, (fan_in, fan_out))
            bias = jnp.zeros(fan_out) if self.bias else None
            if self.bias and self.bias_variance is not None:
                bias = jnp.sqrt(self.bias_variance) * jax.random.normal(key_bias, (fan_out,))
            factors = (s.multiplier, s.rate, s.adaptive_rate, self.bias_scale)
            if role == "output":
                made.append(Dense(weight.T, bias, *factors))
            else:
                taps = [self.size] * (len(self.shape) - 1)
                weight = weight.reshape(*taps, -1, fan_out)
                made.append(Convolution(weight, bias, self.stride, self.padding, *factors))
        return ConvolutionalNetwork(tuple(made[:-1]), made[-1], self.shape, self.activation, self.pooling)
