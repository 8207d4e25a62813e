"""Networks of any widths whose weights' variance follows a law of both fans, and with some hidden units left out."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.activations import ACTIVATIONS, GAINS, Activation, activation
from armillary.models.initialisation import gaussian_alike
from armillary.models.mlp import MLPNetwork
from armillary.models.model import Dense, Model

BALANCES = {"fan_in": 0.0, "glorot": 0.5, "fan_out": 1.0}
"""Named laws: He's and LeCun's, which keep signals; Glorot's; and the one that keeps gradients."""


def weight_variance(fan_in: Any, fan_out: Any, balance: Any = 0.0, gain: Any = 1.0) -> Any:
    """The variance gain/((1 - balance) fan_in + balance fan_out): at balance 0 signals keep their size, at 1
    gradients do; 1/2 is Glorot's 2/(fan_in + fan_out).

    >>> weight_variance(100, 300, 0.5)
    0.005
    """
    return gain / ((1 - balance) * fan_in + balance * fan_out)


class ThinnedNetwork(eqx.Module):
    """Dense layers with one activation between them, and only some hidden units passed on: dropout, drawn once."""

    layers: tuple[Dense, ...]
    kept: tuple[Bool[Array, " _unit"], ...]
    activation: str | Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        phi = activation(self.activation)
        x = self.layers[0](x)
        for layer, kept in zip(self.layers[1:], self.kept, strict=True):
            x = layer(jnp.where(kept, phi(x), 0.0))
        return x


class VarianceLawMLP(Model):
    """A fully connected network with hidden layers of any `widths`, weights N(0, c) with c = `weight_variance` of
    both fans.

    - `balance`: the law, 0 to 1 (see `BALANCES`). `gain`: None takes the activation's, 2 for ReLU, in every layer
      (`MLP` leaves the last one's at 1). `scale`: factor on all weights. All can be swept in one program.
    - `keep`: the probability with which each hidden unit is passed on; a mask is drawn with the network and stays.
      What is passed on is not scaled up; with `compensated` variances are divided by `keep` instead. None: no masks.
    - `bias`: whether layers have one, 0 at first.

    Raises `InvalidValue` for widths below 1 and numbers out of range, `UnknownName` for an unknown activation.

    >>> network = VarianceLawMLP((8, 16), balance=0.5)(jax.random.key(0), inputs=4, outputs=2)
    >>> [layer.weight.shape for layer in network.layers]
    [(8, 4), (16, 8), (2, 16)]
    """

    widths: tuple[int, ...] = eqx.field(static=True, default=(64, 64))
    activation: str | Activation = eqx.field(static=True, default="relu")
    bias: bool = eqx.field(static=True, default=True)
    compensated: bool = eqx.field(static=True, default=False)
    balance: float = 0.0
    gain: float | None = None
    scale: float = 1.0
    keep: float | None = None

    def __check_init__(self):
        require_between("the number of hidden layers", len(self.widths), 1)
        for width in self.widths:
            require_between("a width", width, 1)
        require_between("balance", self.balance, 0.0, 1.0)
        require_between("scale", self.scale, 0.0)
        require_between("gain", 1.0 if self.gain is None else self.gain, 0.0)
        require_between("keep", 1.0 if self.keep is None else self.keep, 0.0, 1.0, open_low=True)
        if self.compensated and self.keep is None:
            raise InvalidValue("variances are compensated for dropout, but there is none; set keep")
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """The widths of all neuron layers, input and output included."""
        return (inputs, *self.widths, outputs)

    def variances(self, inputs: int, outputs: int) -> list[Any]:
        """The variance of each layer's weights."""
        sizes = self.sizes(inputs, outputs)
        gain = GAINS.get(str(self.activation), 1.0) if self.gain is None else self.gain
        kept = self.keep if self.compensated and self.keep is not None else 1.0
        gain = gain * self.scale**2 / kept
        return [weight_variance(i, o, self.balance, gain) for i, o in itertools.pairwise(sizes)]

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> MLPNetwork | ThinnedNetwork:
        drawn = [w for stack in gaussian_alike(key, self.sizes(inputs, outputs)) for w in stack]
        weights = [jnp.sqrt(c) * w for c, w in zip(self.variances(inputs, outputs), drawn, strict=True)]
        layers = tuple(Dense(w, jnp.zeros(len(w)) if self.bias else None) for w in weights)
        if self.keep is None:
            return MLPNetwork(layers, self.activation)
        passed = jax.random.uniform(jax.random.fold_in(key, 1), (sum(self.widths),)) < self.keep
        return ThinnedNetwork(layers, tuple(jnp.split(passed, np.cumsum(self.widths)[:-1])), self.activation)
