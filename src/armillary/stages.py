"""Runs in stages: pre-train then fine-tune, task A then B, grow in the middle."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from armillary.errors import InvalidValue
from armillary.process import Process

HandOver = Callable[[Process, Any, Process, Any], tuple[Process, Any]]
"""(old process, old state, new process, key) -> (new process, its first state)."""


def carry_network(old: Process, state: Any, new: Process, key: Any) -> tuple[Process, Any]:
    """The new stage starts from the network that the old one ended with; optimiser memories are fresh."""
    network = state.network
    process = eqx.tree_at(lambda p: p.initial, new, network)
    return process, process.init(key)


class Stage(eqx.Module):
    """One stretch of a run: an experiment, or a process with its own observation `times` (from 0).

    `enter` makes the stage's process and first state of the previous stage's; unused in the first stage.
    It may change shapes, which starts a new compiled program on the same clock.
    """

    what: Any
    times: tuple[float, ...] | None = eqx.field(static=True, default=None)
    enter: HandOver = eqx.field(static=True, default=carry_network)

    @property
    def clock(self) -> np.ndarray:
        """The stage's observation times, counted from its own start."""
        return np.asarray(self.what.times if self.times is None else self.times, dtype=float)


class Stages(eqx.Module):
    """Stages one after another on one clock: `simulate(Stages([first, second]))`.

    Items are `Stage`s or bare experiments, which take over the network. All must count time alike (steps
    or flow time), and each must end at its last observation. A later stage's first observation (its time
    0) is the previous one's last moment on the clock and is left out.
    """

    stages: tuple[Stage, ...]

    def __init__(self, stages: Sequence[Any]):
        self.stages = tuple(s if isinstance(s, Stage) else Stage(s) for s in stages)

    def __check_init__(self):
        if not self.stages:
            raise InvalidValue("there are no stages; give at least one")
        if len({stage.what.discrete for stage in self.stages}) > 1:
            raise InvalidValue("stages mix steps and flow time; use descent or flow in all of them")

    @property
    def discrete(self) -> bool:
        """Whether time counts whole steps."""
        return self.stages[0].what.discrete

    @property
    def precision(self) -> str:
        """The first stage's."""
        return getattr(self.stages[0].what, "precision", "float32")
