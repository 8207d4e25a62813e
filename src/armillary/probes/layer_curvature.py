"""The curvature of the loss in each layer's weights: norms by the approximate chain rule, and exactly."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from armillary.curvature.eigen import eigenpairs
from armillary.curvature.layers import LayerFactors, batch_product, layer_factors, layer_norms, linear_layers
from armillary.curvature.operators import MEMORY, hessian
from armillary.errors import InvalidValue, ProbeError, require_between
from armillary.models.model import is_linear_layer
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Samples


def _factors(now: Snapshot, probe: Probe) -> tuple[Samples, list[LayerFactors]]:
    samples = data_of(now, probe).train
    try:
        return samples, layer_factors(now.network, samples, now.loss)
    except InvalidValue as error:
        raise ProbeError(f"{type(probe).__name__}: {error}") from None


def _start(size: int, dtype: Any) -> Array:
    return jax.random.normal(jax.random.key(0), (size,), dtype)


class LayerCurvature(Probe):
    """The norm of each layer's Hessian by the approximate chain rule, sample by sample.

    Returns `layer_curvature_norm` and `layer_curvature_trace`, float[layer], means over the training samples of
    |z|² λ_max(H^(1/2) B Bᵀ H^(1/2)) and of |z|² tr(Bᵀ H B): z is the layer's input, B the outputs' derivative in
    what it computes, H the loss's second derivative in the outputs. With `batch` also `layer_curvature_batch`,
    float[layer], the norm of the mean over samples, which is smaller (samples do not align), to a relative
    `tolerance`. All are in units of the loss over squared weights; 0 for a layer behind or before dead units. Biases
    do not count.

    Raises `ProbeError` without training samples, for losses without `per_sample`, and for networks whose linear layers
    cannot be seen one by one (see `armillary.curvature.layers`). Cost: a backward pass for each output and sample;
    `batch` adds some 10 cheap products a layer. Source: Skorski, Temperoni & Theobald (2020), as recalled; their
    preferred norm was not checked.
    """

    batch: bool = eqx.field(static=True, default=False)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        require_between("tolerance", self.tolerance, 0.0, 1.0, open_low=True)

    def __call__(self, now: Snapshot) -> Observation:
        _, factors = _factors(now, self)
        norms = layer_norms(factors)
        seen = {
            "layer_curvature_norm": Quantity(norms.norm, "layer", long_name="mean norm of samples' layer Hessians"),
            "layer_curvature_trace": Quantity(norms.trace, "layer", long_name="mean trace of samples' layer Hessians"),
        }
        if self.batch:
            batch = batch_norms(factors, self.tolerance)
            seen["layer_curvature_batch"] = Quantity(batch, "layer", long_name="norm of the mean layer Hessian")
        return seen


def batch_norm(factors: LayerFactors, tolerance: float = 1e-3, most: int = 200) -> Array:
    """The largest eigenvalue of the mean over samples of a layer's approximate blocks."""
    size = factors.below.shape[-1] * factors.above.shape[-1]
    start = _start(size, factors.below.dtype)
    return eigenpairs(lambda v: batch_product(factors, v), start, tolerance=tolerance, most=most).values[0]


def batch_norms(factors: list[LayerFactors], tolerance: float = 1e-3, most: int = 200) -> Array:
    """`batch_norm` of each layer, [layer]; layers of one shape go through one loop, which compiles as fast for many."""
    shapes = [(each.below.shape, each.above.shape) for each in factors]
    found: dict[int, Array] = {}
    for shape in dict.fromkeys(shapes):
        same = [index for index, other in enumerate(shapes) if other == shape]
        stack = jax.tree.map(lambda *parts: jnp.stack(parts), *(factors[index] for index in same))
        found.update(zip(same, lax.map(lambda one: batch_norm(one, tolerance, most), stack), strict=True))
    return jnp.stack([found[index] for index in range(len(factors))])


