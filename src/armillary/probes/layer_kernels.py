"""The parts of a tangent kernel, layer by layer."""

import jax.numpy as jnp

from armillary.errors import ProbeError
from armillary.probes.tangent_kernel import KernelProbe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tangents.empirical import traced_kernel
from armillary.tangents.listening import can_listen, layers_of


class LayerKernels(KernelProbe):
    """What each layer adds to the tangent kernel, the mean over outputs, on the first `samples` training inputs.

    Returns `layer_kernels`, float[layer, sample, other], in the order of `armillary.tangents.layers_of`: the inner products of the
    outputs' gradients in that layer's weights and biases. They add up to the tangent kernel. Cost, fields and errors as
    `KernelProbe`; also a `ProbeError` where weights are not all in dense layers or convolutions that the network calls
    outside loops of its own. Source: the sum over layers is Jacot et al. (2018)'s.
    """

    foreign = False

    def __call__(self, now: Snapshot) -> Observation:
        points = self.points(now).inputs
        names = layers_of(now.network)
        if not names or names[-1] == "rest" or not can_listen(now.network, points[0]):
            raise ProbeError(
                f"LayerKernels needs all weights in dense layers or convolutions outside loops; this "
                f"{type(now.network).__name__} has others (EmpiricalTangentKernel shows the whole)"
            )
        parts = traced_kernel(now.network, points, outputs="mean", own_metric=self.own_metric, by_layer=True)
        return {
            "layer_kernels": Quantity(
                jnp.asarray(parts), ("layer", "sample", "other"), long_name="tangent kernel of a layer"
            )
        }
