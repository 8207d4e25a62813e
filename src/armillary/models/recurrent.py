"""Stacks of recurrent layers: tanh, ReLU, linear and gated cells, and the linear nets whose gradients are path counts."""

from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.activations import GAINS, activation
from armillary.models.connectivity import Connectivity
from armillary.models.initialisation import haar_orthogonal
from armillary.models.model import Dense, Model, matvec, stacked

CellKind = Literal["tanh", "relu", "linear", "gru"]
Weights = Literal["gaussian", "orthogonal", "positive", "constant"]
Course = Float[Array, "time state"]


class Cell(eqx.Module):
    """h = phi(R before + D below + b): one layer at one time; a leaky one moves there by the share `leak` only.

    `time_weight` R is [unit, unit] and `depth_weight` D [unit, input].
    """

    time_weight: Float[Array, "unit unit"]
    depth_weight: Float[Array, "unit input"]
    bias: Float[Array, " unit"] | None
    activation: str = eqx.field(static=True)
    leak: float = eqx.field(static=True, default=1.0)

    def drive(self, below: Float[Array, " input"]) -> Float[Array, " unit"]:
        """What comes from below, the same for any state before."""
        driven = matvec(self.depth_weight, below)
        return driven if self.bias is None else driven + self.bias

    def driven(self, before: Float[Array, " unit"], drive: Float[Array, " unit"]) -> Float[Array, " unit"]:
        """The state, from the one before and the drive."""
        state = activation(self.activation)(matvec(self.time_weight, before) + drive)
        return state if self.leak == 1.0 else (1 - self.leak) * before + self.leak * state

    def __call__(self, before: Float[Array, " unit"], below: Float[Array, " input"]) -> Float[Array, " unit"]:
        return self.driven(before, self.drive(below))

    def rescaled(self, time: Any, depth: Any) -> "Cell":
        """With R and D multiplied by factors."""
        return eqx.tree_at(
            lambda c: (c.time_weight, c.depth_weight), self, (time * self.time_weight, depth * self.depth_weight)
        )


class GatedCell(eqx.Module):
    """A gated recurrent unit: h = (1 - z) n + z before, with z and r sigmoid gates and n = tanh(D below + r R before).

    `time_weight` is [gate, unit, unit] and `depth_weight` [gate, unit, input], gates in the order z, r, n. Where gates are
    half open the radius of dh/dbefore has a floor of about a half. Source: Cho et al. (2014)
    """

    time_weight: Float[Array, "gate unit unit"]
    depth_weight: Float[Array, "gate unit input"]
    bias: Float[Array, "gate unit"] | None

    def drive(self, below: Float[Array, " input"]) -> Float[Array, "gate unit"]:
        """What comes from below, the same for any state before."""
        driven = matvec(self.depth_weight, below)
        return driven if self.bias is None else driven + self.bias

    def driven(self, before: Float[Array, " unit"], drive: Float[Array, "gate unit"]) -> Float[Array, " unit"]:
        """The state, from the one before and the drive."""
        heard = matvec(self.time_weight, before)
        keep, reset = jax.nn.sigmoid(drive[:2] + heard[:2])
        return (1 - keep) * jnp.tanh(drive[2] + reset * heard[2]) + keep * before

    def __call__(self, before: Float[Array, " unit"], below: Float[Array, " input"]) -> Float[Array, " unit"]:
        return self.driven(before, self.drive(below))

    def rescaled(self, time: Any, depth: Any) -> "GatedCell":
        """With all gates' weights multiplied by factors."""
        return eqx.tree_at(
            lambda c: (c.time_weight, c.depth_weight), self, (time * self.time_weight, depth * self.depth_weight)
        )


class OneStep(NamedTuple):
    """One layer's map h = cell(before, below) and, at each time, what went in: `before` [time, unit], `below` [time, input]."""

    cell: Any
    before: Any
    below: Any


