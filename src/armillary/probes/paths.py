"""The loss on the way from the initial network to this one, and from one network to another."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax.numpy as jnp

from armillary.errors import ProbeError, require_between, unknown
from armillary.models.ensemble import EnsembleNetwork
from armillary.path_builders import bent_path, dropout_path
from armillary.paths import barrier, losses_at
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.rules.optimisers import Adam, Optimiser
from armillary.tasks.data import Samples


class SegmentLoss(Probe):
    """The loss on the straight line from the initial network (a later stage's: the one it began with) to this one.

    Returns `segment_loss`, float[path], on the training samples at `points` even positions, both ends included;
    `segment_barrier`, how far it rises above the higher end; and the same on the test samples where there are any,
    `segment_test_loss` and `segment_test_barrier`. Raises `ProbeError` without data or the initial network, and
    `InvalidValue` for fewer than two points or networks of different shapes. Cost: `points` passes over all samples.
    Source: Goodfellow, Vinyals & Saxe (2015).
    """

    points: int = eqx.field(static=True, default=21)

    def __check_init__(self):
        require_between("the number of points", self.points, 2)

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        if now.initial is None:
            raise ProbeError("SegmentLoss needs the network before training; pass initial=...")
        seen = {}
        for name, words, samples in (("", "", data.train), ("test_", "test ", data.test)):
            if isinstance(samples, Samples):
                along = losses_at(now.loss, (now.initial, now.network), samples, jnp.linspace(0.0, 1.0, self.points))
                seen[f"segment_{name}loss"] = Quantity(along, "path", long_name=f"{words}loss on the segment")
                seen[f"segment_{name}barrier"] = Quantity(
                    barrier(along), long_name=f"rise of the {words}loss on the way"
                )
        return seen


Way = Literal["straight", "dropout", "bent"]


class PathLoss(Probe):
    """The loss on a path between two networks that are trained side by side: an `EnsembleNetwork`'s first and second.

    `way` is "straight", "dropout" (`armillary.path_builders.dropout_path` through the first halves of the hidden
    layers) or "bent" (its bend trained by `optimiser` for `steps` steps on the training samples). Returns, with W the
    way, `W_path_loss`, float[W_path], on the training samples at `points` even positions on each segment, ends
    included, and `W_path_barrier`, how far it rises above the higher end. Raises `ProbeError` without training samples
    and without two networks; `InvalidValue` for fewer than two points, and where the path cannot be built;
    `UnknownName` for another way. Cost: points times segments passes, and a gradient for each step.
    """

    way: Way = eqx.field(static=True, default="dropout")
    points: int = eqx.field(static=True, default=11)
    steps: int = eqx.field(static=True, default=200)
    optimiser: Optimiser = Adam(0.01)

    def __check_init__(self):
        if self.way not in get_args(Way):
            raise unknown("way", self.way, get_args(Way))
        require_between("the number of points on a segment", self.points, 2)
        require_between("the number of steps", self.steps, 0)

    def __call__(self, now: Snapshot) -> Observation:
        samples = data_of(now, self).train
        if not isinstance(samples, Samples):
            raise ProbeError("PathLoss needs training samples; this task trains on its whole population")
        if not isinstance(now.network, EnsembleNetwork) or now.network.count < 2:
            raise ProbeError("PathLoss needs two networks; give an Ensemble and the rule Independently")
        corners = self._corners(now.network.members[:2], now.loss, samples)
        positions = jnp.linspace(0.0, len(corners) - 1.0, (len(corners) - 1) * (self.points - 1) + 1)
        along = losses_at(now.loss, corners, samples, positions)
        return {
            f"{self.way}_path_loss": Quantity(along, f"{self.way}_path", long_name=f"loss on the {self.way} path"),
            f"{self.way}_path_barrier": Quantity(barrier(along), long_name=f"rise of the loss on the {self.way} path"),
        }

    def _corners(self, pair: list[Any], loss: Any, samples: Samples) -> list[Any]:
        match self.way:
            case "straight":
                return pair
            case "dropout":
                return dropout_path(pair[0], pair[1])
            case _:
                return bent_path(loss, pair[0], pair[1], samples, optimiser=self.optimiser, steps=self.steps)
