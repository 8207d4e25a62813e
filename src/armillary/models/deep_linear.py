"""Deep linear networks: chains of matrices."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.initialisation import Gaussian, Initialisation
from armillary.models.model import Model, matvec, through


class LinearChain(eqx.Module):
    """x -> W_depth ... W_1 x. Layers of equal role are kept as one array, [layer, output, input]: the first, the
    hidden ones, the last (as many of these as the depth has). `rate` scales learning rates.

    A deep chain is then a loop over one array and compiles as fast as a shallow one. The product is formed
    first, from its smaller end, and does not depend on x: a batch shares it.
    """

    stacks: tuple[Float[Array, "_layer _output _input"], ...]
    rate: float = eqx.field(static=True, default=1.0)
    adaptive_rate: float = eqx.field(static=True, default=1.0)

    @property
    def weights(self) -> tuple[Float[Array, "_output _input"], ...]:
        """The layers' matrices, one by one."""
        return tuple(weight for stack in self.stacks for weight in stack)

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The end-to-end map."""
        first, last = self.stacks[0][0], self.stacks[-1][0]
        if len(self.stacks) == 1:
            return first
        hidden = self.stacks[1:-1]
        if last.shape[0] <= first.shape[1]:
            for stack in hidden:
                last = through(stack, lambda weight, product: product @ weight, last, backwards=True)
            return last @ first
        for stack in hidden:
            first = through(stack, lambda weight, product: weight @ product, first)
        return last @ first

    def preactivations(self, x: Float[Array, " input"]) -> list[Float[Array, " _unit"]]:
        """What each layer computes, the output last."""
        seen = [x]
        for weight in self.weights:
            seen.append(weight @ seen[-1])
        return seen[1:]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return matvec(self.matrix, x)


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
        stacks = self.initialisation(key, self.sizes(inputs, outputs))
        return LinearChain(stacks, rate=1 / self.depth if self.rate_by_depth else 1.0)
