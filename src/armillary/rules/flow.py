"""Gradient flow: the limit of small steps, integrated by diffrax, or solved exactly where it is linear."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue, require_between
from armillary.models.model import learning_rate_scales, parameters
from armillary.process import Flow, Snapshot
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
        _refuse_update_probes(probes)
        return FlowingNetwork(task, data, network, self, probes)


class FlowState(eqx.Module):
    """The network, and the solver's last step size so that the next stretch starts where this one ended."""

    network: PyTree
    step_size: Float[Array, ""]


class FlowingNetwork(Flow):
    """One network under gradient flow."""

    task: Task
    data: Data
    initial: PyTree
    rule: GradientFlow
    probes: tuple

    def init(self, key: PRNGKeyArray) -> FlowState:
        return FlowState(self.initial, jnp.asarray(self.rule.until * 1e-4))

    def advance(
        self, state: FlowState, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[FlowState, Array]:
        trained, frozen = eqx.partition(state.network, eqx.is_inexact_array)
        rates = learning_rate_scales(state.network, adaptive=False)

        def velocity(t, weights, args):
            gradient = eqx.filter_grad(self.rule.loss)(eqx.combine(weights, frozen), self.data.train)
            return jax.tree.map(lambda g, rate: -rate * g, gradient, rates)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Tsit5(),
            t0=start,
            t1=stop,
            dt0=jnp.minimum(state.step_size, stop - start),
            y0=trained,
            stepsize_controller=diffrax.PIDController(
                rtol=self.rule.tolerance, atol=self.rule.tolerance * 1e-3, pcoeff=0.3, icoeff=0.3
            ),
            saveat=diffrax.SaveAt(t1=True),
            max_steps=self.rule.max_steps,
            adjoint=diffrax.DirectAdjoint(),
            throw=False,
        )
        assert solution.ys is not None
        finished = solution.result == diffrax.RESULTS.successful
        # What the solver could not reach is not a number, rather than the last point it got to.
        weights = jax.tree.map(lambda w: jnp.where(finished, w[0], jnp.nan), solution.ys)
        after = FlowState(eqx.combine(weights, frozen), (stop - start) / jnp.maximum(solution.stats["num_steps"], 1))
        failed = (diverged < 0) & ~self.is_healthy(after)
        return after, jnp.where(failed, stop.astype(diverged.dtype), diverged)

    def snapshot(self, state: FlowState, time: Array) -> Snapshot:
        return Snapshot(state.network, self.initial, self.data, self.rule.loss, time, task=self.task)


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
        if self.loss.kind != "squared_error":
            raise InvalidValue(f"LinearFlow is exact for the squared error, not {self.loss.kind}; use GradientFlow")

    @property
    def duration(self) -> float:
        """Flow time until the end."""
        return self.until

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "LinearReadout":
        """What runs."""
        _refuse_update_probes(probes)
        return LinearReadout(task, data, network, self, probes)


class LinearReadout(Flow):
    """The exact flow of one linear read-out."""

    task: Task
    data: Data
    initial: PyTree
    rule: LinearFlow
    probes: tuple

    def init(self, key: PRNGKeyArray) -> Any:
        train = self.data.train
        features = jax.vmap(self._features)(train.inputs)
        u, s, vt = jnp.linalg.svd(features, full_matrices=False)
        scale = 1.0 / train.count if self.rule.loss.reduction == "mean" else 1.0
        return self.initial, vt, s**2 * scale, (train.targets.T @ u) * s * scale

    def _features(self, x: Array) -> Array:
        features = getattr(self.initial, "features", lambda x: x)
        return features(x)

    def _readout(self, network: PyTree) -> Array:
        from armillary.models import FeatureNetwork, LinearChain

        if isinstance(network, FeatureNetwork):
            return network.readout
        if isinstance(network, LinearChain) and len(network.weights) == 1:
            return network.weights[0]
        raise InvalidValue(
            f"LinearFlow needs a linear read-out (RandomFeatures, or DeepLinear of depth 1), not a "
            f"{type(network).__name__}; use GradientFlow"
        )

    def advance(self, state: Any, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array) -> tuple[Any, Array]:
        network, directions, rates, drive = state
        begin = self._readout(self.initial)
        inside = begin @ directions.T
        # (1 - exp(-lambda t)) / lambda tends to t where there are no data: never divide by a zero rate.
        decay = jnp.exp(-rates * stop)
        gain = jnp.where(rates > 0, -jnp.expm1(-rates * stop) / jnp.where(rates > 0, rates, 1.0), stop)
        moved = inside * (decay - 1.0) + drive * gain
        readout = begin + moved @ directions
        where = (lambda n: n.readout) if hasattr(network, "readout") else (lambda n: n.weights[0])
        return (eqx.tree_at(where, network, readout), directions, rates, drive), diverged

    def snapshot(self, state: Any, time: Array) -> Snapshot:
        return Snapshot(state[0], self.initial, self.data, self.rule.loss, time, task=self.task)

    def watched(self, state: Any) -> PyTree:
        return parameters(state[0])


def _refuse_update_probes(probes: tuple) -> None:
    for probe in probes:
        if getattr(probe, "needs_update", False):
            raise InvalidValue(f"{type(probe).__name__} needs updates, and a gradient flow has none; use Descent")


Rule = Any
"""Anything with `loss`, `duration`, `discrete` and `process(task, data, network, probes) -> Process`."""
