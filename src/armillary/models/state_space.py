"""Linear state-space layers with a diagonal recurrence, and stacks of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from armillary.errors import InvalidValue, is_traced, require_between
from armillary.models.factorised import check_width, columns_of
from armillary.models.initialisation import Initialisation, Stacks
from armillary.models.model import Model


def filtered(
    drive: Float[Array, "time state"], poles: Float[Array, " state"], *, periodic: bool = False
) -> Float[Array, "time state"]:
    """x_t = a x_{t-1} + d_t, each state with its own pole a, from the state 0 or in the steady state of periodic input.

    One pass over time by `lax.scan` (on a CPU several times faster, with its gradient, than an associative scan).
    `periodic`: the states after infinitely many repetitions of the input, exactly: the pass from 0 and what the state
    at its end adds, a^(t+1) x_end/(1 - a^length).

    >>> filtered(jnp.array([[1.0], [0.0]]), jnp.array([0.5])).tolist()
    [[1.0], [0.5]]
    >>> [round(x, 4) for x, in filtered(jnp.array([[1.0], [0.0]]), jnp.array([0.5]), periodic=True).tolist()]
    [1.3333, 0.6667]
    """
    step = lambda state, new: (poles * state + new,) * 2
    end, states = lax.scan(step, jnp.zeros_like(drive[0]), drive)
    if not periodic:
        return states
    length = drive.shape[0]
    return states + poles ** jnp.arange(1, length + 1)[:, None] * (end / (1 - poles**length))


class Poles(eqx.Module):
    """The diagonal of a recurrence. `rate` scales its learning rate; at 0 it is fixed, and no gradient is computed."""

    values: Float[Array, " pole"]
    rate: float = eqx.field(static=True, default=0.0)
    adaptive_rate: float = eqx.field(static=True, default=0.0)

    @property
    def now(self) -> Float[Array, " pole"]:
        """The poles as gradients may see them."""
        return lax.stop_gradient(self.values) if self.rate == 0.0 else self.values


class StateSpaceLayer(eqx.Module):
    """x_t = A x_{t-1} + B u_t, y_t = C x_t with A = diag(poles), each pole `copies` times: [time, input] -> [time, output].

    States are ordered by pole, copies next to each other. `read_in` is B and `read_out` C; with `tied` they hold one
    row and one column a pole, which all its copies share. `used` says which of the copies are there (see `StateSpace`).
    """

    poles: Poles
    read_in: Float[Array, "unit input"]
    read_out: Float[Array, "output unit"]
    used: Bool[Array, " copy"]
    tied: bool = eqx.field(static=True, default=False)
    periodic: bool = eqx.field(static=True, default=True)

    @property
    def weights(self) -> tuple[Float[Array, "state input"], Float[Array, "output state"]]:
        """B and C with a row and a column for every state, whether or not copies share theirs."""
        if not self.tied:
            return self.read_in, self.read_out
        copies, poles = self.used.size, self.poles.values.size
        present = jnp.tile(self.used, poles)
        rows = jnp.repeat(self.read_in, copies, axis=0, total_repeat_length=poles * copies)
        columns = jnp.repeat(self.read_out, copies, axis=1, total_repeat_length=poles * copies)
        return rows, jnp.where(present, columns, 0.0)

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """C B: what the filtered input is multiplied by where all poles are equal."""
        rows, columns = self.weights
        return columns @ rows

    def responses(self, inputs: Float[Array, "time input"]) -> Float[Array, "time pole input"]:
        """The state of each pole to each input alone, for a read-in of 1."""
        poles, count = self.poles.now, inputs.shape[1]
        drive = jnp.tile(inputs, (1, poles.size))
        states = filtered(drive, jnp.repeat(poles, count, total_repeat_length=drive.shape[1]), periodic=self.periodic)
        return states.reshape(-1, poles.size, count)

    def __call__(self, inputs: Float[Array, "time input"]) -> Float[Array, "time output"]:
        rows, columns = self.weights
        poles = jnp.repeat(self.poles.now, self.used.size, total_repeat_length=rows.shape[0])
        return filtered(inputs @ rows.T, poles, periodic=self.periodic) @ columns.T


class StateSpaceChain(eqx.Module):
    """State-space layers one after another: [time, input] -> [time, output]."""

    layers: tuple[StateSpaceLayer, ...]

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The product of the layers' C B: what the filtered input is multiplied by where each layer has one pole."""
        product = self.layers[0].matrix
        for layer in self.layers[1:]:
            product = layer.matrix @ product
        return product

    def responses(self, inputs: Float[Array, "time input"]) -> Float[Array, "time 1 input"]:
        """The input passed through the layers' first poles, for read-ins and read-outs of 1."""
        for layer in self.layers:
            inputs = layer.responses(inputs)[:, 0]
        return inputs[:, None]

    def __call__(self, inputs: Float[Array, "time input"]) -> Float[Array, "time output"]:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


