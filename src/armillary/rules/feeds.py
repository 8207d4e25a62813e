"""How data are fed: all at once, in mini-batches, or fresh at every step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.rules.seldom import where_due
from armillary.tasks.data import Data, Population, Samples, Task


class FullBatch(eqx.Module):
    """Every step sees all training samples."""

    def init(self, data: Data, key: PRNGKeyArray) -> Any:
        return ()

    def next(self, task: Task, data: Data, memory: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        return data.train, memory


class MiniBatch(eqx.Module):
    """Every step sees `size` training samples.

    `replace`: drawn independently; otherwise each epoch goes once through the data in a new order,
    and a last incomplete batch is left out. A size above the number of samples is an error.
    """

    size: int = eqx.field(static=True, default=32)
    replace: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the batch size", self.size, 1)

    def init(self, data: Data, key: PRNGKeyArray) -> Any:
        if isinstance(data.train, Population):
            raise InvalidValue("MiniBatch needs samples, and this task trains on its whole population; use FullBatch")
        require_between("the batch size", self.size, 1, data.train.count, note="the number of training samples")
        if self.replace:
            return ()
        return jax.random.permutation(key, data.train.count), jnp.zeros((), int)

    def next(self, task: Task, data: Data, memory: Any, key: PRNGKeyArray) -> tuple[Samples, Any]:
        count = data.train.count
        if self.replace:
            return data.train[jax.random.randint(key, (self.size,), 0, count)], memory
        order, batch = memory
        over = batch == count // self.size
        order = where_due(over, lambda order: jax.random.permutation(key, count).astype(order.dtype), order)
        batch = jnp.where(over, 0, batch)
        index = lax.dynamic_slice(order, (batch * self.size,), (self.size,))
        return data.train[index], (order, batch + 1)


class Online(eqx.Module):
    """One pass: every step sees `size` fresh samples of the task (or what so many look like), never seen before nor again."""

    size: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        require_between("the batch size", self.size, 1)

    def init(self, data: Data, key: PRNGKeyArray) -> Any:
        return ()

    def next(self, task: Task, data: Data, memory: Any, key: PRNGKeyArray) -> tuple[Samples | Population, Any]:
        return task.sample(data, key, self.size), memory


Feed = FullBatch | MiniBatch | Online
