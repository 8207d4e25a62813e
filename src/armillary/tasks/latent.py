"""Latent variables behind many unlabelled and few labelled samples: factors, clusters, and pairs that are alike."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.encoder import ClusterClassifier
from armillary.models.initialisation import haar_orthogonal
from armillary.models.model import end_to_end
from armillary.tasks.data import Data, Population, Samples, Task
from armillary.tasks.wishart import bartlett


class GaussianPopulation(Population):
    """All inputs x ~ N(0, `covariance`) of a target whose best linear prediction is `optimum` x.

    The risk of a linear network of matrix W is half its excess over the optimum, tr (W - W*) C (W - W*)ᵀ / 2.
    """

    optimum: Float[Array, "output input"]
    covariance: Float[Array, "input input"]

    def excess(self, network: Any) -> Float[Array, ""]:
        """The expected squared distance to the optimum's prediction."""
        wrong = end_to_end(network, self.optimum.shape[1]) - self.optimum
        return jnp.sum(wrong @ self.covariance * wrong)

    def risk(self, network: Any) -> Float[Array, ""]:
        return self.excess(network) / 2


class LatentTeacher(eqx.Module):
    """The truth: orthonormal `directions` that the latent variables span, and the `optimum` map of an input."""

    directions: Float[Array, "factor input"]
    optimum: Float[Array, "output input"]


class Pairs(eqx.Module):
    """Pairs of inputs; `alike`, 1 where the two are called so and 0 elsewhere; `weight`, 0 for pairs that do not count."""

    left: Float[Array, "pair input"]
    right: Float[Array, "pair input"]
    alike: Float[Array, " pair"]
    weight: Float[Array, " pair"]


class LatentData(Data):
    """`Data` with the `labelled` samples and the `unlabelled` inputs (or `Pairs`); `train` is one of them."""

    labelled: Any = None
    unlabelled: Any = None


def moment_inputs(
    key: PRNGKeyArray, counts: ArrayLike, root: Float[Array, "input input"]
) -> tuple[Float[Array, "set sample input"], Float[Array, "set sample"]]:
    """Pseudo-samples x = root g, and an independent N(0, 1) number beside each, for each of the `counts` [set].

    There are inputs + 1 of them; their mean second moments have the law of those of `count` true samples. Linear
    networks under the squared error see nothing else of Gaussian data. Counts may be traced; memory is inputs² a set,
    whatever the counts. See `bartlett`.
    """
    size = root.shape[0]
    counts = jnp.asarray(counts, root.dtype)
    moments = jax.vmap(lambda k, n: bartlett(k, size + 1, n))(jax.random.split(key, len(counts)), counts)
    moments = moments * jnp.sqrt((size + 1) / counts)[:, None, None]
    return moments[:, :size].mT @ root.T, moments[:, size]


