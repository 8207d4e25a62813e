"""Curvature of the training loss at the weights: eigenvalues, density, trace, gradient noise.

All take the same choices: which `matrix` ("hessian", "gauss_newton" or "gradient_covariance"); `where`, the part of the
network whose weights count (a function of it, as `lambda n: n.layers[0]`); `own_metric`, the parametrisation's own (see
`armillary.curvature.hessian`); and `memory`, bytes of derivatives kept, beyond which samples go through in chunks. All
raise `ProbeError` without data and `InvalidValue` for networks without trainable weights. Random vectors are the same at
each observation, so that changes between observations are the network's.
"""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from armillary.curvature import density, eigen, spectrum
from armillary.curvature.operators import (
    MEMORY,
    Operator,
    Select,
    gauss_newton,
    gradient_covariance,
    hessian,
    weights_of,
)
from armillary.errors import InvalidValue, require_between, unknown
from armillary.models.model import parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity

Matrix = Literal["hessian", "gauss_newton", "gradient_covariance"]
FRESH = 0.03
"""Share of a random vector in a warm start."""

OPERATORS = {"hessian": hessian, "gauss_newton": gauss_newton, "gradient_covariance": gradient_covariance}


def operator_at(now: Snapshot, matrix: Matrix, samples: Any, **chosen: Any) -> Operator:
    """A curvature matrix at a snapshot; networks of other libraries have their own, of their training samples."""
    if getattr(now.network, "foreign", False):
        return now.network.operator(matrix, **{"where": None, "own_metric": False, **chosen})
    return OPERATORS[matrix](now.loss, now.network, samples, **chosen)


class CurvatureProbe(Probe):
    """What the probes of a curvature matrix share: their choices, and the operator of a snapshot."""

    foreign = True

    matrix: Matrix = eqx.field(static=True, default="hessian", kw_only=True)
    where: Select | None = eqx.field(static=True, default=None, kw_only=True)
    own_metric: bool = eqx.field(static=True, default=False, kw_only=True)
    memory: float = eqx.field(static=True, default=MEMORY, kw_only=True)
    seed: int = eqx.field(static=True, default=0, kw_only=True)

    def __check_init__(self):
        if self.matrix not in get_args(Matrix):
            raise unknown("matrix", self.matrix, get_args(Matrix))

    def operator(self, now: Snapshot) -> Operator:
        """The matrix at the snapshot's weights, on its training samples."""
        chosen = {"where": self.where, "own_metric": self.own_metric, "memory": self.memory}
        return operator_at(now, self.matrix, data_of(now, self).train, **chosen)

    def name(self, quantity: str) -> str:
        """The quantity's name, which says of which matrix it is."""
        return f"{self.matrix}_{quantity}"

    @property
    def key(self) -> Any:
        """The key of the random vectors."""
        return jax.random.key(self.seed)


class EigenvalueSearch(CurvatureProbe):
    """A probe that searches for eigenvalues, and begins where the last search ended."""

    tolerance: float = eqx.field(static=True, default=1e-3, kw_only=True)
    most: int = eqx.field(static=True, default=200, kw_only=True)

    def wanted(self) -> dict[eigen.Which, int]:
        """How many eigenvalues are sought at each end."""
        raise NotImplementedError

    def seen(self, found: list[eigen.Eigenpairs]) -> Observation:
        """What the probe returns, given what was found at each end."""
        raise NotImplementedError

    def begin(self, now: Snapshot) -> Array:
        """Nothing is known yet, float[end, parameter]."""
        weights = weights_of(now.network, self.where)
        return jnp.zeros((len(self.wanted()), weights.size), weights.dtype)

    def follow(self, now: Snapshot, memory: Array | None) -> tuple[Observation, Array]:
        """What is seen, and vectors from which to search next time."""
        operator = self.operator(now)
        count = sum(self.wanted().values())
        if count > operator.size:
            raise InvalidValue(
                f"{count} eigenvalues are asked for, but the network has {operator.size} trainable weights"
            )
        found = []
        for end, (which, wanted) in enumerate(self.wanted().items()):
            start = jax.random.normal(self.key, (operator.size,), operator.dtype)
            start = start / jnp.linalg.norm(start)
            if memory is not None:  # with a little of everything, so that nothing new stays unseen for ever
                known = jnp.linalg.norm(memory[end])
                start = jnp.where(known > 0, memory[end] + FRESH * known * start, start)
            search = {"tolerance": self.tolerance, "most": self.most, "compiled": operator.traced}
            found.append(eigen.eigenpairs(operator.product, start, wanted, which=which, **search))
        return self.seen(found), jnp.stack([one.warm for one in found])

    def __call__(self, now: Snapshot) -> Observation:
        return self.follow(now, None)[0]


