"""Learning rate and momentum from a few Lanczos steps on the batch at hand, as Polyak's heavy ball wants them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from armillary.curvature import eigen
from armillary.curvature.operators import MEMORY, gauss_newton, hessian
from armillary.errors import require_between, unknown
from armillary.rules.curvature_rate import curvature_product
from armillary.rules.seldom import where_due

MATRICES = {"hessian": hessian, "gauss_newton": gauss_newton}


class LanczosRateState(NamedTuple):
    """What the learner remembers: the step, the last change of the weights (before its sign), the rate and the momentum
    in use, and the two curvatures that they were made from."""

    step: Int[Array, ""]
    velocity: PyTree
    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    curvature: Float[Array, ""]
    low_curvature: Float[Array, ""]


SIGNAL = 7.0
"""Share of a random start, in units of one over the weights, up to which a Ritz value is one direction's: that of a true
one exceeds it once in 120. What the bulk is made of has a larger share."""


class Extent(NamedTuple):
    """The largest curvature, and the smallest one that belongs to a direction of its own."""

    high: Float[Array, ""]
    low: Float[Array, ""]


def heavy_ball(high: Any, low: Any) -> tuple[Any, Any]:
    """Polyak's learning rate 4/(√high + √low)² and momentum ((√high - √low)/(√high + √low))²: the fastest heavy ball for
    curvatures between `low` and `high`. Source: Polyak (1964)

    >>> heavy_ball(4.0, 4.0), heavy_ball(9.0, 1.0)
    ((0.25, 0.0), (0.25, 0.25))
    """
    total = high**0.5 + low**0.5
    return 4 / total**2, ((high**0.5 - low**0.5) / total) ** 2


def extent(product: Callable[[Array], Array], start: Float[Array, " parameter"], steps: int) -> Extent:
    """The extent of a spectrum from `steps` Lanczos steps, kept orthogonal, that begin at a random `start`.

    `high` is the largest Ritz value's size (of negative ones too). `low` is the smallest positive Ritz value that is one
    direction's, as outliers are, and not the bulk's: whose weight in the start is at most `SIGNAL` over the number of
    weights. Without any it is `high`. The choice of `low` is ours; the paper's is not known here.

    >>> values = jnp.concatenate([jnp.array([10.0, 4.0]), jnp.linspace(0.0, 0.1, 998)])
    >>> found = extent(lambda v: values * v, jax.random.normal(jax.random.key(0), (1000,)), 6)
    >>> print(found.high.round(2), found.low.round(2))
    10.0 4.0
    """
    steps = min(steps, start.size)

    def grown(_: Any, space: eigen.Krylov) -> eigen.Krylov:
        # An invariant space has nothing to add: its next vector is 0.
        open_still = jnp.any(space.last != 0)
        return lax.cond(open_still, lambda: eigen.expanded(space, product(space.last)), lambda: space)

    space = lax.fori_loop(0, steps, grown, eigen.begun(start, steps))
    found = eigen.ritz(space, "largest")
    there = space.there
    weights = jnp.where(there, found.coordinates[0, :] ** 2, 0.0)
    high = jnp.max(jnp.where(there, jnp.abs(found.values), 0.0))
    alone = there & (found.values > 0) & (weights <= SIGNAL / start.size)
    return Extent(high, jnp.min(jnp.where(alone, found.values, high), initial=jnp.inf))


def scale_by_lanczos(
    every: int = 10,
    *,
    steps: int = 15,
    share: Any = 1.0,
    heavy: bool = True,
    most_momentum: Any = 0.95,
    change: Any = 2.0,
    cap: Any = 1e30,
    matrix: Literal["hessian", "gauss_newton"] = "hessian",
    memory: float = MEMORY,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Heavy-ball updates whose learning rate and momentum follow the curvature of the batch at hand.

    Every `every` steps `steps` Lanczos steps from a fresh random vector give the largest curvature L and the smallest
    outlying one, mu (see `extent`). The rate is `share` times 4/(√L + √mu)² and the momentum ((√L - √mu)/(√L + √mu))², or,
    unless `heavy`, `share` times 2/(L + mu) and none. To be chained with `optax.scale(-1.0)`. A batch sees its sharpest direction sharper than it is,
    the more so the smaller it is, so that smaller batches are given smaller rates.

    - `share`: 1 is Polyak's rate, as large as curvatures up to L allow. Batches differ, and leave no room above it: a half
      is safer.
    - `most_momentum`: at most so much. `change`: the rate changes at most by this factor at a time. `cap`: the rate at most.
    - `matrix`: "hessian" or "gauss_newton", of the network's loss on the batch, within `memory` bytes, in the metric of
      the layers' own learning rates; or give a `curvature` as to `scale_by_curvature`.

    Cost: `steps` products every `every` steps, each about 1.4 gradients; memory: steps + 2 vectors. Raises `InvalidValue`
    for numbers out of range and where `update` gets no curvature. Source: Granziol, Zohren & Roberts (2020); mu,
    `share` and the safeguards are ours.

    >>> H = jnp.array([0.2, 1.0, 10.0])  # a loop of one's own, on the loss ½ Σ H w²
    >>> learner = optax.chain(scale_by_lanczos(), optax.scale(-1.0))
    >>> update = jax.jit(lambda w, state: learner.update(H * w, state, w, curvature=lambda v: H * v))
    >>> w = jnp.ones(3)
    >>> state = learner.init(w)
    >>> for _ in range(60):
    ...     updates, state = update(w, state)
    ...     w = optax.apply_updates(w, updates)
    >>> print(bool(jnp.abs(w).max() < 1e-2))
    True
    """
    require_between("every", every, 1)
    require_between("the number of Lanczos steps", steps, 2)
    require_between("the share of Polyak's rate", share, 0.0)
    require_between("the largest momentum", most_momentum, 0.0, 1.0)
    require_between("the largest change of the rate", change, 1.0, open_low=True)
    require_between("cap", cap, 0.0)
    if matrix not in MATRICES:
        raise unknown("matrix", matrix, MATRICES)

    def init(params: PyTree) -> LanczosRateState:
        zero = jnp.zeros((), ravel_pytree(params)[0].dtype)
        return LanczosRateState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), zero, zero, zero, zero)

    def update(
        updates: PyTree,
        state: LanczosRateState,
        params: PyTree = None,
        *,
        curvature: Callable[[PyTree], PyTree] | None = None,
        network: PyTree = None,
        loss: Any = None,
        samples: Any = None,
        **_: Any,
    ) -> tuple[PyTree, LanczosRateState]:
        given = ("scale_by_lanczos", updates, curvature, network, loss, samples, memory, MATRICES[matrix])
        product, flat = curvature_product(*given), ravel_pytree(updates)[0]

        def measured(_: Any) -> tuple[Array, ...]:
            start = jax.random.normal(jax.random.fold_in(jax.random.key(seed), state.step), flat.shape, flat.dtype)
            high, low = extent(product, start, steps)
            rate, momentum = heavy_ball(high, low) if heavy else (2 / (high + low), jnp.zeros_like(high))
            rate, first = share * rate, state.step == 0
            slowest, fastest = (
                jnp.where(first, b, state.learning_rate * f) for b, f in ((0.0, 1 / change), (cap, change))
            )
            rate = jnp.minimum(jnp.clip(rate, slowest, fastest), cap)
            return tuple(n.astype(flat.dtype) for n in (rate, jnp.clip(momentum, 0.0, most_momentum), high, low))

        kept = (state.learning_rate, state.momentum, state.curvature, state.low_curvature)
        rate, momentum, high, low = where_due(state.step % every == 0, measured, kept)
        moved = lambda v, u: (rate * u + momentum * v).astype(u.dtype)
        velocity = jax.tree.map(moved, state.velocity, updates)
        return velocity, LanczosRateState(state.step + 1, velocity, rate, momentum, high, low)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


class LanczosRate(eqx.Module):
    """Gradient descent with heavy-ball momentum, both numbers of which come from Lanczos steps on the batch at hand.

    Fields as in `scale_by_lanczos`, which does the work; `share`, `most_momentum`, `change` and `cap` can be swept in one program.
    The rate and the largest curvature of each step are seen by the probe `LearningRate`. Raises `InvalidValue` for
    numbers out of range.
    """

    every: int = eqx.field(static=True, default=10)
    lanczos_steps: int = eqx.field(static=True, default=15)
    share: float = 1.0
    heavy: bool = eqx.field(static=True, default=True)
    most_momentum: float = 0.95
    change: float = 2.0
    cap: float = 1e30
    matrix: Literal["hessian", "gauss_newton"] = eqx.field(static=True, default="hessian")

    adaptive = False

    def __check_init__(self):
        self.transformation()

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        bounds: dict[str, Any] = {
            "share": self.share,
            "most_momentum": self.most_momentum,
            "change": self.change,
            "cap": self.cap,
        }
        scale = scale_by_lanczos(self.every, steps=self.lanczos_steps, heavy=self.heavy, matrix=self.matrix, **bounds)
        return optax.with_extra_args_support(optax.chain(scale, optax.scale(-1.0)))
