"""Classifiers that weigh the labels of training samples, and the best one there could be."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue
from armillary.tasks.data import Data, Task


class Voters(eqx.Module):
    """x -> sum over samples of k(x, x_i) y_i over the sum of |k(x, x_i)|, [output]."""

    kernel: Any
    centres: Float[Array, "sample input"]
    targets: Float[Array, "sample output"]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        size, sign = self.kernel.logarithm(x[None], self.centres)
        top = jnp.max(size)
        # Equal inputs have an infinite weight: they then decide among themselves.
        weight = jnp.where(jnp.isinf(top), size == top, jnp.exp(size - jnp.where(jnp.isinf(top), 0.0, top)))[0]
        return (weight * sign[0]) @ self.targets / jnp.sum(weight)


class KernelVote(eqx.Module):
    """The smoother of a kernel: each training sample votes for its target with the weight k(x, x_i), nothing is solved.

    The model is a kernel that knows its logarithm (`RadialKernel`, `DeepKernel`), so that singular ones do: samples equal to x have
    an infinite weight and outvote all others. Targets are ±1 or real numbers [sample, output]; the vote is their weighted mean
    (Nadaraya 1964, Watson 1964), whose sign is the decision. Raises `InvalidValue` for another model.
    """

    def fit(self, task: Task, data: Data, network: Any, key: PRNGKeyArray) -> Voters:
        if not hasattr(network, "logarithm"):
            raise InvalidValue(f"KernelVote needs a RadialKernel or a DeepKernel, not a {type(network).__name__}")
        return Voters(network, data.train.inputs, data.train.targets)


class BayesNetwork(eqx.Module):
    """A task's Bayes classifier as a network of one output, ±1."""

    task: Any

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " 1"]:
        return self.task.bayes(x[None])


class BayesClassifier(eqx.Module):
    """The classifier of least error, from the task itself: no sample is looked at. The task has a method `bayes(inputs
    [sample, input]) -> ±1 [sample]`. Raises `InvalidValue` for one without."""

    def fit(self, task: Task, data: Data, network: Any, key: PRNGKeyArray) -> BayesNetwork:
        if not hasattr(task, "bayes"):
            raise InvalidValue(
                f"a {type(task).__name__} does not know its Bayes classifier; use DirichletClasses or ArcRegions"
            )
        return BayesNetwork(task)
