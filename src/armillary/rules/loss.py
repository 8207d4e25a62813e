"""Losses by name, and how samples are added up."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from armillary.errors import InvalidValue, unknown
from armillary.tasks.data import Population, Samples


def _squared_error(outputs: Array, targets: Array) -> Array:
    return optax.l2_loss(outputs, targets).sum(axis=-1)


def _hinge(outputs: Array, targets: Array) -> Array:
    return optax.hinge_loss(outputs, targets).sum(axis=-1)


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "squared_error": _squared_error,
    "cross_entropy": optax.softmax_cross_entropy_with_integer_labels,
    "hinge": _hinge,
}
"""One number a sample: ½|f - y|²; -log softmax(f)[y] for class numbers y; max(0, 1 - y f) for y = ±1."""


class Loss(eqx.Module):
    """The loss of a network on samples: `loss(network, samples)`, a scalar.

    `kind` is a name of `LOSSES` or a function of (outputs, targets) giving one number a sample;
    `reduction` is "mean" or "sum" over samples (papers differ; it rescales time).

    >>> from armillary.tasks import Samples
    >>> print(Loss()(lambda x: x, Samples(jnp.ones((4, 2)), jnp.zeros((4, 2)))))
    1.0
    """

    kind: str | Callable = eqx.field(static=True, default="squared_error")
    reduction: Literal["mean", "sum"] = eqx.field(static=True, default="mean")

    def __check_init__(self):
        if isinstance(self.kind, str) and self.kind not in LOSSES:
            raise unknown("loss", self.kind, LOSSES)
        if self.reduction not in ("mean", "sum"):
            raise unknown("reduction", self.reduction, ("mean", "sum"))

    def per_sample(self, outputs: Array, targets: Array) -> Float[Array, " sample"]:
        """One number a sample."""
        function = self.kind if callable(self.kind) else LOSSES[self.kind]
        return function(outputs, targets)

    def __call__(self, network: PyTree | Any, samples: Samples | Population) -> Float[Array, ""]:
        if isinstance(samples, Population):
            if self.kind != "squared_error":
                raise InvalidValue(f"the population's risk is known for the squared error, not for {self.kind}")
            return samples.risk(network)
        each = self.per_sample(jax.vmap(network)(samples.inputs), samples.targets)
        return jnp.sum(each) if self.reduction == "sum" else jnp.mean(each)
