"""Targets of a random network: teacher-student tasks beyond linear ones."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from armillary.errors import require_between
from armillary.models.model import draw_network
from armillary.tasks.data import Data, Samples, Task


class NetworkTeacher(Task):
    """Targets of a random teacher network with label noise: y = teacher(x) + e.

    Inputs are N(0, input_scale²) in each of `dimension` directions. `teacher` is any `armillary.models.Model` (or
    a function from a key to a network), drawn anew for each seed; the noise is N(0, noise²), None draws none. Fields
    that can be swept in one program: `noise`, `input_scale`.

    Raises `InvalidValue` for sizes below 1 or a negative noise.

    >>> from armillary.models import MLP
    >>> NetworkTeacher(3, samples=5, teacher=MLP(width=4)).draw(jax.random.key(0)).train.targets.shape
    (5, 1)
    """

    dimension: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    teacher: Any
    noise: float | None = None
    input_scale: float = 1.0
    outputs: int = eqx.field(static=True, default=1)
    test_samples: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 0)
        require_between("noise", 0.0 if self.noise is None else self.noise, 0.0)
        require_between("input_scale", self.input_scale, 0.0, open_low=True)

    @property
    def inputs(self) -> int:
        return self.dimension

    def draw(self, key: PRNGKeyArray) -> Data:
        key_teacher, key_train, key_test = jax.random.split(key, 3)
        teacher = draw_network(self.teacher, key_teacher, self.dimension, self.outputs)
        test = self._samples(teacher, key_test, self.test_samples) if self.test_samples else None
        return Data(self._samples(teacher, key_train, self.samples), test, teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: PyTree, key: PRNGKeyArray, count: int) -> Samples:
        key_inputs, key_noise = jax.random.split(key)
        inputs = self.input_scale * jax.random.normal(key_inputs, (count, self.dimension))
        targets = jax.vmap(teacher)(inputs)
        if self.noise is not None:
            targets = targets + self.noise * jax.random.normal(key_noise, (count, self.outputs))
        return Samples(inputs, targets)
