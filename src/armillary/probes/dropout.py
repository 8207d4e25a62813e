"""How stable a network is against the loss of hidden units."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue, ProbeError, require_between
from armillary.models.ensemble import EnsembleNetwork
from armillary.models.layers import Weights, dense_layers, dropped, hidden_widths, with_layers
from armillary.probes.losses import accuracy, data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Samples
from armillary.theory.dropout import sampled_variance

CLASSES = ("logistic", "cross_entropy", "hinge", "exponential")
"""Losses whose outputs are classes, so that there is an accuracy."""


class DropoutStability(Probe):
    """The rise of the training loss when random hidden units are dropped and what the others give is scaled up.

    `left` says how many units stay in each hidden layer: a number of units, or a share of the layer's below 1 (rounded
    down, at least one unit). For each, `draws` random sets. Returns `dropout_rise`, float[left, draw], the loss
    without the others minus the loss, which may be negative; `dropout_loss`, a scalar, that loss itself;
    `dropout_accuracy`, float[left, draw], and `whole_accuracy`, for losses of classes; and for one hidden layer
    `sampled_rise`, float[left], the mean rise over all sets to second order in the outputs, exact for the squared
    error. nan where a layer has fewer units than should be left. Of an `EnsembleNetwork` all have a first dimension
    `member`.

    Raises `ProbeError` without training samples and for networks that are no chain of dense layers, `InvalidValue` for
    no units, no draws, or a share outside (0, 1). Sets are the same at each observation. Cost: left times draws
    passes. Source: Shevchenko & Mondelli (2020); the second order is derived here.
    """

    left: tuple[float, ...] = eqx.field(static=True, default=(0.5,))
    draws: int = eqx.field(static=True, default=4)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        require_between("the number of kinds of units left", len(self.left), 1)
        for left in self.left:
            require_between("the units left", left, 0.0, open_low=True)
            if left > 1 and left != round(left):
                raise InvalidValue(f"the units left are {left:g}, but must be whole, or a share below 1")
        require_between("the number of draws", self.draws, 1)

    def __call__(self, now: Snapshot) -> Observation:
        samples = data_of(now, self).train
        if not isinstance(samples, Samples):
            raise ProbeError("DropoutStability needs training samples; this task trains on its whole population")
        network = now.network
        widths = _widths(network.members[0] if isinstance(network, EnsembleNetwork) else network, self)
        if not isinstance(network, EnsembleNetwork):
            return self._named(self._seen(network, widths, now.loss, samples), ())
        arrays, static = eqx.partition(network.stack, eqx.is_array)
        seen = lax.map(lambda one: self._seen(eqx.combine(one, static), widths, now.loss, samples), arrays)
        return self._named(seen, ("member",))

    def _named(self, seen: dict[str, Array], first: tuple[str, ...]) -> Observation:
        words: dict[str, tuple[tuple[str, ...], str]] = {
            "dropout_loss": ((), "loss with all units"),
            "dropout_rise": (("left", "draw"), "rise of the loss without the other units"),
            "whole_accuracy": ((), "accuracy with all units"),
            "dropout_accuracy": (("left", "draw"), "accuracy without the other units"),
            "sampled_rise": (("left",), "expected rise of the loss without the other units"),
        }
        return {name: Quantity(v, (*first, *words[name][0]), long_name=words[name][1]) for name, v in seen.items()}

    def _seen(self, network: PyTree, widths: tuple[int, ...], loss: Any, samples: Samples) -> dict[str, Array]:
        counts = np.array([[max(1, int(a * n)) if a < 1 else round(a) for n in widths] for a in self.left])
        fits = jnp.asarray((counts <= np.array(widths)).all(axis=1))
        whole, classes = loss(network, samples), loss.kind in CLASSES

        def one(case: tuple[Array, PRNGKeyArray]) -> tuple[Array, Array]:
            few = dropped(network, random_units(case[1], widths, case[0]))
            return loss(few, samples) - whole, accuracy(few, samples) if classes else whole

        keys = jax.random.split(jax.random.key(self.seed), len(counts) * self.draws)
        tried = lax.map(one, (jnp.repeat(jnp.asarray(counts), self.draws, axis=0), keys))
        rises, rights = (jnp.where(fits[:, None], of.reshape(-1, self.draws), jnp.nan) for of in tried)
        found = {"dropout_loss": whole, "dropout_rise": rises}
        if classes:
            found |= {"whole_accuracy": accuracy(network, samples), "dropout_accuracy": rights}
        if len(widths) == 1:
            said = [sampled_variance(widths[0], m) if m <= widths[0] else np.nan for m in counts[:, 0].tolist()]
            found["sampled_rise"] = second_order(loss, network, samples) * jnp.asarray(said)
        return found


def random_units(key: PRNGKeyArray, widths: Sequence[int], counts: Any) -> list[Bool[Array, " _unit"]]:
    """A random set of so many units of each hidden layer, as masks; the numbers may be traced."""
    keys = jax.random.split(key, len(widths))
    return [jax.random.permutation(k, n) < m for k, n, m in zip(keys, widths, list(counts), strict=True)]


def second_order(loss: Any, network: PyTree, samples: Samples) -> Float[Array, ""]:
    """Half the loss's curvature in the outputs times the sample covariance over hidden units of what each gives to
    them.

    Times N² (1/M - 1/N) it is the mean rise of the loss when M of N units stay (`armillary.theory.dropout`).
    """
    layers = dense_layers(network)

    def given(x: Array, target: Array) -> Array:
        def outputs(weight: Array) -> Array:
            return with_layers(network, [*layers[:-1], Weights(weight, layers[-1].bias)])(x)

        # The output is linear in the last weights: each one's share of it is its derivative times itself.
        shares = jnp.einsum("kou,ou->ku", jax.jacrev(outputs)(layers[-1].weight), layers[-1].weight)
        shares = shares - shares.mean(axis=1, keepdims=True)
        spread = shares @ shares.T / (shares.shape[1] - 1)
        of = lambda f: jnp.squeeze(loss.per_sample(f[None], target[None]))
        return jnp.sum(jax.hessian(of)(outputs(layers[-1].weight)) * spread) / 2

    each = jax.vmap(given)(samples.inputs, samples.targets)
    return jnp.sum(each) if loss.reduction == "sum" else jnp.mean(each)


def _widths(network: PyTree, probe: Probe) -> tuple[int, ...]:
    try:
        return hidden_widths(network)
    except InvalidValue as error:
        raise ProbeError(f"{type(probe).__name__}: {error}") from None
