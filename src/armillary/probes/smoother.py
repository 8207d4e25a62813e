"""Bias and variance of a linear smoother, exactly, and effective ranks of its kernel."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between
from armillary.probes.losses import data_of
from armillary.probes.probe import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Data


class SmootherErrors(Probe):
    """Bias and variance of a network whose predictions are linear in its training targets, f(x) = s(x) . y.

    At the training inputs and test points at hand, and in expectation over label noise of the task's variance:
    `bias`, mean of (s . f* - f*(x))² over test points, with the noiseless targets f*; `variance`, noise² times the mean
    of |s|²; their sum `excess_risk`; `training_error`, mean squared residual of the drawn, noisy training targets. All
    scalars, summed over outputs. No label noise is sampled for the first three, and test targets must be noiseless.

    The network has a method `smoother(inputs) -> [point, sample]` (a fitted `KernelRidge`). Noiseless training targets
    are the teacher's: `data.teacher.targets`, or the teacher, a matrix or a network, applied to the training inputs.
    Cost: one evaluation of the smoother on all samples. Raises `ProbeError` for another network, and without test
    samples, a task with `noise`, or a teacher. Source: the usual split, e.g. Bartlett et al. (2020)
    """

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        if not hasattr(now.network, "smoother"):
            raise ProbeError(
                f"SmootherErrors needs a linear smoother (a fitted KernelRidge), not a {_name(now.network)}"
            )
        if data.test is None or not hasattr(now.task, "noise"):
            raise ProbeError(
                "SmootherErrors needs test samples and a task that knows its label noise; use CovariateNoise"
            )
        weights = now.network.smoother(data.test.inputs)
        missed = weights @ noiseless(data) - data.test.targets
        bias = jnp.mean(jnp.sum(missed**2, axis=1))
        variance = now.task.noise**2 * jnp.mean(jnp.sum(weights**2, axis=1)) * missed.shape[1]
        residual = now.network.smoother(data.train.inputs) @ data.train.targets - data.train.targets
        return {
            "bias": Quantity(bias, long_name="squared bias"),
            "variance": Quantity(variance, long_name="variance"),
            "excess_risk": Quantity(bias + variance, long_name="excess risk"),
            "training_error": Quantity(jnp.mean(jnp.sum(residual**2, axis=1)), long_name="training error"),
        }


class EffectiveRanks(Probe):
    """Effective ranks of a fitted kernel's matrix beyond its `skip` largest eigenvalues.

    `effective_rank`, sum over largest of the rest, and `spread_rank`, squared sum over sum of squares of the rest;
    both scalars from 1 to samples - skip (the population's ranks may be far larger: see `theory.benign`), nan where
    nothing is left. Cost: the kernel's eigenvalues. Raises `ProbeError` for a network that is no `KernelSmoother`, and
    for a skip that leaves no eigenvalue. Source: Bartlett et al. (2020)
    """

    skip: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        require_between("the number of skipped eigenvalues", self.skip, 0)

    def __call__(self, now: Snapshot) -> Observation:
        kernel, centres = (getattr(now.network, name, None) for name in ("kernel", "centres"))
        if kernel is None or centres is None:
            raise ProbeError(f"EffectiveRanks needs a fitted kernel (KernelRidge), not a {_name(now.network)}")
        if self.skip >= len(centres):
            raise ProbeError(f"EffectiveRanks skips {self.skip} eigenvalues, but the kernel has only {len(centres)}")
        rest = jnp.maximum(jnp.linalg.eigvalsh(kernel(centres, centres))[::-1][self.skip :], 0.0)
        return {
            "effective_rank": Quantity(jnp.sum(rest) / rest[0], long_name="effective rank r"),
            "spread_rank": Quantity(jnp.sum(rest) ** 2 / jnp.sum(rest**2), long_name="effective rank R"),
        }


def noiseless(data: Data) -> Float[Array, "sample output"]:
    """The training targets without label noise, from the data's teacher. Raises `ProbeError` where there is none."""
    teacher, inputs = data.teacher, data.train.inputs
    if hasattr(teacher, "targets"):
        return teacher.targets
    if eqx.is_array(teacher) and teacher.ndim == 2 and teacher.shape[1] == inputs.shape[1]:
        return inputs @ teacher.T
    if isinstance(teacher, eqx.Module) and callable(teacher):
        return jax.vmap(teacher)(inputs)
    raise ProbeError("SmootherErrors needs a teacher: the training targets without their noise")


def _name(network: object) -> str:
    return type(network).__name__