class EqualEntries(eqx.Module):
    """A first and a last layer whose entries are all `first` and all `last`. Both can be swept in one program."""

    first: float = 0.1
    last: float = 0.1

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Stacks:
        if len(sizes) != 3:
            raise InvalidValue(f"EqualEntries draws two layers, not {len(sizes) - 1}")
        inputs, hidden, outputs = sizes
        return jnp.full((1, hidden, inputs), self.first * 1.0), jnp.full((1, outputs, hidden), self.last * 1.0)


class StateSpace(Model):
    """A linear state-space layer with the given `poles`, `copies` states of each.

    `initialisation` draws B and C as the two layers of a linear network with the states as hidden units:
    `EqualEntries` or any initialisation of a deep linear network. `tied` copies share their entries of B and C. Each
    copy starts at copies^-dilution times what is drawn: at a `dilution` of ½ the end-to-end weights do not depend on
    the copies. `pole_rate` is the poles' learning rate relative to the rule's; 0 keeps them fixed. `periodic` takes the
    input as periodic, in its steady state; without, the state starts at 0.

    What the initialisation and `dilution` hold can be swept in one program and, up to `capacity`, so can `copies`:
    those beyond are 0 and stay 0. Raises `InvalidValue` for poles not within (-1, 1), and for copies below 1 or above
    the capacity.

    >>> network = StateSpace((0.5, 0.9), EqualEntries(1.0, 2.0), copies=3)(jax.random.key(0), inputs=1, outputs=1)
    >>> network(jnp.ones((7, 1))).shape, network.matrix.tolist()
    ((7, 1), [[12.0]])
    """

    poles: tuple[float, ...] = (0.8,)
    initialisation: EqualEntries | Initialisation = EqualEntries()
    copies: float = 1
    capacity: int | None = eqx.field(static=True, default=None)
    tied: bool = eqx.field(static=True, default=False)
    dilution: float = 0.0
    pole_rate: float = eqx.field(static=True, default=0.0)
    periodic: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_poles(self.poles)
        check_width(self.copies, self.capacity, name="the number of copies")
        require_between("the poles' rate", self.pole_rate, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> StateSpaceLayer:
        copies = columns_of(self.copies, self.capacity)
        units = len(self.poles) * (1 if self.tied else copies)
        read_in, read_out = (stack[0] for stack in self.initialisation(key, (inputs, units, outputs)))
        used = jnp.arange(copies) < self.copies
        if not self.tied:
            present = jnp.tile(used, len(self.poles))
            read_in, read_out = jnp.where(present[:, None], read_in, 0.0), jnp.where(present, read_out, 0.0)
        share = jnp.asarray(self.copies, read_in.dtype) ** -self.dilution
        poles = Poles(jnp.stack([jnp.asarray(p, read_in.dtype) for p in self.poles]), self.pole_rate, self.pole_rate)
        return StateSpaceLayer(poles, share * read_in, share * read_out, used, self.tied, self.periodic)


class StateSpaceStack(Model):
    """Linear state-space layers in series, with `width` channels between them.

    >>> stack = StateSpaceStack((StateSpace((0.5,)), StateSpace((0.3,))))(jax.random.key(0), inputs=1, outputs=1)
    >>> len(stack.layers), round(stack.matrix.item(), 6)
    (2, 0.0001)
    """

    layers: tuple[StateSpace, ...]
    width: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        require_between("the number of layers", len(self.layers), 1)
        require_between("the width", self.width, 1)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> StateSpaceChain:
        keys = jax.random.split(key, len(self.layers))
        sizes = (inputs, *[self.width] * (len(self.layers) - 1), outputs)
        drawn = zip(self.layers, keys, sizes[:-1], sizes[1:], strict=True)
        return StateSpaceChain(tuple(layer(k, i, o) for layer, k, i, o in drawn))


def check_poles(poles: Any) -> None:
    """Raise `InvalidValue` unless there are poles and all lie strictly between -1 and 1."""
    require_between("the number of poles", len(poles), 1)
    for pole in poles:
        if not is_traced(pole) and type(pole) is not object and not abs(float(np.asarray(pole))) < 1:
            raise InvalidValue(f"a pole is {float(pole):g}, but must lie strictly between -1 and 1, or states grow")


__all__ = [
    "EqualEntries", "Poles", "StateSpace", "StateSpaceChain", "StateSpaceLayer", "StateSpaceStack", "check_poles",
    "filtered",
]  # fmt: skip
