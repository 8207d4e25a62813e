"""Sequences: coloured noise and what a linear state-space teacher makes of it; digits, row by row."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.state_space import check_poles, filtered
from armillary.settings import derived, floats
from armillary.tasks.data import Data, Samples, Task, problem_key
from armillary.tasks.digits import Digits


class FilteredNoise(Task):
    """Coloured noise as input, and as target its response to the teacher: y = sum_n W_n (input filtered by pole n).

    `weights` gives each of the teacher's `poles` a number, or a matrix (rows are outputs) for several channels; in a
    `cascade` the filters act one after another and there is one weight. Filtering by a pole a is x_t = a x_{t-1} + u_t,
    `periodic` in the steady state of a repeated input, otherwise from the state 0. The noise is Gaussian with power
    proportional to frequency^slope (white 0, pink -1, red -2, blue 1; the mean counts as the lowest frequency) and variance 1
    in each channel. `whitened` mixes the channels so that the filtered inputs' covariance over all sequences and times
    is exactly that number times the identity (without the mean taken off: mean x xᵀ).

    `problem` numbers the draw: all seeds then share its data, and theories know their statistics. `slope`,
    `whitened` and `problem` can be swept in one program. Raises `InvalidValue` for poles not within (-1, 1), weights
    that do not fit, sequences shorter than 2, and whitening where several poles filter side by side.

    >>> task = FilteredNoise(poles=(0.5,), weights=(((1.0, 0.0), (0.0, 2.0)),), sequences=3, length=20, whitened=2.0)
    >>> train = task.draw(jax.random.key(0)).train
    >>> x = jax.vmap(task.responses)(train.inputs)[:, :, 0]
    >>> train.targets.shape, bool(jnp.allclose(jnp.einsum("sti,stj->ij", x, x) / 60, 2 * jnp.eye(2), atol=1e-4))
    ((3, 20, 2), True)
    """

    poles: tuple[float, ...] = (0.8,)
    weights: tuple[Any, ...] = (1.0,)
    cascade: bool = eqx.field(static=True, default=False)
    sequences: int = eqx.field(static=True, default=16)
    length: int = eqx.field(static=True, default=128)
    slope: float = 0.0
    whitened: float | None = None
    periodic: bool = eqx.field(static=True, default=True)
    problem: float | None = None

    def __check_init__(self):
        check_poles(self.poles)
        require_between("the number of sequences", self.sequences, 1)
        require_between("the length of a sequence", self.length, 2)
        require_between("the spectrum's slope", self.slope, -8.0, 8.0)
        require_between(
            "the filtered input's variance", 1.0 if self.whitened is None else self.whitened, 0.0, open_low=True
        )
        require_between("problem", 0 if self.problem is None else self.problem, 0, 2**31)
        wanted, shape = (1 if self.cascade else len(self.poles)), self._shape
        if len(shape) not in (1, 3) or shape[0] != wanted:
            raise InvalidValue(
                f"the teacher's weights have shape {shape}, but must be {wanted} numbers or {wanted} matrices"
            )
        if self.whitened is not None and wanted > 1:
            raise InvalidValue(
                f"the input can be whitened behind one filter, not behind {wanted}; use cascade or one pole"
            )

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of the weights, whose numbers may not be there while a program is compiled."""
        shape, node = [], self.weights
        while isinstance(node, tuple | list):
            shape.append(len(node))
            node = node[0]
        return tuple(shape)

    @property
    def inputs(self) -> int:
        return self._shape[2] if len(self._shape) == 3 else 1

    @property
    def outputs(self) -> int:
        return self._shape[1] if len(self._shape) == 3 else 1

    @property
    def teacher(self) -> Float[Array, "filter output input"]:
        """The weights as matrices."""
        return _array(self.weights).reshape(self._shape[0], self.outputs, self.inputs)

    def responses(self, inputs: Float[Array, "time input"]) -> Float[Array, "time filter input"]:
        """The input behind each of the teacher's filters."""
        through = lambda x, pole: filtered(x, jnp.full(x.shape[1], pole), periodic=self.periodic)
        if self.cascade:
            for pole in self.poles:
                inputs = through(inputs, pole)
            return inputs[:, None]
        return jnp.stack([through(inputs, pole) for pole in self.poles], axis=1)

    def draw(self, key: PRNGKeyArray) -> Data:
        teacher = self.teacher
        return Data(self._samples(teacher, problem_key(self.problem, key), self.sequences), None, teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        inputs = self._coloured(jax.random.normal(key, (count, self.length, self.inputs)))
        responses = jax.vmap(self.responses)(inputs)
        if self.whitened is not None:
            behind = responses[:, :, 0]
            covariance = jnp.einsum("sti,stj->ij", behind, behind) / (count * self.length)
            values, frame = jnp.linalg.eigh(covariance)
            mix = jnp.sqrt(self.whitened) * (frame / jnp.sqrt(values)) @ frame.T
            inputs, responses = inputs @ mix, responses @ mix
        return Samples(inputs, jnp.einsum("stfi,foi->sto", responses, teacher))

    def _coloured(self, white: Float[Array, "sequence time input"]) -> Float[Array, "sequence time input"]:
        """The noise with its spectrum multiplied by frequency^(slope/2), at a mean power of 1."""
        frequency = np.arange(self.length // 2 + 1)
        # Frequencies but 0 and the highest of an even length stand for two of the transform.
        count = np.where((frequency == 0) | (2 * frequency == self.length), 1.0, 2.0)
        power = jnp.asarray(np.maximum(frequency, 1), white.dtype) ** self.slope
        power = power / jnp.sum(power * jnp.asarray(count / self.length, white.dtype))
        return jnp.fft.irfft(jnp.fft.rfft(white, axis=1) * jnp.sqrt(power)[:, None], self.length, axis=1)


def _array(nested: Any) -> Array:
    """Nested tuples of numbers, some of which may be traced, as an array."""
    if isinstance(nested, tuple | list):
        return jnp.stack([_array(part) for part in nested])
    return jnp.asarray(nested, jnp.result_type(float))


class DigitRows(Task):
    """Digits as sequences of 8 rows of 8 pixels, with the class as target at every row: one-hot, less 1/10.

    The first `samples` of `Digits`, standardised, are trained on and the others are the test set; nothing is drawn.
    Raises `InvalidValue` for more samples than there are.

    >>> DigitRows(samples=50).draw(jax.random.key(0)).train.targets.shape
    (50, 8, 10)
    """

    samples: int = eqx.field(static=True, default=1500)
    rows: Data = derived()

    inputs, outputs = 8, 10

    def __init__(self, samples: int = 1500):
        self.samples = samples
        images = Digits(samples).clean
        self.rows = Data(self._rows(images.train), self._rows(images.test))

    @staticmethod
    def _rows(images: Samples) -> Samples:
        classes = np.eye(10)[np.asarray(images.targets)] - 0.1
        return Samples(images.inputs.reshape(-1, 8, 8), floats(np.repeat(classes[:, None], 8, axis=1)))

    def draw(self, key: PRNGKeyArray) -> Data:
        return self.rows


class DigitSequences(Task):
    """Digits as sequences of 64/`pixels` steps of `pixels` pixels, row by row, with the class number as target.

    The first `samples` of `Digits`, standardised, are trained on and the others are the test set; nothing is drawn.
    Raises `InvalidValue` for more samples than there are, and for pixels that do not divide 64.

    >>> DigitSequences(samples=50).draw(jax.random.key(0)).train.inputs.shape
    (50, 16, 4)
    """

    samples: int = eqx.field(static=True, default=1500)
    pixels: int = eqx.field(static=True, default=4)
    sequences: Data = derived()

    outputs = 10

    def __init__(self, samples: int = 1500, pixels: int = 4):
        require_between("the number of pixels a step", pixels, 1, 64)
        if 64 % pixels:
            raise InvalidValue(f"{pixels} pixels a step do not divide an image of 64; use 1, 2, 4, 8, 16, 32 or 64")
        self.samples, self.pixels = samples, pixels
        images = Digits(samples).clean
        cut = lambda part: Samples(part.inputs.reshape(-1, 64 // pixels, pixels), part.targets)
        self.sequences = Data(cut(images.train), cut(images.test))

    @property
    def inputs(self) -> int:
        return self.pixels

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        return 64 // self.pixels

    def draw(self, key: PRNGKeyArray) -> Data:
        return self.sequences
