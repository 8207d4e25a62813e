"""The tangent kernel of a network as it is: its size, how far it has moved, what it points at, its spectrum."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between, unknown
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tangents.empirical import OUTPUTS, Outputs, traced_kernel
from armillary.tasks.data import Population


class KernelProbe(Probe):
    """What probes of the tangent kernel share: the inputs that they look at, and in which metric.

    The inputs are the first `samples` of the training set, or of the test set (`on`). `own_metric` counts each weight by its
    layer's learning rate, as gradient descent in the network's parametrisation does. Dense layers and convolutions are
    contracted by their structure. Cost: a gradient for each output and sample, and samples² products of features; memory:
    the features of all samples. Raise `ProbeError` without such samples or trainable weights.
    """

    foreign = True
    samples: int = eqx.field(static=True, default=16)
    own_metric: bool = eqx.field(static=True, default=False, kw_only=True)
    on: Literal["train", "test"] = eqx.field(static=True, default="train", kw_only=True)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)
        if self.on not in ("train", "test"):
            raise unknown("samples to look at (on)", self.on, ("train", "test"))

    def kernel(self, now: Snapshot, network: Any = None, outputs: Outputs = "mean") -> Array:
        """The kernel of a network (the snapshot's unless another is given) on those inputs."""
        network = now.network if network is None else network
        if getattr(network, "foreign", False):
            return network.tangent_kernel(self.points(now), outputs, type(self).__name__)
        if not jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)):
            raise ProbeError(f"{type(self).__name__} needs trainable weights; a {type(network).__name__} has none")
        return traced_kernel(network, self.points(now).inputs, outputs=outputs, own_metric=self.own_metric)

    def points(self, now: Snapshot) -> Any:
        """The samples that are looked at: batches of them for a foreign network."""
        of = getattr(data_of(now, self), self.on)
        if of is None or isinstance(of, Population):
            raise ProbeError(f"{type(self).__name__} looks at {self.on} samples, and this task has none")
        return of.first(self.samples) if getattr(now.network, "foreign", False) else of[: self.samples]

    def at_start(self, now: Snapshot) -> Array:
        """The kernel before training."""
        if now.initial is None:
            raise ProbeError(
                f"{type(self).__name__} compares with the start; pass initial=, the network before training"
            )
        return self.kernel(now, now.initial)


class EmpiricalTangentKernel(KernelProbe):
    """The neural tangent kernel at the weights: inner products of the outputs' gradients at the training inputs.

    Returns `tangent_kernel` on the first `samples` training inputs: with `outputs` "mean" float[sample, other], the mean over
    outputs; "each" float[sample, other, output]; "full" float[sample, output, other, other_output]. Cost and errors as
    `KernelProbe`. Source: Jacot et al. (2018)
    """

    outputs: Outputs = eqx.field(static=True, default="mean")

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)
        if self.outputs not in OUTPUTS:
            raise unknown("outputs", self.outputs, OUTPUTS)

    def __call__(self, now: Snapshot) -> Observation:
        values = self.kernel(now, outputs=self.outputs)
        return {"tangent_kernel": Quantity(values, OUTPUTS[self.outputs], long_name="tangent kernel")}


class KernelDrift(KernelProbe):
    """How far the tangent kernel, the mean over outputs, has moved since the start.

    Returns `kernel_drift`, |now - start|/|start| in the Frobenius norm, and `kernel_alignment`, the cosine of the two:
    0 and 1 for a network that stays lazy. Cost and errors as `KernelProbe`; it also needs the network before training.
    Source: Jacot et al. (2018); Fort et al. (2020)
    """

    def begin(self, now: Snapshot) -> Float[Array, "sample other"]:
        """The kernel at the start."""
        return self.at_start(now)

    def follow(self, now: Snapshot, memory: Any) -> tuple[Observation, Any]:
        """What is seen, with the kernel at the start known."""
        start = self.at_start(now) if memory is None else memory
        kernel = self.kernel(now)
        drift = jnp.linalg.norm(kernel - start) / jnp.linalg.norm(start)
        seen = {
            "kernel_drift": Quantity(drift, long_name="relative change of the tangent kernel"),
            "kernel_alignment": Quantity(
                _cosine(kernel, start), long_name="cosine of the tangent kernel with its start"
            ),
        }
        return seen, start

    def __call__(self, now: Snapshot) -> Observation:
        return self.follow(now, None)[0]


