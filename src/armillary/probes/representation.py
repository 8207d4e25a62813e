"""What a network's inputs look like to its read-out, and how far training has changed that."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from armillary.errors import ProbeError, require_between, unknown
from armillary.models.model import Dense, matrices
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Population


def representations(network: PyTree, inputs: Float[Array, "sample ..."], who: str) -> Float[Array, "sample unit"]:
    """What the last layer sees of each input.

    Networks say so by `representation(x)` (recurrent ones: the state that is read out) or `features(x)`; of those that end in
    a `Dense` or `equinox.nn.Linear` layer in `layers` it is that layer's input; a `LinearChain`'s is what all its matrices
    but the last make. Raises `ProbeError` for others.
    """
    for name in ("representation", "features"):
        said: Any = getattr(network, name, None)
        if callable(said):
            seen: Any = jax.vmap(said)(inputs)
            return seen.reshape(len(inputs), -1)
    if hasattr(network, "stacks"):
        below = matrices(network)[:-1]
        for weight in below:
            inputs = inputs @ weight.T
        return inputs
    layers = getattr(network, "layers", None)
    if layers and isinstance(layers[-1], Dense | eqx.nn.Linear):
        # The last layer as the identity: what comes out is what goes in.
        size = layers[-1].weight.shape[1]
        last = lambda n: n.layers[-1]
        bare = eqx.tree_at(last, network, Dense(jnp.eye(size, dtype=inputs.dtype), None))
        return jax.vmap(bare)(inputs)
    raise ProbeError(
        f"{who} does not know what a {type(network).__name__} reads out; give the network a method representation(x)"
    )


class RepresentationDrift(Probe):
    """How far the representation has turned since the start: the Gram matrix of what the last layer sees.

    With H [sample, unit] on the first `samples` test samples (or training samples, `on`): `representation_alignment`, the
    cosine of H Hᵀ with that of the network before training, 1 for a lazy network, between 0 and 1. Rotations of the units do
    not count. Gram matrices are not centred, so that two unrelated networks are not at 0 either. Cost: two passes and
    samples² units. Raises `ProbeError` without such samples or the network before training, and as `representations`.
    """

    samples: int = eqx.field(static=True, default=64)
    on: Literal["train", "test"] = eqx.field(static=True, default="test", kw_only=True)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)
        if self.on not in ("train", "test"):
            raise unknown("samples to look at (on)", self.on, ("train", "test"))

    def gram(self, now: Snapshot, network: Any) -> Float[Array, "sample other"]:
        """Inner products of the representations of all pairs of samples."""
        of = getattr(data_of(now, self), self.on)
        if of is None or isinstance(of, Population):
            raise ProbeError(f"RepresentationDrift looks at {self.on} samples, and this task has none")
        seen = representations(network, of.inputs[: self.samples], type(self).__name__)
        return seen @ seen.T

    def __call__(self, now: Snapshot) -> Observation:
        if now.initial is None:
            raise ProbeError("RepresentationDrift compares with the start; pass initial=, the network before training")
        a, b = self.gram(now, now.network), self.gram(now, now.initial)
        cosine = jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
        what = "cosine of the representation's Gram matrix with its start"
        return {"representation_alignment": Quantity(cosine, long_name=what)}
