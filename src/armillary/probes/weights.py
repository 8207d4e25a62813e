"""Weights: norms, distances, updates, balance."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PyTree

from armillary.curvature import eigen
from armillary.errors import ProbeError
from armillary.models.model import learning_rate_scales, matrices, parameters
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def _weights(network: PyTree, probe: Probe) -> list[Array]:
    """The weight matrices; an error where there is none."""
    found = matrices(network)
    if not found:
        raise ProbeError(f"{type(probe).__name__} needs weight matrices, and this network has none")
    return found


def _norm(tree: PyTree) -> Array:
    """The Euclidean norm of all numbers of a tree."""
    return jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(())))


class WeightNorm(Probe):
    """Frobenius norm of each weight matrix, and the norm of all parameters.

    Returns `weight_norm`, float[layer], and `parameter_norm`, a scalar. Arrays that are no matrices count only
    in the latter. Raises `ProbeError` if the network has no matrix.
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        norms = jnp.stack([jnp.linalg.norm(w) for w in _weights(now.network, self)])
        return {
            "weight_norm": Quantity(norms, "layer", long_name="Frobenius norm of the weights"),
            "parameter_norm": Quantity(_norm(parameters(now.network)), long_name="norm of all parameters"),
        }


class DistanceFromInitialisation(Probe):
    """How far each weight matrix has moved, relative to its initial norm, and all parameters together.

    Returns `distance_from_initialisation`, float[layer] (inf for a matrix that started at zero and moved), and
    `parameter_distance`, a scalar, both relative, in the Frobenius norm. With `spectral` also `spectral_distance`,
    float[layer], relative in the spectral norm, in which a change of low rank counts as much as it acts: exact for sides up to
    32 and to about a per cent from below beyond; cost: 48 products with each matrix. Raises `ProbeError` without the initial
    network.
    """

    spectral: bool = eqx.field(static=True, default=False)

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        if now.initial is None:
            raise ProbeError("DistanceFromInitialisation needs the network before training; pass initial=...")
        pairs = list(zip(_weights(now.network, self), matrices(now.initial), strict=True))
        moved = jnp.stack([_ratio(jnp.linalg.norm(w - w0), jnp.linalg.norm(w0)) for w, w0 in pairs])
        started = parameters(now.initial)
        change = jax.tree.map(jnp.subtract, parameters(now.network), started)
        seen = {
            "distance_from_initialisation": Quantity(moved, "layer", long_name="relative distance from the start"),
            "parameter_distance": Quantity(_ratio(_norm(change), _norm(started)), long_name="relative distance, all"),
        }
        if self.spectral:
            acting = jnp.stack([_ratio(spectral_norm(w - w0), spectral_norm(w0)) for w, w0 in pairs])
            what = "relative distance from the start, spectral norm"
            seen["spectral_distance"] = Quantity(acting, "layer", long_name=what)
        return seen


EXACT = 32
"""Sides up to which a spectral norm is that of the whole Gram matrix."""

STEPS = 24
"""Lanczos steps for the others: the edge of a random matrix's spectrum is then found to about a per cent."""


