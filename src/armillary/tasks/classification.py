"""Two classes of Gaussian inputs in many dimensions, and the lift of any inputs to many."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.tasks.data import Data, Samples, Task

LABELS = ("random", "mean", "teacher")


class GaussianClasses(Task):
    """Inputs x ~ N(0, 1) in `dimension` dimensions and labels y = ±1, one output.

    - `labels`: "random" ones; "mean": x = y m + N(0, 1) with a mean m of norm `shift`; "teacher": the sign of x along one
      direction. m and the teacher's direction lie along the first axis.
    - `test_samples`: 0 for no test set.
    - `framed`: the training inputs are given in a frame whose first axis is that one and whose next span the samples, and
      without their entries beyond, which are all 0 (`1 + samples` columns). A rotation changes nothing for what starts
      isotropic, as a `Committee`, which takes such short inputs, and a step then costs samples² instead of samples x
      dimension. Test inputs are whole.

    `shift` can be swept in one program. With many more dimensions than samples² inputs are nearly orthogonal. Raises
    `InvalidValue` for sizes below 1, negative test samples or shift, and a frame of as many samples as dimensions; `UnknownName` for
    other labels.

    >>> data = GaussianClasses(dimension=50, samples=4, framed=True).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.test.inputs.shape, data.train.targets.shape
    ((4, 5), (1000, 50), (4, 1))
    """

    dimension: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    labels: Literal["random", "mean", "teacher"] = eqx.field(static=True, default="random")
    shift: float = 1.0
    framed: bool = eqx.field(static=True, default=False)
    test_samples: int = eqx.field(static=True, default=1000)

    outputs = 1

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 0)
        require_between("the shift", self.shift, 0.0)
        if self.labels not in LABELS:
            raise unknown("labels", self.labels, LABELS)
        if self.framed:
            require_between("the number of samples", self.samples, 1, self.dimension - 1, note="the dimension less 1, for a frame")  # fmt: skip

    @property
    def inputs(self) -> int:
        return self.dimension

    def draw(self, key: PRNGKeyArray) -> Data:
        key_train, key_test = jax.random.split(key)
        train = self._samples(key_train, self.samples)
        if self.framed:
            # The frame's rotation is never needed: R of the samples' QR holds their entries in it.
            triangle = jnp.linalg.qr(train.inputs[:, 1:].T, mode="r").T
            train = Samples(jnp.concatenate([train.inputs[:, :1], triangle], axis=1), train.targets)
        return Data(train, self._samples(key_test, self.test_samples) if self.test_samples else None)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(key, count)

    def _samples(self, key: PRNGKeyArray, count: int) -> Samples:
        key_label, key_input = jax.random.split(key)
        inputs = jax.random.normal(key_input, (count, self.dimension))
        label = jax.random.rademacher(key_label, (count,), inputs.dtype)
        if self.labels == "mean":
            inputs = inputs.at[:, 0].add(self.shift * label)
        if self.labels == "teacher":
            label = jnp.where(inputs[:, 0] < 0, -1.0, 1.0)
        return Samples(inputs, label[:, None])


class RandomLift(Task):
    """Another task's inputs seen through fixed random Fourier features: sqrt(2/features) cos(W x + b) times `norm`.

    W has entries N(0, frequency²/inputs), b is uniform in [0, 2 pi], both drawn anew for each seed. Two lifted inputs
    have the inner product norm² exp(-frequency² |x - x'|²/(2 inputs)), up to norm² times N(0, 1)/sqrt(features): high
    frequencies make any distinct inputs nearly orthogonal. `frequency` and `norm` can be swept in one program. Raises
    `InvalidValue` for no features, negative numbers, and a task that is none or gives no samples of vectors.
    Source: Rahimi & Recht (2007)

    >>> from armillary.tasks import Digits
    >>> RandomLift(Digits(20, "parity"), features=100).draw(jax.random.key(0)).train.inputs.shape
    (20, 100)
    """

    task: Any
    features: int = eqx.field(static=True, default=1000)
    frequency: float = 1.0
    norm: float = 1.0

    def __check_init__(self):
        if not isinstance(self.task, Task):
            raise InvalidValue(f"the lifted task is a {type(self.task).__name__}, but must be an armillary.tasks.Task")
        require_between("the number of features", self.features, 1)
        require_between("the frequency", self.frequency, 0.0)
        require_between("the norm", self.norm, 0.0)

    @property
    def inputs(self) -> int:
        return self.features

    @property
    def outputs(self) -> int:
        return self.task.outputs

    def draw(self, key: PRNGKeyArray) -> Data:
        key_data, key_weights, key_phase = jax.random.split(key, 3)
        data = self.task.draw(key_data)
        if not isinstance(data.train, Samples) or data.train.inputs.ndim != 2:
            raise InvalidValue(f"RandomLift needs samples of vectors, which {type(self.task).__name__} does not give")
        size = data.train.inputs.shape[1]
        weights = self.frequency / jnp.sqrt(float(size)) * jax.random.normal(key_weights, (size, self.features))
        phase = jax.random.uniform(key_phase, (self.features,), maxval=2 * jnp.pi)

        def lifted(x: Float[Array, "sample input"]) -> Float[Array, "sample feature"]:
            return self.norm * jnp.sqrt(2 / self.features) * jnp.cos(x @ weights + phase)

        parts = [
            None if part is None else Samples(lifted(part.inputs), part.targets) for part in (data.train, data.test)
        ]
        return Data(parts[0], parts[1], data.teacher)
