"""Representations learned first and what is learned on them: an encoder under a head, clusters with labels."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from armillary.models.model import matvec


class EncoderHead(eqx.Module):
    """x -> head encoder x. With `frozen` a rule that follows gradients trains the head alone."""

    encoder: Float[Array, "factor input"]
    head: Float[Array, "output factor"]
    frozen: bool = eqx.field(static=True, default=True)

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The end-to-end map."""
        return self.head @ (lax.stop_gradient(self.encoder) if self.frozen else self.encoder)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return matvec(self.matrix, x)


class ClusterClassifier(eqx.Module):
    """The label [cluster] of the nearest of the `centres` [cluster, input]."""

    centres: Float[Array, "cluster input"]
    labels: Float[Array, " cluster"]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return self.labels[jnp.argmin(jnp.sum((self.centres - x) ** 2, axis=1))][None]
