"""Errors over the whole population, and the directions in which nothing is learned."""

import jax
import jax.numpy as jnp

from armillary.errors import ProbeError
from armillary.models.model import end_to_end, matrices
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.linear import LinearTeacher


class RegressionErrors(Probe):
    """Mean squared errors (without a factor ½): over the population and over the training samples.

    For a linear network and a `LinearTeacher` the test error is exact, tr (W - T) C (W - T)ᵀ + outputs noise²,
    the noise floor included; otherwise it is the mean over the test samples. Returns `generalisation_error` and
    `training_error`, scalars. Source: Advani & Saxe (2017) Raises `ProbeError` without data, or where
    there is neither a linear teacher nor a test set.
    """

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        squares = lambda s: jnp.mean(jnp.sum((jax.vmap(now.network)(s.inputs) - s.targets) ** 2, axis=-1))
        return {
            "generalisation_error": Quantity(self._test(now, squares), long_name="test error"),
            "training_error": Quantity(squares(data.train), long_name="training error"),
        }

    def _test(self, now: Snapshot, squares) -> jax.Array:
        if isinstance(now.task, LinearTeacher):
            task = now.task
            wrong = end_to_end(now.network, task.inputs) - now.data.teacher
            covariance = jnp.asarray(task.input_covariance, wrong.dtype)
            return jnp.sum(wrong @ covariance * wrong) + task.outputs * task.noise**2
        if now.data.test is None:
            raise ProbeError("RegressionErrors needs a linear teacher or test samples; give the task test_samples")
        return squares(now.data.test)


class FrozenSubspace(Probe):
    """How far the first layer has moved in the input directions that no training sample has.

    Gradients lie in the span of the inputs, so these components never move (Advani & Saxe 2017).
    Returns `frozen_displacement`, the largest entry of (W_1 - W_1(0)) projected on the null space of the training
    inputs, and `frozen_dimension`, that space's dimension. Raises `ProbeError` without data or initial network.
    Cost: one SVD of the inputs at each observation.
    """

    def __call__(self, now: Snapshot) -> Observation:
        inputs = data_of(now, self).train.inputs
        if now.initial is None:
            raise ProbeError("FrozenSubspace needs the network before training; pass initial=...")
        _, s, vt = jnp.linalg.svd(inputs, full_matrices=False)
        seen = s > s[0] * max(inputs.shape) * jnp.finfo(inputs.dtype).eps
        span = jnp.where(seen[:, None], vt, 0.0)
        moved = matrices(now.network)[0] - matrices(now.initial)[0]
        frozen = moved - (moved @ span.T) @ span
        return {
            "frozen_displacement": Quantity(jnp.max(jnp.abs(frozen)), long_name="movement where there are no data"),
            "frozen_dimension": Quantity(inputs.shape[1] - jnp.sum(seen), long_name="directions without data"),
        }
