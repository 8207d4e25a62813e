"""Pre-activations, layer by layer: their size, how alike inputs look there, how much a step changes them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Float, PyTree

from armillary.errors import ProbeError
from armillary.models.model import is_linear_layer
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity

Activity = Float[Array, "sample _unit"]


class _Recorder(eqx.Module):
    """A layer that writes down what it computes."""

    layer: Any
    tape: Callable = eqx.field(static=True)

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        h = self.layer(x, **kwargs)
        self.tape(h)
        return h


def preactivations(network: PyTree, inputs: Float[Array, "sample ..."], probe: Any = "a probe") -> list[Activity]:
    """What each linear layer computes for each sample, [sample, unit], in the order in which the layers are used.

    Networks with a method `preactivations(x)`, as `MLP`'s, are asked; in any other the layers (`Dense` and
    `equinox.nn.Linear`) are watched while it is called. Raises `ProbeError` where there are none, where one is used more
    than once for one input, and where they run inside a compiled loop, out of sight.
    """
    if hasattr(network, "preactivations"):
        return jax.vmap(network.preactivations)(inputs)
    who = probe if isinstance(probe, str) else type(probe).__name__
    layers = [node for node in jax.tree.leaves(network, is_leaf=is_linear_layer) if is_linear_layer(node)]
    if not layers:
        raise ProbeError(f"{who} needs linear layers (Dense or equinox.nn.Linear); a {type(network).__name__} has none")

    def watched(x: Array) -> list[Array]:
        seen: list[Array] = []
        here = get_opaque_trace_state(convention="nnx")

        def tape(h: Array) -> None:
            if get_opaque_trace_state(convention="nnx") != here:
                raise ProbeError(f"{who} cannot see layers inside a compiled loop; give the network preactivations(x)")
            seen.append(h)

        replaced = jax.tree.map(
            lambda node: _Recorder(node, tape) if is_linear_layer(node) else node, network, is_leaf=is_linear_layer
        )
        replaced(x)
        if len(seen) > len(layers):
            raise ProbeError(f"{who} needs layers that are used once; {len(layers)} layers were used {len(seen)} times")
        return [h.ravel() for h in seen]

    return jax.vmap(watched)(inputs)


def activity_of(network: PyTree, samples: Any, probe: Any = "a probe") -> list[Activity]:
    """What each linear layer computes for each of `samples`, as `preactivations`; networks of other libraries say it."""
    if getattr(network, "foreign", False):
        return network.preactivations_of(samples, probe if isinstance(probe, str) else type(probe).__name__)
    return preactivations(network, samples.inputs, probe)


def _squares(activity: list[Activity]) -> Float[Array, " layer"]:
    """Mean squares over samples and units of each layer."""
    return jnp.stack([jnp.mean(h**2) for h in activity])


class PreactivationChange(Probe):
    """How much the last update changed each layer's pre-activations, relative to what they were before it.

    Returns `preactivation_change`, float[layer], the root mean square of the change over training samples and units over
    that of the pre-activations; the output is the last layer. nan where no weight changed, as before the first update.
    Where the initial network is known also `preactivation_drift`, float[layer], the same since the start. Cost: three forward passes. Raises
    `ProbeError` without data or updates, and for networks whose layers it cannot see (see `preactivations`).
    Source: Terjék (2025), arXiv:2502.13110; the norm is ours.
    """

    needs_update = True
    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        if now.update is None:
            raise ProbeError("PreactivationChange needs the last update; pass previous=... or use it in a simulation")
        samples = data_of(now, self).train
        before = eqx.apply_updates(now.network, jax.tree.map(jnp.negative, now.update))
        here, there = (activity_of(network, samples, self) for network in (now.network, before))
        changed = jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(now.update)]).any()
        step = jnp.where(changed, self._relative(here, there), jnp.nan)
        seen = {"preactivation_change": Quantity(step, "layer", long_name="relative change of pre-activations")}
        if now.initial is not None:
            moved = self._relative(here, activity_of(now.initial, samples, self))
            seen["preactivation_drift"] = Quantity(moved, "layer", long_name="relative change since the start")
        return seen

    def _relative(self, here: list[Activity], there: list[Activity]) -> Float[Array, " layer"]:
        changes = [a - b for a, b in zip(here, there, strict=True)]
        return jnp.sqrt(_squares(changes) / _squares(there))


class Preactivations(Probe):
    """The size of each layer's pre-activations, and the mean cosine between those of different inputs.

    Returns `preactivation_size`, float[layer], their mean square over training samples and units, and
    `preactivation_cosine`, float[layer], the mean over pairs of samples (nan for a single one). The output is the last layer.
    Mean-field theory's length and correlation maps are of these. Cost: one forward pass and samples² width for each layer. Raises
    `ProbeError` without data and for networks whose layers it cannot see (see `preactivations`).
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        activity = activity_of(now.network, data_of(now, self).train, self)
        cosines = jnp.stack([self._cosine(h) for h in activity])
        return {
            "preactivation_size": Quantity(_squares(activity), "layer", long_name="mean square of pre-activations"),
            "preactivation_cosine": Quantity(cosines, "layer", long_name="cosine between inputs' pre-activations"),
        }

    def _cosine(self, activity: Activity) -> Float[Array, ""]:
        units = activity / jnp.linalg.norm(activity, axis=1, keepdims=True)
        count = len(units)
        pairs = jnp.sum(jnp.sum(units, axis=0) ** 2) - jnp.sum(units**2)
        return pairs / (count * (count - 1)) if count > 1 else jnp.asarray(jnp.nan, activity.dtype)
