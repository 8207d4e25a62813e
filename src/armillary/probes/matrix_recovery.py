"""How well a factorised matrix has recovered its target, and what is left beside it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError
from armillary.models.factorised import AsymmetricProduct, SymmetricProduct
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


class MatrixRecovery(Probe):
    """Distance and overlap of the network's matrix Z and the teacher's Z*.

    Returns `squared_error`, |Z - Z*|² in the Frobenius norm, and `overlap`, tr(Zᵀ Z*)/(|Z| |Z*|) in [-1, 1], 1 for
    strong recovery; nan while Z is 0. Raises `ProbeError` for a network that is no factorised matrix, or without a
    teacher. Cost: one product of the factors.
    """

    def __call__(self, now: Snapshot) -> Observation:
        found, wanted = found_and_wanted(now, self)
        overlap = jnp.vdot(found, wanted) / (jnp.linalg.norm(found) * jnp.linalg.norm(wanted))
        return {
            "squared_error": Quantity(jnp.sum((found - wanted) ** 2), long_name="squared error of the matrix"),
            "overlap": Quantity(overlap, long_name="overlap with the teacher"),
        }


class MatrixSpectrum(Probe):
    """Singular values of the network's matrix, largest first (for W Wᵀ they are its eigenvalues).

    Returns `matrix_singular_values`, float[unit]: as many as there are units, or inputs if they are fewer. Raises
    `ProbeError` for a network that is no factorised matrix. Cost: one SVD of a factor, or of the matrix.
    """

    def __call__(self, now: Snapshot) -> Observation:
        network = _factorised(now, self)
        if isinstance(network, SymmetricProduct):
            values = jnp.linalg.svd(network.factor, compute_uv=False) ** 2
        else:
            values = jnp.linalg.svd(network.matrix, compute_uv=False)[: network.left.shape[1]]
        return {"matrix_singular_values": Quantity(values, "unit", long_name="singular values of the matrix")}


class PrincipalCosines(Probe):
    """Squared cosines of the principal angles between the network's columns and the teacher's, largest first.

    Returns `squared_cosine`, float[unit], in [0, 1]; nan for units that are 0. Needs a W Wᵀ network and a
    symmetric teacher; raises `ProbeError` for others. Cost: one SVD of W and of the teacher at each observation.
    """

    def __call__(self, now: Snapshot) -> Observation:
        network = _factorised(now, self)
        if not isinstance(network, SymmetricProduct):
            raise ProbeError("PrincipalCosines needs a symmetric product W Wᵀ; this network has two factors")
        _, wanted = found_and_wanted(now, self)
        mine, theirs = frame(network.factor), frame(wanted)
        cosines = jnp.linalg.svd(mine.T @ theirs, compute_uv=False)[: mine.shape[1]] ** 2
        present = jnp.arange(cosines.shape[0]) < jnp.sum(jnp.any(mine != 0, axis=0))
        values = jnp.where(present, jnp.clip(cosines, 0.0, 1.0), jnp.nan)
        return {"squared_cosine": Quantity(values, "unit", long_name="squared cosine of the principal angle")}


class FactorBalance(Probe):
    """How the two factors of F Gᵀ share it.

    Returns `imbalance`, the norm of Fᵀ F - Gᵀ G (conserved by gradient flow), and `smallest_left`, the smallest
    eigenvalue of Fᵀ F among the `width` leading columns: surplus directions of G shrink at that rate. Raises
    `ProbeError` for other networks. Source: Xiong, Ding & Du (2023); the rate is derived here.
    """

    width: int | None = eqx.field(static=True, default=None)

    def __call__(self, now: Snapshot) -> Observation:
        network = now.network
        if not isinstance(network, AsymmetricProduct):
            raise ProbeError(f"FactorBalance needs a product of two factors F Gᵀ, not a {type(network).__name__}")
        left, right = network.left[:, : self.width], network.right[:, : self.width]
        gap = left.T @ left - right.T @ right
        smallest = jnp.linalg.svd(left, compute_uv=False)[-1] ** 2
        return {
            "imbalance": Quantity(jnp.linalg.norm(gap), long_name="imbalance of the factors"),
            "smallest_left": Quantity(smallest, long_name="smallest eigenvalue of FᵀF"),
        }


class Surplus(Probe):
    """What the network's matrix holds outside the teacher's row and column spaces.

    Returns `surplus_error`, |(1 - U Uᵀ) Z (1 - V Vᵀ)|² with U, V the teacher's singular frames, and
    `surplus_values`, float[unit], that part's singular values, largest first. Raises `ProbeError` as
    `MatrixRecovery`. Cost: two SVDs of an input x input matrix.
    """

    def __call__(self, now: Snapshot) -> Observation:
        found, wanted = found_and_wanted(now, self)
        units = now.network.factor.shape[1] if isinstance(now.network, SymmetricProduct) else now.network.left.shape[1]
        u, v = frame(wanted), frame(wanted.T)
        left = found - u @ (u.T @ found)
        outside = left - (left @ v) @ v.T
        values = jnp.linalg.svd(outside, compute_uv=False)[:units]
        return {
            "surplus_error": Quantity(jnp.sum(outside**2), long_name="squared size of the surplus"),
            "surplus_values": Quantity(values, "unit", long_name="singular values of the surplus"),
        }


def frame(matrix: Float[Array, "row column"]) -> Float[Array, "row frame"]:
    """An orthonormal basis of the column space, strongest direction first, with zeros beyond the rank."""
    u, s, _ = jnp.linalg.svd(matrix, full_matrices=False)
    return jnp.where(s > s[0] * max(matrix.shape) * jnp.finfo(s.dtype).eps, u, 0.0)


def _factorised(now: Snapshot, probe: Probe) -> SymmetricProduct | AsymmetricProduct:
    if not isinstance(now.network, SymmetricProduct | AsymmetricProduct):
        raise ProbeError(f"{type(probe).__name__} needs a factorised matrix, not a {type(now.network).__name__}")
    return now.network


def found_and_wanted(now: Snapshot, probe: Probe) -> tuple[Float[Array, "row column"], Float[Array, "row column"]]:
    """The network's matrix and the teacher's; a `ProbeError` where there is none."""
    teacher = data_of(now, probe).teacher
    network = _factorised(now, probe)
    if getattr(teacher, "shape", None) != network.matrix.shape:
        raise ProbeError(f"{type(probe).__name__} needs a task whose teacher is a matrix like the network's")
    return network.matrix, teacher
