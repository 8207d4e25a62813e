"""What is left to learn, mode by mode."""

import equinox as eqx
import jax.numpy as jnp

from armillary.errors import ProbeError, require_between
from armillary.models.model import end_to_end
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.latent import GaussianPopulation


class UnlearnedModes(Probe):
    """The share of each input's coefficient in the target that a linear network has not learned yet: (w* - w)_k/w*_k.

    Returns `unlearned`, float[mode], the first `modes` inputs (None: all), for one output: 1 before learning, 0 in the end; nan
    where the target has no part in that input. Raises `ProbeError` unless the test set is a `GaussianPopulation` of one
    output. Cost: the network's end-to-end matrix.
    """

    modes: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("the number of modes", 1 if self.modes is None else self.modes, 1)

    def __call__(self, now: Snapshot) -> Observation:
        test = data_of(now, self).test
        if not isinstance(test, GaussianPopulation) or test.optimum.shape[0] != 1:
            raise ProbeError("UnlearnedModes needs a Gaussian population of one output; use Eigenfeatures")
        optimum = test.optimum[0]
        wrong = optimum - end_to_end(now.network, len(optimum))[0]
        share = jnp.where(optimum == 0, jnp.nan, wrong / jnp.where(optimum == 0, 1.0, optimum))
        return {"unlearned": Quantity(share[: self.modes], "mode", long_name="share of a mode that is not learned")}
