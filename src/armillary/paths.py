"""Loss along piecewise linear paths between networks: whether two solutions lie in one valley."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from armillary.compiled import Compiled
from armillary.errors import InvalidValue, require_between
from armillary.tasks.data import Samples
from armillary.trajectory import Trajectory

Network = PyTree


def check_corners(networks: Sequence[Network]) -> None:
    """Raise `InvalidValue` unless there are two networks or more of one architecture."""
    require_between("the number of networks on the path", len(networks), 2)
    first, *others = (jax.tree.structure(eqx.filter(n, eqx.is_inexact_array)) for n in networks)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(eqx.filter(n, eqx.is_inexact_array))] for n in networks]
    if any(other != first for other in others) or any(s != shapes[0] for s in shapes):
        raise InvalidValue("the networks of a path differ in their architecture; give networks of the same shapes")


def network_at(networks: Sequence[Network], position: Any) -> Network:
    """The network at a `position` on the path: at i it is the i-th, between i and i + 1 their weights are mixed linearly.

    What is no floating-point array is the first network's. `position` may be traced; beyond the path's ends it is the
    end's. Raises `InvalidValue` for fewer than two networks and different architectures.

    >>> a, b = (eqx.nn.Linear(1, 1, key=jax.random.key(seed)) for seed in (0, 1))
    >>> middle = network_at([a, b], 0.5)
    >>> bool(jnp.allclose(middle.weight, (a.weight + b.weight) / 2))
    True
    """
    check_corners(networks)
    trained = [eqx.filter(n, eqx.is_inexact_array) for n in networks]
    # Hat functions: each network's weight falls linearly to 0 at its two neighbours.
    at = jnp.clip(jnp.asarray(position, float), 0.0, len(networks) - 1.0)
    shares = jnp.maximum(1 - jnp.abs(at - jnp.arange(len(networks))), 0.0)
    mixed = jax.tree.map(
        lambda *leaves: sum(s.astype(x.dtype) * x for s, x in zip(shares, leaves, strict=True)), *trained
    )
    return eqx.combine(mixed, eqx.filter(networks[0], eqx.is_inexact_array, inverse=True))


def losses_at(
    loss: Any, networks: Sequence[Network], samples: Any, positions: Float[ArrayLike, " path"]
) -> Float[Array, " path"]:
    """The loss at each position of the path, one after another; plain JAX, to be used inside compiled programs."""
    return lax.map(lambda p: loss(network_at(networks, p), samples), jnp.asarray(positions, float))


_losses_at = Compiled(losses_at)


def loss_along(loss: Any, networks: Sequence[Network], samples: Samples | tuple, *, points: int = 21) -> Trajectory:
    """The loss along the piecewise linear path through `networks`, at `points` positions on each of its segments.

    `loss(network, samples)` is a scalar, as an `armillary.rules.Loss`; `samples` are `Samples` or a pair (inputs,
    targets). Returns an `xarray.Dataset` of `loss`, float[path], whose coordinate `path` is the position: i at the i-th
    network. Raises `InvalidValue` for fewer than two networks or points, and for networks of different shapes.

    >>> from armillary.rules import Loss
    >>> a, b = (eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(seed)) for seed in (0, 1))
    >>> seen = loss_along(Loss(), [a, b, a], (jnp.ones((1, 1)), jnp.zeros((1, 1))), points=3)
    >>> seen.path.values.tolist(), bool(seen.loss[0] == seen.loss[-1])
    ([0.0, 0.5, 1.0, 1.5, 2.0], True)
    """
    require_between("the number of points on a segment", points, 2)
    check_corners(networks)
    pair = Samples(*samples) if isinstance(samples, tuple) else samples
    positions = np.linspace(0.0, len(networks) - 1.0, (len(networks) - 1) * (points - 1) + 1)
    values = _losses_at(loss, tuple(networks), pair, jnp.asarray(positions))
    path = xr.Variable("path", positions, {"units": "1", "long_name": "position on the path"})
    seen = ("path", np.asarray(values), {"units": "1", "long_name": "loss on the path"})
    return xr.Dataset({"loss": seen}, coords={"path": path})


def barrier(losses: Float[ArrayLike, "... path"]) -> Float[Array, "..."]:
    """How far the loss rises on the path above the higher of its two ends; 0 where it does not.

    >>> print(barrier(jnp.array([1.0, 3.0, 2.5])))
    0.5
    """
    along = jnp.asarray(losses)
    return jnp.max(along, axis=-1) - jnp.maximum(along[..., 0], along[..., -1])
