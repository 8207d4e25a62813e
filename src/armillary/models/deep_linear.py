"""Deep linear networks: chains of matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.initialisation import Gaussian, Initialisation
from armillary.models.model import Model

UNROLLED = 8


class LinearChain(eqx.Module):
    """x -> W_depth ... W_1 x. `weights[layer]` is [output, input] of that layer."""

    weights: tuple[Float[Array, "output input"], ...]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        first, *hidden, last = self.weights if len(self.weights) > 1 else (None, *self.weights)
        x = x if first is None else first @ x
        if len(hidden) <= UNROLLED:
            for weight in hidden:
                x = weight @ x
        else:  # the hidden layers are all square: one loop compiles in the same time at any depth
            x, _ = lax.scan(lambda h, weight: (weight @ h, None), x, jnp.stack(hidden))
        return last @ x


class DeepLinear(Model):
    """A deep linear network of `depth` weight matrices, with hidden layers `width` wide.

    `width` None takes the larger of the task's inputs and outputs. `initialisation` draws the weights:
    `Gaussian`, `Orthogonal`, `Decoupled` or `GreedyAutoencoder`, whose float fields can be swept in one
    program. Raises `InvalidValue` for a depth or width below 1.

    >>> DeepLinear(depth=3, width=5)(jax.random.key(0), inputs=4, outputs=2).weights[1].shape
    (5, 5)
    """

    depth: int = eqx.field(static=True, default=2)
    width: int | None = eqx.field(static=True, default=None)
    initialisation: Initialisation = Gaussian()

    def __check_init__(self):
        require_between("depth", self.depth, 1)
        require_between("width", 1 if self.width is None else self.width, 1)

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """The widths of all neuron layers, input and output included."""
        width = self.width or max(inputs, outputs)
        return (inputs, *[width] * (self.depth - 1), outputs)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> LinearChain:
        return LinearChain(self.initialisation(key, self.sizes(inputs, outputs)))
