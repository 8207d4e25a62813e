"""Learning rates from the curvature at hand: a constant over the largest Gauss-Newton eigenvalue, step by step."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from armillary.curvature.operators import MEMORY, Operator, gauss_newton
from armillary.errors import InvalidValue, require_between, unknown
from armillary.rules.seldom import where_due
from armillary.tangents.empirical import traced_kernel

THROUGH = ("weights", "samples")

SQUARINGS = 7
"""How often a Gram matrix is squared before its largest eigenvalue is read off: a gap of a tenth is then resolved."""


class CurvatureRateState(NamedTuple):
    """What the schedule remembers: the step, the direction of largest curvature found so far, that curvature, the rate."""

    step: Int[Array, ""]
    direction: Float[Array, " parameter"]
    curvature: Float[Array, ""]
    learning_rate: Float[Array, ""]


def scale_by_curvature(
    constant: Any = 1.0,
    *,
    products: int = 3,
    first: int = 20,
    every: Any = 1,
    cap: Any = 1e30,
    stop: Any = 1e-30,
    through: Literal["weights", "samples"] = "weights",
    memory: float = MEMORY,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `constant`/λ, λ the largest eigenvalue of the Gauss-Newton matrix at the current weights.

    Gradient descent then stays at λ times learning rate = `constant`: below 2 it is smooth; between 2 and 4 it is in the
    catapult for ever and still converges; above 4 it diverges. To be chained with `optax.scale(-1.0)`.

    - `products`: power iterations a step, from the direction found last (`first` of them at the first step, from a random
      one of `seed`). λ is the length that the last one gives a unit vector: never above the eigenvalue.
    - `every`: how many steps λ is kept; None (or inf) keeps the first one, which makes a constant rate in units of its stability.
    - `through`: "samples" takes λ from the Gram matrix of the samples' gradients, which has the same eigenvalues under the
      squared error. It is exact and costs a backward pass, whatever `products` are, where samples times outputs are few.
    - `cap`: the rate at most. `stop`: the loss at or below which nothing is updated (the rate is 0), because late in a
      run both the loss and λ may leave the range of floats; it counts only where `value` is given.

    `update` takes the curvature from its extra arguments: either `curvature`, a function that multiplies a pytree like the
    parameters with the Gauss-Newton (or another positive semi-definite) matrix, or `network`, `loss` and `samples`, from which the
    product is made within `memory` bytes, in the metric of the layers' own learning rates. `value` is the loss.
    `armillary.rules.Descent` gives the latter by itself.

    Raises `InvalidValue` for a constant, a cap or numbers of products out of range, where `update` gets neither, and through
    samples for another loss than the squared error; `UnknownName` for another `through`.
    Source: Terjék (2025), arXiv:2502.13110, whose own estimate of the curvature may differ.

    >>> H = jnp.array([1.0, 10.0])  # a loop of one's own, on the loss ½ Σ H w²
    >>> steps = optax.chain(scale_by_curvature(1.0), optax.scale(-1.0))
    >>> w = jnp.ones(2)
    >>> state = steps.init(w)
    >>> for _ in range(50):
    ...     updates, state = steps.update(H * w, state, w, curvature=lambda v: H * v)
    ...     w = optax.apply_updates(w, updates)
    >>> print(optax.tree_utils.tree_get(state, "learning_rate").round(3), w.round(3))
    0.1 [0.005 0.   ]
    """
    require_between("the constant", constant, 0.0)
    require_between("the number of products a step", products, 1)
    require_between("the number of products at the first step", first, 1)
    require_between("every", 1 if every is None else every, 1)
    require_between("cap", cap, 0.0)
    require_between("stop", stop, 0.0)
    if through not in THROUGH:
        raise unknown("way to the curvature (through)", through, THROUGH)

    def init(params: PyTree) -> CurvatureRateState:
        flat, _ = ravel_pytree(params)
        if through == "samples":  # no direction is remembered
            flat = flat[:1]
        start = jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)
        zero = jnp.zeros((), flat.dtype)
        return CurvatureRateState(jnp.zeros((), jnp.int32), start / jnp.linalg.norm(start), zero, zero)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        curvature: Callable[[PyTree], PyTree] | None = None,
        network: PyTree = None,
        loss: Any = None,
        samples: Any = None,
        **_: Any,
    ) -> tuple[PyTree, CurvatureRateState]:
        def measured(kept: tuple[Array, Array]) -> tuple[Array, Array]:
            if through == "samples":
                return kept[0], curvature_by_samples(network, loss, samples).astype(kept[1].dtype)
            product = curvature_product("scale_by_curvature", updates, curvature, network, loss, samples, memory)
            rounds = jnp.where(state.step == 0, max(first, products), products)
            return lax.fori_loop(0, rounds, lambda _, now: _turned(product, now[0]), kept)

        kept = (state.direction, state.curvature)
        if isinstance(every, int) and every == 1:
            direction, size = measured(kept)
        else:
            due = state.step == 0 if every is None else state.step % every == 0
            direction, size = where_due(due, measured, kept)
        rate = jnp.minimum(constant / size, cap).astype(size.dtype)
        rate = rate if value is None else jnp.where(value <= stop, 0.0, rate)
        scaled = jax.tree.map(lambda u: rate.astype(u.dtype) * u, updates)
        return scaled, CurvatureRateState(state.step + 1, direction, size, rate)

    return optax.GradientTransformationExtraArgs(init, update)


