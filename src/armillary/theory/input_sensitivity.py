"""How sensitive kernel interpolators of random labels are to their inputs, in many dimensions.

Inputs lie on a sphere, and the kernel is a function kappa(c) of the cosine c of two of them. With N samples in d dimensions,
N/d fixed, K = kappa'(0) X Xᵀ + rest I (X of unit rows), up to a constant part that no gradient sees: what non-linear degrees
add is alike on the diagonal and vanishes beside it. Source of the setting: Bombari, Kiyani & Mondelli (2023),
arXiv:2302.01629; all formulas derived here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, ArrayLike, Float

from armillary.compiled import FASTEST, Compiled
from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.members import as_arrays
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.tasks.classification import GaussianClasses
from armillary.tasks.on_sphere import OnSphere
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.kernels.layers import Serial
from armillary.theory.kernels.machine import InfiniteWidth
from armillary.theory.kernels.norms import Norms, Pair
from armillary.theory.kernels.of_model import kernel
from armillary.theory.random_matrix import MarchenkoPastur
from armillary.trajectory import Trajectory

SMALLEST_DIMENSION = 80
"""Inputs below which single draws stray from the limit by some ten percent."""

MOST_SAMPLES = 0.5
"""Samples over inputs^(3/2) up to which only the linear degree of the kernel has a spectrum of its own."""


class SphereKernel(NamedTuple):
    """A kernel on a sphere as a function of the cosine: its slope `linear` and second derivative `curvature` at cosine 0, and
    `rest`, what it has at cosine 1 beside its constant and linear parts."""

    linear: float
    curvature: float
    rest: float


def sphere_kernel(model: Any, inputs: int, which: str = "ntk", radius: float = 1.0) -> SphereKernel:
    """Those numbers of a model's kernel at infinite width. Raises `InvalidValue` for a model without one.

    >>> from armillary.models import FiniteWidth
    >>> sine = sphere_kernel(FiniteWidth(activation="sin", first_layer=0.0), 10)  # exp(-1) sinh c
    >>> [round(float(value) * np.e, 6) for value in sine]  # 1, 0, sinh(1) - 1
    [1.0, 0.0, 0.175201]
    """
    with jax.enable_x64(True):
        network = as_arrays(kernel(model, inputs).network, np.float64)
        values = _at_ends(network, np.asarray(radius**2 / inputs), which)
    none, one, slope, curvature = (float(value) for value in values)
    return SphereKernel(slope, curvature, one - none - slope)


def _on_sphere(network: Serial, size: Array, which: str) -> tuple[Array, Array, Array, Array]:
    """A kernel of inputs of that mean square at cosines 0 and 1, and its first two derivatives in the cosine at 0."""
    alone = Norms(0, full=False)
    network(Pair(size[None], jnp.zeros_like(size[None])), alone)
    known = [(own, own) for own in alone.record]

    def of(cosine: Array) -> Array:
        product = jnp.reshape(size * cosine, (1, 1))
        return getattr(network(Pair(product, jnp.zeros_like(product)), Norms(0, full=False, known=known)), which)[0, 0]

    at, zero = jax.jacfwd(of), jnp.zeros_like(size)
    return of(zero), of(zero + 1), at(zero), jax.jacfwd(at)(zero)


_at_ends = Compiled(_on_sphere, FASTEST)


def kernel_sensitivity(kernel: SphereKernel, samples: float, dimension: float, penalty: float = 0.0) -> float:
    """Root mean square of |z| |grad f(z)| over independent labels of variance 1, for ridge regression with that kernel.

    With c = rest + penalty, the gradient's linear part gives dimension times the mean of linear² x/(linear x + c)² over the
    Marchenko-Pastur spectrum of X Xᵀ (aspect ratio samples/dimension; zeros do not count), so that it grows as the root of
    the samples; the second degree gives curvature² times the mean of 1/(linear x + c)², zeros counting, which is of order
    samples/dimension. Even kernels have the latter alone: curvature/c times the root of samples/dimension. Raises
    `InvalidValue` for sizes that are not positive.

    >>> sine, cosine = SphereKernel(1.0, 0.0, np.sinh(1) - 1), SphereKernel(0.0, 1.0, np.cosh(1) - 1)
    >>> [round(kernel_sensitivity(k, 400, 400), 3) for k in (sine, cosine)]
    [17.569, 1.841]
    """
    require_between("the number of samples", samples, 0.0, open_low=True)
    require_between("the dimension", dimension, 0.0, open_low=True)
    require_between("the penalty", penalty, 0.0)
    ratio = samples / dimension
    nodes, weights = MarchenkoPastur(ratio).quadrature()
    shifted = kernel.linear * nodes + kernel.rest + penalty
    linear = dimension * kernel.linear**2 * (weights @ (nodes / shifted**2))
    zeros = max(ratio - 1, 0.0) / (kernel.rest + penalty) ** 2
    return float(np.sqrt(linear + kernel.curvature**2 * (weights @ shifted**-2.0 + zeros)))


def universal_bound(
    samples: Float[ArrayLike, "..."], dimension: Float[ArrayLike, "..."], parameters: Float[ArrayLike, "..."]
) -> Float[np.ndarray, "..."]:
    """The order of the least sensitivity with which so many parameters interpolate noisy labels, sqrt(samples dimension/parameters).

    It is a law for all models up to a constant, which is left out. Source: Bubeck & Sellke (2021)

    >>> print(universal_bound(80, 200, np.array([16_000.0, 64_000.0])))
    [1.  0.5]
    """
    require_between("the number of parameters", parameters, 0.0, open_low=True)
    return np.sqrt(np.multiply(samples, dimension) / np.asarray(parameters, float))


@theory
class KernelSensitivity(Theory):
    """Sensitivity to the input of infinitely wide networks' kernels that fit random labels on a sphere."""

    name = "input sensitivity of kernels in high dimension"
    source = "derived here; setting of Bombari, Kiyani & Mondelli (2023), arXiv:2302.01629"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("inputs on a sphere (OnSphere)", task, OnSphere)
        yield kind("an infinitely wide network (InfiniteWidth)", model, InfiniteWidth)
        yield kind("a learner that is solved", rule, Solved)
        inner = getattr(task, "task", None)
        if not isinstance(task, OnSphere) or not isinstance(model, InfiniteWidth) or not isinstance(rule, Solved):
            return
        yield kind("kernel ridge regression", rule.solver, KernelRidge)
        yield kind("uniform inputs with random labels (GaussianClasses)", inner, GaussianClasses)
        if not isinstance(inner, GaussianClasses):
            return
        yield Check(inner.labels == "random" and not inner.framed, "random labels and whole inputs",
                    f"labels are by {inner.labels}{', in a frame' if inner.framed else ''}")  # fmt: skip
        yield Check(inner.dimension >= SMALLEST_DIMENSION, "many inputs",
                    f"there are {inner.dimension} (at least {SMALLEST_DIMENSION})")  # fmt: skip
        many = inner.samples / inner.dimension**1.5
        yield limit("samples in proportion to inputs", "samples over inputs^(3/2)", many, MOST_SAMPLES)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        found = sphere_kernel(model.model, task.inputs, model.kind, float(task.radius))
        value = kernel_sensitivity(found, task.task.samples, task.inputs, float(experiment.rule.solver.penalty))
        labels = {"units": "1", "long_name": "sensitivity to the input, over labels"}
        return xr.Dataset({"label_sensitivity": ("time", [value], labels)}, coords={"time": experiment.times})
