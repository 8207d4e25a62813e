"""Samples made of patches: a weak feature, a strong one, and noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.tasks.data import Data, Samples, Task


class FeaturePatches(Task):
    """Two classes y = ±1, three patches a sample: y v (weak, in every sample), y u (strong, absent from some), noise.

    `inputs[sample, patch, dimension]`; u and v are the first two axes times `strong` and `weak`, and the noise is
    N(0, noise²/dimension) in each of the other directions. The first round(`weak_only` * samples) training samples
    have no strong patch. Of the `test_samples`, the first half has none. The norms can be swept in one program.
    Source: Lu, Wu, Yang & Zou (2023), arXiv:2310.17074.

    Raises `InvalidValue` for sizes below 1, a share outside [0, 1] or negative norms.

    >>> data = FeaturePatches(dimension=8, samples=10).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape
    ((10, 3, 8), (10, 1))
    """

    dimension: int = eqx.field(static=True, default=1000)
    samples: int = eqx.field(static=True, default=100)
    weak_only: float = eqx.field(static=True, default=0.1)
    weak: float = 1.0
    strong: float = 6.0
    noise: float = 5.0
    test_samples: int = eqx.field(static=True, default=1000)

    outputs = 1

    def __check_init__(self):
        require_between("the dimension of a patch", self.dimension, 3)
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 2)
        require_between("the share of samples with the weak feature only", self.weak_only, 0.0, 1.0)
        for name in ("weak", "strong", "noise"):
            require_between(f"the norm of the {name} patch", getattr(self, name), 0.0)

    @property
    def inputs(self) -> int:
        """The size of one patch."""
        return self.dimension

    def draw(self, key: PRNGKeyArray) -> Data:
        key_train, key_test = jax.random.split(key)
        without = round(self.weak_only * self.samples)
        return Data(
            self._samples(key_train, self.samples, without),
            self._samples(key_test, self.test_samples, self.test_samples // 2),
        )

    def _samples(self, key: PRNGKeyArray, count: int, without: int) -> Samples:
        """`count` samples, the first `without` of them without the strong patch."""
        key_label, key_noise = jax.random.split(key)
        label = jax.random.rademacher(key_label, (count,)).astype(jnp.result_type(float))
        noise: Float[Array, "sample dimension"] = jax.random.normal(key_noise, (count, self.dimension))
        noise = (self.noise / jnp.sqrt(self.dimension) * noise).at[:, :2].set(0.0)
        empty = jnp.zeros((count, self.dimension))
        strong = empty.at[:, 0].set(jnp.where(jnp.arange(count) < without, 0.0, label * self.strong))
        weak = empty.at[:, 1].set(label * self.weak)
        return Samples(jnp.stack([weak, strong, noise], axis=1), label[:, None])
