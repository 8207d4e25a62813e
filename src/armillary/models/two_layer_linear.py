"""Two linear layers from special starts: scaled by width, blind to directions without data, of chosen imbalance, output or rank."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, is_traced, require_between
from armillary.models.deep_linear import LinearChain
from armillary.models.initialisation import haar_orthogonal
from armillary.models.model import Model
from armillary.settings import derived, floats

Layers = tuple[Float[Array, "hidden input"], Float[Array, "output hidden"]]


class WidthScaled(eqx.Module):
    """Independent entries N(0, width^(-2 exponent)) in both layers. Source: Min, Tarmoun, Vidal & Mallada (2021)."""

    exponent: float = 0.5

    def __check_init__(self):
        require_between("the width's exponent", self.exponent, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> Layers:
        key_first, key_last = jax.random.split(key)
        scale = jnp.exp(-self.exponent * np.log(width))
        first, last = ((key_first, (width, inputs)), (key_last, (outputs, width)))
        return scale * jax.random.normal(*first), scale * jax.random.normal(*last)


class NullOrthogonal(eqx.Module):
    """Weights whose parts on inputs without data use hidden directions of their own, orthogonal to all others.

    `design` [sample, input] are the inputs. The first layer's part on the inputs that no sample has, and the rest (its
    part on the samples' span, and the second layer), have entries N(0, size²) in two complementary random subspaces
    of the hidden units; the latter has a third of them, or rank + outputs if that is more. The flow then ends in the
    minimum-norm solution exactly, at any width and size. Raises `InvalidValue` at drawing unless the width exceeds
    rank + outputs. Source: Min, Tarmoun, Vidal & Mallada (2021); construction ours.
    """

    design: Float[Array, "sample input"]
    size: float
    rank: int = derived(static=True)

    def __init__(self, design: ArrayLike, size: float = 0.5):
        require_between("the initial size", size, 0.0)
        self.design, self.size = floats(design), size
        self.rank = int(np.linalg.matrix_rank(np.asarray(self.design)))

    def __call__(self, key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> Layers:
        mine = max(self.rank + outputs, width // 3)
        if width <= mine:
            raise InvalidValue(f"the width is {width}, but must be above {mine}, the inputs' rank plus the outputs")
        # Here, not once and for all: the frame must be orthogonal in the run's own precision.
        frame = jnp.linalg.svd(self.design)[2]
        key_rotation, key_first, key_last = jax.random.split(key, 3)
        rotation = haar_orthogonal(key_rotation, width, width)
        seen, unseen = rotation[:, :mine], rotation[:, mine:]
        draw = jax.random.normal(key_first, (width, inputs))
        first = seen @ draw[:mine, : self.rank] @ frame[: self.rank]
        first = first + unseen @ draw[mine:, self.rank :] @ frame[self.rank :]
        return self.size * first, self.size * jax.random.normal(key_last, (outputs, mine)) @ seen.T


class Opposed(eqx.Module):
    """Layers of equal size that begin by computing minus the target's direction, with a chosen imbalance.

    `target` is the input-output correlation of one output. The first layer is sqrt(size) times a random isometry;
    the second has squared norm `size` and lies at cosine -sqrt(1 - imbalance²) to the hidden image of the target's
    direction, so that the product is -size sqrt(1 - imbalance²) along it. The imbalance matrix has eigenvalues
    ±size imbalance (and size), hence c = 2 size imbalance, at weights of the same size: with imbalance 0 the
    flow runs into the saddle at zero. Raises `InvalidValue` for an imbalance outside [0, 1], more than one output,
    and at drawing where the width is not above the number of inputs. Source: derived here.
    """

    target: Float[Array, "output input"]
    size: float
    imbalance: float

    def __init__(self, target: ArrayLike, size: float = 0.5, imbalance: float = 0.5):
        require_between("the initial size", size, 0.0, open_low=True)
        require_between("imbalance", imbalance, 0.0, 1.0)
        if np.ndim(target) != 2 or np.shape(target)[0] != 1:
            raise InvalidValue(f"the target is {np.shape(target)}, but must have one output: (1, inputs)")
        self.target, self.size, self.imbalance = floats(target), size, imbalance

    def __call__(self, key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> Layers:
        if width <= inputs:
            raise InvalidValue(f"the width is {width}, but must be above {inputs}, the number of inputs")
        rotation = haar_orthogonal(key, width, inputs + 1)
        first, free = rotation[:, :inputs], rotation[:, inputs]
        image = first @ (self.target[0] / jnp.linalg.norm(self.target))
        last = self.imbalance * free - jnp.sqrt(jnp.maximum(1.0 - self.imbalance**2, 0.0)) * image
        return jnp.sqrt(self.size) * first, jnp.sqrt(self.size) * last[None]


class Prepared(eqx.Module):
    """Random layers for one input and one output, of exactly the `output` v·u at input 1 and the `curvature` |u|² + |v|².

    u = first layer, v = last. |u + v|² = curvature + 2 output and |u - v|² = curvature - 2 output, in two random
    orthogonal directions of the hidden units. Both can be swept in one program. Raises `InvalidValue` unless the curvature
    is at least 2 |output|, and at drawing for fewer than 2 hidden units or more inputs or outputs than one.
    """

    output: float = 1.0
    curvature: float = 2.0

    def __check_init__(self):
        if not is_traced(self.output) and np.ndim(self.output) == 0:
            low = 2 * abs(float(self.output))
            require_between("the curvature", self.curvature, low, note="twice the output's size")

    def __call__(self, key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> Layers:
        require_between("the number of inputs, and of outputs", max(inputs, outputs), 1, 1)
        require_between("the width", width, 2)
        frame = haar_orthogonal(key, width, 2)
        total = frame[:, 0] * jnp.sqrt(self.curvature + 2 * self.output)
        gap = frame[:, 1] * jnp.sqrt(self.curvature - 2 * self.output)
        return (total + gap)[:, None] / 2, (total - gap)[None] / 2


class OfRank(eqx.Module):
    """A first layer of given rank and Frobenius norm `size`, and a second that is 0, or N(0, read_out²).

    Hidden unit i carries the i-th singular direction of the inputs, with a singular value proportional to i^-decay (all
    equal at 0). The hidden frame makes no difference, and in this one hidden units beyond the rank are 0 exactly: with
    read_out 0 the flow never wakes them, where in any other frame rounding errors do.

    `alignment` says how much of `target` [1, input], the solution, lies in the span of the rank's directions: its squared
    share q is rank/inputs at 0, as a random span has on average, and 1 at 1, in between by the straight line; the first
    direction is then the target's image. None draws the directions at random. `rank`, `size`, `alignment`, `decay` and
    `read_out` can be swept in one program. Raises `InvalidValue` for a rank below 1 (a kernel of 0 has no direction) or
    above the number of inputs, an alignment outside [0, 1], fewer than 2 inputs, and at drawing for a width below that
    number. Source: Liu et al. (2023); construction ours.
    """

    target: Float[Array, "output input"]
    rank: float
    size: float
    alignment: float | None
    decay: float
    read_out: float

    def __init__(
        self, target: ArrayLike, rank: float = 1.0, size: float = 1.0, alignment: float | None = None,
        decay: float = 0.0, read_out: float = 0.0,
    ):  # fmt: skip
        if np.ndim(target) != 2 or np.shape(target)[0] != 1 or np.shape(target)[1] < 2:
            raise InvalidValue(f"the target is {np.shape(target)}, but must have one output and two inputs or more")
        require_between("the rank", rank, 1.0, np.shape(target)[1], note="the number of inputs")
        require_between("the initial size", size, 0.0, open_low=True)
        require_between("the alignment", 0.0 if alignment is None else alignment, 0.0, 1.0)
        require_between("the singular values' decay", decay, 0.0)
        require_between("the read-out's initial size", read_out, 0.0)
        self.target, self.rank, self.size = floats(target), rank, size
        self.alignment, self.decay, self.read_out = alignment, decay, read_out

    def __call__(self, key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> Layers:
        if inputs != self.target.shape[1] or width < inputs:
            raise InvalidValue(
                f"the task has {inputs} inputs and the width is {width}, but must have the target's "
                f"{self.target.shape[1]} inputs, and the width at least as many, so that every rank fits"
            )
        key_frame, key_last = jax.random.split(key)
        index = jnp.arange(1, inputs + 1)
        values = jnp.where(index <= self.rank, index ** -jnp.asarray(self.decay, self.target.dtype), 0.0)
        first = (self.size * values / jnp.linalg.norm(values))[:, None] * self._directions(key_frame).T
        first = jnp.concatenate([first, jnp.zeros((width - inputs, inputs), first.dtype)])
        return first, self.read_out * jax.random.normal(key_last, (outputs, width))

    def _directions(self, key: PRNGKeyArray) -> Float[Array, "input direction"]:
        """Orthonormal columns; of a given alignment, the first is the target's image in the span of any first few."""
        count = self.target.shape[1]
        if self.alignment is None:
            return haar_orthogonal(key, count, count)
        along = self.target[0] / jnp.linalg.norm(self.target)
        draw = jax.random.normal(key, (count, count)).at[:, 0].set(along)
        rest = jnp.linalg.qr(draw)[0][:, 1:]
        share = self.rank / count + self.alignment * (1 - self.rank / count)
        inside, outside = jnp.sqrt(share), jnp.sqrt(jnp.maximum(1 - share, 0.0))
        image, left = inside * along + outside * rest[:, 0], inside * rest[:, 0] - outside * along
        return jnp.concatenate([image[:, None], rest[:, 1:], left[:, None]], axis=1)


Start = WidthScaled | NullOrthogonal | Opposed | Prepared | OfRank
"""Any way to draw two layers: `start(key, inputs, width, outputs) -> (first, last)`."""


class TwoLayerLinear(Model):
    """x -> W2 W1 x with `width` hidden units and a start of its own: a `LinearChain` of depth 2.

    The float fields of the start can be swept in one program. Plain random weights are `DeepLinear`'s. Raises
    `InvalidValue` for a width below 1.

    >>> TwoLayerLinear(width=6)(jax.random.key(0), inputs=4, outputs=2).matrix.shape
    (2, 4)
    """

    width: int = eqx.field(static=True, default=32)
    start: Start = WidthScaled()

    def __check_init__(self):
        require_between("width", self.width, 1)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> LinearChain:
        first, last = self.start(key, inputs, self.width, outputs)
        return LinearChain((first[None], last[None]))
