"""Networks whose layers' curvature is brought to a target before they are trained."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from armillary.curvature.layers import layer_factors, layer_norms, linear_layers
from armillary.errors import InvalidValue, require_between
from armillary.models.model import Model, draw_network, is_linear_layer
from armillary.settings import floats
from armillary.tasks.data import Samples


def scale_changes(
    norms: Float[Array, " layer"], target: ArrayLike = 1.0, *, per_layer: bool = False
) -> Float[Array, " layer"]:
    """Logarithms of the factors on each layer's weights that bring the norms of the layers' Hessians to `target`.

    A layer's norm grows as the squared weights of all other layers, exactly so for positively homogeneous
    activations, no biases and the squared error: with e = log(norm/target), sigma_k = e_k/2 - (sum of e)/(2 (L - 1))
    makes all norms equal to it. One factor for all (without `per_layer`) brings their geometric mean there. Derived
    here.

    >>> print(jnp.exp(scale_changes(jnp.array([4.0, 4.0, 4.0]))).round(3))
    [0.707 0.707 0.707]
    """
    wrong = jnp.log(jnp.maximum(norms, jnp.finfo(norms.dtype).tiny) / target)
    total = jnp.sum(wrong) / (2 * (len(norms) - 1))
    return wrong / 2 - total if per_layer else jnp.full_like(wrong, -total / len(norms))


def _scaled(network: PyTree, logarithms: Array) -> PyTree:
    factors = iter(jnp.exp(logarithms))
    grown = lambda layer: eqx.tree_at(lambda n: n.weight, layer, next(factors) * layer.weight)
    return jax.tree.map(lambda node: grown(node) if is_linear_layer(node) else node, network, is_leaf=is_linear_layer)


def with_curvature(
    network: PyTree, samples: Samples, loss: Any, target: ArrayLike = 1.0, *, per_layer: bool = False, steps: int = 12
) -> PyTree:
    """The network with its linear layers' weights scaled so that the layers' Hessians have norms near `target`.

    Norms are means over samples by the approximate chain rule (`LayerCurvature`). `per_layer` makes them equal,
    otherwise one factor brings their geometric mean there. `steps` of `scale_changes`: one is exact where it says
    so; a loss whose curvature changes with the outputs, or an activation that saturates, needs some more. Raises
    `InvalidValue` for fewer than two linear layers, numbers out of range, and as `layer_factors`. Cost: a backward
    pass for each output and step.
    """
    require_between("the target norm", target, 0.0, open_low=True)
    require_between("the number of steps", steps, 0)
    count = len(linear_layers(network))
    if count < 2:
        raise InvalidValue("one linear layer's curvature does not depend on its scale; give a network of two or more")

    def one(_: Array, logarithms: Array) -> Array:
        norms = layer_norms(layer_factors(_scaled(network, logarithms), samples, loss)).norm
        return logarithms + scale_changes(norms, target, per_layer=per_layer)

    return _scaled(network, lax.fori_loop(0, steps, one, jnp.zeros(count, samples.inputs.dtype)))


class CurvatureControlled(Model):
    """Networks of `model`, scaled before training until their layers' Hessians have norms near `target`.

    - `model`: any model or network whose linear layers can be seen (see `armillary.curvature.layers`).
    - `inputs` [sample, input], `targets` [sample, ...] and `loss` (an `armillary.rules.Loss`): where the curvature
      is taken; some tens of samples suffice.
    - `target`: the norm; can be swept. `per_layer`, `steps`: see `with_curvature`.

    Raises `InvalidValue` as `with_curvature`. Source: the rule of Skorski, Temperoni & Theobald (2020), norms of
    order one and equal; how the scales are found is ours.
    """

    model: Any
    inputs: Float[Array, "sample ..."]
    targets: Array
    loss: Any
    target: float = 1.0
    per_layer: bool = eqx.field(static=True, default=False)
    steps: int = eqx.field(static=True, default=12)

    def __init__(
        self, model: Any, inputs: ArrayLike, targets: ArrayLike, loss: Any, target: float = 1.0,
        per_layer: bool = False, steps: int = 12,
    ):  # fmt: skip
        require_between("the target norm", target, 0.0, open_low=True)
        require_between("the number of steps", steps, 0)
        targets = jnp.asarray(targets)
        self.model, self.loss, self.target = model, loss, target
        self.inputs = floats(inputs)
        self.targets = floats(targets) if jnp.issubdtype(targets.dtype, jnp.floating) else targets
        self.per_layer, self.steps = per_layer, steps

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> Any:
        network = draw_network(self.model, key, inputs, outputs)
        samples = Samples(self.inputs, self.targets)
        return with_curvature(network, samples, self.loss, self.target, per_layer=self.per_layer, steps=self.steps)
