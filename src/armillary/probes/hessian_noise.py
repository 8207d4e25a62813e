"""How a batch's curvature differs from all samples': the noise of single samples, batches' extreme eigenvalues, overlaps."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from armillary.curvature import density, eigen
from armillary.curvature.operators import Operator
from armillary.errors import ProbeError, require_between
from armillary.probes.curvature import OPERATORS, CurvatureProbe, operator_at
from armillary.probes.losses import data_of
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Samples

VECTORS = 8
"""Vectors of the weights' size that one sample's product takes, by which samples are cut into chunks."""


class Weighed(eqx.Module):
    """Targets, and what their samples count."""

    targets: Array
    weights: Float[Array, " sample"]


class Drawn(Samples):
    """Samples that count by weights, which travel with the targets."""

    targets: Weighed  # pyright: ignore[reportIncompatibleVariableOverride]

    def __getitem__(self, index: Any) -> "Drawn":
        return Drawn(self.inputs[index], jax.tree.map(lambda a: a[index], self.targets))


class WeightedLoss(eqx.Module):
    """The weighted sum of samples' losses."""

    loss: Any
    reduction: str = eqx.field(static=True, default="sum")

    def per_sample(self, outputs: Array, targets: Weighed) -> Float[Array, " sample"]:
        """Each sample's loss times its weight."""
        each = self.loss.per_sample(outputs, targets.targets)
        return targets.weights * each.reshape(len(each), -1).sum(axis=1)

    def __call__(self, network: Any, samples: Drawn) -> Float[Array, ""]:
        return jnp.sum(self.per_sample(jax.vmap(network)(samples.inputs), samples.targets))


def all_samples(now: Snapshot, probe: CurvatureProbe) -> Samples:
    """The training samples, whose losses must be known one by one."""
    if getattr(now.network, "foreign", False):
        raise ProbeError(f"{type(probe).__name__} differentiates samples one by one, which only JAX networks can")
    samples = data_of(now, probe).train
    if not isinstance(samples, Samples):
        raise ProbeError(f"{type(probe).__name__} needs training samples, and this is a {type(samples).__name__}")
    if not hasattr(now.loss, "per_sample"):
        raise ProbeError(f"{type(probe).__name__} needs a loss of single samples; give an armillary.rules.Loss")
    if probe.matrix == "gradient_covariance":
        raise ProbeError(f"{type(probe).__name__} knows the hessian and the gauss_newton matrix only")
    return samples


def weighted_mean(now: Snapshot, probe: CurvatureProbe, samples: Samples, weights: Array) -> Operator:
    """The matrix of the samples' losses, each by its weight."""
    drawn = Drawn(samples.inputs, Weighed(samples.targets, weights))
    chosen = {"where": probe.where, "own_metric": probe.own_metric, "memory": probe.memory}
    return OPERATORS[probe.matrix](WeightedLoss(now.loss), now.network, drawn, **chosen)


def of_batches(now: Snapshot, probe: Any, key: Any, look: Callable[[Any, Operator], tuple[Array, ...]]) -> list[Array]:
    """`look(key, matrix)` at the probe's `draws` batches of each of its `sizes`, arrays [size, draw, ...].

    Raises `InvalidValue` for batches of more samples than there are.
    """
    samples, largest = all_samples(now, probe), max(probe.sizes)
    require_between("the batch size", probe.sizes, 1, samples.count, note="the number of training samples")

    def one(drawn: tuple[Array, Array]) -> tuple[Array, ...]:
        key, size = drawn
        # One program for all sizes: those beyond a batch's size count for nothing.
        batch = samples[jax.random.permutation(key, samples.count)[:largest]]
        weights = jnp.where(jnp.arange(largest) < size, 1 / size, 0.0)
        return look(key, weighted_mean(now, probe, batch, weights))

    shape = (len(probe.sizes), probe.draws)
    sizes = jnp.repeat(jnp.asarray(probe.sizes, jnp.result_type(float)), probe.draws)
    found = lax.map(one, (jax.random.split(key, shape).reshape(-1), sizes))
    return [each.reshape(*shape, *each.shape[1:]) for each in found]


