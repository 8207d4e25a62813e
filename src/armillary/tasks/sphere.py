"""Two classes on a part of the sphere, with the Bayes classifier known: Dirichlet laws, and regions of an arc."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.tasks.data import Data, Samples, Task
from armillary.tasks.wishart import chi_squares


class DirichletClasses(Task):
    """Points of the simplex with law Dirichlet(`first`) in class -1 and Dirichlet(`second`) in class +1, put on the unit sphere.

    Inputs x = s/|s| have one entry for each parameter, all positive. A share `prior` of samples is of the first class.
    `targets`: "class", ±1; or "product", the two outputs 4 x_1 x_2 - 1 and its sign, functions of the inputs. `bayes(inputs)` is
    the sign of the log-ratio of the classes' densities, weighed by their priors: one map takes both to the sphere. `prior`
    can be swept in one program.

    Raises `InvalidValue` for parameters that are not positive, of different numbers or fewer than two, a prior outside [0, 1] and
    sizes below 1; `UnknownName` for other targets.

    >>> data = DirichletClasses(samples=5).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape
    ((5, 3), (5, 1))
    """

    first: tuple[float, ...] = eqx.field(static=True, default=(2.0, 1.0, 1.5))
    second: tuple[float, ...] = eqx.field(static=True, default=(1.0, 2.0, 1.5))
    samples: int = eqx.field(static=True, default=300)
    prior: float = 0.4
    targets: Literal["class", "product"] = eqx.field(static=True, default="class")
    test_samples: int = eqx.field(static=True, default=500)

    def __check_init__(self):
        if len(self.first) != len(self.second) or len(self.first) < 2:
            raise InvalidValue(
                f"the classes have {len(self.first)} and {len(self.second)} parameters, but must have as many, two or more"
            )
        require_between("a parameter", (*self.first, *self.second), 0.0, open_low=True)
        require_between("the prior", self.prior, 0.0, 1.0)
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 1)
        if self.targets not in ("class", "product"):
            raise unknown("targets", self.targets, ("class", "product"))

    @property
    def inputs(self) -> int:
        return len(self.first)

    @property
    def outputs(self) -> int:
        return 1 if self.targets == "class" else 2

    def draw(self, key: PRNGKeyArray) -> Data:
        key_train, key_test = jax.random.split(key)
        return Data(self._samples(key_train, self.samples), self._samples(key_test, self.test_samples))

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(key, count)

    def bayes(self, inputs: Float[Array, "sample input"]) -> Float[Array, " sample"]:
        """The likelier class of each input, ±1."""
        simplex = inputs / jnp.sum(inputs, axis=1, keepdims=True)
        first, second = jnp.asarray(self.first, inputs.dtype), jnp.asarray(self.second, inputs.dtype)
        norm = lambda a: jax.scipy.special.gammaln(jnp.sum(a)) - jnp.sum(jax.scipy.special.gammaln(a))
        ratio = jnp.log(simplex) @ (second - first) + norm(second) - norm(first)
        return jnp.where(ratio + jnp.log1p(-self.prior) - jnp.log(self.prior) < 0, -1.0, 1.0)

    def _samples(self, key: PRNGKeyArray, count: int) -> Samples:
        key_label, key_input = jax.random.split(key)
        label = jnp.where(jax.random.uniform(key_label, (count, 1)) < self.prior, -1.0, 1.0)
        alpha = jnp.where(label < 0, jnp.asarray(self.first), jnp.asarray(self.second))
        drawn = chi_squares(key_input, 2 * alpha.ravel()).reshape(alpha.shape)  # gamma numbers, doubled
        inputs = drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)
        if self.targets == "class":
            return Samples(inputs, label)
        value = 4 * inputs[:, :1] * inputs[:, 1:2] - 1
        return Samples(inputs, jnp.concatenate([value, jnp.where(value < 0, -1.0, 1.0)], axis=1))


class ArcRegions(Task):
    """Points of the quarter circle, uniform in the angle, in `periods` equal periods: of each, the first `share` is of class -1.

    A training label is the wrong one with probability `flip`. Test inputs are even in the angle, so that means over them are
    integrals, and test targets are the Bayes classifier's, `bayes(inputs)`. With share 0.5 classes are balanced. `periods`, `share` and `flip` can be swept in one program. Raises `InvalidValue` for a share outside [0,
    1], a flip above 1/2 and sizes below 1.

    >>> data = ArcRegions(samples=5).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape
    ((5, 2), (5, 1))
    """

    samples: int = eqx.field(static=True, default=400)
    periods: float = 6.0
    share: float = 0.25
    flip: float = 0.2
    test_samples: int = eqx.field(static=True, default=500)

    inputs = 2
    outputs = 1

    def __check_init__(self):
        require_between("the number of periods", self.periods, 0.0, open_low=True)
        require_between("the share", self.share, 0.0, 1.0)
        require_between("the share of wrong labels (flip)", self.flip, 0.0, 0.5)
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 1)

    def draw(self, key: PRNGKeyArray) -> Data:
        test = _on_circle((jnp.arange(self.test_samples) + 0.5) / self.test_samples)
        return Data(self.sample(Data(None), key, self.samples), Samples(test, self.bayes(test)[:, None]))

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        key_input, key_label = jax.random.split(key)
        inputs = _on_circle(jax.random.uniform(key_input, (count,)))
        kept = jnp.where(jax.random.uniform(key_label, (count,)) < self.flip, -1.0, 1.0)
        return Samples(inputs, (self.bayes(inputs) * kept)[:, None])

    def bayes(self, inputs: Float[Array, "sample input"]) -> Float[Array, " sample"]:
        """The likelier class of each input, ±1."""
        phase = jnp.arctan2(inputs[:, 1], inputs[:, 0]) * self.periods / (jnp.pi / 2)
        return jnp.where(phase % 1.0 < self.share, -1.0, 1.0)


def _on_circle(share: Float[Array, " sample"]) -> Float[Array, "sample 2"]:
    """Points of the quarter circle, at a share of its angle."""
    angle = share * (jnp.pi / 2)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)


def simplex_grid(steps: int) -> Float[np.ndarray, "point 3"]:
    """Points of the simplex with three corners, `steps` of them along a side besides its first, in barycentric coordinates.

    >>> simplex_grid(1).tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    found = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return np.array(found, float) / steps
