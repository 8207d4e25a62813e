"""Linear regression on given inputs, of any conditioning, with few samples or many."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.settings import derived, floats
from armillary.tasks.data import Data, Samples, Task


class FixedDesign(Task):
    """Linear regression whose inputs are given and whose targets are drawn: y = W x + e.

    `design` is [sample, input], the same in every draw; the teacher's entries are N(0, signal²/inputs), the noise's
    N(0, noise²). What theorems ask of the data is then a number: `singular_values` [rank], of the design, largest
    first, without those that are 0; `condition`, the squared ratio of the largest to the smallest. `signal` and
    `noise` can be swept in one program.

    Raises `InvalidValue` for a design that is no matrix or all zeros, no outputs, or a negative signal or noise.

    >>> task = FixedDesign(np.eye(3, 5), outputs=2)
    >>> task.draw(jax.random.key(0)).train.targets.shape, task.condition
    ((3, 2), 1.0)
    """

    design: Float[Array, "sample input"]
    outputs: int = eqx.field(static=True)
    signal: float
    noise: float
    singular_values: tuple[float, ...] = derived(static=True)

    def __init__(self, design: ArrayLike, outputs: int = 1, signal: float = 1.0, noise: float = 0.0):
        require_between("the number of outputs", outputs, 1)
        require_between("signal", signal, 0.0)
        require_between("noise", noise, 0.0)
        shape = np.shape(design)
        if len(shape) != 2 or not np.any(np.asarray(design)):
            raise InvalidValue(f"the design is {shape}, but must be a matrix (samples, inputs) that is not all zeros")
        self.design, self.outputs, self.signal, self.noise = floats(design), outputs, signal, noise
        values = np.linalg.svd(np.asarray(design, float), compute_uv=False)
        self.singular_values = tuple(values[values > values[0] * max(shape) * np.finfo(float).eps].tolist())

    @property
    def inputs(self) -> int:
        return self.design.shape[1]

    @property
    def condition(self) -> float:
        """Largest over smallest non-zero eigenvalue of the inputs' second moments."""
        return (self.singular_values[0] / self.singular_values[-1]) ** 2

    def draw(self, key: PRNGKeyArray) -> Data:
        key_teacher, key_noise = jax.random.split(key)
        teacher = self.signal * jax.random.normal(key_teacher, (self.outputs, self.inputs)) / np.sqrt(self.inputs)
        noise = self.noise * jax.random.normal(key_noise, (self.design.shape[0], self.outputs))
        return Data(Samples(self.design, self.design @ teacher.T + noise), None, teacher)


def conditioned_design(
    samples: int, dimension: int, condition: float = 1.0, seed: int = 0
) -> Float[np.ndarray, "sample input"]:
    """Inputs of unit largest singular value and a chosen condition number, in a random frame.

    The squared singular values fall geometrically from 1 to 1/`condition`; at 1 the inputs (or, if there are more
    samples, the columns) are orthonormal. Raises `InvalidValue` for a condition below 1 or no samples or inputs.

    >>> design = conditioned_design(3, 5, condition=4.0)
    >>> np.linalg.svd(design, compute_uv=False).round(3).tolist()
    [1.0, 0.707, 0.5]
    """
    require_between("the condition number", condition, 1.0)
    require_between("the number of samples", samples, 1)
    require_between("the number of inputs (dimension)", dimension, 1)
    draw, rank = np.random.default_rng(seed), min(samples, dimension)
    left, right = (np.linalg.qr(draw.normal(size=(size, rank)))[0] for size in (samples, dimension))
    return left * np.geomspace(1.0, condition**-0.5, rank) @ right.T
