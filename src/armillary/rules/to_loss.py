"""Descent that stops at a loss, so that runs are compared at equal loss and not at equal times."""

from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Integer, PRNGKeyArray, PyTree

from armillary.errors import require_between
from armillary.process import Process, Snapshot
from armillary.rules.descent import Descent, Supervised, SupervisedState
from armillary.rules.loss import Loss
from armillary.rules.optimisers import SGD, Optimiser
from armillary.tasks.data import Data, Task


class DescentToLoss(eqx.Module):
    """Full-batch steps of an optimiser until the training loss is at most `target`, and `steps` of them at most.

    The network then stays as it is: whatever is observed later is observed at equal loss, within the last step's decrease.
    A run that never gets there shows by its loss. The number of steps taken is in the rule's memory, as `steps`
    (`probes.StepsTaken`). `target` and the optimiser's numbers can be swept in one program; what is done costs no more steps
    where members run one after another. Raises `InvalidValue` for negative `steps`.
    """

    target: Any
    optimiser: Optimiser = SGD()
    steps: int = eqx.field(static=True, default=1000)
    loss: Loss = Loss()

    discrete = True
    no_time = MappingProxyType({"steps": 0})

    def __check_init__(self):
        require_between("the number of steps", self.steps, 0)

    @property
    def duration(self) -> int:
        """Steps until the end."""
        return self.steps

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "StoppedAtLoss":
        """What runs."""
        descent = Descent(self.optimiser, self.steps, self.loss)
        return StoppedAtLoss(descent.process(task, data, network, probes), jnp.asarray(self.target))


class StoppedState(eqx.Module):
    """The descent's own state, and how many steps it has taken."""

    inner: SupervisedState
    steps: Integer[Array, ""]


class StoppedAtLoss(Process):
    """Supervised training that rests once its loss is low enough."""

    inner: Supervised
    target: Array

    @property
    def initial(self) -> PyTree:
        """The network before training."""
        return self.inner.initial

    @property
    def data(self) -> Data:
        """What is learned from."""
        return self.inner.data

    @property
    def probes(self) -> tuple:
        """What is observed."""
        return self.inner.probes

    def init(self, key: PRNGKeyArray) -> StoppedState:
        return StoppedState(self.inner.init(key), jnp.zeros((), jnp.int32))

    def _moved(self, state: StoppedState, key: PRNGKeyArray) -> tuple[StoppedState, Array]:
        """The state one step later, and whether it rests: the loss of the weights as they were is low enough."""
        after, value = self.inner.stepped(state.inner, key)
        rests = value <= self.target
        stay = lambda new, old: jnp.where(rests, old, new) if eqx.is_array(new) else new
        inner = jax.tree.map(stay, after, state.inner)
        return StoppedState(inner, state.steps + jnp.where(rests, 0, 1).astype(jnp.int32)), rests

    def step(self, state: StoppedState, key: PRNGKeyArray) -> StoppedState:
        return self._moved(state, key)[0]

    def advance(
        self, state: StoppedState, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[StoppedState, Array]:
        arrays, static = eqx.partition(state, eqx.is_array)

        def one(carry: tuple) -> tuple:
            t, arrays, diverged, _ = carry
            after, rests = self._moved(eqx.combine(arrays, static), jax.random.fold_in(key, t))
            first = (diverged < 0) & ~self.is_healthy(after)
            diverged = jnp.where(first, (t + 1).astype(diverged.dtype), diverged)
            return t + 1, eqx.filter(after, eqx.is_array), diverged, rests

        going = lambda carry: (carry[0] < stop) & ~carry[3]
        _, arrays, diverged, _ = lax.while_loop(going, one, (start, arrays, diverged, jnp.asarray(False)))
        return eqx.combine(arrays, static), diverged

    def snapshot(self, state: StoppedState, time: Array) -> Snapshot:
        shown: Any = self.inner.snapshot(state.inner, time)
        memory = {"optimiser": shown.rule_memory, "steps": state.steps}
        return eqx.tree_at(lambda s: s.rule_memory, shown, memory, is_leaf=lambda x: x is None)

    def watched(self, state: StoppedState) -> PyTree:
        return state.inner.network