class ExtremeEigenvalues(EigenvalueSearch):
    """The `top` largest and `bottom` smallest eigenvalues of a curvature matrix (algebraically), by Lanczos.

    Returns `hessian_eigenvalues`, float[eigenvalue], the largest first and the smallest last; `hessian_residuals`,
    float[eigenvalue], |H v - λ v|, within which a true eigenvalue lies; and `hessian_products`, what it cost. The search
    ends when residuals are below `tolerance` times the values, or after `most` products: read the residuals. In a
    simulation each search begins where the last one ended. Raises `InvalidValue` for more eigenvalues than weights.
    Cost: some 10 to 50 products, each about 1.4 gradients, a few where the weights have changed little; memory:
    2 (top + bottom) + 20 vectors.
    """

    top: int = eqx.field(static=True, default=1)
    bottom: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        require_between("the number of largest eigenvalues (top)", self.top, 0)
        require_between("the number of smallest eigenvalues (bottom)", self.bottom, 0)
        require_between("the number of eigenvalues (top and bottom)", self.top + self.bottom, 1)

    def wanted(self) -> dict[eigen.Which, int]:
        ends: dict[eigen.Which, int] = {"largest": self.top, "smallest": self.bottom}
        return {which: count for which, count in ends.items() if count}

    def seen(self, found: list[eigen.Eigenpairs]) -> Observation:
        join = lambda name: jnp.concatenate([getattr(part, name) for part in found])
        return {
            self.name("eigenvalues"): Quantity(join("values"), "eigenvalue", long_name="extreme eigenvalues"),
            self.name("residuals"): Quantity(join("residuals"), "eigenvalue", long_name="residuals of eigenvalues"),
            self.name("products"): Quantity(sum(part.products for part in found), long_name="products used"),
        }


class Sharpness(EigenvalueSearch):
    """The largest eigenvalue of the Hessian of the training loss: gradient descent is stable up to rate 2/sharpness.

    Returns `sharpness`, a scalar, and `sharpness_residual`, within which it lies of a true eigenvalue (the error is of
    the order of the residual's square); and `sharpness_products`, what it cost. With another `matrix` the names begin with
    it. Cost: some 10 products, and 2 to 4 where the weights have changed little since the last observation.
    Source: Cohen et al. (2021).
    """

    tolerance: float = eqx.field(static=True, default=1e-2, kw_only=True)

    def wanted(self) -> dict[eigen.Which, int]:
        return {"largest": 1}

    def seen(self, found: list[eigen.Eigenpairs]) -> Observation:
        name = "sharpness" if self.matrix == "hessian" else self.name("sharpness")
        return {
            name: Quantity(found[0].values[0], unit="1/rate", long_name="largest eigenvalue"),
            f"{name}_residual": Quantity(found[0].residuals[0], unit="1/rate", long_name="residual of the largest"),
            f"{name}_products": Quantity(found[0].products, long_name="products used"),
        }


class SpectralDensity(CurvatureProbe):
    """The density of a curvature matrix's eigenvalues, by stochastic Lanczos quadrature.

    Returns `hessian_nodes` and `hessian_node_weights`, float[draw, node]: each draw's points and their weights, which add
    up to 1; see `armillary.curvature.Quadrature` for the smeared density. Cost: `steps` times `draws` products.
    """

    steps: int = eqx.field(static=True, default=80)
    draws: int = eqx.field(static=True, default=1)

    def __call__(self, now: Snapshot) -> Observation:
        found = density.quadrature(self.operator(now), self.key, self.steps, self.draws)
        dims = ("draw", "node")
        return {
            self.name("nodes"): Quantity(found.nodes, dims, long_name="nodes of the spectral density"),
            self.name("node_weights"): Quantity(found.weights, dims, long_name="weights of the nodes"),
        }


class Traces(CurvatureProbe):
    """Trace and Frobenius norm of a curvature matrix, from random vectors.

    Returns `hessian_trace` and `hessian_squared_norm` with their standard errors, `hessian_trace_error` and
    `hessian_squared_norm_error`, scalars. `low_rank` takes the trace over that many strong directions exactly (Hutch++).
    Cost: 2 (draws + low_rank) products.
    """

    draws: int = eqx.field(static=True, default=32)
    low_rank: int = eqx.field(static=True, default=0)

    def __call__(self, now: Snapshot) -> Observation:
        operator = self.operator(now)
        trace = density.trace(operator, self.key, self.draws, self.low_rank)
        norm = density.squared_norm(operator, self.key, self.draws)
        return {
            self.name("trace"): Quantity(trace.value, long_name="trace"),
            self.name("trace_error"): Quantity(trace.error, long_name="standard error of the trace"),
            self.name("squared_norm"): Quantity(norm.value, long_name="squared Frobenius norm"),
            self.name("squared_norm_error"): Quantity(norm.error, long_name="standard error of the squared norm"),
        }


