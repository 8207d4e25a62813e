"""Members of an ensemble that learn each alone: independent runs side by side in one state."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue
from armillary.models.ensemble import EnsembleNetwork
from armillary.process import Process, Snapshot
from armillary.rules.descent import Descent
from armillary.settings import rebuilt
from armillary.tasks.data import Data, Task


class Independently(eqx.Module):
    """Each member of an `Ensemble` learns by the rule `each`, from the same data in batches of its own.

    Probes see the `EnsembleNetwork` with the rule's own loss, so that what joins two members can be seen while they
    learn. Raises `InvalidValue` for a rule that is no `Descent`, and for a model that is no ensemble.
    """

    each: Descent = Descent()

    discrete = True

    def __check_init__(self):
        if not isinstance(self.each, Descent):
            raise InvalidValue(f"independent members learn by Descent, not by {type(self.each).__name__}")

    @property
    def no_time(self) -> dict[str, Any]:
        """The fields that say only how long, as they are for drawing."""
        return {"each": rebuilt(self.each, **self.each.no_time)}

    @property
    def duration(self) -> int:
        """Steps until the end."""
        return self.each.duration

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "IndependentRuns":
        """What runs."""
        if not isinstance(network, EnsembleNetwork):
            raise InvalidValue(f"Independently needs an Ensemble of networks, not a {type(network).__name__}")
        return IndependentRuns(task, data, network, self.each, probes)


class IndependentRuns(Process):
    """One state of a rule for each member; all arrays have a leading axis `member`."""

    task: Task
    data: Data
    initial: EnsembleNetwork
    rule: Descent
    probes: tuple

    def _alone(self, network: PyTree) -> Process:
        return self.rule.process(self.task, self.data, network, ())

    def init(self, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key, self.initial.count)
        return eqx.filter_vmap(lambda network, k: self._alone(network).init(k))(self.initial.stack, keys)

    def step(self, state: Any, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key, self.initial.count)
        # The steps of a rule ask nothing of the network that it began with.
        return eqx.filter_vmap(lambda one, k: self._alone(one.network).step(one, k))(state, keys)

    def snapshot(self, state: Any, time: Array) -> Snapshot:
        network = EnsembleNetwork(state.network, self.initial.count)
        return Snapshot(network, self.initial, self.data, self.rule.loss, time, None, self.task)

    def watched(self, state: Any) -> PyTree:
        return state.network