class FactorModel(Task):
    """x = B z + N(0, I) with `factors` latent z ~ N(0, I), and labels that depend on z: y = <beta, z> + N(0, noise²).

    B is `strength` times orthonormal columns, beta uniform on the unit sphere. `unlabelled` samples have no y. With
    `outside` = o > 0 labels depend on a direction u orthogonal to the factors too: sqrt(1 - o²) <beta, z> + o <u, x>.
    Both kinds of samples are pseudo-samples with exactly the right law of second moments (`moment_inputs`), so that
    their numbers cost nothing. Training is on the labelled ones, with `reconstruct` on the unlabelled, whose targets are
    then the inputs. The test set is a `GaussianPopulation`.

    `strength`, `labelled`, `unlabelled`, `noise` and `outside` can be swept in one program. Raises `InvalidValue` for
    sizes below 1, more factors than dimensions - 1, a negative strength or noise, and outside beyond [0, 1].

    >>> data = FactorModel(dimension=6, factors=2, unlabelled=1e6).draw(jax.random.key(0))
    >>> data.train.inputs.shape, data.unlabelled.shape, data.teacher.directions.shape
    ((7, 6), (7, 6), (2, 6))
    """

    dimension: int = eqx.field(static=True)
    factors: int = eqx.field(static=True)
    strength: float = 2.0
    labelled: float = 100.0
    unlabelled: float = 1000.0
    noise: float = 0.5
    outside: float = 0.0
    reconstruct: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the dimension", self.dimension, 2)
        require_between("the number of factors", self.factors, 1, self.dimension - 1, note="the dimension - 1")
        require_between("the strength", self.strength, 0.0)
        require_between("the number of labelled samples", self.labelled, 1)
        require_between("the number of unlabelled samples", self.unlabelled, 1)
        require_between("noise", self.noise, 0.0)
        require_between("outside", self.outside, 0.0, 1.0)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return self.dimension if self.reconstruct else 1

    def draw(self, key: PRNGKeyArray) -> LatentData:
        key_frame, key_beta, key_inputs = jax.random.split(key, 3)
        frame = haar_orthogonal(key_frame, self.dimension, self.factors + 1)
        directions, other = frame[:, :-1], frame[:, -1]
        spread = 1 + jnp.asarray(self.strength, frame.dtype) ** 2
        inside = jnp.sqrt(1 - jnp.asarray(self.outside, frame.dtype) ** 2)
        shrunk = inside * self.strength / spread  # the best guess of z from x
        optimum = (shrunk * directions @ _unit(key_beta, self.factors) + self.outside * other)[None]
        left = jnp.sqrt(self.noise**2 + inside**2 / spread)
        identity = jnp.eye(self.dimension)
        root = identity + (jnp.sqrt(spread) - 1) * directions @ directions.T
        inputs, errors = moment_inputs(key_inputs, jnp.asarray([self.labelled, self.unlabelled]), root)
        labelled = Samples(inputs[0], inputs[0] @ optimum.T + left * errors[0][:, None])
        unlabelled = inputs[1]
        train = Samples(unlabelled, unlabelled) if self.reconstruct else labelled
        test = GaussianPopulation(optimum, root @ root)
        return LatentData(train, test, LatentTeacher(directions.T, optimum), labelled, unlabelled)


class ContrastivePairs(Task):
    """Pairs x, x' ~ N(0, I), alike with probability sigmoid(<A x, A x'>); labels y = <beta, A x> + N(0, noise²).

    A has `factors` orthonormal rows, beta is uniform on the unit sphere. Labelled samples are `moment_inputs`; of the
    `capacity` pairs in `data.unlabelled` (`Pairs`) the first `unlabelled` count. `unlabelled`, `labelled` and `noise` can
    be swept in one program. Raises `InvalidValue` for sizes below 1, more factors than dimensions, more pairs than the
    capacity, and negative noise.

    >>> data = ContrastivePairs(dimension=6, factors=2, unlabelled=7, capacity=9).draw(jax.random.key(0))
    >>> data.unlabelled.left.shape, float(data.unlabelled.weight.sum())
    ((9, 6), 7.0)
    """

    dimension: int = eqx.field(static=True)
    factors: int = eqx.field(static=True)
    unlabelled: float = 1000.0
    capacity: int = eqx.field(static=True, default=1000)
    labelled: float = 100.0
    noise: float = 0.5

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        require_between("the number of factors", self.factors, 1, self.dimension, note="the dimension")
        require_between("the number of pairs", self.unlabelled, 1, self.capacity, note="the capacity")
        require_between("the number of labelled samples", self.labelled, 1)
        require_between("noise", self.noise, 0.0)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> LatentData:
        key_frame, key_beta, key_labelled, key_pairs, key_alike = jax.random.split(key, 5)
        directions = haar_orthogonal(key_frame, self.factors, self.dimension)
        optimum = (_unit(key_beta, self.factors) @ directions)[None]
        inputs, errors = moment_inputs(key_labelled, jnp.asarray([self.labelled]), jnp.eye(self.dimension))
        labelled = Samples(inputs[0], inputs[0] @ optimum.T + self.noise * errors[0][:, None])
        left, right = jax.random.normal(key_pairs, (2, self.capacity, self.dimension))
        odds = jnp.sum((left @ directions.T) * (right @ directions.T), axis=1)
        alike = (jax.random.uniform(key_alike, odds.shape) < jax.nn.sigmoid(odds)).astype(left.dtype)
        weight = (jnp.arange(self.capacity) < self.unlabelled).astype(left.dtype)
        test = GaussianPopulation(optimum, jnp.eye(self.dimension))
        return LatentData(
            labelled, test, LatentTeacher(directions, optimum), labelled, Pairs(left, right, alike, weight)
        )


