"""Deep linear networks normalised by their width: the convergence theorems' own parametrisation, without overflow."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.deep_linear import LinearChain
from armillary.models.initialisation import Stacks, drawn_alike, haar_orthogonal
from armillary.models.model import Model, matvec


class NormalisedChain(eqx.Module):
    """x -> gain A_depth ... A_1 x: a linear chain with a fixed factor in front that is not trained."""

    chain: LinearChain
    gain: float = eqx.field(static=True)

    @property
    def stacks(self) -> Stacks:
        """The chain's weights as arrays over layers: the first, the hidden ones, the last."""
        return self.chain.stacks

    @property
    def weights(self) -> tuple[Float[Array, "_output _input"], ...]:
        """The layers' matrices A, one by one."""
        return self.chain.weights

    @property
    def rate(self) -> float:
        """The factor on the learning rate of every layer."""
        return self.chain.rate

    @property
    def matrix(self) -> Float[Array, "output input"]:
        """The end-to-end map, the gain included."""
        return self.gain * self.chain.matrix

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return matvec(self.matrix, x)


class NormalisedLinear(Model):
    """A deep linear network W_depth ... W_1 x / sqrt(width^(depth - 1) outputs), with weights of order one.

    The weights kept are A = W/sqrt(width), with the gain sqrt(width/outputs) in front and the learning rate divided
    by the width: gradient descent on W, exactly, whose numbers do not overflow. Outputs then have on average the
    norm of their inputs. `orthogonal` draws A with orthonormal columns (the last layer: rows), uniformly; otherwise
    W's entries are N(0, 1). `rate_by_depth` divides the learning rate by the depth. Source: Hu, Xiao & Pennington
    (2020).

    Raises `InvalidValue` for a depth below 2 or a width below 1; drawing orthogonal weights does where the width
    is below the number of inputs or outputs.

    >>> import jax
    >>> network = NormalisedLinear(depth=3, width=6)(jax.random.key(0), inputs=4, outputs=2)
    >>> network.weights[1].shape, round(network.gain, 3)
    ((6, 6), 1.732)
    """

    depth: int = eqx.field(static=True, default=2)
    width: int = eqx.field(static=True, default=32)
    orthogonal: bool = eqx.field(static=True, default=True)
    rate_by_depth: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("depth", self.depth, 2)
        require_between("width", self.width, 1)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> NormalisedChain:
        if self.orthogonal and self.width < max(inputs, outputs):
            raise InvalidValue(
                f"the width is {self.width}, but orthogonal weights need at least {max(inputs, outputs)}, the larger "
                "of the task's inputs and outputs"
            )
        sizes = (inputs, *[self.width] * (self.depth - 1), outputs)
        gaussian = lambda k, rows, columns: jax.random.normal(k, (rows, columns)) / np.sqrt(self.width)
        stacks = drawn_alike(haar_orthogonal if self.orthogonal else gaussian, key, sizes)
        rate = 1 / (self.width * (self.depth if self.rate_by_depth else 1))
        return NormalisedChain(LinearChain(stacks, rate=rate), float(np.sqrt(self.width / outputs)))
