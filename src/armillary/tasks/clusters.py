"""Gaussian clusters around orthogonal centres, to be told apart by one output or by one for each class."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.models.initialisation import haar_orthogonal
from armillary.tasks.data import Data, Samples, Task

CLUSTER_TARGETS = ("onehot", "sign", "class")


class GaussianClusters(Task):
    """Clusters N(centre, noise²) in `dimension` dimensions, whose centres are orthogonal and of norm `radius`.

    Samples go round the clusters, so that these are as equally large as can be; cluster c has the class c mod
    `classes` (None: a class for each cluster). The frame of the centres is drawn anew for each seed, and
    `data.teacher` holds them, float[cluster, input].

    - `targets`: "onehot" vectors (as many outputs as classes), "sign" (one output, +1 for even and -1 for odd
      classes) or "class" numbers.

    `radius` and `noise` can be swept in one program. Raises `InvalidValue` for sizes below 1, more clusters than
    dimensions, more classes than clusters, a negative radius or noise; `UnknownName` for other targets.

    >>> data = GaussianClusters(clusters=4, classes=2, dimension=6, samples=9).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.train.targets.shape, data.teacher.shape
    ((9, 6), (9, 2), (4, 6))
    """

    clusters: int = eqx.field(static=True, default=3)
    dimension: int = eqx.field(static=True, default=12)
    samples: int = eqx.field(static=True, default=300)
    radius: float = 3.0
    noise: float = 0.5
    classes: int | None = eqx.field(static=True, default=None)
    targets: Literal["onehot", "sign", "class"] = eqx.field(static=True, default="onehot")
    test_samples: int = eqx.field(static=True, default=300)

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        require_between("the number of clusters", self.clusters, 1, self.dimension, note="the dimension")
        require_between("the number of classes", self.kinds, 1, self.clusters, note="the number of clusters")
        require_between("the number of samples", self.samples, 1)
        require_between("the number of test samples", self.test_samples, 1)
        require_between("the radius", self.radius, 0.0)
        require_between("the noise", self.noise, 0.0)
        if self.targets not in CLUSTER_TARGETS:
            raise unknown("targets", self.targets, CLUSTER_TARGETS)

    @property
    def kinds(self) -> int:
        """How many classes there are."""
        return self.clusters if self.classes is None else self.classes

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1 if self.targets == "sign" else self.kinds

    def draw(self, key: PRNGKeyArray) -> Data:
        key_centres, key_train, key_test = jax.random.split(key, 3)
        centres = self.radius * haar_orthogonal(key_centres, self.clusters, self.dimension)
        train, test = (
            self._samples(k, centres, n) for k, n in ((key_train, self.samples), (key_test, self.test_samples))
        )
        return Data(train, test, centres)

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(key, data.teacher, count)

    def _samples(self, key: PRNGKeyArray, centres: Float[Array, "cluster input"], count: int) -> Samples:
        cluster = jnp.arange(count) % self.clusters
        inputs = centres[cluster] + self.noise * jax.random.normal(key, (count, self.dimension))
        return Samples(inputs, self._encode(cluster % self.kinds))

    def _encode(self, kind: Integer[Array, " sample"]) -> Float[Array, "sample ..."] | Integer[Array, " sample"]:
        match self.targets:
            case "onehot":
                return jax.nn.one_hot(kind, self.kinds)
            case "sign":
                return (1.0 - 2.0 * (kind % 2))[:, None]
            case _:
                return kind


def nearest_centre(
    inputs: Float[Array, "sample input"], centres: Float[Array, "cluster input"]
) -> Integer[Array, " sample"]:
    """The number of the centre that each input is nearest to.

    >>> print(nearest_centre(jnp.array([[0.9, 0.0], [0.1, 2.0]]), jnp.eye(2)))
    [0 1]
    """
    apart = jnp.sum((inputs[:, None] - centres) ** 2, axis=-1)
    return jnp.argmin(apart, axis=1)
