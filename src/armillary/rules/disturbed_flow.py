"""Gradient flow with a bounded disturbance added to the gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue, require_between
from armillary.models.model import learning_rate_scales, parameters
from armillary.process import Flow, Snapshot
from armillary.rules.flow import FlowState, flowed, refuse_update_probes
from armillary.rules.loss import Loss
from armillary.tasks.data import Data, Task


class Constant(eqx.Module):
    """A push of constant size in one random direction of weight space, each member its own."""

    def __call__(self, velocity: PyTree, direction: PyTree, time: Array, amplitude: Array) -> PyTree:
        return jax.tree.map(lambda d: amplitude * d, direction)


class Sinusoidal(eqx.Module):
    """A push along one random direction of weight space that swings as cos(frequency t), in rad/time.

    The frequency can be swept in one compiled program; at 0 the push is that of `Constant`.
    """

    frequency: float = 1.0

    def __check_init__(self):
        require_between("frequency", self.frequency, 0.0)

    def __call__(self, velocity: PyTree, direction: PyTree, time: Array, amplitude: Array) -> PyTree:
        return jax.tree.map(lambda d: amplitude * jnp.cos(self.frequency * time) * d, direction)


class Opposing(eqx.Module):
    """The adversary of any network: it cancels as much of the gradient as its amplitude allows, and no more."""

    def __call__(self, velocity: PyTree, direction: PyTree, time: Array, amplitude: Array) -> PyTree:
        return _cancelled(velocity, amplitude)


class Trapping(eqx.Module):
    """The adversary of two layers with one input and one output: it cancels only what leads away from the saddle.

    Of incoming weights k1 and outgoing k2, with a positive target, the half (k1 + k2)/sqrt(2) grows away from the
    saddle at the origin and (k1 - k2)/sqrt(2) decays (exchanged for a negative target, `sign` = -1). Cancelling the
    first alone costs far less than cancelling the gradient. Source: derived here.
    """

    sign: float = 1.0

    def __check_init__(self):
        require_between("the target's sign", abs(self.sign), 1.0, 1.0)

    def __call__(self, velocity: PyTree, direction: PyTree, time: Array, amplitude: Array) -> PyTree:
        first, last = velocity.stacks
        growth = (first[0, :, 0] + self.sign * last[0, 0]) / 2
        only = eqx.tree_at(lambda v: v.stacks, velocity, (growth[None, :, None], self.sign * growth[None, None, :]))
        return _cancelled(only, amplitude)


Disturbance = Constant | Sinusoidal | Opposing | Trapping
"""What is added to the flow, at most `amplitude` in the norm over all weights."""


class DisturbedFlow(eqx.Module):
    """d(weights)/dt = -(gradient of the loss on all training samples) + u(t), |u(t)| at most `amplitude`.

    The norm is the Euclidean one over all weights together. `amplitude` can be swept in one compiled program;
    `disturbance` is one of `Constant`, `Sinusoidal`, `Opposing`, `Trapping`. Random directions are drawn for each
    member. Integrated as `GradientFlow` is (Tsit5 to the relative `tolerance`, at most `max_steps` solver steps
    between two observations). White noise is left out: it is not bounded. Source of the question: de Oliveira,
    Siami & Sontag (2023), arXiv:2305.09904.

    Raises `InvalidValue` for a negative amplitude, what is no disturbance, and `Trapping` of a network other than
    two linear layers with one input and one output.

    >>> import armillary as arm
    >>> experiment = arm.Experiment(
    ...     arm.tasks.Correlations(jnp.eye(1), 2 * jnp.eye(1)), arm.models.DeepLinear(width=2),
    ...     DisturbedFlow(5.0, amplitude=0.1), [arm.probes.Losses()])
    >>> bool(arm.simulate(experiment).train_loss[0, -1] < 0.01)
    True
    """

    until: float = eqx.field(static=True, default=10.0)
    amplitude: float = 0.0
    disturbance: Any = Constant()
    loss: Loss = Loss()
    tolerance: float = eqx.field(static=True, default=1e-6)
    max_steps: int = eqx.field(static=True, default=100_000)

    discrete = False

    def __check_init__(self):
        require_between("until", self.until, 0.0)
        require_between("amplitude", self.amplitude, 0.0)
        require_between("tolerance", self.tolerance, 1e-14, 0.1)
        require_between("max_steps", self.max_steps, 1)
        if not isinstance(self.disturbance, Disturbance):
            name = getattr(self.disturbance, "__name__", type(self.disturbance).__name__)
            raise InvalidValue(
                f"the disturbance is a {name}, but must be a Constant(), Sinusoidal(), Opposing() or Trapping()"
            )

    @property
    def duration(self) -> float:
        """Flow time until the end."""
        return self.until

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "DisturbedNetwork":
        """What runs."""
        refuse_update_probes(probes)
        if isinstance(self.disturbance, Trapping) and not is_scalar_pair(network):
            raise InvalidValue(
                f"Trapping needs two linear layers with one input and one output, not this "
                f"{type(network).__name__}; use Opposing"
            )
        return DisturbedNetwork(
            task, data, network, self.loss, self.amplitude, self.disturbance, self.until * 1e-4, self.tolerance,
            self.max_steps, probes,
        )  # fmt: skip


def is_scalar_pair(network: PyTree) -> bool:
    """Whether a network is two linear layers with one input and one output."""
    stacks = getattr(network, "stacks", ())
    return len(stacks) == 2 and stacks[0].shape[2] == 1 and stacks[1].shape[1] == 1


class DisturbedState(eqx.Module):
    """The flow's state, and the unit direction in weight space along which a member is pushed."""

    flow: FlowState
    direction: PyTree


