"""How far gradients reach in recurrent networks: one-step Jacobians, and outputs' derivatives by each input."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from armillary.errors import ProbeError, require_between
from armillary.models.local_stability import step_radii
from armillary.models.model import parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class StepRadii(Probe):
    """Mean spectral radii of each layer's one-step Jacobians, over the first `samples` training sequences.

    Returns `time_radius`, float[layer], of dh_t/dh_(t-1), and `depth_radius`, float[layer], of the derivative by the layer
    below; nan for layers where that is not square (the first, usually). `every` takes only each so many-th step. Raises
    `ProbeError` without data, and for networks that do not expose their one-step maps (see `models.Stabilised`). Cost:
    samples x times x layers x 2 radii. Source: Herranz-Celotti & Rouat (2023)
    """

    samples: int = eqx.field(static=True, default=6)
    every: int = eqx.field(static=True, default=1)
    squarings: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)
        require_between("every", self.every, 1)

    def __call__(self, now: Snapshot) -> Observation:
        inputs = _sequences(now, self)
        if not hasattr(now.network, "one_steps"):
            raise ProbeError(f"StepRadii needs a network with one-step maps, not a {type(now.network).__name__}")
        times = jnp.arange(inputs.shape[1])[:: self.every]
        time, depth = step_radii(now.network, inputs[: self.samples], times, self.squarings)
        return {
            "time_radius": Quantity(time, "layer", long_name="radius of the Jacobian in time"),
            "depth_radius": Quantity(depth, "layer", long_name="radius of the Jacobian in depth"),
        }


class StepSensitivity(Probe):
    """How strongly the output depends on each step of the input, over the first `samples` training sequences.

    With J_t the derivative of the network's output by the input at step t, [output, input]: `squared_sensitivity`, float[step],
    the mean of |J_t|² (Frobenius); and `squared_total_sensitivity`, that of |sum of J_t|², the response to an input that is
    shifted at all steps. Steps count from 1; for an output at the last one, that has no delay. Raises `ProbeError` without
    data or for inputs that are no sequences. Cost: a backward pass for each output and sample.
    """

    samples: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)

    def __call__(self, now: Snapshot) -> Observation:
        jacobians = jax.vmap(jax.jacrev(now.network))(
            _sequences(now, self)[: self.samples]
        )  # [sample, output, time, input]
        each = jnp.mean(jnp.sum(jacobians**2, axis=(1, 3)), axis=0)
        whole = jnp.mean(jnp.sum(jnp.sum(jacobians, axis=2) ** 2, axis=(1, 2)))
        return {
            "squared_sensitivity": Quantity(each, "step", long_name="squared derivative by a step's input"),
            "squared_total_sensitivity": Quantity(whole, long_name="squared derivative by all steps' inputs"),
        }


class GradientNorm(Probe):
    """The norm of the training loss's gradient over all weights, on the first `samples` training samples (None: all).

    Returns `gradient_norm`, a scalar. Raises `ProbeError` without data. Cost: one gradient.
    """

    samples: int | None = eqx.field(static=True, default=None)

    def __call__(self, now: Snapshot) -> Observation:
        gradient = eqx.filter_grad(now.loss)(now.network, data_of(now, self).train[: self.samples])
        squared = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(parameters(gradient)))
        return {"gradient_norm": Quantity(jnp.sqrt(squared), long_name="norm of the gradient")}


def _sequences(now: Snapshot, probe: Probe) -> Array:
    inputs = data_of(now, probe).train.inputs
    if inputs.ndim != 3:
        raise ProbeError(
            f"{type(probe).__name__} needs sequences [sample, time, input]; inputs have {inputs.ndim} axes"
        )
    return inputs
