"""Any task with its labels or its inputs shuffled: what is left of the data's structure, and what is not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.tasks.data import Data, Samples, Task


class Shuffled(Task):
    """A task whose data are shuffled: what `ShuffledLabels` and `ShuffledPixels` share."""

    task: Any

    def __check_init__(self):
        if not isinstance(self.task, Task):
            raise InvalidValue(
                f"the shuffled task is a {type(self.task).__name__}, but must be an armillary.tasks.Task"
            )

    @property
    def inputs(self) -> int:
        return self.task.inputs

    @property
    def outputs(self) -> int:
        return self.task.outputs

    def _drawn(self, key: PRNGKeyArray) -> Data:
        data = self.task.draw(key)
        if not isinstance(data.train, Samples):
            name = type(self.task).__name__
            raise InvalidValue(f"{type(self).__name__} needs samples, and {name} trains on its whole population")
        return data


class ShuffledLabels(Shuffled):
    """Another task whose training targets change places among the samples of a random `share` of them.

    Inputs, the test samples and how often each target occurs stay as they are. At share 1 targets say nothing of inputs
    (Zhang et al. 2017); `share` can be swept in one program. Raises `InvalidValue` for a share outside [0, 1] and a task
    that trains on its whole population.

    >>> from armillary.tasks import Digits
    >>> data = ShuffledLabels(Digits(50)).draw(jax.random.key(0))
    >>> bool((jnp.sort(data.train.targets) == jnp.sort(Digits(50).draw(jax.random.key(0)).train.targets)).all())
    True
    """

    share: float = 1.0

    def __check_init__(self):
        require_between("the share of shuffled labels", self.share, 0.0, 1.0)

    def draw(self, key: PRNGKeyArray) -> Data:
        key_data, key_which, key_order = jax.random.split(key, 3)
        data = self._drawn(key_data)
        count = data.train.count
        # The chosen ones are ranked first; a permutation that moves only the first ranks then shuffles them alone.
        rank = jax.random.permutation(key_which, count)
        moved = jnp.arange(count) < jnp.round(self.share * count)
        order = jnp.argsort(jnp.where(moved, jax.random.uniform(key_order, (count,)), 1.0 + jnp.arange(count)))
        targets = data.train.targets.at[rank].set(data.train.targets[rank[order]])
        return eqx.tree_at(lambda d: d.train, data, Samples(data.train.inputs, targets))


class ShuffledPixels(Shuffled):
    """Another task whose inputs are made independent: each number of an input changes places among the samples.

    Each pixel keeps its mean, its variance and all its values, and every sample its target, but pixels say nothing of
    each other nor of the target. Training and test inputs alike. Raises `InvalidValue` for a task that trains on its
    whole population.

    >>> from armillary.tasks import Digits
    >>> plain, data = (task.draw(jax.random.key(0)).train for task in (Digits(50), ShuffledPixels(Digits(50))))
    >>> bool(jnp.allclose(plain.inputs.std(axis=0), data.inputs.std(axis=0), atol=1e-5))
    True
    """

    def draw(self, key: PRNGKeyArray) -> Data:
        key_data, key_train, key_test = jax.random.split(key, 3)
        data = self._drawn(key_data)
        train = Samples(_independent(key_train, data.train.inputs), data.train.targets)
        if not isinstance(data.test, Samples):
            return eqx.tree_at(lambda d: d.train, data, train)
        test = Samples(_independent(key_test, data.test.inputs), data.test.targets)
        return eqx.tree_at(lambda d: (d.train, d.test), data, (train, test))


def _independent(key: PRNGKeyArray, inputs: Array) -> Array:
    return jax.random.permutation(key, inputs, axis=0, independent=True)
