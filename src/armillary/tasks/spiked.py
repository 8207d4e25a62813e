"""A quadratic loss whose curvature is seen through noise: few large eigenvalues, and a random matrix on top."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.model import end_to_end
from armillary.tasks.data import Data, Population, Task


class QuadraticForm(Population):
    """The loss ½ wᵀ M w of a linear map w with one output."""

    curvature: Float[Array, "input input"] | Float[Array, " input"]
    """M, or its diagonal where it has nothing else."""

    def risk(self, network: Any) -> Float[Array, ""]:
        matrix = end_to_end(network, self.curvature.shape[0])
        if matrix.shape[0] != 1:
            raise InvalidValue(f"a quadratic form needs a linear map with one output, and this has {matrix.shape[0]}")
        w = matrix[0]
        image = self.curvature * w if self.curvature.ndim == 1 else self.curvature @ w
        return w @ image / 2


class NoisyQuadratic(Task):
    """The loss ½ wᵀ H w, of which a batch sees ½ wᵀ (H + E) w.

    H is diagonal with `eigenvalues` first and `rest` in all other places, E a Gaussian Wigner matrix whose eigenvalues lie in
    a semicircle of radius 2 sqrt(`noise`/batch): `noise` is one sample's E |E w|²/|w|². `data.train` has seen one such
    batch, of `batch` samples; `data.test` is H itself. `Online(size)` sees fresh batches, of that size. All numbers but
    `dimension` can be swept in one program. Memory: dimension² numbers.

    Raises `InvalidValue` for more eigenvalues than the dimension, negative noise and a batch that is not positive.

    >>> data = NoisyQuadratic(dimension=4, eigenvalues=(3.0, 1.0)).draw(jax.random.key(0))
    >>> data.train.curvature.shape, data.test.curvature.tolist()
    ((4, 4), [3.0, 1.0, 0.0, 0.0])
    """

    dimension: int = eqx.field(static=True)
    eigenvalues: tuple[float, ...]
    noise: float = 1.0
    batch: float = 1.0
    rest: float = 0.0

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        require_between("the number of eigenvalues", len(self.eigenvalues), 0, self.dimension, note="the dimension")
        require_between("the noise", self.noise, 0.0)
        require_between("the batch size", self.batch, 0.0, open_low=True)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    @property
    def spectrum(self) -> Float[np.ndarray, " input"]:
        """All eigenvalues of H."""
        return np.concatenate([np.asarray(self.eigenvalues, float), float(self.rest) * self._others])

    @property
    def _others(self) -> Any:
        return np.ones(self.dimension - len(self.eigenvalues))

    def draw(self, key: PRNGKeyArray) -> Data:
        given = [jnp.asarray(value, jnp.result_type(float)) for value in self.eigenvalues]
        diagonal = jnp.concatenate([jnp.stack(given) if given else jnp.zeros(0), self.rest * self._others])
        clean = QuadraticForm(diagonal)
        return Data(self._seen(diagonal, key, self.batch), clean, None)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> QuadraticForm:
        return self._seen(data.test.curvature, key, count)

    def _seen(self, diagonal: Array, key: PRNGKeyArray, batch: Any) -> QuadraticForm:
        drawn = jax.random.normal(key, (self.dimension, self.dimension))
        wigner = (drawn + drawn.T) * jnp.sqrt(self.noise / batch / (2 * self.dimension))
        return QuadraticForm(jnp.diag(diagonal) + wigner)
