"""The loss on the way from the initial network to this one."""

import equinox as eqx
import jax.numpy as jnp

from armillary.errors import ProbeError, require_between
from armillary.paths import barrier, losses_at
from armillary.probes.losses import data_of
from armillary.probes.probe import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
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