def spectral_norm(weight: Float[Array, "output input"]) -> Float[Array, ""]:
    """The largest singular value: exact where a side is short, else by Lanczos, from below.

    >>> print(spectral_norm(jnp.array([[3.0, 0.0], [0.0, -4.0]])))
    4.0
    """
    size = jnp.max(jnp.abs(weight))
    scaled = weight / jnp.where(size > 0, size, 1.0)  # squares of tiny weights would be rounded to 0
    scaled = scaled if weight.shape[0] >= weight.shape[1] else scaled.T
    if scaled.shape[1] <= EXACT:
        most = jnp.linalg.eigvalsh(scaled.T @ scaled)[-1]
    else:
        start = jax.random.normal(jax.random.key(0), scaled.shape[1:], scaled.dtype)
        grown = lambda _, space: eigen.expanded(space, scaled.T @ (scaled @ space.last))
        space = lax.fori_loop(0, STEPS, grown, eigen.begun(start, STEPS))
        most = jnp.linalg.eigvalsh(space.projected[:STEPS, :STEPS])[-1]
    return size * jnp.sqrt(jnp.maximum(most, 0.0))


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole, and 0 where both are 0."""
    return jnp.where(part == 0, 0.0, part / whole)


class UpdateCosine(Probe):
    """Cosine between the last update and the whole displacement before it, for each layer and for all.

    With C = theta - theta_0 before the update u: <u, C>/(|u||C|). Near 1 the weights drift coherently, near 0
    they diffuse, below 0 they retreat. Returns `update_cosine`, float[layer] (weight matrices), and
    `global_update_cosine`, a scalar; nan where there is no update or no displacement yet (the first step).
    `own_metric` divides all by the root of the layers' learning-rate factors, as weights are measured in the
    network's parametrisation: where layers' factors differ, their shares in the cosine of all layers then do not.
    Source: Terjék (2025), arXiv:2502.13110.
    """

    own_metric: bool = eqx.field(static=True, default=False)

    needs_update = True
    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        if now.update is None or now.initial is None:
            raise ProbeError(
                "UpdateCosine needs the last update and the initial network; pass previous=... and initial=... or use it "
                "in a simulation"
            )
        trained, update = parameters(now.network), now.update
        displacement = jax.tree.map(lambda w, w0, u: w - w0 - u, trained, parameters(now.initial), update)
        if self.own_metric:
            rates = learning_rate_scales(now.network, adaptive=False)
            measured = lambda tree: jax.tree.map(lambda leaf, rate: leaf / jnp.sqrt(rate), tree, rates)
            trained, update, displacement = (measured(tree) for tree in (trained, update, displacement))
        triples = zip(matrices(update), matrices(displacement), matrices(trained), strict=True)
        layers = jnp.stack([_cosine([u], [c], [w]) for u, c, w in triples])
        everything = _cosine(*(jax.tree.leaves(t) for t in (update, displacement, trained)))
        return {
            "update_cosine": Quantity(layers, "layer", long_name="cosine of update and displacement"),
            "global_update_cosine": Quantity(everything, long_name="cosine of update and displacement, all layers"),
        }


def _cosine(update: list[Array], displacement: list[Array], weights: list[Array]) -> Array:
    inner = sum((jnp.sum(a * b) for a, b in zip(update, displacement, strict=True)), jnp.zeros(()))
    norms = _norm(update) * _norm(displacement)
    # After one step the displacement is 0 but for the weights' rounding, whose direction means nothing.
    rounding = 4 * jnp.finfo(norms.dtype).eps * _norm(weights)
    defined = (norms > 0) & (_norm(displacement) > rounding)
    return jnp.where(defined, inner / jnp.where(defined, norms, 1.0), jnp.nan)


class LearningRate(Probe):
    """The learning rate of the last step, where the optimiser remembers it: `CurvatureRate`'s, or what optax's
    `inject_hyperparams` made.

    Returns `learning_rate`, a scalar, before the layers' own factors; nan before the first step. With a rate from the
    curvature also `rate_curvature`, the eigenvalue that it was made from. Cost: none. Raises `ProbeError` outside a
    simulation and for optimisers that remember no rate.
    """

    def __call__(self, now: Snapshot) -> Observation:
        found = {n: optax.tree_utils.tree_get(now.rule_memory, n) for n in ("learning_rate", "curvature")}
        if found["learning_rate"] is None:
            raise ProbeError(
                "LearningRate needs an optimiser that remembers its rate, as CurvatureRate, in a simulation"
            )
        done = lambda value: jnp.where(now.time > 0, value, jnp.nan)
        seen = {"learning_rate": Quantity(done(found["learning_rate"]), unit="rate", long_name="learning rate")}
        if found["curvature"] is not None:
            what = "largest eigenvalue that the rate was made from"
            seen["rate_curvature"] = Quantity(done(found["curvature"]), unit="1/rate", long_name=what)
        return seen


class StepsTaken(Probe):
    """How many steps a rule that stops at a loss has taken.

    Returns `steps_taken`, a scalar. Cost: none. Raises `ProbeError` outside a simulation and for rules that do not count
    (`DescentToLoss` does).
    """

    def __call__(self, now: Snapshot) -> Observation:
        memory = now.rule_memory if isinstance(now.rule_memory, dict) else {}
        if "steps" not in memory:
            raise ProbeError("StepsTaken needs a rule that counts its steps, as DescentToLoss, in a simulation")
        return {"steps_taken": Quantity(memory["steps"], unit="steps", long_name="steps to the target loss")}


class Balancedness(Probe):
    """How unbalanced neighbouring layers are: |W_{l+1}ᵀ W_{l+1} - W_l W_lᵀ|_F over |W_l W_lᵀ|_F.

    The difference is conserved by the gradient flow of a linear network (Saxe et al. 2013; Arora et al. 2018).
    Returns `imbalance`, float[gap], one for each pair of neighbouring matrices. Raises `ProbeError` unless
    there are two matrices that fit.
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        weights = _weights(now.network, self)
        if len(weights) < 2 or any(a.shape[0] != b.shape[1] for a, b in itertools.pairwise(weights)):
            raise ProbeError("Balancedness needs two or more weight matrices that are applied one to another")
        gaps = []
        for below, above in itertools.pairwise(weights):
            below2, above2 = below @ below.T, above.T @ above
            gaps.append(_ratio(jnp.linalg.norm(above2 - below2), jnp.linalg.norm(below2)))
        return {"imbalance": Quantity(jnp.stack(gaps), "gap", long_name="relative imbalance of neighbouring layers")}