class HessianNoise(CurvatureProbe):
    """How far single samples' curvature lies from the mean H of all: what moves a batch's extreme eigenvalues.

    With N training samples and unit eigenvectors v of the largest and the smallest eigenvalue it returns, scalars all,

    - `hessian_largest`, `hessian_smallest`: those eigenvalues of H;
    - `hessian_largest_noise`, `hessian_smallest_noise`: the mean of |(H_s - H) v|² over samples s, times N/(N - 1), so that
      a batch of b without replacement has it times 1/b - 1/N;
    - `hessian_mean_noise`: the mean of |H_s - H|² (Frobenius) over the number of weights, by `draws` random vectors: the
      same for a vector of no particular direction (P sigma² for independent entries of variance sigma²);
    - each noise's standard error as `..._error`, with the samples as draws of a larger population;
    - `training_samples`, N.

    All are those of the samples' mean loss, whatever the loss's reduction. `samples` at most are looked at for the noise,
    drawn without replacement. Put into `armillary.theory.largest_rates`. Cost: two searches for an eigenvalue, and for each of
    draws + 2 vectors a product of all samples and one for each sample looked at; memory: chunks of samples with 8 vectors of the weights' size
    each, within `memory` bytes. Raises `ProbeError` for networks of other libraries, without samples, and for losses that
    are not known sample by sample. Source: the noise of Granziol, Zohren & Roberts (2020); along a vector derived here.
    """

    draws: int = eqx.field(static=True, default=8)
    samples: int = eqx.field(static=True, default=2048)
    tolerance: float = eqx.field(static=True, default=1e-3, kw_only=True)
    most: int = eqx.field(static=True, default=200, kw_only=True)

    def __check_init__(self):
        require_between("the number of random vectors (draws)", self.draws, 2)
        require_between("the number of samples looked at (samples)", self.samples, 2)

    def __call__(self, now: Snapshot) -> Observation:
        samples = all_samples(now, self)
        count = samples.count
        if count < 2:
            raise ProbeError("HessianNoise needs at least two training samples")
        whole = weighted_mean(now, self, samples, jnp.full(count, 1 / count))
        key_start, key_samples, key_signs = jax.random.split(self.key, 3)
        ends = extremes(whole, key_start, self.tolerance, self.most)
        looked = samples
        if self.samples < count:
            looked = samples[jax.random.permutation(key_samples, count)[: self.samples]]
        signs = jax.random.rademacher(key_signs, (self.draws, whole.size), whole.dtype)
        vectors = jnp.concatenate([ends.vectors, signs])
        each = lax.map(lambda v: self._deviations(now, looked, v, whole.product(v)), vectors) * (count / (count - 1))
        each = each.at[2:].divide(whole.size)
        error = lambda values: jnp.std(values, ddof=1) / jnp.sqrt(float(len(values)))
        mean = each[2:]
        noises = {
            "largest_noise": (jnp.mean(each[0]), error(each[0]), "noise along the sharpest direction"),
            "smallest_noise": (jnp.mean(each[1]), error(each[1]), "noise along the most negative direction"),
            "mean_noise": (
                jnp.mean(mean), jnp.hypot(error(mean.mean(axis=0)), error(mean.mean(axis=1))), "noise along any direction"
            ),
        }  # fmt: skip
        seen = {
            self.name("largest"): Quantity(ends.values[0], unit="1/rate", long_name="largest eigenvalue"),
            self.name("smallest"): Quantity(ends.values[-1], unit="1/rate", long_name="smallest eigenvalue"),
            "training_samples": Quantity(float(count), unit="samples", long_name="training samples"),
        }
        for name, (value, wrong, words) in noises.items():
            seen[self.name(name)] = Quantity(value, unit="1/rate²", long_name=words)
            seen[self.name(f"{name}_error")] = Quantity(
                wrong, unit="1/rate²", long_name=f"standard error of the {words}"
            )
        return seen

    def _deviations(self, now: Snapshot, samples: Samples, v: Array, mean: Array) -> Float[Array, " sample"]:
        """|(H_s - H) v|² of each sample, in chunks."""

        def one(sample: Samples) -> Array:
            alone = jax.tree.map(lambda a: a[None], sample)
            return jnp.sum((weighted_mean(now, self, alone, jnp.ones(1)).product(v) - mean) ** 2)

        chunk = max(1, int(self.memory / (VECTORS * v.size * v.dtype.itemsize)))
        return lax.map(one, samples, batch_size=min(chunk, samples.count))


