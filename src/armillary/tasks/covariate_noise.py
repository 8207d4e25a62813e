"""Covariates that carry noise: a signal of few dimensions under isotropic noise of many."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between, unknown
from armillary.tasks.data import Data, Samples, Task
from armillary.tasks.wishart import chi_squares

TEACHERS = ("linear", "neuron")


class SignalTeacher(eqx.Module):
    """The teacher's unit `direction` among the signal's coordinates, and its values on the training samples' clean
    signals: `targets`, without label noise. Covariates alone do not determine them."""

    direction: Float[Array, " rank"]
    targets: Float[Array, "sample output"]


class CovariateNoise(Task):
    """A signal x in `rank` of `dimension` coordinates, seen as z = x + t with isotropic t; noisy labels of the signal.

    x = (g, 0) with g ~ N(0, I/rank), so |x|² is 1 on average; t ~ N(0, covariate_noise²/dimension I), in the signal's
    coordinates too; y = f(x) + N(0, noise²). f is "linear", sqrt(rank) <b, g>, or one ReLU "neuron", sqrt(2) max(0,
    sqrt(rank) <b, g>), with b uniform on the unit sphere: both have second moment 1. Test covariates are noisy and test
    targets clean, so that a test error is an excess risk. `data.teacher` is a `SignalTeacher`.

    `rank` None is the whole dimension. Can be swept in one program: `covariate_noise`, `noise`. Raises `InvalidValue`
    for sizes below 1, a rank above the dimension and negative noise, `UnknownName` for another teacher.

    >>> data = CovariateNoise(dimension=8, samples=5, rank=2).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.teacher.targets.shape
    ((5, 8), (5, 1))
    """

    dimension: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    rank: int | None = eqx.field(static=True, default=None)
    covariate_noise: float = 1.0
    noise: float = 0.5
    teacher: Literal["linear", "neuron"] = eqx.field(static=True, default="linear")
    test_samples: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        _check(self)
        require_between("the rank", 1 if self.rank is None else self.rank, 1, self.dimension, note="the dimension")

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        rank = self.rank or self.dimension
        normal = _normal(self, key, rank + self.dimension)
        return _labelled(
            self, rank, normal, self.covariate_noise / jnp.sqrt(float(self.dimension)) * normal[1:, rank:-1]
        )


class WideCovariateNoise(Task):
    """`CovariateNoise` of a dimension far above the number of samples, drawn without storing the covariates.

    What lies outside the signal's coordinates is written in a frame that the training samples span: they are a
    lower-triangular matrix (Bartlett 1933), a test sample has one coordinate in each of its directions and its own length
    outside them as the last. Every inner product of a training sample with another, or with a test sample, has the law
    that it has in the full space; those between two test samples have not. Exact for what sees covariates through such
    inner products (kernels of <z, z'>, |z| and |z'|), of any dimension, in memory samples².

    `dimension` too can be swept in one program. Inputs have rank + samples + 1 coordinates. Raises `InvalidValue` as
    `CovariateNoise` does, and for a dimension below rank + samples + 1.

    >>> WideCovariateNoise(dimension=1e6, samples=5, rank=2).draw(jax.random.key(0)).train.inputs.shape
    (5, 8)
    """

    dimension: float
    samples: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    covariate_noise: float = 1.0
    noise: float = 0.5
    teacher: Literal["linear", "neuron"] = eqx.field(static=True, default="linear")
    test_samples: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        _check(self)
        require_between("the rank", self.rank, 1)
        require_between(
            "the dimension", self.dimension, self.inputs, note="rank + samples + 1; else use CovariateNoise"
        )

    @property
    def inputs(self) -> int:
        return self.rank + self.samples + 1

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> Data:
        key_normal, key_length = jax.random.split(key)
        normal = _normal(self, key_normal, 2 * self.rank + self.samples)
        within, along = normal[1:, self.rank : 2 * self.rank], normal[1:, 2 * self.rank : -1]
        # What a sample has outside the frame of those before it (of all training samples, for a test sample).
        before = jnp.minimum(jnp.arange(self.samples + self.test_samples), self.samples)
        outside = jnp.asarray(self.dimension, normal.dtype) - self.rank
        own = jnp.sqrt(chi_squares(key_length, outside - before))[:, None]
        framed = jnp.where(jnp.arange(self.samples) < before[:, None], along, 0.0)
        framed = jnp.concatenate([within, framed, jnp.zeros_like(own)], axis=1)
        places = jnp.arange(self.inputs) == self.rank + before[:, None]
        return _labelled(
            self,
            self.rank,
            normal,
            self.covariate_noise / jnp.sqrt(outside + self.rank) * jnp.where(places, own, framed),
        )


def _check(task: CovariateNoise | WideCovariateNoise) -> None:
    require_between("the number of samples", task.samples, 1)
    require_between("the number of test samples", task.test_samples, 1)
    require_between("the covariates' noise", task.covariate_noise, 0.0)
    require_between("noise", task.noise, 0.0)
    if task.teacher not in TEACHERS:
        raise unknown("teacher", task.teacher, TEACHERS)


def _normal(task: CovariateNoise | WideCovariateNoise, key: PRNGKeyArray, columns: int) -> Array:
    """All of a draw's normal numbers at once, which compiles sooner than many draws: a row for the teacher, one for each
    training and test sample; the signal comes first and the label noise last."""
    return jax.random.normal(key, (1 + task.samples + task.test_samples, columns + 1))


def _labelled(task: CovariateNoise | WideCovariateNoise, rank: int, normal: Array, noise: Array) -> Data:
    """The data of these normal numbers and these covariates' noise [sample, input]."""
    direction = normal[0, :rank] / jnp.linalg.norm(normal[0, :rank])
    signal = normal[1:, :rank]  # sqrt(rank) times g
    clean = signal @ direction[:, None]
    clean = jnp.sqrt(2.0) * jax.nn.relu(clean) if task.teacher == "neuron" else clean
    inputs = noise.at[:, :rank].add(signal / jnp.sqrt(float(rank)))
    noisy = clean + task.noise * normal[1:, -1:]
    n = task.samples
    return Data(Samples(inputs[:n], noisy[:n]), Samples(inputs[n:], clean[n:]), SignalTeacher(direction, clean[:n]))
