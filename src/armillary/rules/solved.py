"""Learners that are solved in one go instead of stepped."""

from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue
from armillary.process import Process, Snapshot
from armillary.rules.flow import refuse_update_probes
from armillary.rules.loss import Loss
from armillary.tasks.data import Data, Task


@runtime_checkable
class Solver(Protocol):
    """What solves: a module whose `fit` makes the fitted network of the data and the model's untrained network.

    The result may be of another kind than `network`. Numbers of a solver (a ridge penalty) that are plain float fields
    can be swept in one compiled program. `key` is the member's own.
    """

    def fit(self, task: Task, data: Data, network: PyTree, key: PRNGKeyArray) -> PyTree:
        """The fitted network."""
        ...


class Solved(eqx.Module):
    """A rule without a clock: `solver` fits the network at once, and it is observed at time 0.

    With it minimum-norm interpolators, ridge regression, maximum likelihood and the like run, are swept and are probed
    as trained networks are. `loss` is what the probe `Losses` shows; solvers have their own objectives. Members whose
    fit is not finite count as diverged at 0. Raises `InvalidValue` for a solver without `fit`.

    >>> import armillary as arm
    >>> from armillary.models.tangent_kernel import LinearKernel
    >>> from armillary.rules.solvers import KernelRidge
    >>> task = arm.tasks.LinearTeacher(dimension=8, samples=4)
    >>> fit = arm.Experiment(task, LinearKernel(), Solved(KernelRidge()), [arm.probes.Losses()])
    >>> seen = arm.simulate(fit, seeds=2)
    >>> dict(seen.train_loss.sizes), bool((seen.train_loss < 1e-9).all())
    ({'seed': 2, 'time': 1}, True)
    """

    solver: Any
    loss: Loss = Loss()

    discrete = True
    no_time = MappingProxyType({})

    def __check_init__(self):
        if not isinstance(self.solver, Solver):
            raise InvalidValue(
                f"the solver is a {type(self.solver).__name__}, but must have fit(task, data, network, key)"
            )

    @property
    def duration(self) -> int:
        """There is only time 0."""
        return 0

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "SolvedNetwork":
        """What runs."""
        refuse_update_probes(probes)
        return SolvedNetwork(task, data, network, self.solver, self.loss, probes)


class SolvedState(eqx.Module):
    """The fitted network."""

    network: PyTree


class SolvedNetwork(Process):
    """One network that is fitted when it starts, and stays so."""

    task: Task
    data: Data
    initial: PyTree
    solver: Any
    loss: Loss
    probes: tuple

    def init(self, key: PRNGKeyArray) -> SolvedState:
        return SolvedState(self.solver.fit(self.task, self.data, self.initial, key))

    def step(self, state: SolvedState, key: PRNGKeyArray) -> SolvedState:
        return state

    def snapshot(self, state: SolvedState, time: Array) -> Snapshot:
        return Snapshot(state.network, self.initial, self.data, self.loss, time, task=self.task)
