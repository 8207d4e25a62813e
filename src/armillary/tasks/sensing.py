"""Matrix sensing: a low-rank matrix seen through random linear measurements."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.initialisation import haar_orthogonal
from armillary.tasks.data import Data, Population, Samples, Task
from armillary.tasks.quadratic import matrix_of

DRAWN = 1 << 20
"""Numbers of measurement matrices that are drawn at once."""


class MatrixPopulation(Population):
    """Infinitely many measurements of a matrix M: their mean of A <A, D> is D itself.

    The risk of a network of matrix Z is |Z - M|²/2 (Frobenius norm); the noise of measurements, which no matrix
    removes, is left out.
    """

    teacher: Float[Array, "row column"]

    def risk(self, network: Any) -> Float[Array, ""]:
        return jnp.sum((matrix_of(network) - self.teacher) ** 2) / 2


class MatrixSensing(Task):
    """Measurements y = <A, M> of a low-rank `dimension` x `dimension` matrix M with the given `singular_values`.

    Singular vectors are random; with `symmetric` M is positive semi-definite. With `measurements` so many matrices A
    are drawn, with entries N(0, 1), to be trained on with the squared or the absolute error: the mean of A <A, D> is
    near D, and a symmetric matrix is seen by A and by (A + Aᵀ)/2 alike. Without, training is on that limit,
    `MatrixPopulation`, which is the test loss in either case. `data.teacher` is M.

    With `rank_one` each A is a bᵀ with entries N(0, 1) of both, kept as the pair: `inputs` [sample, 2, dimension] in the
    place of [sample, dimension, dimension], and a step costs measurements x dimension x columns.

    Measurements can be corrupted: every one by `noise` times N(0, 1), and a share `outliers` of them by
    `outlier_size` times N(0, 1) besides. `noise`, `outliers` and `outlier_size` can be swept in one program. Memory:
    measurements x dimension² numbers, or 2 measurements x dimension. Raises `InvalidValue` for numbers out of range, for
    more singular values than the dimension, and for noise, outliers or rank-one matrices without measurements.

    >>> data = MatrixSensing(dimension=4, singular_values=(1.0, 0.7), measurements=9).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape, round(float(jnp.trace(data.teacher)), 3)
    ((9, 4, 4), (9, 1), 1.7)
    """

    dimension: int = eqx.field(static=True)
    singular_values: tuple[float, ...]
    measurements: int | None = eqx.field(static=True, default=None)
    symmetric: bool = eqx.field(static=True, default=True)
    noise: float = 0.0
    outliers: float = 0.0
    outlier_size: float = 10.0
    rank_one: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        require_between("a singular value", self.singular_values, 0.0, open_low=True)
        count = len(self.singular_values)
        require_between("the number of singular values", count, 1, self.dimension, note="the dimension")
        require_between("the number of measurements", 1 if self.measurements is None else self.measurements, 1)
        most = float("inf") if self.measurements is not None else 0.0
        note = "" if self.measurements is not None else "noise is the measurements'; give measurements"
        require_between("noise", self.noise, 0.0, most, note=note)
        require_between("the share of outliers", self.outliers, 0.0, min(most, 1.0), note=note)
        require_between("the outliers' size", self.outlier_size, 0.0)
        if self.rank_one:
            require_between(
                "the dimension", self.dimension, 3, note="with rank_one, whose pairs of vectors are no matrices"
            )
            if self.measurements is None:
                raise InvalidValue("rank_one is a kind of measurements, and there are none; give their number")

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def sign_strength(self, error: Float[Array, "..."]) -> Float[Array, "..."]:
        """Expected size of the sub-gradient of the mean absolute error, along a matrix error of this Frobenius norm.

        The mean of sign(<A, D> - s) A over A and the corruption s is this times D/|D|: sqrt(2/pi) E[exp(-s²/(2 |D|²))],
        in closed form for Gaussian s. It is sqrt(2/pi) without corruption, and outliers of any size take away no more
        than their share. Source: Ma & Fattahi (2022); the closed form is derived here.

        >>> task = MatrixSensing(4, (1.0,), 9, outliers=0.1, outlier_size=1e6)
        >>> print(round(float(task.sign_strength(jnp.array(1.0)) * jnp.sqrt(jnp.pi / 2)), 3))
        0.9
        """
        dense = 1 / jnp.hypot(error, self.noise)
        gross = 1 / jnp.hypot(jnp.hypot(error, self.noise), self.outlier_size)
        return jnp.sqrt(2 / jnp.pi) * error * ((1 - self.outliers) * dense + self.outliers * gross)

    def draw(self, key: PRNGKeyArray) -> Data:
        key_left, key_right, key_train = jax.random.split(key, 3)
        rank = len(self.singular_values)
        left = haar_orthogonal(key_left, self.dimension, rank)
        right = left if self.symmetric else haar_orthogonal(key_right, self.dimension, rank)
        teacher = left * jnp.stack([jnp.asarray(s, left.dtype) for s in self.singular_values]) @ right.T
        population = MatrixPopulation(teacher)
        if self.measurements is None:
            return Data(population, None, teacher)
        return Data(self._samples(teacher, key_train, self.measurements), population, teacher)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        key_inputs, key_noise, key_which, key_gross = jax.random.split(key, 4)

        shape = (2 if self.rank_one else self.dimension, self.dimension)

        def measured(key: PRNGKeyArray) -> tuple[Array, Array]:
            drawn = jax.random.normal(key, shape)
            return drawn, drawn[0] @ teacher @ drawn[1] if self.rank_one else jnp.vdot(drawn, teacher)

        # In parts: random bits and their normals would otherwise stand beside the matrices, four times their memory.
        # The parts are equal, since what is left over would be joined to the others by a copy.
        part = next(size for size in range(min(max(1, DRAWN // math.prod(shape)), count), 0, -1) if count % size == 0)
        inputs, clean = lax.map(measured, jax.random.split(key_inputs, count), batch_size=part)
        dense = self.noise * jax.random.normal(key_noise, (count,))
        gross = self.outlier_size * jax.random.normal(key_gross, (count,))
        hit = jax.random.uniform(key_which, (count,)) < self.outliers
        return Samples(inputs, (clean + dense + jnp.where(hit, gross, 0.0))[:, None])
