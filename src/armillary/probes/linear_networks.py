"""Linear networks on regression: what is left to learn, what is conserved, and how signals pass the layers."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from armillary.errors import ProbeError
from armillary.models.model import end_to_end, matrices
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def _data_span(inputs: Array) -> tuple[Float[Array, "mode input"], Float[Array, " mode"], Array]:
    """Orthonormal rows that span the inputs (zeros for what is missing), their singular values, and the rank."""
    _, values, frame = jnp.linalg.svd(inputs, full_matrices=False)
    seen = values > values[0] * max(inputs.shape) * jnp.finfo(inputs.dtype).eps
    return jnp.where(seen[:, None], frame, 0.0), jnp.where(seen, values, 0.0), jnp.sum(seen)


class ExcessLoss(Probe):
    """How far the loss of a linear network is above the best that any linear map reaches.

    Returns `excess_loss`, ½ the squared residual within the span of the samples' inputs (divided by the number of
    samples if the loss is a mean), free of the cancellation in loss - optimum; and, where the network before
    training is known, `relative_excess_loss`, over its value then. Squared errors only. Raises `ProbeError` without
    data. Cost: one SVD of the inputs. Source: derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        train = data_of(now, self).train
        left, values, _ = jnp.linalg.svd(train.inputs, full_matrices=False)
        left = jnp.where(values > values[0] * max(train.inputs.shape) * jnp.finfo(values.dtype).eps, left, 0.0)
        scale = 1 / train.count if now.loss.reduction == "mean" else 1.0

        def excess(network):
            residual = train.inputs @ end_to_end(network, train.inputs.shape[1]).T - train.targets
            return 0.5 * scale * jnp.sum((left.T @ residual) ** 2)

        found = excess(now.network)
        seen = {"excess_loss": Quantity(found, long_name="loss above the linear optimum")}
        if now.initial is not None:
            relative = found / excess(now.initial)
            seen["relative_excess_loss"] = Quantity(relative, long_name="loss above the optimum, over its start")
        return seen


def _stacks(now: Snapshot, probe: Probe) -> tuple[Array, ...]:
    found = getattr(now.network, "stacks", ())
    if len(found) < 2:
        raise ProbeError(
            f"{type(probe).__name__} needs a linear chain of two or more layers (DeepLinear, NormalisedLinear), "
            f"and this is a {type(now.network).__name__}"
        )
    return found


def partial_products(
    stacks: tuple[Array, ...],
) -> tuple[Float[Array, "_gap _width _input"], Float[Array, "_gap _output _width"]]:
    """W_l ... W_1 for l = 1, ..., depth - 1, and W_depth ... W_l for l = 2, ..., depth, as two stacks."""
    first, last = stacks[0][0], stacks[-1][0]
    if len(stacks) == 2:
        return first[None], last[None]
    below = lax.scan(lambda h, w: (w @ h, w @ h), first, stacks[1])[1]
    above = lax.scan(lambda h, w: (h @ w, h @ w), last, stacks[1], reverse=True)[1]
    return jnp.concatenate([first[None], below]), jnp.concatenate([above, last[None]])


class SubproductSpectrum(Probe):
    """Singular values of the products of a linear chain's first layers, of its last layers, and of all.

    Returns `lower_singular_values`, float[gap, rank]: entry l belongs to W_l ... W_1; `upper_singular_values`,
    float[gap, rank]: entry l to W_depth ... W_{l+1}; and `product_singular_values`, float[rank], of all weights
    (a gain in front is left out); largest first. Raises `ProbeError` for what is no chain of two layers or more.
    Cost: two SVDs a layer. Source: Hu, Xiao & Pennington (2020), who bound them along training.
    """

    def __call__(self, now: Snapshot) -> Observation:
        stacks = _stacks(now, self)
        lower, upper = partial_products(stacks)
        values = lambda matrix: jnp.linalg.svd(matrix, compute_uv=False)
        name = "singular values of the product of the {} layers"
        return {
            "lower_singular_values": Quantity(values(lower), ("gap", "rank"), long_name=name.format("first")),
            "upper_singular_values": Quantity(values(upper), ("gap", "rank"), long_name=name.format("last")),
            "product_singular_values": Quantity(
                values(stacks[-1][0] @ lower[-1]), "rank", long_name=name.format("all")
            ),
        }


