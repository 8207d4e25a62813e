"""Curvature as products: Hessian, Gauss-Newton and gradient covariance of a network's loss, never formed.

An operator acts on flat vectors of the weights that it was made for. At fixed weights the network's derivatives are
computed once and kept (a product then costs little more than a gradient), unless they take more than `memory`: then
samples go through in chunks and each product computes them again, so that memory does not grow with their number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jaxtyping import Array, Float, PyTree

from armillary.errors import InvalidValue, require_between
from armillary.members import bytes_of
from armillary.models.model import learning_rate_scales
from armillary.tasks.data import Population, Samples

MEMORY = 2.5e8
"""Bytes of derivatives that are kept between products."""

Vector = Float[Array, " parameter"]
Product = Callable[[Array], Array]
Select = Callable[[Any], Any]
"""network -> the part of it whose weights count, as for `equinox.tree_at`."""


class Operator(NamedTuple):
    """A symmetric matrix known by its `product` with a flat vector of `size` numbers; `tree` makes a vector weights.

    `traced` is False for a product that JAX cannot trace, because another library computes it.
    """

    product: Product
    size: int
    dtype: Any
    tree: Callable[[Array], PyTree]
    traced: bool = True


class _Weights(NamedTuple):
    """The weights that count, as one vector, and the network with others in their place."""

    flat: Vector
    network: Callable[[Array], PyTree]
    tree: Callable[[Array], PyTree]
    scale: Vector | None


def _weights(network: PyTree, where: Select | None, own_metric: bool) -> _Weights:
    chosen = jax.tree.map(lambda leaf: eqx.is_inexact_array(leaf) and where is None, network)
    if where is not None:
        all_in = lambda part: jax.tree.map(eqx.is_inexact_array, part)
        try:
            chosen = eqx.tree_at(where, chosen, all_in(where(network)))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            what = str(error).splitlines()[0]
            raise InvalidValue(f"where must select a part of the network, as lambda n: n.layers[0] ({what})") from error
    trained, rest = eqx.partition(network, chosen)
    if not jax.tree.leaves(trained):
        where_from = "the network" if where is None else "the selected part of the network"
        raise InvalidValue(f"{where_from} has no trainable weights (floating-point arrays)")
    flat, tree = ravel_pytree(trained)
    scale = None
    if own_metric:
        rates = learning_rate_scales(network, adaptive=False)
        spread = lambda keep, leaf, rate: jnp.full(leaf.shape, jnp.sqrt(rate)) if keep else None
        keeps, leaves = jax.tree.leaves(chosen), jax.tree.leaves(network)
        rates = iter(jax.tree.leaves(rates))
        each = [
            spread(k, leaf, next(rates)) for k, leaf in zip(keeps, leaves, strict=True) if eqx.is_inexact_array(leaf)
        ]
        scale = jnp.concatenate([e.ravel() for e in each if e is not None]).astype(flat.dtype)
    return _Weights(flat, lambda v: eqx.combine(tree(v), rest), tree, scale)


def weights_of(network: PyTree, where: Select | None = None) -> Vector:
    """The weights that count, as one vector. Raises `InvalidValue` where there are none."""
    if getattr(network, "foreign", False):
        return network.weights_of(where)
    return _weights(network, where, own_metric=False).flat


def _operator(weights: _Weights, product: Product) -> Operator:
    scale = weights.scale
    scaled = product if scale is None else (lambda v: scale * product(scale * v))
    return Operator(scaled, weights.flat.size, weights.flat.dtype, weights.tree)


def _share(loss: Any, part: int, whole: int) -> float:
    """What a part's loss counts in the whole's."""
    match getattr(loss, "reduction", "mean"):
        case "mean":
            return part / whole
        case "sum":
            return 1.0
        case other:
            raise InvalidValue(f"the loss is a {other} over samples, which is no sum over chunks; raise memory")


class _Sandwich(eqx.Module):
    """v -> Jᵀ bend(J v), of a linearised map J."""

    push: Product
    bend: Product

    def __call__(self, v: Array) -> Array:
        return jax.linear_transpose(self.push, v)(self.bend(self.push(v)))[0]


def streamed(samples: Samples | Population, loss: Any, linear_on: Callable[[Any], Product], memory: float) -> Product:
    """v -> the sum over samples of `linear_on(samples)(v)`, a linear map that keeps derivatives, within `memory`."""
    require_between("memory", memory, 1.0)
    if isinstance(samples, Population):
        return linear_on(samples)
    if samples.count == 0:
        raise InvalidValue("there are no samples; curvature needs at least one")
    # In a program the derivatives can be made first and dropped: what is not used is not computed.
    in_program = any(isinstance(leaf, DynamicJaxprTracer) for leaf in jax.tree.leaves(samples))
    made = linear_on(samples) if in_program else None
    kept = bytes_of(jax.eval_shape(lambda: linear_on(samples)) if made is None else made)
    if kept <= memory:
        return linear_on(samples) if made is None else made
    chunk = max(1, int(samples.count * memory / kept))
    whole, rest = divmod(samples.count, chunk)
    part = lambda i: jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, i * chunk, chunk), samples)  # of no copy
    tail = samples[whole * chunk :]
    share, tail_share = _share(loss, chunk, samples.count), _share(loss, rest, samples.count)

    def product(v: Array) -> Array:
        add = lambda i, total: total + share * linear_on(part(i))(v)
        total = lax.fori_loop(0, whole, add, jnp.zeros_like(v))
        return total + tail_share * linear_on(tail)(v) if rest else total

    return product


def hessian(
    loss: Any,
    network: PyTree,
    samples: Any,
    *,
    where: Select | None = None,
    own_metric: bool = False,
    memory: float = MEMORY,
) -> Operator:
    """The Hessian of `loss(network, samples)` in the weights.

    - `where`: the part of the network whose weights count (`lambda n: n.layers[0]`); all by default.
    - `own_metric`: R^(1/2) H R^(1/2) with the layers' own learning-rate factors R, whose eigenvalues are those of R H:
      what gradient descent in the network's parametrisation sees.
    - `memory`: bytes of derivatives kept between products; beyond, samples go through in chunks.

    Raises `InvalidValue` for a network without trainable weights, a loss that is no scalar, or no samples.

    >>> from armillary.rules import Loss
    >>> line = eqx.nn.Linear(2, 1, use_bias=False, key=jax.random.key(0))
    >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> H = hessian(Loss(), line, Samples(x, jnp.zeros((2, 1))))  # the inputs' second moments, xᵀx/2
    >>> jax.vmap(H.product)(jnp.eye(2)).tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    weights = _weights(network, where, own_metric)
    value = eqx.filter_eval_shape(loss, network, samples)
    if getattr(value, "shape", None) != ():
        raise InvalidValue(f"the loss is {value}, but must be a scalar; take its mean or sum")

    def linear_on(part: Any) -> Product:
        return jax.linearize(jax.grad(lambda flat: loss(weights.network(flat), part)), weights.flat)[1]

    return _operator(weights, streamed(samples, loss, linear_on, memory))


