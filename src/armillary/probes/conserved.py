"""Two linear layers: what their gradient flow conserves, how far the minimisers are, and what equilibria are like."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from armillary.errors import ProbeError
from armillary.models.model import matrices, parameters
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def _two_layers(now: Snapshot, probe: Probe) -> tuple[Array, Array]:
    found = matrices(now.network)
    if len(found) != 2 or found[0].shape[0] != found[1].shape[1]:
        raise ProbeError(f"{type(probe).__name__} needs two weight matrices, applied one after the other")
    return found[0], found[1]


def _scalar_pair(now: Snapshot, probe: Probe) -> tuple[Array, Array]:
    first, last = _two_layers(now, probe)
    if first.shape[1] != 1 or last.shape[0] != 1:
        raise ProbeError(
            f"{type(probe).__name__} needs one input and one output, and this network has {first.shape[1]} and "
            f"{last.shape[0]}"
        )
    return first[:, 0], last[0]


class ConservedQuantities(Probe):
    """What the gradient flow of two linear layers conserves: W1 W1ᵀ - W2ᵀ W2, and how far it has moved.

    Returns `balance_drift`, the Frobenius norm of its change since the start over |W1(0)|² + |W2(0)|² (0 under exact
    undisturbed flow). With one input and one output also `norm_product`, |p| |q| of `SaddleCoordinates`, conserved
    too. Raises `ProbeError` unless the network is two matrices, and without the initial network.
    Source: Saxe et al. (2013); the second derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        if now.initial is None:
            raise ProbeError("ConservedQuantities needs the network before training; pass initial=...")
        first, last = _two_layers(now, self)
        begin1, begin2 = matrices(now.initial)
        moved = (first @ first.T - last.T @ last) - (begin1 @ begin1.T - begin2.T @ begin2)
        size = jnp.sum(begin1**2) + jnp.sum(begin2**2)
        seen = {
            "balance_drift": Quantity(
                jnp.linalg.norm(moved) / jnp.where(size > 0, size, 1.0), long_name="relative change of the balance"
            )
        }
        if first.shape[1] == last.shape[0] == 1:
            plus, minus = first[:, 0] + last[0], first[:, 0] - last[0]
            product = jnp.linalg.norm(plus) * jnp.linalg.norm(minus) / 2
            seen["norm_product"] = Quantity(product, long_name="product of the halves' norms")
        return seen


class SaddleCoordinates(Probe):
    """Two linear layers with one input and one output, seen from the saddle at the origin.

    With incoming weights k1, outgoing k2 and the target s = E[y x] (inputs of unit variance): p = (k1 + k2)/sqrt(2),
    q = (k1 - k2)/sqrt(2) (exchanged for s < 0), so that |k1.k2| = (|p|² - |q|²)/2 on the target's side. Returns
    `target_error` (s - k1.k2) sign(s), `growing_norm` |p|, `decaying_norm` |q|, `weight_size` sqrt(|p|² + |q|²), and
    `distance_to_minimisers`, the Euclidean distance to the set k1.k2 = s, found by bisection. Raises `ProbeError`
    without data or for another network. Source: derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        first, last = _scalar_pair(now, self)
        samples = data_of(now, self).train
        target = jnp.sum(samples.targets * samples.inputs) / jnp.sum(samples.inputs**2)
        sign = jnp.where(target < 0, -1.0, 1.0)
        growing = jnp.linalg.norm(first + sign * last) / jnp.sqrt(2.0)
        decaying = jnp.linalg.norm(first - sign * last) / jnp.sqrt(2.0)
        error = jnp.abs(target) - (growing**2 - decaying**2) / 2
        distance = _distance_to_hyperbola(growing, decaying, 2 * jnp.abs(target))
        return {
            "target_error": Quantity(error, long_name="error of the product"),
            "growing_norm": Quantity(growing, long_name="norm of the growing half"),
            "decaying_norm": Quantity(decaying, long_name="norm of the decaying half"),
            "weight_size": Quantity(jnp.sqrt(growing**2 + decaying**2), long_name="norm of the weights"),
            "distance_to_minimisers": Quantity(distance, long_name="distance to the minimisers"),
        }


def _distance_to_hyperbola(a: Array, b: Array, square: Array) -> Float[Array, ""]:
    """From (a, b), both at least 0, to {a'² - b'² = square}: the nearest b' is where 2 b' - b - a b'/a' crosses 0.

    That function of b' is convex and not positive at 0, so it crosses once on (0, a + b].
    """

    def halved(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = 2 * middle - b - a * middle / jnp.sqrt(square + middle**2) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, _ = lax.fori_loop(0, 80, halved, (jnp.zeros_like(a), a + b))
    return jnp.hypot(a - jnp.sqrt(square + low**2), b - low)


class Stationarity(Probe):
    """Whether the network is an equilibrium of its loss, and of which kind.

    Returns `gradient_norm`, the norm of the loss's gradient over all weights, and `hessian_eigenvalues`,
    float[eigenvalue], smallest first, one a weight. Cost: a dense Hessian and its eigenvalues; for small networks.
    Raises `ProbeError` without data, and for more than `largest` weights.
    """

    largest: int = eqx.field(static=True, default=500)

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        flat, unravel = ravel_pytree(parameters(now.network))
        if flat.size > self.largest:
            raise ProbeError(f"Stationarity takes at most {self.largest} weights, and this network has {flat.size}")
        _, rest = eqx.partition(now.network, eqx.is_inexact_array)
        loss = lambda w: now.loss(eqx.combine(unravel(w), rest), data.train)
        return {
            "gradient_norm": Quantity(jnp.linalg.norm(jax.grad(loss)(flat)), long_name="norm of the gradient"),
            "hessian_eigenvalues": Quantity(
                jnp.linalg.eigvalsh(jax.hessian(loss)(flat)), "eigenvalue", long_name="eigenvalues of the Hessian"
            ),
        }
