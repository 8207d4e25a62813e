"""Deep linear networks: chains of matrices."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.initialisation import Gaussian, Initialisation
from armillary.models.model import Model, through


class LinearChain(eqx.Module):
    """x -> W_depth ... W_1 x. `weights[layer]` is [output, input] of that layer; `rate` scales learning rates.

    The product is formed first, from its smaller end, and does not depend on x: a batch shares it.
    """

    weights: tuple[Float[Array, "output input"], ...]
    rate: float = eqx.field(static=True, default=1.0)
    adaptive_rate: float = eqx.field(static=True, default=1.0)

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The end-to-end map."""
        first, last = self.weights[0], self.weights[-1]
        if len(self.weights) == 1:
            return first
        hidden = self.weights[1:-1]
        if last.shape[0] <= first.shape[1]:
            return through(hidden[::-1], lambda weight, product: product @ weight, last) @ first
        return last @ through(hidden, lambda weight, product: weight @ product, first)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return self.matrix @ x


class DeepLinear(Model):
    """A deep linear network of `depth` weight matrices, with hidden layers `width` wide.

    `width` None takes the larger of the task's inputs and outputs. `initialisation` draws the weights:
    `Gaussian`, `Orthogonal`, `Decoupled` or `GreedyAutoencoder`, whose float fields can be swept in one
    program. `rate_by_depth` divides the learning rate by the depth, with which the number of steps tends to a
    constant (Saxe et al. 2013). Raises `InvalidValue` for a depth or width below 1.

    >>> import jax
    >>> DeepLinear(depth=3, width=5)(jax.random.key(0), inputs=4, outputs=2).weights[1].shape
    (5, 5)
    """

    depth: int = eqx.field(static=True, default=2)
    width: int | None = eqx.field(static=True, default=None)
    initialisation: Initialisation = Gaussian()
    rate_by_depth: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("depth", self.depth, 1)
        require_between("width", 1 if self.width is None else self.width, 1)

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """The widths of all neuron layers, input and output included."""
        width = self.width or max(inputs, outputs)
        return (inputs, *[width] * (self.depth - 1), outputs)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> LinearChain:
        weights = self.initialisation(key, self.sizes(inputs, outputs))
        return LinearChain(weights, rate=1 / self.depth if self.rate_by_depth else 1.0)
