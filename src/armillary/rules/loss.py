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


def _absolute_error(outputs: Array, targets: Array) -> Array:
    return jnp.abs(outputs - targets).sum(axis=-1)


def _logistic(outputs: Array, targets: Array) -> Array:
    return jax.nn.softplus(-targets * outputs).sum(axis=-1)


def _exponential(outputs: Array, targets: Array) -> Array:
    return jnp.exp(-targets * outputs).sum(axis=-1)


def _cross_entropy(outputs: Array, classes: Array) -> Array:
    # `optax.softmax_cross_entropy_with_integer_labels` in two thirds of its operations, and so of a Hessian product's.
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), classes[..., None], axis=-1)
    return -chosen.squeeze(-1)


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "squared_error": _squared_error,
    "cross_entropy": _cross_entropy,
    "hinge": _hinge,
    "absolute_error": _absolute_error,
    "logistic": _logistic,
    "exponential": _exponential,
}
"""One number a sample: ½|f - y|²; -log softmax(f)[y] for class numbers y; for y = ±1 max(0, 1 - y f),
log(1 + exp(-y f)) and exp(-y f); |f - y|, summed over outputs (its sub-gradient at 0 is 0)."""


def _log_logistic(outputs: Array, targets: Array) -> Array:
    margin = targets * outputs
    late = margin > 15.0  # from there the series of log log(1 + exp(-margin)) is exact to rounding
    near = jnp.log(jax.nn.softplus(-jnp.where(late, 0.0, margin)))
    far = jnp.where(late, margin, 15.0)
    return jnp.where(late, -far + jnp.log1p(-jnp.exp(-far) / 2), near)


LOGARITHMS: dict[str, Callable[[Array, Array], Array]] = {
    "logistic": _log_logistic,
    "exponential": lambda outputs, targets: -targets * outputs,
}
"""Logarithms of losses, output by output, where the losses themselves underflow."""


REDUCTIONS = ("mean", "sum", "log_mean")


class Loss(eqx.Module):
    """The loss of a network on samples: `loss(network, samples)`, a scalar.

    `kind` is a name of `LOSSES` or a function of (outputs, targets) giving one number a sample;
    `reduction` is "mean" or "sum" over samples (papers differ; it rescales time), or "log_mean", the mean's logarithm:
    its gradient is that of the mean divided by the mean, so that steps grow as the loss falls (normalised gradient
    descent), and "logistic" and "exponential" losses never underflow. The flow's path is the same, its time another.

    Raises `UnknownName` for unknown names, and `InvalidValue` on a population whose risk for this loss is not known.

    >>> from armillary.tasks import Samples
    >>> print(Loss()(lambda x: x, Samples(jnp.ones((4, 2)), jnp.zeros((4, 2)))))
    1.0
    """

    kind: str | Callable = eqx.field(static=True, default="squared_error")
    reduction: Literal["mean", "sum", "log_mean"] = eqx.field(static=True, default="mean")

    def __check_init__(self):
        if isinstance(self.kind, str) and self.kind not in LOSSES:
            raise unknown("loss", self.kind, LOSSES)
        if self.reduction not in REDUCTIONS:
            raise unknown("reduction", self.reduction, REDUCTIONS)

    def per_sample(self, outputs: Array, targets: Array) -> Float[Array, "sample ..."]:
        """One number a sample (and, for sequences, a time)."""
        function = self.kind if callable(self.kind) else LOSSES[self.kind]
        return function(outputs, targets)

    def __call__(self, network: PyTree | Any, samples: Samples | Population) -> Float[Array, ""]:
        if isinstance(samples, Population):
            if self.kind != "squared_error":
                raise InvalidValue(f"the population's risk is known for the squared error, not for {self.kind}")
            risk = samples.risk(network)
            return jnp.log(risk) if self.reduction == "log_mean" else risk
        outputs = jax.vmap(network)(samples.inputs)
        if self.reduction == "log_mean" and self.kind in LOGARITHMS:
            logarithms = LOGARITHMS[str(self.kind)](outputs, samples.targets)
            return jax.nn.logsumexp(logarithms) - jnp.log(float(samples.count))
        each = self.per_sample(outputs, samples.targets)
        match self.reduction:
            case "sum":
                return jnp.sum(each)
            case "log_mean":
                return jnp.log(jnp.mean(each))
            case _:
                return jnp.mean(each)