class GramOperator(Probe):
    """Extreme eigenvalues of the operator that drives the residual of a linear chain: dE/dt = -P E.

    P = rate gain² sum over layers l of (W_{l-1} ... W_1 X)ᵀ(W_{l-1} ... W_1 X) ⊗ (W_depth ... W_{l+1})(same)ᵀ, with
    X the training inputs as columns (P is divided by their number if the loss is a mean), and the network's own
    factor on learning rates. Returns `gram_largest` and `gram_smallest`, scalars, the latter among the min(samples,
    inputs) outputs directions that the inputs reach, in units of 1/(learning rate): near the optimum a step of
    gradient descent multiplies the residual by 1 - learning rate times them. Raises `ProbeError` without data and for
    other networks. Cost: an eigenvalue decomposition of size min(samples, inputs) outputs.
    """

    def __call__(self, now: Snapshot) -> Observation:
        stacks, train = _stacks(now, self), data_of(now, self).train
        lower, upper = partial_products(stacks)
        span, values, _ = _data_span(train.inputs)
        columns = (span * values[:, None]).T  # the inputs in their own frame: as many columns as the rank
        within = jnp.concatenate([(columns.T @ columns)[None], (m := lower @ columns).mT @ m])
        above = jnp.concatenate([upper @ upper.mT, jnp.eye(upper.shape[1])[None]])
        size = columns.shape[1] * upper.shape[1]
        gram = jnp.einsum("lij,lab->iajb", within, above).reshape(size, size)
        gain, rate = getattr(now.network, "gain", 1.0), getattr(now.network, "rate", 1.0)
        scale = gain**2 * rate / (train.count if now.loss.reduction == "mean" else 1)
        found = jnp.linalg.eigvalsh(scale * gram)
        return {
            "gram_largest": Quantity(found[-1], unit="1/rate", long_name="largest eigenvalue of the Gram operator"),
            "gram_smallest": Quantity(found[0], unit="1/rate", long_name="smallest eigenvalue of the Gram operator"),
        }


class SignalNorm(Probe):
    """Logarithm of the squared norm of the first training input after each layer of a chain, over that before.

    Returns `log_squared_norm`, float[gap], one for each layer but the last: ln(|W_l ... W_1 x|²/|x|²), -inf where
    nothing is left. Raises `ProbeError` without data and for other networks.
    """

    def __call__(self, now: Snapshot) -> Observation:
        lower, _ = partial_products(_stacks(now, self))
        x = data_of(now, self).train.inputs[0]
        found = jnp.log(jnp.sum((lower @ x) ** 2, axis=-1) / jnp.sum(x**2))
        return {"log_squared_norm": Quantity(found, "gap", long_name="log squared norm of a signal")}