class RecurrentNetwork(eqx.Module):
    """Recurrent layers on a sequence [time, input], read out at the last time.

    `first` is the layer that sees the input and `rest` the others, [layer, ...] (None for one layer). The states before the
    first time are 0. It exposes its one-step maps (`one_steps`), which is what stabilisation and its probes ask of a
    network, and `rescaled`.
    """

    first: Any
    rest: Any
    read_out: Dense

    def courses(self, sequence: Float[Array, "time input"]) -> tuple[Course, Float[Array, "layer time state"] | None]:
        """States of the first layer, and those of the others."""
        lowest = _course(self.first, sequence)
        if self.rest is None:
            return lowest, None
        arrays, static = eqx.partition(self.rest, eqx.is_array)

        def up(below: Course, layer: Any) -> tuple[Course, Course]:
            states = _course(eqx.combine(layer, static), below)
            return states, states

        return lowest, lax.scan(up, lowest, arrays)[1]

    def representation(self, sequence: Float[Array, "time input"]) -> Float[Array, " state"]:
        """What is read out: the last layer's state at the last time."""
        lowest, others = self.courses(sequence)
        return lowest[-1] if others is None else others[-1, -1]

    def __call__(self, sequence: Float[Array, "time input"]) -> Float[Array, " output"]:
        return self.read_out(self.representation(sequence))

    def one_steps(self, sequence: Float[Array, "time input"]) -> list[OneStep]:
        """Each layer's map with what went into it, the first layer first."""
        lowest, others = self.courses(sequence)
        steps = [OneStep(self.first, _delayed(lowest), sequence)]
        below = lowest
        for index, states in enumerate(() if others is None else others):
            cell = jax.tree.map(lambda a, i=index: a[i] if eqx.is_array(a) else a, self.rest)
            steps.append(OneStep(cell, _delayed(states), below))
            below = states
        return steps

    def rescaled(self, time: Float[Array, " layer"], depth: Float[Array, " layer"]) -> "RecurrentNetwork":
        """With each layer's recurrent and depth weights multiplied by factors."""
        rest = (
            None
            if self.rest is None
            else eqx.filter_vmap(lambda c, t, d: c.rescaled(t, d))(self.rest, time[1:], depth[1:])
        )
        return RecurrentNetwork(self.first.rescaled(time[0], depth[0]), rest, self.read_out)


def _course(cell: Any, below: Float[Array, "time input"]) -> Course:
    """A layer's states over time: the drive of all times at once, then the recurrence."""
    drives = jax.vmap(cell.drive)(below)

    def step(before: Array, drive: Array) -> tuple[Array, Array]:
        state = cell.driven(before, drive)
        return state, state

    units = cell.time_weight.shape[-1]
    return lax.scan(step, jnp.zeros(units, drives.dtype), drives)[1]


def _delayed(states: Course) -> Course:
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


