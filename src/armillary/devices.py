"""One network over several devices: each holds the weights and a share of the samples (data parallel)."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from armillary.engine import Members
from armillary.errors import InvalidValue, require_between
from armillary.members import Drawn


def mesh_of(devices: int) -> Mesh | None:
    """So many of this process's devices in a row; None for one. Raises `InvalidValue` for more than there are."""
    require_between("devices", devices, 1)
    there = jax.devices()
    if devices > len(there):
        hint = f"; on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={devices} makes as many before JAX starts"
        raise InvalidValue(f"devices is {devices}, but there are {len(there)} ({there[0].platform}){hint}")
    return Mesh(np.array(there[:devices]), ("samples",)) if devices > 1 else None


def spread(members: Members, mesh: Mesh) -> Members:
    """Members whose training samples lie in equal shares on the mesh's devices, and everything else on each of them.

    XLA then computes each share's part of the loss where it lies, and sums. Raises `InvalidValue` where the samples cannot be
    divided equally.
    """
    return Members(
        Drawn(_placed(members.drawn.own, mesh, 1), _placed(members.drawn.shared, mesh, 0)),
        *(_placed(part, mesh, None) for part in (members.state, members.keys, members.diverged, members.memory)),
    )


def _placed(tree: Any, mesh: Mesh, axis: int | None) -> Any:
    """The tree's arrays on the mesh: samples cut along `axis`, others whole."""

    def put(path: tuple, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        names = [getattr(part, "name", None) for part in path[:2]]
        if axis is None or names != ["data", "train"]:
            return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
        count, shares = leaf.shape[axis], mesh.size
        if count % shares:
            raise InvalidValue(
                f"{count} samples cannot lie in equal shares on {shares} devices; choose a multiple of {shares}"
            )
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * axis, "samples")))

    return jax.tree_util.tree_map_with_path(put, tree)
