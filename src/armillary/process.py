"""What runs: any state that steps.

`simulate` knows nothing of tasks, models or optimisers. It asks a `Process` for its first state, advances
it between observation times and hands its snapshots to the probes. Everything else is built on that.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue
from armillary.quantity import Observation

State = Any
"""Any pytree of arrays (and of what never changes: functions, names)."""


class Snapshot(eqx.Module):
    """What a probe is shown: one network at one time.

    - `network`: the network now; `initial`: the same network at the start (None where unknown).
    - `data`: what it learns from, an `armillary.tasks.Data` (None where a process has none).
    - `loss`: called as `loss(network, samples)`, a scalar.
    - `time`: steps or flow time since the start.
    - `update`: the last change of the weights, a pytree like `network`; None unless a probe asked for it.
    - `task`: where the data come from, for probes that want population statistics.
    - `rule_memory`: what the rule remembers (an optimiser's state); None where that is nothing.
    """

    network: PyTree
    initial: PyTree = None
    data: Any = None
    loss: Any = None
    time: Any = 0.0
    update: PyTree = None
    task: Any = None
    rule_memory: Any = None


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all numbers of a tree are finite.

    One sum over the numbers times zero: nan and inf survive it, and it reads memory once.

    >>> bool(all_finite([jnp.ones(2), jnp.array([0.0, jnp.inf])]))
    False
    """
    total = jnp.zeros(())
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)):
        total = total + jnp.sum(leaf * 0).real
    return jnp.isfinite(total)


class Process(eqx.Module):
    """A state that steps: `init(key) -> state`, `step(state, key) -> state`, `snapshot(state, time)`.

    `probes` are functions of the snapshot. A process may override `observe` instead, when what it wants
    to record is no probe's business. All of it is traced by JAX: no Python side effects.
    """

    @abstractmethod
    def init(self, key: PRNGKeyArray) -> State:
        """The first state."""

    def step(self, state: State, key: PRNGKeyArray) -> State:
        """The state one step later. `key` is this step's own."""
        raise NotImplementedError(f"{type(self).__name__} has neither step nor advance")

    def snapshot(self, state: State, time: Array) -> Any:
        """What the probes are shown; the state itself unless overridden."""
        return state

    def observe(self, state: State, time: Array) -> Observation:
        """Everything recorded at one observation time, by name."""
        return self.look(state, time, self.before_looking(state))[0]

    def before_looking(self, state: State) -> tuple:
        """What each probe carries from one observation to the next, before the first (see `Probe.begin`)."""
        own = type(self).observe is not Process.observe
        remembering = [] if own else [p for p in getattr(self, "probes", ()) if hasattr(p, "begin")]
        return tuple(probe.begin(self.snapshot(state, jnp.zeros(()))) for probe in remembering)

    def look(self, state: State, time: Array, memory: tuple) -> tuple[Observation, tuple]:
        """What is recorded now, and what the probes carry on; a process with an `observe` of its own carries nothing."""
        if type(self).observe is not Process.observe:
            return self.observe(state, time), memory
        shown = self.snapshot(state, time)
        seen: Observation = {}
        kept = []
        carried = iter(memory)
        for probe in getattr(self, "probes", ()):
            if hasattr(probe, "begin"):
                found, left = probe.follow(shown, next(carried))
                kept.append(left)
            else:
                found = probe(shown)
            for name, quantity in found.items():
                if name in seen:
                    raise InvalidValue(f"two probes return {name!r}; drop one or rename it")
                seen[name] = quantity
        return seen, tuple(kept)

    def watched(self, state: State) -> PyTree:
        """The part of the state whose nan or inf means that the run diverged; all of it by default."""
        return state

    def is_healthy(self, state: State) -> Bool[Array, ""]:
        """Whether all watched numbers are finite."""
        return all_finite(self.watched(state))

    @property
    def discrete(self) -> bool:
        """Whether time counts whole steps."""
        return True

    def draw(self, key: PRNGKeyArray) -> "Process":
        """The process that a member of a run gets; an `Experiment` draws its data and network here."""
        return self

    def advance(
        self, state: State, key: PRNGKeyArray, start: Array, stop: Array, diverged: Array
    ) -> tuple[State, Array]:
        """The state at `stop`, and the step at which it first was not finite (or `diverged`, if >= 0).

        Step t draws its key from `key` and t alone, so that how a run is cut into calls changes nothing.
        """
        arrays, static = eqx.partition(state, eqx.is_array)

        def one(t, carry):
            arrays, diverged = carry
            after = self.step(eqx.combine(arrays, static), jax.random.fold_in(key, t))
            first = (diverged < 0) & ~self.is_healthy(after)
            return eqx.filter(after, eqx.is_array), jnp.where(first, (t + 1).astype(diverged.dtype), diverged)

        arrays, diverged = lax.fori_loop(start, stop, one, (arrays, diverged))
        return eqx.combine(arrays, static), diverged


class Flow(Process):
    """A process in continuous time: it overrides `advance` and is never stepped."""

    @property
    def discrete(self) -> bool:
        return False
