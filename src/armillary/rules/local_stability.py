"""Stabilisation as a rule of its own, so that probes can watch it and stages can train on from it."""

from types import MappingProxyType
from typing import Any

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from armillary.models.local_stability import Rescale, check_stabilising, stability_step
from armillary.process import Process, Snapshot
from armillary.rules.loss import Loss
from armillary.tasks.data import Data, Task


class LocalStability(eqx.Module):
    """`steps` steps towards one-step Jacobians of radius `target`, on the training inputs alone; targets are not read.

    The settings are those of `models.Stabilised`, which draws networks that have been through it. `target` can be swept in
    one program. Raises `InvalidValue` for numbers out of range. Source: Herranz-Celotti & Rouat (2023)
    """

    target: Any = 0.5  # a number; traced while a program is compiled
    steps: int = eqx.field(static=True, default=40)
    rule: Any = Rescale()
    samples: int = eqx.field(static=True, default=6)
    times: int | None = eqx.field(static=True, default=None)
    squarings: int = eqx.field(static=True, default=6)
    loss: Loss = Loss()

    discrete = True
    no_time = MappingProxyType({"steps": 0})

    def __check_init__(self):
        check_stabilising(self.target, self.steps, self.samples, self.times)

    @property
    def duration(self) -> int:
        """Steps until the end."""
        return self.steps

    def process(self, task: Task, data: Data, network: PyTree, probes: tuple) -> "Stabilising":
        """What runs."""
        return Stabilising(self, task, data, network, probes)


class StabilisingState(eqx.Module):
    """The network and the rule's memory."""

    network: PyTree
    memory: Any


class Stabilising(Process):
    """A network being stabilised."""

    settings: LocalStability
    task: Task
    data: Data
    initial: PyTree
    probes: tuple

    def init(self, key: PRNGKeyArray) -> StabilisingState:
        return StabilisingState(self.initial, self.settings.rule.init(self.initial))

    def step(self, state: StabilisingState, key: PRNGKeyArray) -> StabilisingState:
        s = self.settings
        inputs = self.data.train.inputs
        chosen = (inputs, s.target, s.samples, s.times, s.squarings)
        return StabilisingState(*stability_step(s.rule, state.network, state.memory, key, *chosen))

    def snapshot(self, state: StabilisingState, time: Array) -> Snapshot:
        return Snapshot(state.network, self.initial, self.data, self.settings.loss, time, None, self.task)

    def watched(self, state: StabilisingState) -> PyTree:
        return state.network
