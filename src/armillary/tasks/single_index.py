"""Targets that are linear and quadratic in one direction of Gaussian inputs, with a dial between the two."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.mean_readout import QuadraticForm
from armillary.tasks.data import Data, Population, Samples, Task, problem_key

POWER = 0.75
"""E y² of the targets at any misalignment."""


class SingleIndexPopulation(Population):
    """All inputs x ~ N(0, 1/dimension), and the target b . z + m z²/2 of one direction z = `direction` . x.

    The mean squared error of a network a . x + xᵀ Q x, with errors da and dQ of its coefficients, is
    (tr dQ)²/D² + 2 |dQ|²/D² + |da|²/D in D inputs: a wrong variance, a wrong direction, and a linear part that is too
    much (`errors`). The risk is half of it. Derived here, from Gaussian moments.
    """

    direction: Float[Array, " input"]
    misalignment: Float[Array, ""] | float

    @property
    def form(self) -> QuadraticForm:
        """The target's linear and quadratic coefficients."""
        m = jax.lax.stop_gradient(jnp.asarray(self.misalignment))
        return QuadraticForm(
            jnp.sqrt((1 - m**2) * POWER) * self.direction, m / 2 * jnp.outer(self.direction, self.direction)
        )

    def errors(self, network: Any) -> tuple[Array, Array, Array]:
        """The three parts of the mean squared error: variance, misalignment and linear power."""
        found = getattr(network, "form", None)
        if not isinstance(found, QuadraticForm):
            raise InvalidValue(
                f"the population's risk is known for networks with a quadratic form (MeanReadout), not for a "
                f"{type(network).__name__}; give the task samples, and test_samples"
            )
        wanted = self.form
        wrong, size = found.quadratic - wanted.quadratic, self.direction.shape[0]
        linear = jnp.sum((found.linear - wanted.linear) ** 2) / size
        return jnp.trace(wrong) ** 2 / size**2, 2 * jnp.sum(wrong**2) / size**2, linear

    def risk(self, network: Any) -> Float[Array, ""]:
        return sum(self.errors(network), jnp.zeros(())) / 2


class QuadraticSingleIndex(Task):
    """Targets y = sqrt((1 - m²) 3/4) z + m z²/2 of z = b . x, with inputs x ~ N(0, 1/dimension) and |b|² = dimension.

    m is the `misalignment`, 0 to 1: at 0 the target is linear, which a nearly linear kernel sees, and at 1 quadratic, which it
    does not. E y² is 3/4 for every m. Without `samples` training is on the population's exact risk; without
    `test_samples` the test loss is. `problem` numbers the draw: with a number all seeds share its data. `data.teacher` is the
    population. `misalignment` and `problem` can be swept in one program.

    Raises `InvalidValue` for sizes below 1, a misalignment outside [0, 1] and a negative problem. Source: Kumar,
    Bordelon, Gershman & Pehlevan (2023)

    >>> QuadraticSingleIndex(dimension=4, samples=8).draw(jax.random.key(0)).train.targets.shape
    (8, 1)
    """

    dimension: int = eqx.field(static=True)
    samples: int | None = eqx.field(static=True, default=None)
    misalignment: float = 1.0
    test_samples: int | None = eqx.field(static=True, default=None)
    problem: float | None = None

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of samples", 1 if self.samples is None else self.samples, 1)
        require_between("the number of test samples", 1 if self.test_samples is None else self.test_samples, 1)
        require_between("misalignment", self.misalignment, 0.0, 1.0)
        require_between("problem", 0 if self.problem is None else self.problem, 0, 2**31)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        key_direction, key_train, key_test = jax.random.split(problem_key(self.problem, key), 3)
        direction = jax.random.normal(key_direction, (self.dimension,))
        direction = direction * (self.dimension**0.5 / jnp.linalg.norm(direction))
        population = SingleIndexPopulation(direction, self.misalignment)
        train, test = (
            population if count is None else self._samples(population, k, count)
            for count, k in ((self.samples, key_train), (self.test_samples, key_test))
        )
        return Data(train, test, population)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, population: SingleIndexPopulation, key: PRNGKeyArray, count: int) -> Samples:
        inputs = jax.random.normal(key, (count, self.dimension)) / self.dimension**0.5
        wanted = population.form
        targets = inputs @ wanted.linear + jnp.sum(inputs @ wanted.quadratic * inputs, axis=1)
        return Samples(inputs, targets[:, None])