class GaussianMixture(Task):
    """Clusters N(centre, I), equally many in each; each cluster has a label ±1, seen flipped with probability `flip`.

    Centres have norm `radius` and random directions; half of the clusters are labelled 1. Of the `capacity` training
    samples the first `labelled` have their label as target, the others 0. `data.unlabelled` are inputs [sample, input].
    Test targets are not flipped. `data.teacher` is the best classifier there is. `labelled`, `radius` and `flip` can be swept
    in one program. Raises `InvalidValue` for sizes below 1, more labels than capacity, and a flip beyond [0, 0.5].

    >>> data = GaussianMixture(4, clusters=2, unlabelled=9, labelled=3, capacity=5).draw(jax.random.key(0))
    >>> data.train.inputs.shape, int((data.train.targets != 0).sum()), data.unlabelled.shape
    ((5, 4), 3, (9, 4))
    """

    dimension: int = eqx.field(static=True)
    clusters: int = eqx.field(static=True)
    unlabelled: int = eqx.field(static=True, default=1000)
    labelled: float = 50.0
    capacity: int = eqx.field(static=True, default=200)
    radius: float = 4.0
    flip: float = 0.1
    test_samples: int = eqx.field(static=True, default=2000)

    def __check_init__(self):
        require_between("the dimension", self.dimension, 1)
        require_between("the number of clusters", self.clusters, 2)
        require_between("the number of unlabelled samples", self.unlabelled, 1)
        require_between("the number of labelled samples", self.labelled, 1, self.capacity, note="the capacity")
        require_between("the radius", self.radius, 0.0)
        require_between("flip", self.flip, 0.0, 0.5)
        require_between("the number of test samples", self.test_samples, 1)

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def outputs(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray) -> LatentData:
        key_normal, key_which, key_flip = jax.random.split(key, 3)
        counts = (self.capacity, self.unlabelled, self.test_samples)
        normal = jax.random.normal(key_normal, (self.clusters + sum(counts), self.dimension))
        centres = normal[: self.clusters]
        centres = self.radius * centres / jnp.linalg.norm(centres, axis=1, keepdims=True)
        labels = jnp.where(jnp.arange(self.clusters) < self.clusters // 2, 1.0, -1.0)
        which = jax.random.randint(key_which, (sum(counts),), 0, self.clusters)
        inputs = centres[which] + normal[self.clusters :]
        first, second = counts[0], counts[0] + counts[1]
        flipped = jnp.where(jax.random.uniform(key_flip, (first,)) < self.flip, -1.0, 1.0)
        known = jnp.arange(first) < self.labelled
        targets = jnp.where(known, flipped * labels[which[:first]], 0.0)
        labelled = Samples(inputs[:first], targets[:, None])
        test = Samples(inputs[second:], labels[which[second:], None])
        return LatentData(labelled, test, ClusterClassifier(centres, labels), labelled, inputs[first:second])


def latent(data: Data, what: str) -> LatentData:
    """`data`, if they have labelled and unlabelled parts; else `InvalidValue` in the name of `what`."""
    if not isinstance(data, LatentData):
        raise InvalidValue(f"{what} needs unlabelled data; use FactorModel, ContrastivePairs or GaussianMixture")
    return data


def _unit(key: PRNGKeyArray, size: int) -> Array:
    drawn = jax.random.normal(key, (size,))
    return drawn / jnp.linalg.norm(drawn)
