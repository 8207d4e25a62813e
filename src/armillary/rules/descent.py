"""Descent in steps: an optimiser, a loss and a feed of data."""

from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from armillary.errors import require_between
from armillary.models.model import learning_rate_scales, parameters
from armillary.process import Process, Snapshot
from armillary.rules.feeds import Feed, FullBatch
from armillary.rules.loss import Loss
from armillary.rules.optimisers import SGD, Optimiser
from armillary.tasks.data import Data, Task


class Descent(eqx.Module):
    """`steps` steps of an optimiser: full batch, mini-batch or one-pass online.

    The layers' own learning-rate factors (their parametrisation) multiply the optimiser's updates. Numbers
    of the optimiser can be swept in one compiled program. Transformations that take optax's extra arguments are handed
    the step's `value` (the loss), `grad` and `value_fn` (the loss of other weights), as optax's line searches want them,
    and its `network`, `samples` and `loss`. Raises `InvalidValue` for negative `steps`.
    """

    optimiser: Optimiser = SGD()
    steps: int = eqx.field(static=True, default=1000)
    loss: Loss = Loss()
    feed: Feed = FullBatch()

    discrete = True
    no_time = MappingProxyType({"steps": 0})

    def __check_init__(self):
        require_between("the number of steps", self.steps, 0)

    @property
    def duration(self) -> int:
        """Steps until the end."""
        return self.steps

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "Supervised":
        """What runs."""
        keep = any(getattr(probe, "needs_update", False) for probe in probes)
        return Supervised(task, data, network, self.optimiser, self.loss, self.feed, probes, keep)


def _loss_of(weights: PyTree, network: PyTree, samples: Any, loss: Any) -> Array:
    """The loss of a network with other weights; its arguments are named as the extra ones of which optax fills them."""
    return loss(eqx.combine(weights, network), samples)


class SupervisedState(eqx.Module):
    """The network, the optimiser's memory, the feed's, and the last update where a probe wants it."""

    network: PyTree
    optimiser: Any
    feed: Any
    update: PyTree


class Supervised(Process):
    """Supervised training of one network by `Descent`."""

    task: Task
    data: Data
    initial: PyTree
    optimiser: Optimiser
    loss: Loss
    feed: Feed
    probes: tuple
    keep_update: bool = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> SupervisedState:
        trained = parameters(self.initial)
        return SupervisedState(
            self.initial,
            self.optimiser.transformation().init(trained),
            self.feed.init(self.data, key),
            jax.tree.map(jnp.zeros_like, trained) if self.keep_update else None,
        )

    def step(self, state: SupervisedState, key: PRNGKeyArray) -> SupervisedState:
        return self.stepped(state, key)[0]

    def stepped(self, state: SupervisedState, key: PRNGKeyArray) -> tuple[SupervisedState, Array]:
        """The state one step later, and the loss before it on what the step saw."""
        samples, feed = self.feed.next(self.task, self.data, state.feed, key)
        value, gradient = eqx.filter_value_and_grad(self.loss)(state.network, samples)
        trained = parameters(state.network)
        listening = optax.with_extra_args_support(self.optimiser.transformation())
        updates, memory = listening.update(
            gradient,
            state.optimiser,
            trained,
            value=value,
            grad=gradient,
            value_fn=_loss_of,
            network=state.network,
            samples=samples,
            loss=self.loss,
        )
        rates = learning_rate_scales(state.network, adaptive=self.optimiser.adaptive)
        updates = jax.tree.map(lambda u, rate: u if rate == 1.0 else rate * u, updates, rates)
        network = eqx.apply_updates(state.network, updates)
        return SupervisedState(network, memory, feed, updates if self.keep_update else None), value

    def snapshot(self, state: SupervisedState, time: Array) -> Snapshot:
        shown = (state.network, self.initial, self.data, self.loss, time, state.update, self.task)
        return Snapshot(*shown, rule_memory=state.optimiser)

    def watched(self, state: SupervisedState) -> PyTree:
        return state.network