class KernelTargetAlignment(KernelProbe):
    """How much of the tangent kernel, the mean over outputs, points at the targets.

    Returns `target_alignment`, <K, Y Yᵀ>/(|K| |Y Yᵀ|) (for one output yᵀ K y/(|K| |y|²)), and `centred_alignment`, the
    same after the mean over samples is taken out of features and targets. Class numbers count as one-hot vectors. Cost and
    errors as `KernelProbe`. Source: Cristianini et al. (2001); Cortes, Mohri & Rostamizadeh (2012)
    """

    def __call__(self, now: Snapshot) -> Observation:
        points, kernel = self.points(now), self.kernel(now)
        if getattr(now.network, "foreign", False):
            outputs, targets = now.network.predictions(points)
        else:
            outputs, targets = jax.eval_shape(jax.vmap(now.network), points.inputs), points.targets
        if jnp.issubdtype(targets.dtype, jnp.integer):
            targets = jax.nn.one_hot(targets, outputs.shape[-1], dtype=kernel.dtype)
        targets = targets.reshape(len(kernel), -1)
        gram = targets @ targets.T
        return {
            "target_alignment": Quantity(
                _cosine(kernel, gram), long_name="alignment of the tangent kernel with targets"
            ),
            "centred_alignment": Quantity(
                _cosine(_centred(kernel), _centred(gram)),
                long_name="centred alignment of the tangent kernel with targets",
            ),
        }


class KernelSpectrum(KernelProbe):
    """The eigenvalues of the tangent kernel, the mean over outputs, on the training inputs.

    Returns `kernel_eigenvalues`, float[mode], the largest first, and `kernel_rank`, (sum)²/(sum of squares), the number of
    modes that count. Cost: as `KernelProbe`, and samples³.
    """

    def __call__(self, now: Snapshot) -> Observation:
        values = jnp.linalg.eigvalsh(self.kernel(now))[::-1]
        rank = jnp.sum(values) ** 2 / jnp.sum(values**2)
        return {
            "kernel_eigenvalues": Quantity(values, ("mode",), long_name="eigenvalues of the tangent kernel"),
            "kernel_rank": Quantity(rank, long_name="participation ratio of the tangent kernel's eigenvalues"),
        }


class LinearisationError(Probe):
    """How lazy training is: what the network has learned, beside what the network linearised at its start would have with
    the same weights.

    Returns `linearisation_error`, |f - f_linear|/|f - f_start| over the first `samples` training inputs: 0 for a lazy
    network, of order 1 for a rich one, nan before anything has moved. Cost: three passes over the samples. Needs the network
    before training. Source: Chizat, Oyallon & Bach (2019)
    """

    samples: int = eqx.field(static=True, default=64)
    foreign = True

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)

    def __call__(self, now: Snapshot) -> Observation:
        if now.initial is None:
            raise ProbeError("LinearisationError compares with the start; pass initial=, the network before training")
        data = data_of(now, self).train
        if getattr(now.network, "foreign", False):
            first = data.first(self.samples)
            before, change = now.initial.linearised(now.network, first, type(self).__name__)
            return self._seen(now.network.predictions(first)[0].reshape(before.shape) - before, change)
        inputs = data.inputs[: self.samples]
        start, rest = eqx.partition(now.initial, eqx.is_inexact_array)
        moved = jax.tree.map(jnp.subtract, eqx.filter(now.network, eqx.is_inexact_array), start)
        outputs = lambda weights: jax.vmap(eqx.combine(weights, rest))(inputs)
        before, change = jax.jvp(outputs, (start,), (moved,))
        return self._seen(jax.vmap(now.network)(inputs) - before, change)

    def _seen(self, learned: Array, change: Array) -> Observation:
        size = jnp.linalg.norm(learned)
        value = jnp.where(size > 0, jnp.linalg.norm(learned - change) / jnp.where(size > 0, size, 1.0), jnp.nan)
        return {
            "linearisation_error": Quantity(value, long_name="part of what was learned that is not linear in weights")
        }


def _cosine(a: Array, b: Array) -> Array:
    return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def _centred(kernel: Array) -> Array:
    kernel = kernel - jnp.mean(kernel, axis=0)
    return kernel - jnp.mean(kernel, axis=1, keepdims=True)