class BatchCurvature(CurvatureProbe):
    """The extreme eigenvalues of batches: `draws` batches of each of the `sizes`, without replacement.

    Returns `batch_largest` and `batch_smallest`, float[batch, draw], and `batch_overlap`, float[batch, draw], the squared
    cosine of a batch's sharpest direction and that of all training samples; with another `matrix` the names begin with it.
    Samples' mean loss is what is curved. Cost: two searches for an eigenvalue for each batch, with products as large as the
    largest batch's. Raises `ProbeError` as `HessianNoise`, and `InvalidValue` for sizes out of range.
    """

    sizes: tuple[int, ...] = eqx.field(static=True, default=(16, 64, 256))
    draws: int = eqx.field(static=True, default=8)
    tolerance: float = eqx.field(static=True, default=1e-2, kw_only=True)
    most: int = eqx.field(static=True, default=100, kw_only=True)

    def __check_init__(self):
        require_between("the batch size", self.sizes, 1)
        require_between("the number of batches of each size (draws)", self.draws, 1)

    def __call__(self, now: Snapshot) -> Observation:
        samples = all_samples(now, self)
        whole = weighted_mean(now, self, samples, jnp.full(samples.count, 1 / samples.count))
        key_start, key_batch = jax.random.split(self.key)
        start = jax.random.normal(key_start, (whole.size,), whole.dtype)
        sharpest = eigen.eigenpairs(whole.product, start, tolerance=self.tolerance, most=self.most).vectors[0]

        def one(key: Any, batch: Operator) -> tuple[Array, Array, Array]:
            ends = extremes(batch, key, self.tolerance, self.most)
            return ends.values[0], ends.values[-1], (ends.vectors[0] @ sharpest) ** 2

        high, low, overlap = of_batches(now, self, key_batch, one)
        name = lambda what: f"batch_{what}" if self.matrix == "hessian" else self.name(f"batch_{what}")
        labels = (("largest", high, "largest eigenvalue", "1/rate"), ("smallest", low, "smallest eigenvalue", "1/rate"),
                  ("overlap", overlap, "overlap of the sharpest direction", "1"))  # fmt: skip
        return {name(n): Quantity(v, ("batch", "draw"), unit, f"{words} of a batch") for n, v, words, unit in labels}


class BatchDensity(CurvatureProbe):
    """The density of batches' curvature, by stochastic Lanczos quadrature: `draws` batches of each of the `sizes`.

    Returns `batch_nodes` and `batch_node_weights`, float[density_batch, density_draw, node]: each batch's points and their weights, which
    add up to 1, of one random vector a batch; see `armillary.curvature.Quadrature` for the smeared density, and
    `armillary.theory.spiked` for where noise moves bulk and outliers. With another `matrix` the names begin with it. Batches
    are drawn without replacement, and all samples are a batch too. Samples' mean loss is what is curved. Cost: `steps`
    products for each batch, as large as the largest batch's. Raises as `BatchCurvature`.
    """

    sizes: tuple[int, ...] = eqx.field(static=True, default=(16, 256))
    steps: int = eqx.field(static=True, default=80)
    draws: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        require_between("the batch size", self.sizes, 1)
        require_between("the number of Lanczos steps", self.steps, 1)
        require_between("the number of batches of each size (draws)", self.draws, 1)

    def __call__(self, now: Snapshot) -> Observation:
        def one(key: Any, batch: Operator) -> tuple[Array, Array]:
            found = density.quadrature(batch, key, self.steps)
            return found.nodes[0], found.weights[0]

        nodes, weights = of_batches(now, self, self.key, one)
        name = lambda what: f"batch_{what}" if self.matrix == "hessian" else self.name(f"batch_{what}")
        dims = ("density_batch", "density_draw", "node")
        return {
            name("nodes"): Quantity(nodes, dims, "1/rate", "nodes of batches' spectral density"),
            name("node_weights"): Quantity(weights, dims, long_name="weights of the nodes"),
        }


class EigenvectorOverlap(CurvatureProbe):
    """Squared cosines of the `top` sharpest directions on the training samples and on the test samples, one by one.

    Returns `eigenvector_overlap`, float[eigenvalue], in [0, 1], the largest eigenvalue's first; arbitrary where eigenvalues agree. Raises
    `ProbeError` without test samples. Cost: two searches for `top` eigenpairs.
    """

    top: int = eqx.field(static=True, default=1)
    tolerance: float = eqx.field(static=True, default=1e-3, kw_only=True)
    most: int = eqx.field(static=True, default=200, kw_only=True)

    def __check_init__(self):
        require_between("the number of eigenvectors (top)", self.top, 1)

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        if data.test is None:
            raise ProbeError("EigenvectorOverlap compares with the test samples, and there are none")
        if getattr(now.network, "foreign", False):
            raise ProbeError("EigenvectorOverlap needs a JAX network")
        chosen = {"where": self.where, "own_metric": self.own_metric, "memory": self.memory}
        found = []
        for samples in (data.train, data.test):
            operator = operator_at(now, self.matrix, samples, **chosen)
            start = jax.random.normal(self.key, (operator.size,), operator.dtype)
            search = {"tolerance": self.tolerance, "most": self.most}
            found.append(eigen.eigenpairs(operator.product, start, self.top, **search).vectors)
        overlap = jnp.sum(found[0] * found[1], axis=1) ** 2
        return {"eigenvector_overlap": Quantity(overlap, "eigenvalue", long_name="overlap of eigenvectors")}


def extremes(operator: Operator, key: Any, tolerance: float, most: int) -> eigen.Eigenpairs:
    """The largest and the smallest eigenvalue and their vectors."""
    if operator.size < 4:
        raise ProbeError(f"extreme eigenvalues need at least 4 weights, and there are {operator.size}")
    start = jax.random.normal(key, (operator.size,), operator.dtype)
    return eigen.eigenpairs(operator.product, start, 2, which="both", tolerance=tolerance, most=most)
