"""Recovery of a matrix by the signs of its misfits: signal and residual, the sub-gradient's direction, the loss beaten."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between
from armillary.models.factorised import AsymmetricProduct, SymmetricProduct
from armillary.probes.matrix_recovery import found_and_wanted, frame
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.data import Samples
from armillary.tasks.sensing import MatrixSensing


class SignalResidual(Probe):
    """The factor U of a matrix U Uᵀ, split by the teacher's column space V: the signal Vᵀ U and what lies beside it.

    Returns `signal`, the smallest singular value of Vᵀ U (of as many as the teacher's rank); `residual`, the largest of
    (1 - V Vᵀ) U on the columns that carry no signal (orthogonal to the rows of Vᵀ U), which is what surplus columns add;
    and `leak`, the largest on those that do, the signal's own misalignment. Scalars from 0 up. Raises `ProbeError` for a
    network other than U Uᵀ, and as `MatrixRecovery`. Cost: four SVDs of input x input matrices. Source: Ma & Fattahi
    (2022)
    """

    def __call__(self, now: Snapshot) -> Observation:
        if not isinstance(now.network, SymmetricProduct):
            raise ProbeError(f"SignalResidual needs a symmetric product U Uᵀ, not a {type(now.network).__name__}")
        _, wanted = found_and_wanted(now, self)
        factor, space = now.network.factor, frame(wanted)
        rank = jnp.sum(jnp.any(space != 0, axis=0))
        _, values, rows = jnp.linalg.svd(space.T @ factor, full_matrices=False)
        rows = jnp.where(jnp.arange(rows.shape[0])[:, None] < rank, rows, 0.0)
        beside = factor - space @ (space.T @ factor)
        carried = beside @ rows.T @ rows
        values = jnp.pad(values, (0, space.shape[1]))  # of fewer units than the rank: 0
        return {
            "signal": Quantity(values[rank - 1], long_name="smallest singular value of the signal"),
            "residual": Quantity(jnp.linalg.norm(beside - carried, 2), long_name="largest one of the residual"),
            "leak": Quantity(jnp.linalg.norm(carried, 2), long_name="largest one beside the signal"),
        }


class SignRIP(Probe):
    """How far the sub-gradient of the absolute error is from the direction of the matrix's own error (Sign-RIP).

    With Q the mean of sign(<A, D> - s) A over the training measurements (s: what corrupts them), symmetrised, and phi
    its expected size along D, the deviation of an error D is |Q/phi - D/|D|| in the norm of its `rank` largest singular
    values. Returns `sign_deviation` at the present error D (nan where D is 0) and `sign_rip`, the largest over `sampled`
    random symmetric D of that rank and the teacher's norm: a lower bound of the constant. Needs a `MatrixSensing` task
    with measurements of full rank; raises `ProbeError` for others. Cost: one pass over all measurements, and one SVD, for each D.
    Source: Ma & Fattahi (2022)
    """

    rank: int = eqx.field(static=True, default=4)
    sampled: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        require_between("the rank of the errors", self.rank, 1)
        require_between("the number of sampled errors", self.sampled, 1)

    def __call__(self, now: Snapshot) -> Observation:
        if not isinstance(now.task, MatrixSensing) or not isinstance(getattr(now.data, "train", None), Samples):
            raise ProbeError("SignRIP needs a MatrixSensing task with measurements; use it in a simulation of one")
        if now.task.rank_one:
            raise ProbeError("SignRIP needs whole measurement matrices, and this task's are of rank one")
        found, wanted = found_and_wanted(now, self)
        train, task = now.data.train, now.task
        wrong = train.targets[:, 0] - jnp.tensordot(train.inputs, wanted, 2)

        def deviation(error: Float[Array, "row column"]) -> Float[Array, ""]:
            signs = jnp.sign(jnp.tensordot(train.inputs, error, 2) - wrong)
            mean = jnp.tensordot(signs, train.inputs, 1) / train.count
            size = jnp.linalg.norm(error)
            away = (mean + mean.T) / 2 / task.sign_strength(size) - error / size
            return jnp.linalg.norm(jnp.linalg.svd(away, compute_uv=False)[: self.rank])

        keys = jax.random.split(jax.random.key(0), self.sampled)
        random = jax.vmap(lambda key: self._error(key, wanted))(keys)
        return {
            "sign_deviation": Quantity(deviation(found - wanted), long_name="deviation of the sub-gradient"),
            "sign_rip": Quantity(jnp.max(jax.lax.map(deviation, random)), long_name="sampled Sign-RIP constant"),
        }

    def _error(self, key: Array, wanted: Float[Array, "row column"]) -> Float[Array, "row column"]:
        key_frame, key_sign = jax.random.split(key)
        columns = jax.random.normal(key_frame, (wanted.shape[0], self.rank))
        error = columns * jax.random.rademacher(key_sign, (self.rank,)).astype(columns.dtype) @ columns.T
        return error * jnp.linalg.norm(wanted) / jnp.linalg.norm(error)


class TeacherLoss(Probe):
    """The network's training loss minus that of the teacher's own matrix.

    Returns `excess_train_loss`, a scalar; below 0 the truth is no global minimum. Needs samples of measurements and a
    matrix for a teacher; raises `ProbeError` without. Cost: two passes over the samples.
    """

    def __call__(self, now: Snapshot) -> Observation:
        _, wanted = found_and_wanted(now, self)
        if not isinstance(now.data.train, Samples):
            raise ProbeError("TeacherLoss needs measurements, and this task trains on its whole population")
        truth = AsymmetricProduct(wanted, jnp.eye(wanted.shape[1], dtype=wanted.dtype))
        excess = now.loss(now.network, now.data.train) - now.loss(truth, now.data.train)
        return {"excess_train_loss": Quantity(excess, long_name="training loss above the truth's")}
