"""Any task with its inputs put on a sphere."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.tasks.data import Data, Samples, Task


class OnSphere(Task):
    """Another task whose inputs, of training and test alike, are divided by their own lengths and multiplied by `radius`.

    Standard Gaussian inputs become uniform on the sphere. `radius` can be swept in one program. Raises `InvalidValue` for a
    radius that is not positive, and a task that is none or gives no samples of vectors. An input of zeros stays.

    >>> import jax
    >>> from armillary.tasks import Digits
    >>> data = OnSphere(Digits(20, standardise=False), radius=8.0).draw(jax.random.key(0))
    >>> print(jnp.linalg.norm(data.train.inputs[:2], axis=1).round(5))
    [8. 8.]
    """

    task: Any
    radius: float = 1.0

    def __check_init__(self):
        if not isinstance(self.task, Task):
            raise InvalidValue(f"the task is a {type(self.task).__name__}, but must be an armillary.tasks.Task")
        require_between("the radius", self.radius, 0.0, open_low=True)

    @property
    def inputs(self) -> int:
        return self.task.inputs

    @property
    def outputs(self) -> int:
        return self.task.outputs

    def draw(self, key: PRNGKeyArray) -> Data:
        data = self.task.draw(key)
        if not isinstance(data.train, Samples) or data.train.inputs.ndim != 2:
            raise InvalidValue(f"OnSphere needs samples of vectors, which {type(self.task).__name__} does not give")
        test = self._moved(data.test) if isinstance(data.test, Samples) else None
        return Data(self._moved(data.train), test, data.teacher)

    def _moved(self, samples: Samples) -> Samples:
        lengths = jnp.linalg.norm(samples.inputs, axis=1, keepdims=True)
        return Samples(self.radius * samples.inputs / jnp.where(lengths > 0, lengths, 1.0), samples.targets)
