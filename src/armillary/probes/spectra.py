"""Singular values of weights, of end-to-end maps and of Jacobians."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from armillary.errors import ProbeError, require_between
from armillary.models.initialisation import singular_frames
from armillary.models.model import end_to_end, matrices
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.settings import derived, floats


class SingularValues(Probe):
    """Singular values of every weight matrix, largest first.

    Returns `singular_values`, float[layer, rank], with nan where a layer has fewer than the widest.
    Raises `ProbeError` if the network has no matrix. Cost: one SVD a layer.
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        found = matrices(now.network)
        if not found:
            raise ProbeError("SingularValues needs weight matrices, and this network has none")
        spectra = [jnp.linalg.svd(w, compute_uv=False) for w in found]
        longest = max(len(s) for s in spectra)
        padded = [jnp.pad(s, (0, longest - len(s)), constant_values=jnp.nan) for s in spectra]
        return {"singular_values": Quantity(jnp.stack(padded), ("layer", "rank"), long_name="singular values")}


class StableRank(Probe):
    """Stable rank |W|_F²/|W|² of every weight matrix, from 1 up to its rank, and how its singular values fall off.

    Returns `stable_rank`, float[layer], and `singular_ratio`, float[layer, rank]: the `count` largest singular values over
    the largest, nan beyond the last; both nan for a matrix of zeros. Raises `ProbeError` if the network has no matrix.
    Cost: one Gram matrix on the shorter side and its eigenvalues, for each layer; ratios below the root of the rounding
    error are not resolved.
    """

    foreign = True

    count: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        require_between("the number of singular values (count)", self.count, 1)

    def __call__(self, now: Snapshot) -> Observation:
        found = matrices(now.network)
        if not found:
            raise ProbeError("StableRank needs weight matrices, and this network has none")
        ranks, ratios = zip(*(self._of(w) for w in found), strict=True)
        return {
            "stable_rank": Quantity(jnp.stack(ranks), "layer", long_name="stable rank"),
            "singular_ratio": Quantity(
                jnp.stack(ratios), ("layer", "rank"), long_name="singular value over the largest"
            ),
        }

    def _of(self, weight: Float[Array, "output input"]) -> tuple[Array, Array]:
        size = jnp.max(jnp.abs(weight))  # squares of tiny weights would be rounded to 0
        scaled = weight / size
        wide = weight.shape[0] <= weight.shape[1]
        squares = jnp.linalg.eigvalsh(scaled @ scaled.T if wide else scaled.T @ scaled)[::-1]
        ratios = jnp.sqrt(jnp.maximum(squares[: self.count], 0.0) / squares[0])
        ratios = jnp.pad(ratios, (0, self.count - len(ratios)), constant_values=jnp.nan)
        return jnp.sum(scaled**2) / squares[0], ratios


class ModeStrength(Probe):
    """Strength of each mode of a target in a linear network: uᵀ W v for the target's singular vectors.

    `target` is the input-output correlation; the modes are its singular directions, strongest first. Returns
    `mode_strength`, float[mode], and `off_diagonal`, the largest |u_iᵀ W v_j| with i ≠ j, which is 0 for
    decoupled weights. Meant for networks that are linear without bias. Source: Saxe et al. (2013)
    """

    target: Float[Array, "output input"]
    frames: tuple[Float[Array, "output mode"], Float[Array, "input mode"]] = derived()

    def __init__(self, target: ArrayLike):
        self.target = floats(target)
        self.frames = singular_frames(target)

    def __call__(self, now: Snapshot) -> Observation:
        u, v = self.frames
        rotated = u.T @ end_to_end(now.network, self.target.shape[1]) @ v
        others = jnp.abs(rotated - jnp.diag(jnp.diagonal(rotated)))
        return {
            "mode_strength": Quantity(jnp.diagonal(rotated), "mode", long_name="mode strength"),
            "off_diagonal": Quantity(jnp.max(others), long_name="largest coupling between modes"),
        }


class JacobianSpectrum(Probe):
    """Singular values of the input-output Jacobian, largest first, on the first `samples` training inputs.

    Returns `jacobian_singular_values`, float[sample, rank]. Raises `ProbeError` without data. Cost: one backward
    pass for each output and sample, and an SVD. Source: Saxe et al. (2013)
    """

    samples: int = eqx.field(static=True, default=1)

    def __call__(self, now: Snapshot) -> Observation:
        inputs = data_of(now, self).train.inputs[: self.samples]
        jacobians = jax.vmap(jax.jacrev(now.network))(inputs)
        values = jnp.linalg.svd(jacobians, compute_uv=False)
        return {
            "jacobian_singular_values": Quantity(
                values, ("sample", "rank"), long_name="singular values of the Jacobian"
            )
        }