class LayerHessian(Probe):
    """The norm of each layer's exact block of the training loss's Hessian, and of the approximate one, in large networks.

    Returns `layer_hessian_norm`, float[layer], the largest absolute eigenvalue of the Hessian in that layer's
    weights (a negative one may win far from a minimum), `layer_gauss_newton_norm`, float[layer], that of its
    Gauss-Newton part, which the chain rule gives: equal for piecewise linear networks. Both are of the mean over
    samples, whatever the loss's reduction. `layers` chooses some (None: all). Searches end at a relative residual of
    `tolerance`, or after `most` products.

    Raises `ProbeError` as `LayerCurvature` does, and for a layer that is not there. Cost: 10 to 100 products with
    the Hessian a layer. Source: Skorski, Temperoni & Theobald (2020), as recalled.
    """

    layers: tuple[int, ...] | None = eqx.field(static=True, default=None)
    tolerance: float = eqx.field(static=True, default=1e-3)
    most: int = eqx.field(static=True, default=200)
    memory: float = eqx.field(static=True, default=MEMORY)

    def __check_init__(self):
        require_between("tolerance", self.tolerance, 0.0, 1.0, open_low=True)
        require_between("the number of products (most)", self.most, 1)

    def __call__(self, now: Snapshot) -> Observation:
        samples, factors = _factors(now, self)
        chosen = tuple(range(len(factors))) if self.layers is None else self.layers
        if not chosen or min(chosen) < 0 or max(chosen) >= len(factors):
            raise ProbeError(f"LayerHessian was asked for the layers {chosen}; there are {len(factors)}, from 0")
        share = 1.0 / samples.count if now.loss.reduction == "sum" else 1.0
        exact = jnp.stack([share * self._norm(now, samples, index) for index in chosen])
        rule = batch_norms([factors[index] for index in chosen], self.tolerance, self.most)
        return {
            "layer_hessian_norm": Quantity(exact, "layer", long_name="norm of the layer's Hessian"),
            "layer_gauss_newton_norm": Quantity(rule, "layer", long_name="norm of its Gauss-Newton part"),
        }

    def _norm(self, now: Snapshot, samples: Samples, index: int) -> Array:
        where = lambda network: (
            [n for n in jax.tree.leaves(network, is_leaf=is_linear_layer) if is_linear_layer(n)][index].weight
        )
        operator = hessian(now.loss, now.network, samples, where=where, memory=self.memory)
        start = _start(operator.size, operator.dtype)
        count = min(2, operator.size)  # one from each end
        found = eigenpairs(operator.product, start, count, which="both", tolerance=self.tolerance, most=self.most)
        return jnp.max(jnp.abs(found.values))


class ChainRuleError(Probe):
    """How far the approximate chain rule is off in small networks: sample by sample, and for their mean.

    Returns `chain_rule_error`, float[layer], the median over training samples of |approximate - exact|/|exact|,
    Frobenius norms of the layer's block; samples whose exact block is 0 (all units dead) are left out. And
    `chain_rule_ratio`, float[layer], the spectral norm of the mean over samples by the rule over the exact one. Both
    are nan where all blocks are 0; 0 and 1 to rounding for piecewise linear networks.

    Raises `ProbeError` as `LayerCurvature` does, and for layers of more than `limit` weights. Cost: dense Hessians,
    samples times weights² numbers a layer.
    """

    limit: int = eqx.field(static=True, default=500)

    def __call__(self, now: Snapshot) -> Observation:
        samples, factors = _factors(now, self)
        network, layers = now.network, linear_layers(now.network)
        largest = max(layer.weight.size for layer in layers)
        if largest > self.limit:
            raise ProbeError(f"ChainRuleError needs layers of at most {self.limit} weights (limit); one has {largest}")

        def error(index: int) -> tuple[Array, Array]:
            where = lambda n: (
                [m for m in jax.tree.leaves(n, is_leaf=is_linear_layer) if is_linear_layer(m)][index].weight
            )

            def one(x: Array, target: Array, below: Array, above: Array) -> tuple[Array, Array]:
                def value(weight: Array) -> Array:
                    return jnp.sum(now.loss.per_sample(eqx.tree_at(where, network, weight)(x)[None], target[None]))

                rule = jnp.einsum("oa,ob,i,j->aibj", above, above, below, below)
                return jax.hessian(value)(layers[index].weight), rule

            exact, rule = jax.vmap(one)(samples.inputs, samples.targets, *factors[index])
            errors = _over(
                jnp.sqrt(jnp.sum((rule - exact) ** 2, (1, 2, 3, 4))), jnp.sqrt(jnp.sum(exact**2, (1, 2, 3, 4)))
            )
            size = layers[index].weight.size
            norms = [jnp.linalg.norm(jnp.mean(block, axis=0).reshape(size, size), 2) for block in (rule, exact)]
            return jnp.nanmedian(errors), _over(*norms)

        errors, ratios = (jnp.stack(each) for each in zip(*map(error, range(len(layers))), strict=True))
        return {
            "chain_rule_error": Quantity(errors, "layer", long_name="relative error of the chain rule"),
            "chain_rule_ratio": Quantity(ratios, "layer", long_name="norm by the chain rule over the exact one"),
        }


def _over(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), jnp.nan)