class DisturbedNetwork(Flow):
    """One network under gradient flow with a disturbance."""

    task: Task
    data: Data
    initial: PyTree
    loss: Loss
    amplitude: Any
    disturbance: Any
    first_step: float
    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    probes: tuple

    def init(self, key: PRNGKeyArray) -> DisturbedState:
        leaves, tree = jax.tree.flatten(parameters(self.initial))
        keys = jax.random.split(key, len(leaves))
        drawn = [jax.random.normal(k, w.shape, w.dtype) for k, w in zip(keys, leaves, strict=True)]
        size = _norm(drawn)
        direction = jax.tree.unflatten(tree, [d / size for d in drawn])
        return DisturbedState(FlowState(self.initial, jnp.asarray(self.first_step)), direction)

    def velocity(self, time: Any, weights: PyTree, frozen: PyTree, direction: PyTree) -> PyTree:
        """Minus the gradient, and the disturbance added."""
        network = eqx.combine(weights, frozen)
        rates = learning_rate_scales(network, adaptive=False)
        gradient = eqx.filter_grad(self.loss)(network, self.data.train)
        free = jax.tree.map(lambda g, rate: -rate * g, gradient, rates)
        return jax.tree.map(jnp.add, free, self.disturbance(free, direction, time, self.amplitude))

    def advance(
        self, state: DisturbedState, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[DisturbedState, Array]:
        frozen = eqx.filter(state.flow.network, eqx.is_inexact_array, inverse=True)
        velocity = lambda time, weights: self.velocity(time, weights, frozen, state.direction)
        flow = flowed(velocity, state.flow, start, stop, self.tolerance, self.max_steps)
        after = DisturbedState(flow, state.direction)
        failed = (diverged < 0) & ~self.is_healthy(after)
        return after, jnp.where(failed, stop.astype(diverged.dtype), diverged)

    def snapshot(self, state: DisturbedState, time: Array) -> Snapshot:
        return Snapshot(state.flow.network, self.initial, self.data, self.loss, time, task=self.task)


def _norm(tree: PyTree) -> Float[Array, ""]:
    return jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(())))


def _cancelled(velocity: PyTree, amplitude: Array) -> PyTree:
    """Minus the velocity, shortened to `amplitude` where it is longer."""
    size = _norm(velocity)
    share = jnp.minimum(1.0, amplitude / jnp.where(size > 0, size, 1.0))
    return jax.tree.map(lambda v: -share * v, velocity)
