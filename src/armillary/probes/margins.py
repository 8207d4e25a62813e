"""Two-class networks of one output: margins, how nearly orthogonal the data are, how linear the boundary is."""

import equinox as eqx
import jax
import jax.numpy as jnp

from armillary.errors import ProbeError, require_between
from armillary.models.committee import CommitteeNetwork
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Samples


class Margins(Probe):
    """Margins y f(x) of the training samples, for labels y = ±1.

    Returns `least_margin` and `margin_spread`, scalars: the smallest margin over the norm of all weights that are
    matrices, and smallest over largest margin, 1 where all are equal (nan where the largest is not above 0). Raises
    `ProbeError` without samples of one output. Cost: one pass over the training samples.
    """

    def __call__(self, now: Snapshot) -> Observation:
        train = _samples(now, self)
        margins = train.targets[:, 0] * jax.vmap(now.network)(train.inputs)[:, 0]
        least, most = jnp.min(margins), jnp.max(margins)
        leaves = [leaf for leaf in jax.tree.leaves(now.network) if eqx.is_inexact_array(leaf) and leaf.ndim == 2]
        size = jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in leaves), jnp.zeros(())))
        spread = jnp.where(most > 0, least / jnp.where(most > 0, most, 1.0), jnp.nan)
        return {
            "least_margin": Quantity(least / size, long_name="smallest margin over the weights' norm"),
            "margin_spread": Quantity(spread, long_name="smallest over largest margin"),
        }


class DataOverlap(Probe):
    """How far the training inputs are from orthogonal.

    Returns `overlap_ratio`, n max |<x_i, x_k>| / min |x_i|² over different samples i, k: below 1 each input is longer
    than all its overlaps together, and theorems on nearly orthogonal data ask for much less. A scalar from 0 up; inf for
    an input of zeros. Raises `ProbeError` without samples of vectors. Cost: samples² x inputs.
    """

    def __call__(self, now: Snapshot) -> Observation:
        train = data_of(now, self).train
        if not isinstance(train, Samples) or train.inputs.ndim != 2:
            raise ProbeError("DataOverlap needs training samples of vectors")
        gram = train.inputs @ train.inputs.T
        lengths = jnp.diagonal(gram)
        largest = jnp.max(jnp.abs(gram - jnp.diag(lengths)))
        return {"overlap_ratio": Quantity(train.count * largest / jnp.min(lengths), long_name="overlap of the inputs")}


class BoundaryLinearity(Probe):
    """How often the network decides as a linear rule does, on fresh inputs x ~ N(0, 1).

    The rule is the sign of (sum over units of a_j w_j) . x: if all units of one sign share their weights it is the network's
    own boundary, whatever the activation's slope. Returns `boundary_agreement`, the share of `count` inputs on which
    both agree, in [0, 1]. Needs a `CommitteeNetwork`; raises `ProbeError` for others. Cost: one pass over the inputs.
    Source: Frei et al. (2022)
    """

    count: int = eqx.field(static=True, default=2000)

    def __check_init__(self):
        require_between("the number of inputs", self.count, 1)

    def __call__(self, now: Snapshot) -> Observation:
        if not isinstance(now.network, CommitteeNetwork):
            raise ProbeError(f"BoundaryLinearity needs a Committee's network, not a {type(now.network).__name__}")
        weights, second = now.network.weights, now.network.second_layer
        # What the units see of x ~ N(0, 1) has the covariance W Wᵀ: as many numbers as units are enough.
        values, frame = jnp.linalg.eigh(weights @ weights.T)
        draw = jax.random.normal(jax.random.key(0), (self.count, weights.shape[0]))
        seen = draw * jnp.sqrt(jnp.maximum(values, 0.0)) @ frame.T
        decided, linear = now.network.phi(seen) @ second, seen @ second
        agree = jnp.mean(jnp.sign(decided) == jnp.sign(linear))
        return {"boundary_agreement": Quantity(agree, long_name="agreement with the linear rule")}


def _samples(now: Snapshot, probe: Probe) -> Samples:
    train = data_of(now, probe).train
    if not isinstance(train, Samples) or train.targets.ndim != 2 or train.targets.shape[1] != 1:
        raise ProbeError(f"{type(probe).__name__} needs training samples of one output, with targets ±1")
    return train
