"""What a patch network has learned of each feature."""

import jax
import jax.numpy as jnp

from armillary.errors import ProbeError
from armillary.models.patch_network import PatchNetwork
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class PatchFeatures(Probe):
    """Alignments, residuals and sharpness of a `PatchNetwork` on `FeaturePatches`.

    Returns scalars: `weak_alignment` and `strong_alignment` (the largest |w · v|, |w · u|); `residual` and
    `squared_residual` (means of r = 1 - y f and of r² over the training samples with a strong patch);
    `largest_sharpness` (|grad f|², the largest of the training samples); `weak_accuracy` and `strong_accuracy` (on
    the test samples without and with a strong patch; an output of exactly 0 counts as wrong).
    Raises `ProbeError` for another network. Cost: one pass over all samples.
    """

    def __call__(self, now: Snapshot) -> Observation:
        if not isinstance(now.network, PatchNetwork):
            raise ProbeError(f"PatchFeatures needs a PatchNetwork, not a {type(now.network).__name__}")
        data = data_of(now, self)
        train, test = data.train, data.test
        has_strong = jnp.any(train.inputs[:, 1] != 0, axis=1)
        residual = 1 - (train.targets * jax.vmap(now.network)(train.inputs))[:, 0]
        mean = lambda values: jnp.sum(jnp.where(has_strong, values, 0.0)) / jnp.maximum(jnp.sum(has_strong), 1)
        right = jnp.sign(jax.vmap(now.network)(test.inputs)) == test.targets
        half = len(right) // 2
        sizes = {name: jnp.max(jnp.abs(train.inputs[:, patch, patch_axis])) for name, patch, patch_axis in _FEATURES}
        aligned = {
            f"{name}_alignment": sizes[name] * jnp.max(jnp.abs(now.network.weights[..., axis]))
            for name, _, axis in _FEATURES
        }
        seen = {
            **aligned,
            "residual": mean(residual),
            "squared_residual": mean(residual**2),
            "largest_sharpness": jnp.max(jax.vmap(now.network.squared_gradient)(train.inputs)),
            "weak_accuracy": jnp.mean(right[:half]),
            "strong_accuracy": jnp.mean(right[half:]),
        }
        return {name: Quantity(value, long_name=name.replace("_", " ")) for name, value in seen.items()}


_FEATURES = (("weak", 0, 1), ("strong", 1, 0))
"""Name, patch and axis of each feature of `FeaturePatches`."""
