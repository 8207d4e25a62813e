"""Bias and variance of a linear smoother, exactly, and effective ranks of its kernel."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between
from armillary.models.ensemble import EnsembleNetwork
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
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


class EnsembleErrors(Probe):
    """Excess errors of fitted kernels, alone and averaged, in expectation over label noise of the task's variance.

    `member_risk`, mean over test points (and members) of the squared error of a kernel machine, the `excess_risk` of `SmootherErrors`;
    `ensemble_risk`, that of the mean of all members' predictions (for a single smoother the same); `initial_risk`, the
    first for machines to which the untrained network belongs, f(x) + s(x) . (y - f(X)), only if `initial` asks for it and
    the kernel has `outputs` (see `FiniteWidth`). All scalars. Label noise is not sampled; test targets must be noiseless.

    Cost: one evaluation of each member on all samples. Raises `ProbeError` as `SmootherErrors` does. Derived here.
    """

    initial: bool = eqx.field(static=True, default=False)

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        several = isinstance(now.network, EnsembleNetwork)
        stack = now.network.stack if several else now.network
        if not hasattr(stack, "smoother"):
            raise ProbeError(f"EnsembleErrors needs fitted kernels (KernelRidge), not a {_name(stack)}")
        if data.test is None or not hasattr(now.task, "noise"):
            raise ProbeError(
                "EnsembleErrors needs test samples and a task that knows its label noise; use CovariateNoise"
            )
        arrays, static = eqx.partition(stack, eqx.is_array)
        arrays = arrays if several else jax.tree.map(lambda a: a[None], arrays)
        clean, test, count = noiseless(data), data.test, now.network.count if several else 1
        both = jnp.concatenate([test.inputs, data.train.inputs])
        nothing = jnp.zeros((len(both), clean.shape[1]), clean.dtype)
        initial = self.initial and hasattr(stack.kernel, "outputs")

        def excess(weights: Array, started: Array) -> Array:
            """Of one smoother, to whose predictions belongs `started` [sample, output], at test, then training inputs."""
            there, here = jnp.split(started, [test.count])
            missed = weights @ (clean - here) + there - test.targets
            spread = jnp.sum(weights**2, axis=1) * missed.shape[1]
            return jnp.mean(jnp.sum(missed**2, axis=1) + now.task.noise**2 * spread)

        def add(total: Array, one: Any) -> tuple[Array, tuple[Array, ...]]:
            member = eqx.combine(one, static)
            weights = member.smoother(test.inputs)
            started = (nothing, member.kernel.outputs(both)) if initial else (nothing,)
            return total + weights, tuple(excess(weights, start) for start in started)

        total, alone = lax.scan(add, jnp.zeros((test.count, data.train.count), clean.dtype), arrays)
        found = {
            "member_risk": Quantity(jnp.mean(alone[0]), long_name="excess error"),
            "ensemble_risk": Quantity(excess(total / count, nothing), long_name="excess error of the mean prediction"),
        }
        if initial:
            found["initial_risk"] = Quantity(jnp.mean(alone[1]), long_name="excess error with the initial output")
        return found


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