def _pair(now: Snapshot, probe: Probe) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The two layers now and before training."""
    found = matrices(now.network)
    if len(found) != 2 or found[0].shape[0] != found[1].shape[1]:
        raise ProbeError(
            f"{type(probe).__name__} needs two layers applied one to another; this network has {len(found)}"
        )
    if now.initial is None:
        raise ProbeError(f"{type(probe).__name__} needs the network before training; pass initial=...")
    return (found[0], found[1]), tuple(matrices(now.initial))  # pyright: ignore[reportReturnType]


class ImbalanceSpectrum(Probe):
    """The matrix that the gradient flow of two linear layers conserves, and the convergence rate that it guarantees.

    With W1's part in the span of the inputs, P W1ᵀ [rank, hidden], the matrix is W1 Pᵀ P W1ᵀ - W2ᵀ W2. Returns
    `imbalance_eigenvalues`, float[eigenvalue], its (rank + outputs) largest in size, in descending order;
    `imbalance_drift`, the Frobenius norm of its change since the start; `convergence_constant`
    c = max(λ_rank, 0) + max(-λ_{outputs-th smallest}, 0); and `convergence_rate` 2 c σ², with σ the inputs'
    smallest non-zero singular value (σ² over the number of samples if the loss is a mean): the excess loss under
    flow falls at least as exp(-rate t). Raises `ProbeError` without data or initial network, and unless there are
    two layers. Cost: a thin QR of hidden x 2 (rank + outputs); the square matrix itself is never formed.
    Source: Min, Tarmoun, Vidal & Mallada (2021).
    """

    def __call__(self, now: Snapshot) -> Observation:
        (first, last), (first0, last0) = _pair(now, self)
        train = data_of(now, self).train
        span, values, rank = _data_span(train.inputs)
        outputs = last.shape[0]
        sides = jnp.concatenate([jnp.ones(span.shape[0]), -jnp.ones(outputs)])
        rows = jnp.concatenate([first @ span.T, last.T], axis=1)
        rows0 = jnp.concatenate([first0 @ span.T, last0.T], axis=1)
        found = self._eigenvalues(rows, sides)
        both = jnp.concatenate([rows, rows0], axis=1)
        triangle = jnp.linalg.qr(both, mode="r")
        drift = jnp.linalg.norm(triangle * jnp.concatenate([sides, -sides]) @ triangle.T)
        constant = jnp.maximum(found[rank - 1], 0.0) + jnp.maximum(-found[-outputs], 0.0)
        smallest = jnp.min(jnp.where(values > 0, values, jnp.inf))
        rate = 2 * constant * smallest**2 / (train.count if now.loss.reduction == "mean" else 1)
        return {
            "imbalance_eigenvalues": Quantity(found, "eigenvalue", long_name="eigenvalues of the imbalance"),
            "imbalance_drift": Quantity(drift, long_name="change of the imbalance since the start"),
            "convergence_constant": Quantity(constant, long_name="guaranteed convergence constant c"),
            "convergence_rate": Quantity(rate, unit="1/rate", long_name="guaranteed convergence rate"),
        }

    def _eigenvalues(self, rows: Array, sides: Array) -> Float[Array, " eigenvalue"]:
        """Of rows diag(sides) rowsᵀ, by a triangle that has the same ones; zeros make up for few hidden units."""
        triangle = jnp.linalg.qr(rows, mode="r")
        found = jnp.linalg.eigvalsh(triangle * sides @ triangle.T)
        missing = jnp.zeros(len(sides) - len(found))
        return jnp.sort(jnp.concatenate([found, missing]))[::-1]


class MinimumNorm(Probe):
    """How far a linear network is from the minimum-norm solution of its regression, and why.

    With Θ the end-to-end map and X, Y the samples: `distance_to_minimum_norm`, |Θ - (X⁺ Y)ᵀ|_F, and
    `null_space_part`, the part of Θ on inputs that no sample has. Two layers also give `frozen_bias`, |W2 U|_F with
    U the first layer's part there *before* training: gradients never move it, so that this equals `null_space_part`,
    and after training the distance. Raises `ProbeError` without data, and without the initial network for two
    layers. Cost: one SVD of the inputs. Source: Min, Tarmoun, Vidal & Mallada (2021).
    """

    def __call__(self, now: Snapshot) -> Observation:
        train = data_of(now, self).train
        inputs, targets = train.inputs, train.targets
        span, _, _ = _data_span(inputs)
        solution = (jnp.linalg.pinv(inputs) @ targets).T
        matrix = end_to_end(now.network, inputs.shape[1])
        outside = lambda rows: rows - (rows @ span.T) @ span
        seen = {
            "distance_to_minimum_norm": Quantity(
                jnp.linalg.norm(matrix - solution), long_name="distance to the minimum-norm solution"
            ),
            "null_space_part": Quantity(jnp.linalg.norm(outside(matrix)), long_name="map on inputs without data"),
        }
        if len(matrices(now.network)) == 2:
            (_, last), (first0, _) = _pair(now, self)
            seen["frozen_bias"] = Quantity(
                jnp.linalg.norm(last @ outside(first0)), long_name="bias from the frozen weights"
            )
        return seen


__all__ = [
    "ExcessLoss", "GramOperator", "ImbalanceSpectrum", "MinimumNorm", "SignalNorm", "SubproductSpectrum",
    "partial_products",
]  # fmt: skip