def gauss_newton(
    loss: Any,
    network: PyTree,
    samples: Samples,
    *,
    where: Select | None = None,
    own_metric: bool = False,
    memory: float = MEMORY,
) -> Operator:
    """The Gauss-Newton matrix: the sum over samples of Jᵀ (second derivative of the loss in the outputs) J.

    It is the Hessian with the network's own curvature left out: positive semi-definite for convex losses, equal to it
    where the network is linear. For cross-entropy and squared error it is the Fisher information. Arguments and errors as
    for `hessian`; the loss must have `per_sample`, as `armillary.rules.Loss` does.
    Source: Schraudolph (2002); Martens (2014).
    """
    weights = _weights(network, where, own_metric)
    _needs_per_sample(loss, samples, "the Gauss-Newton matrix")

    def linear_on(part: Samples) -> Product:
        outputs, push = jax.linearize(lambda flat: jax.vmap(weights.network(flat))(part.inputs), weights.flat)
        total = lambda f: jnp.sum(loss.per_sample(f, part.targets)) * _unit(loss, part.count)
        return _Sandwich(push, jax.linearize(jax.grad(total), outputs)[1])

    return _operator(weights, streamed(samples, loss, linear_on, memory))


def gradient_covariance(
    loss: Any,
    network: PyTree,
    samples: Samples,
    *,
    where: Select | None = None,
    own_metric: bool = False,
    centred: bool = True,
    memory: float = MEMORY,
) -> Operator:
    """Covariance of the samples' gradients, (1/n) sum of (g - mean)(g - mean)ᵀ; their second moment unless `centred`.

    A batch of B samples drawn with replacement has a gradient of this covariance over B. Arguments and errors as for
    `gauss_newton`; all samples count alike whatever the loss's reduction.
    """
    weights = _weights(network, where, own_metric)
    _needs_per_sample(loss, samples, "the gradient covariance")

    def losses(flat: Array, part: Samples) -> Array:
        return loss.per_sample(jax.vmap(weights.network(flat))(part.inputs), part.targets)

    class Mean(NamedTuple):
        reduction: str = "mean"

    def linear_on(part: Samples) -> Product:
        push = jax.linearize(lambda flat: losses(flat, part), weights.flat)[1]
        return _Sandwich(push, jax.tree_util.Partial(jnp.multiply, jnp.asarray(1.0 / part.count, weights.flat.dtype)))

    second = streamed(samples, Mean(), linear_on, memory)
    if not centred:
        return _operator(weights, second)
    mean = jax.grad(lambda flat: jnp.mean(losses(flat, samples)))(weights.flat)
    return _operator(weights, lambda v: second(v) - mean * (mean @ v))


def _needs_per_sample(loss: Any, samples: Any, name: str) -> None:
    if not hasattr(loss, "per_sample"):
        raise InvalidValue(f"{name} needs a loss of single samples; give an armillary.rules.Loss")
    if not isinstance(samples, Samples):
        raise InvalidValue(f"{name} needs samples, and this is a {type(samples).__name__}")


def _unit(loss: Any, count: int) -> float:
    return 1.0 / count if loss.reduction == "mean" else 1.0
