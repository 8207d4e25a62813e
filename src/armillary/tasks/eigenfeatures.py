"""Linear regression in the eigenfeatures of a kernel: independent modes, each with its eigenvalue and its part of the target."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from armillary.errors import InvalidValue, require_between
from armillary.settings import floats
from armillary.tasks.data import Data, Samples, Task
from armillary.tasks.latent import GaussianPopulation


class Eigenfeatures(Task):
    """y = sum of w_k x_k + noise e with independent x_k ~ N(0, eigenvalues_k) and e ~ N(0, 1).

    `target_coefficients` c [mode] are those of the target along modes of variance 1, w_k = c_k/sqrt(eigenvalues_k): c_k² is
    what mode k adds to its variance. The same target in every draw. With `samples` None training is on all samples that there
    could be: as many pseudo-samples as modes, with exactly their covariance and no label noise; fresh samples, noisy ones,
    can be had in either case. The test set is the `GaussianPopulation`: test losses leave label noise out, training losses
    do not. `noise` can be swept in one program. Memory: modes² numbers.

    Raises `InvalidValue` for eigenvalues that are not positive, coefficients of another shape, no samples, negative noise.

    >>> data = Eigenfeatures([1.0, 0.5], [1.0, 0.2], samples=3).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape, data.teacher.shape
    ((3, 2), (3, 1), (1, 2))
    """

    eigenvalues: Float[Array, " mode"]
    target_coefficients: Float[Array, " mode"]
    samples: int | None = eqx.field(static=True)
    noise: float

    def __init__(
        self, eigenvalues: ArrayLike, target_coefficients: ArrayLike, samples: int | None = None, noise: float = 0.0
    ):
        require_between("an eigenvalue", eigenvalues, 0.0, open_low=True)
        require_between("a target coefficient", target_coefficients)
        require_between("the number of samples", 1 if samples is None else samples, 1)
        require_between("noise", noise, 0.0)
        shapes = np.shape(eigenvalues), np.shape(target_coefficients)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or not shapes[0][0]:
            raise InvalidValue(
                f"eigenvalues are {shapes[0]} and target coefficients {shapes[1]}, but must be one of each for every mode"
            )
        self.eigenvalues = floats(np.asarray(eigenvalues, float))
        self.target_coefficients = floats(np.asarray(target_coefficients, float))
        self.samples, self.noise = samples, noise

    @property
    def inputs(self) -> int:
        return len(self.eigenvalues)

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        teacher = (self.target_coefficients / jnp.sqrt(self.eigenvalues))[None]
        if self.samples is None:
            inputs = jnp.diag(jnp.sqrt(self.inputs * self.eigenvalues))
            train = Samples(inputs, inputs @ teacher.T)
        else:
            train = self._samples(teacher, key, self.samples)
        return Data(train, GaussianPopulation(teacher, jnp.diag(self.eigenvalues)), teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        key_inputs, key_noise = jax.random.split(key)
        inputs = jax.random.normal(key_inputs, (count, self.inputs)) * jnp.sqrt(self.eigenvalues)
        return Samples(inputs, inputs @ teacher.T + self.noise * jax.random.normal(key_noise, (count, 1)))