def _turned(product: Callable[[Array], Array], direction: Array) -> tuple[Array, Array]:
    """One power iteration: the image of a unit vector as a unit vector, and its length before."""
    image = product(direction)
    # Divided by the largest entry first: squares of late curvatures would be rounded to 0.
    most = jnp.max(jnp.abs(image))
    norm = jnp.linalg.norm(image / jnp.where(most > 0, most, 1.0))
    length = most * norm
    return jnp.where(length > 0, image / jnp.where(length > 0, length, 1.0), direction), length


def curvature_by_samples(network: PyTree, loss: Any, samples: Any) -> Float[Array, ""]:
    """The largest Gauss-Newton eigenvalue of the squared error, from the tangent kernel of the samples: both have the same
    eigenvalues but for zeros. Derived here.

    Raises `InvalidValue` for another loss, and without a network, loss and samples.
    """
    known = getattr(loss, "kind", None) == "squared_error" and loss.reduction != "log_mean"
    if network is None or samples is None or not known:
        raise InvalidValue(
            "the curvature is found through samples for the squared error of a network; give update(..., network=, loss=, "
            "samples=) of that kind, or use through='weights'"
        )
    kernel = traced_kernel(network, samples.inputs, outputs="full", own_metric=True)
    gram = kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)
    power = gram
    for _ in range(SQUARINGS):
        power = power / jnp.trace(power)
        power = power @ power
    column = power[:, jnp.argmax(jnp.diagonal(power))]
    most = jnp.linalg.norm(gram @ column) / jnp.linalg.norm(column)
    return most / (samples.count if loss.reduction == "mean" else 1)


def curvature_product(
    name: str,
    updates: PyTree,
    curvature: Callable | None,
    network: PyTree,
    loss: Any,
    samples: Any,
    memory: float,
    matrix: Callable[..., Operator] = gauss_newton,
) -> Callable[[Array], Array]:
    """A curvature matrix's product with a flat vector, from whichever extra arguments a transformation was given.

    Raises `InvalidValue`, with the transformation's `name`, where there are none.
    """
    if curvature is not None:
        _, tree = ravel_pytree(updates)
        return lambda v: ravel_pytree(curvature(tree(v)))[0].astype(v.dtype)
    if network is None or loss is None or samples is None:
        raise InvalidValue(
            f"{name} knows no curvature: pass update(..., curvature=product), or network=, loss= and samples="
        )
    return matrix(loss, network, samples, own_metric=True, memory=memory).product


class CurvatureRate(eqx.Module):
    """Gradient descent whose learning rate is `constant` over the largest Gauss-Newton eigenvalue of the batch at hand.

    The eigenvalue is taken in the parametrisation's own metric, as in the stability limit of the rates that the layers
    really have. Fields as in `scale_by_curvature`, which does the work; `constant`, `cap` and `stop` can be swept in one
    program, and so can `every` where it is a float. The rate and the eigenvalue of each step are seen by the probe `LearningRate`. Cost: `products`
    Gauss-Newton products a step, each about 1.4 gradients. Raises `InvalidValue` for numbers out of range.
    """

    constant: float = 1.0
    products: int = eqx.field(static=True, default=3)
    every: float | None = 1
    through: Literal["weights", "samples"] = eqx.field(static=True, default="weights")
    cap: float = 1e30
    stop: float = 1e-30

    adaptive = False

    def __check_init__(self):
        self.transformation()

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        scale = scale_by_curvature(
            self.constant,
            products=self.products,
            every=self.every,
            cap=self.cap,
            stop=self.stop,
            through=self.through,
        )
        return optax.with_extra_args_support(optax.chain(scale, optax.scale(-1.0)))
