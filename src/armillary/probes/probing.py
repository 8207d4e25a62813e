"""What a probe is, and how one is asked of a network at hand."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import PyTree

from armillary.compiled import FASTEST, Compiled
from armillary.errors import ProbeError
from armillary.members import bytes_of
from armillary.models.model import parameters
from armillary.process import Snapshot
from armillary.quantity import Observation
from armillary.tasks.data import Data, Samples

MUCH_TO_SEE = 1e6
"""Bytes of network and data from which looking is worth a well-optimised program."""


class Probe(eqx.Module):
    """A pure function of a snapshot that returns named, dimension-labelled quantities.

    A subclass writes `__call__(now) -> {"name": Quantity(...)}` in plain JAX, so that it runs inside the
    compiled loop as well as on one network. `needs_update = True` makes descent keep each last update.

    A probe that is cheaper when it knows what it saw last has two more methods: `begin(now) -> memory`, before the first
    observation, and `follow(now, memory) -> (observation, memory)`; memory is any pytree of arrays of fixed shapes.
    """

    needs_update: ClassVar[bool] = False
    foreign: ClassVar[bool] = False
    """Whether it can look at networks of other libraries too (`armillary.interop`): it then asks of the network only
    weight matrices, or what such a network computes itself."""

    def __call__(self, now: Snapshot) -> Observation:
        raise NotImplementedError


def probe(
    network: PyTree,
    probes: Sequence[Probe],
    *,
    data: Data | Samples | tuple | None = None,
    loss: Any = None,
    initial: PyTree = None,
    previous: PyTree = None,
) -> xr.Dataset:
    """What `probes` see in a network of yours: any equinox module that maps one input to one output.

    `data` are `Samples`, a pair (inputs, targets) or a whole `Data`; `loss` is an `armillary.rules.Loss` (squared
    error unless given); `initial` is the network before training, `previous` that before the last update, for the
    probes that compare with them.

    Returns an `xarray.Dataset` with the probes' names and dimensions. Raises `ProbeError` where a probe needs
    what was not given, and for weights that are not finite.

    >>> import armillary as arm, jax
    >>> network = arm.models.MLP(width=8)(jax.random.key(0), inputs=4, outputs=2)
    >>> print(probe(network, [arm.probes.WeightNorm()]).weight_norm.dims)
    ('layer',)
    """
    update = None if previous is None else difference(network, previous)
    return look_at(snapshot_of(network, data=data, loss=loss, initial=initial, update=update), probes, None)[0]


def difference(network: PyTree, previous: PyTree) -> PyTree:
    """What changed the weights of `previous` into those of `network`. Raises `ProbeError` for another kind of network."""
    now, before = parameters(network), parameters(previous)
    shapes = [(jax.tree.structure(one), [leaf.shape for leaf in jax.tree.leaves(one)]) for one in (now, before)]
    if shapes[0] != shapes[1]:
        raise ProbeError(
            "the previous network has other weights than the network; give it as it was before the last update"
        )
    return jax.tree.map(jnp.subtract, now, before)


def snapshot_of(
    network: PyTree, *, data: Any = None, loss: Any = None, initial: PyTree = None, update: PyTree = None
) -> Snapshot:
    """A network at hand as probes are shown it. Raises `ProbeError` for weights that are not finite."""
    from armillary.rules.loss import Loss

    if isinstance(data, tuple):
        data = Samples(*data)
    if isinstance(data, Samples):
        data = Data(data)
    if not bool(_finite(network)):
        raise ProbeError("the network has weights that are nan or infinite; probe it before it diverges")
    return Snapshot(network, initial, data, loss if loss is not None else Loss(), update=update)


def look_at(now: Snapshot, probes: Sequence[Probe], memory: Sequence[Any] | None) -> tuple[xr.Dataset, list[Any]]:
    """What probes see, and what they remember for the next time; `memory` is what they remember of the last, if any."""
    from armillary.trajectory import labelled

    look = _looked_fast if bytes_of((now.network, now.data)) < MUCH_TO_SEE else _looked
    look = _looked_plainly if getattr(now.network, "foreign", False) else look
    variables, kept = {}, []
    for index, one in enumerate(probes):
        begin = getattr(one, "begin", None)
        before = begin(now) if begin is not None and memory is None else memory[index] if memory else None
        seen, after = look(one, now, before)
        kept.append(after)
        for name, quantity in seen.items():
            labels = {"units": quantity.unit, "long_name": quantity.long_name or name.replace("_", " ")}
            variables[name] = (quantity.dims, quantity.values, labels)
    return labelled(variables, {}), kept


def _looked_plainly(one: Any, now: Snapshot, memory: Any) -> tuple[Observation, Any]:
    return one.follow(now, memory) if hasattr(one, "begin") else (one(now), None)


_looked = Compiled(_looked_plainly)
_looked_fast = Compiled(_looked_plainly, FASTEST)
"""The same for networks and data so small that looking takes less than compiling."""
_finite = Compiled(
    lambda network: jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(parameters(network))]))
)