class DenseSpectrum(CurvatureProbe):
    """All eigenvalues of a curvature matrix, largest first, for small networks; and what is read off them.

    Returns `hessian_spectrum`, float[parameter], and, see `armillary.curvature.spectrum`: `hessian_rank`, the number of
    eigenvalues whose size is above `cutoff` times the largest; `hessian_outliers`, how many lie above the largest
    logarithmic gap among the first `among`; `hessian_above_bulk`, how many exceed 10 times the 95 % quantile of sizes;
    `hessian_zero_fraction`, the share of sizes below `zero` times the largest; and `hessian_negative_mass`. Raises
    `InvalidValue` above `limit` weights. Cost: a product for each weight and an eigenvalue decomposition; memory: limit²
    numbers, twice. Single precision knows eigenvalues to about 1e-6 of the largest.
    """

    limit: int = eqx.field(static=True, default=5000)
    cutoff: float = eqx.field(static=True, default=1e-6)
    among: int = eqx.field(static=True, default=40)
    zero: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        require_between("the number of eigenvalues looked at (among)", self.among, 1)
        require_between("what counts as 0 (zero)", self.zero, 0.0)

    def __call__(self, now: Snapshot) -> Observation:
        values = jnp.linalg.eigvalsh(density.dense(self.operator(now), self.limit))[::-1]
        sizes = jnp.abs(values)
        rank = jnp.sum(sizes > self.cutoff * jnp.max(sizes))
        seen = {
            "spectrum": Quantity(values, "parameter", long_name="eigenvalues"),
            "rank": Quantity(rank, long_name="eigenvalues that are not 0"),
            "above_bulk": Quantity(spectrum.count_above_bulk(values), long_name="eigenvalues far above the bulk"),
            "zero_fraction": Quantity(spectrum.zero_fraction(values, self.zero), long_name="share near 0"),
            "negative_mass": Quantity(spectrum.negative_mass(values), long_name="share of the negative ones' sizes"),
        }
        if len(values) > 1:
            count = spectrum.gap_count(values, self.among)
            seen["outliers"] = Quantity(count, long_name="eigenvalues above the largest gap")
        return {self.name(name): quantity for name, quantity in seen.items()}


class GradientNoise(Probe):
    """How noisy a batch's gradient is: the batch size at which noise and signal are equal, plainly and in the curvature.

    Returns `gradient_norm`, |g| of all training samples; `gradient_variance`, tr C with C the covariance of the samples'
    gradients; `noise_scale`, tr C/|g|²; and `curved_noise_scale`, tr(H C)/gᵀ H g, which counts directions by their
    curvature (nan where gᵀ H g is not positive), from `draws` random combinations of samples' gradients. Cost: 2 draws + 2
    products. Source: McCandlish et al. (2018).
    """

    draws: int = eqx.field(static=True, default=32)
    memory: float = eqx.field(static=True, default=MEMORY)

    foreign = True

    def __check_init__(self):
        require_between("the number of random vectors (draws)", self.draws, 1)

    def __call__(self, now: Snapshot) -> Observation:
        samples = data_of(now, self).train
        covariance = operator_at(now, "gradient_covariance", samples, memory=self.memory)
        curvature = operator_at(now, "hessian", samples, memory=self.memory)
        if getattr(now.network, "foreign", False):
            flat = now.network.gradient()
        else:
            gradient = eqx.filter_grad(now.loss)(now.network, samples)
            flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(parameters(gradient))])
        scale = 1.0 if now.loss.reduction == "mean" else 1.0 / samples.count
        flat = scale * flat

        def one(key: Any) -> tuple[Array, Array]:
            v = density.signs(key, covariance)
            spread = covariance.product(v)
            return v @ spread, scale * (curvature.product(v) @ spread)

        plain, curved = density.each(covariance, one, jax.random.split(jax.random.key(0), self.draws))
        along = scale * (flat @ curvature.product(flat))
        squared = jnp.sum(flat**2)
        ratio = jnp.where(along > 0, jnp.mean(curved) / jnp.where(along > 0, along, 1.0), jnp.nan)
        return {
            "gradient_norm": Quantity(jnp.sqrt(squared), long_name="norm of the gradient"),
            "gradient_variance": Quantity(jnp.mean(plain), long_name="variance of samples' gradients"),
            "noise_scale": Quantity(jnp.mean(plain) / squared, unit="samples", long_name="gradient noise scale"),
            "curved_noise_scale": Quantity(ratio, unit="samples", long_name="noise scale by curvature"),
        }
