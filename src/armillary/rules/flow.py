"""Gradient flow: the limit of small steps, integrated by diffrax, or solved exactly where it is linear."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue, require_between
from armillary.models.model import learning_rate_scales
from armillary.process import Flow, Snapshot
from armillary.rules.integration import integrated
from armillary.rules.loss import Loss
from armillary.tasks.data import Data, Task


class GradientFlow(eqx.Module):
    """d(weights)/dt = -(gradient of the loss on all training samples), until `until`.

    Integrated with diffrax (Tsit5 with an adaptive step) to the relative `tolerance`; a flow that needs more
    than `max_steps` solver steps between two observations counts as diverged. Time is in units in which
    the learning rate is 1; layers' own rates (their parametrisation) apply.
    """

    until: float = eqx.field(static=True, default=10.0)
    loss: Loss = Loss()
    tolerance: float = eqx.field(static=True, default=1e-6)
    max_steps: int = eqx.field(static=True, default=100_000)

    discrete = False

    def __check_init__(self):
        require_between("until", self.until, 0.0)
        require_between("tolerance", self.tolerance, 1e-14, 0.1)
        require_between("max_steps", self.max_steps, 1)

    @property
    def duration(self) -> float:
        """Flow time until the end."""
        return self.until

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "FlowingNetwork":
        """What runs."""
        refuse_update_probes(probes)
        begin = self.until * 1e-4
        return FlowingNetwork(task, data, network, self.loss, begin, self.tolerance, self.max_steps, probes)


class FlowState(eqx.Module):
    """The network, and the solver's last step size so that the next stretch starts where this one ended."""

    network: PyTree
    step_size: Float[Array, ""]


def flowed(
    velocity: Callable[[Any, PyTree], PyTree],
    state: FlowState,
    start: Array,
    stop: Array,
    tolerance: float,
    max_steps: int,
) -> FlowState:
    """The network after d(weights)/dt = velocity(time, weights) from `start` to `stop`; nan where the solver gave up."""
    trained, frozen = eqx.partition(state.network, eqx.is_inexact_array)
    first = jnp.minimum(state.step_size, stop - start)
    weights, steps = integrated(velocity, trained, start, stop, first, tolerance=tolerance, max_steps=max_steps)
    return FlowState(eqx.combine(weights, frozen), (stop - start) / jnp.maximum(steps, 1))


class FlowingNetwork(Flow):
    """One network under gradient flow."""

    task: Task
    data: Data
    initial: PyTree
    loss: Loss
    first_step: float
    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    probes: tuple

    def init(self, key: PRNGKeyArray) -> FlowState:
        return FlowState(self.initial, jnp.asarray(self.first_step))

    def advance(
        self, state: FlowState, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[FlowState, Array]:
        _, frozen = eqx.partition(state.network, eqx.is_inexact_array)
        rates = learning_rate_scales(state.network, adaptive=False)

        def velocity(t: Any, weights: PyTree) -> PyTree:
            gradient = eqx.filter_grad(self.loss)(eqx.combine(weights, frozen), self.data.train)
            return jax.tree.map(lambda g, rate: -rate * g, gradient, rates)

        after = flowed(velocity, state, start, stop, self.tolerance, self.max_steps)
        failed = (diverged < 0) & ~self.is_healthy(after)
        return after, jnp.where(failed, stop.astype(diverged.dtype), diverged)

    def snapshot(self, state: FlowState, time: Array) -> Snapshot:
        return Snapshot(state.network, self.initial, self.data, self.loss, time, task=self.task)


class LinearFlow(eqx.Module):
    """Gradient flow of a linear read-out under the squared error, solved exactly at any time.

    For f(x) = A phi(x) with only A trained, dA/dt = (Y - A F) Fᵀ (divided by the number of samples if the loss
    is a mean) decouples in the singular vectors of F = [phi(x_1) ... phi(x_P)]: each direction relaxes as
    exp(-lambda t). No step size and no stiffness; the cost is one SVD of F a member, whatever the time.

    Networks: a `LinearChain` of depth 1 or a `FeatureNetwork`. Raises `InvalidValue` for another network or
    loss.
    """

    until: float = eqx.field(static=True, default=10.0)
    loss: Loss = Loss()

    discrete = False

    def __check_init__(self):
        require_between("until", self.until, 0.0)
        if self.loss.kind != "squared_error" or self.loss.reduction == "log_mean":
            what = "its logarithm" if self.loss.kind == "squared_error" else self.loss.kind
            raise InvalidValue(f"LinearFlow is exact for the squared error, not {what}; use GradientFlow")

    @property
    def duration(self) -> float:
        """Flow time until the end."""
        return self.until

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "LinearReadout":
        """What runs."""
        refuse_update_probes(probes)
        train = data.train
        features = jax.vmap(getattr(network, "features", lambda x: x))(train.inputs)
        u, s, vt = jnp.linalg.svd(features, full_matrices=False)
        scale = 1.0 / train.count if self.loss.reduction == "mean" else 1.0
        _readout(network)  # refuse what has none
        return LinearReadout(
            task, data, network, self.loss, probes, vt, s**2 * scale, (train.targets.T @ u) * s * scale
        )


class LinearReadout(Flow):
    """The exact flow of one linear read-out: `directions` [mode, feature] relax at `rates` [mode] under `drive`."""

    task: Task
    data: Data
    initial: PyTree
    loss: Loss
    probes: tuple
    directions: Float[Array, "mode feature"]
    rates: Float[Array, " mode"]
    drive: Float[Array, "output mode"]

    def init(self, key: PRNGKeyArray) -> PyTree:
        return self.initial

    def advance(
        self, state: PyTree, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[PyTree, Array]:
        where, begin = _readout(self.initial)
        # (1 - exp(-lambda t)) / lambda tends to t where there are no data: never divide by a zero rate.
        decayed = jnp.expm1(-self.rates * stop)
        gain = jnp.where(self.rates > 0, -decayed / jnp.where(self.rates > 0, self.rates, 1.0), stop)
        moved = (begin @ self.directions.T) * decayed + self.drive * gain
        moved = begin + moved @ self.directions
        return eqx.tree_at(where, state, moved.reshape(where(state).shape)), diverged

    def snapshot(self, state: PyTree, time: Array) -> Snapshot:
        return Snapshot(state, self.initial, self.data, self.loss, time, task=self.task)


def _readout(network: PyTree) -> tuple[Callable[[Any], Array], Array]:
    """Where the read-out of a network is, and its value."""
    from armillary.models import FeatureNetwork, LinearChain

    if isinstance(network, FeatureNetwork):
        return lambda n: n.readout, network.readout
    if isinstance(network, LinearChain) and len(network.stacks) == 1:
        return lambda n: n.stacks[0], network.weights[0]
    raise InvalidValue(
        f"LinearFlow needs a linear read-out (RandomFeatures, or DeepLinear of depth 1), not a "
        f"{type(network).__name__}; use GradientFlow"
    )


def refuse_update_probes(probes: tuple) -> None:
    """Raise where a probe wants updates, which a flow does not have."""
    for probe in probes:
        if getattr(probe, "needs_update", False):
            raise InvalidValue(f"{type(probe).__name__} needs updates, and a gradient flow has none; use Descent")


Rule = Any
"""Anything with `loss`, `duration`, `discrete` and `process(task, data, network, probes) -> Process`."""
