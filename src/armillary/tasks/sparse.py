"""Sparse linear regression with fewer samples than inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from armillary.errors import require_between
from armillary.tasks.data import Data, Samples, Task, problem_key


class SparseRegression(Task):
    """Targets of a teacher with `sparsity` non-zero entries, of equal size and random sign, norm 1 in all.

    Inputs are N(0, 1), entry by entry; y = b.x + noise N(0, noise²), one output. With fewer samples than inputs
    many linear maps fit, and what is found depends on the learner. `problem` numbers the draw: with a number all
    seeds share its data (0, 1, ... are different draws), with None each seed draws its own. `noise` and `problem`
    can be swept in one program.

    Raises `InvalidValue` for sizes below 1, a sparsity above the dimension, and a negative noise or problem.

    >>> data = SparseRegression(dimension=10, samples=4, sparsity=2).draw(jax.random.key(0))
    >>> data.train.inputs.shape, int((data.teacher != 0).sum())
    ((4, 10), 2)
    """

    dimension: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    sparsity: int = eqx.field(static=True, default=5)
    noise: float = 0.0
    problem: float | None = None

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of samples", self.samples, 1)
        require_between("sparsity", self.sparsity, 1, self.dimension, note="the dimension")
        require_between("noise", self.noise, 0.0)
        require_between("problem", 0 if self.problem is None else self.problem, 0, 2**31)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        key_sign, key_place, key_samples = jax.random.split(problem_key(self.problem, key), 3)
        signs = jax.random.rademacher(key_sign, (self.sparsity,), jnp.result_type(float))
        teacher = jnp.zeros(self.dimension).at[: self.sparsity].set(signs / self.sparsity**0.5)
        teacher = jax.random.permutation(key_place, teacher)[None]
        return Data(self._samples(teacher, key_samples, self.samples), None, teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        key_inputs, key_noise = jax.random.split(key)
        inputs = jax.random.normal(key_inputs, (count, self.dimension))
        return Samples(inputs, inputs @ teacher.T + self.noise * jax.random.normal(key_noise, (count, 1)))
