"""Quadratic teachers: targets that are sums of squared projections of Gaussian inputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.factorised import Product, first_columns
from armillary.models.initialisation import haar_orthogonal
from armillary.tasks.data import Data, Population, Samples, Task


class QuadraticPopulation(Population):
    """All inputs x ~ N(0, 1) of a quadratic teacher xᵀ Z* x.

    The risk of a network xᵀ Z x, half its mean squared error, is |D|² + (tr D)²/2 with D = Z - Z* (Frobenius norm),
    because E[(xᵀ D x)²] = 2 |D|² + (tr D)². Derived here.
    """

    teacher: Float[Array, "input input"]

    def risk(self, network: Any) -> Float[Array, ""]:
        wrong = matrix_of(network) - self.teacher
        return jnp.sum(wrong**2) + jnp.trace(wrong) ** 2 / 2


class QuadraticTeacher(Task):
    """Targets y = xᵀ Z* x = sum over `teachers` of (w* . x)², of inputs x ~ N(0, 1).

    The teachers are `orthonormal` (uniform over such families), or have independent entries N(0, 1/dimension).
    Without `samples` training is on the population's exact risk; with them on so many samples, and the population's
    risk is the test loss. There is no 1/teachers in front: the papers' conventions differ by a factor on Z* and on
    time. `data.teacher` is Z*. `teachers` can be swept in one program.

    Raises `InvalidValue` for a number of teachers below 1 or above the dimension, and for no samples.

    >>> data = QuadraticTeacher(dimension=4, teachers=2, samples=8).draw(jax.random.key(0))
    >>> data.train.targets.shape, round(float(jnp.trace(data.teacher)), 3)
    ((8, 1), 2.0)
    """

    dimension: int = eqx.field(static=True)
    teachers: float
    orthonormal: bool = eqx.field(static=True, default=True)
    samples: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of teachers", self.teachers, 1, self.dimension, note="the dimension")
        require_between("the number of samples", 1 if self.samples is None else self.samples, 1)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        key_teacher, key_train = jax.random.split(key)
        size = self.dimension
        if self.orthonormal:
            family = haar_orthogonal(key_teacher, size, size)
        else:
            family = jax.random.normal(key_teacher, (size, size)) / jnp.sqrt(float(size))
        chosen = first_columns(family, self.teachers)
        population = QuadraticPopulation(chosen @ chosen.T)
        if self.samples is None:
            return Data(population, None, population.teacher)
        return Data(self._samples(population.teacher, key_train, self.samples), population, population.teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        inputs = jax.random.normal(key, (count, self.dimension))
        return Samples(inputs, jnp.sum(inputs @ teacher * inputs, axis=1, keepdims=True))


def matrix_of(network: Any) -> Float[Array, "row column"]:
    """The matrix that a factorised network is; `InvalidValue` for another network."""
    if not isinstance(network, Product):
        raise InvalidValue(
            f"the population's risk is known for a factorised matrix (SymmetricFactors, AsymmetricFactors), not for a "
            f"{type(network).__name__}; give the task samples"
        )
    return network.matrix