class Recurrent(Model):
    """`depth` recurrent layers, `width` wide, and a linear read-out of the last state; for sequences [time, input].

    - `cell`: "tanh", "relu", "linear" (no biases) or "gru".
    - `weights`: "orthogonal" ones times radius sqrt(gain); "gaussian" entries N(0, radius² gain/fan_in), gain 2 for ReLU and 1 for others, whose matrices have that
      spectral radius (times sqrt(gain)) if wide; "positive" ones |N(0, 1)| sqrt(pi/2) radius/fan_in, whose Perron root is
      near it; or "constant", radius/fan_in, with exactly that root: with width 1 and linear cells the scalar net
      h = r_t before + r_d below, whose gradients are binomials.
    - `radius`: of the recurrent weights; `depth_radius`: of those from the layer below, None for the same. Both can be
      swept in one program (`depth_radius` if it is given).
    - `connectivity`: a law of `models.connectivity` that draws the recurrent weights instead (times `radius`); not for
      "gru" cells.
    - `leak`: the share of the way to its new value that a state goes in a step, 1 for all of it; not for "gru" cells.
    - `biases`: None gives them to all cells but linear ones.

    The read-out is N(0, 1/width), or 1/sqrt(width) with weights of one sign, times `read_out`. Raises `InvalidValue` for
    sizes below 1, radii below 0 and a leak outside (0, 1], `UnknownName` for unknown names.

    >>> Recurrent(depth=3, width=8)(jax.random.key(0), inputs=4, outputs=10)(jnp.ones((16, 4))).shape
    (10,)
    """

    cell: CellKind = eqx.field(static=True, default="tanh")
    depth: int = eqx.field(static=True, default=2)
    width: int = eqx.field(static=True, default=32)
    weights: Weights = eqx.field(static=True, default="gaussian")
    radius: float = 1.0
    depth_radius: float | None = None
    connectivity: Connectivity | None = None
    leak: float = eqx.field(static=True, default=1.0)
    biases: bool | None = eqx.field(static=True, default=None)
    read_out: float = 1.0

    def __check_init__(self):
        if self.cell not in get_args(CellKind):
            raise unknown("cell", self.cell, get_args(CellKind))
        if self.weights not in get_args(Weights):
            raise unknown("weights", self.weights, get_args(Weights))
        require_between("depth", self.depth, 1)
        require_between("width", self.width, 1)
        require_between("the radius", self.radius, 0.0)
        require_between("the depth's radius", 0.0 if self.depth_radius is None else self.depth_radius, 0.0)
        require_between("the leak", self.leak, 0.0, 1.0, open_low=True)
        require_between("the read-out's scale", self.read_out, 0.0)
        if self.cell == "gru" and (self.connectivity is not None or self.leak != 1.0):
            raise InvalidValue("gated cells have gates instead of a leak and a connectivity; use cell='tanh'")

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> RecurrentNetwork:
        key_layers, key_out = jax.random.split(key)
        first, *others = jax.random.split(key_layers, self.depth)
        rest = stacked([self._layer(k, self.width) for k in others]) if others else None
        shape = (outputs, self.width)
        if self.weights in ("gaussian", "orthogonal"):
            out = jax.random.normal(key_out, shape) / np.sqrt(self.width)
        else:
            out = jnp.full(shape, 1 / np.sqrt(self.width))
        bias = jnp.zeros(outputs) if self._biased else None
        return RecurrentNetwork(self._layer(first, inputs), rest, Dense(self.read_out * out, bias))

    @property
    def _biased(self) -> bool:
        return self.cell != "linear" if self.biases is None else self.biases

    def _layer(self, key: PRNGKeyArray, inputs: int) -> Cell | GatedCell:
        key_time, key_depth = jax.random.split(key)
        gates = (3,) if self.cell == "gru" else ()
        if self.connectivity is None:
            drawn = self._entries(key_time, (*gates, self.width, self.width))
        else:
            drawn = self.connectivity(key_time, self.width)
        across = self.radius * drawn
        up = self.radius if self.depth_radius is None else self.depth_radius
        down = up * self._entries(key_depth, (*gates, self.width, inputs))
        bias = jnp.zeros((*gates, self.width)) if self._biased else None
        return GatedCell(across, down, bias) if gates else Cell(across, down, bias, self.cell, self.leak)

    def _entries(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        fan_in = shape[-1]
        if self.weights == "constant":
            return jnp.full(shape, 1.0 / fan_in)
        gain = np.sqrt(GAINS.get(self.cell, 1.0))
        if self.weights == "orthogonal":
            keys = jax.random.split(key, int(np.prod(shape[:-2])))
            return gain * jax.vmap(lambda k: haar_orthogonal(k, *shape[-2:]))(keys).reshape(shape)
        drawn = jax.random.normal(key, shape)
        if self.weights == "positive":
            return np.sqrt(np.pi / 2) / fan_in * jnp.abs(drawn)
        return gain / np.sqrt(fan_in) * drawn
