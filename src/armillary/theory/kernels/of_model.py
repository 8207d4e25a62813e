"""The kernel of a model of the zoo, derived from the model itself."""

import itertools
from functools import singledispatch
from typing import Any

import numpy as np

from armillary.errors import InvalidValue
from armillary.models.activations import GAINS
from armillary.models.convolutional import ConvolutionalNet
from armillary.models.deep_linear import DeepLinear
from armillary.models.features import RandomFeatures
from armillary.models.initialisation import Gaussian, Orthogonal
from armillary.models.macroscopic import Macroscopic
from armillary.models.mlp import MLP
from armillary.models.parametrisation import Role, Scales
from armillary.models.tangent_kernel import FiniteWidth
from armillary.theory.kernels.gram import Kernel
from armillary.theory.kernels.layers import Activation, Convolution, Dense, Flatten, GlobalAveragePool, Layer

WIDTH_FREE = ("ntk", "mean_field", "mup_ntk", "depth_mup", "nup")
"""Parametrisations in which the number of inputs drops out."""


def kernel(model: Any, inputs: int | None = None) -> Kernel:
    """The kernels of a model of `armillary.models` as its width goes to infinity.

    In the NTK parametrisation they do not depend on the model's width. In others they do (a standard network's tangent
    kernel grows in proportion to it): they are then those of the model's own widths, to leading order. `inputs` is the number
    of inputs, needed where a layer's scale depends on it (parametrisations "standard" and "mup", random features).
    Another model gets its kernel by `armillary.theory.kernels.layers_of_model.register(Model)(function)`, a function that
    returns a list of layers.

    Raises `InvalidValue` for a model without one.

    >>> from armillary.models import MLP
    >>> kernel(MLP(depth=2, parametrisation="ntk", bias=False)).ntk(np.eye(2)).round(4).tolist()
    [[0.75, 0.1592], [0.1592, 0.75]]
    """
    if isinstance(model, Kernel):
        return model
    return Kernel(*layers_of_model(model, inputs), shape=getattr(model, "shape", None))


@singledispatch
def layers_of_model(model: Any, inputs: int | None) -> list[Layer]:
    """The layers of infinitely many units that a model becomes, for `kernel`."""
    known = ", ".join(sorted(cls.__name__ for cls in layers_of_model.registry if cls is not object))
    raise InvalidValue(
        f"a {type(model).__name__} has no known kernel; models with one: {known}. Compose others from "
        "armillary.theory.kernels (Kernel(Dense(...), Activation(...), ...)), or measure the kernel of a network itself "
        "by armillary.probes.TangentKernel"
    )


def _needed(model: Any, inputs: int | None) -> int:
    if inputs is None:
        raise InvalidValue(
            f"the kernel of this {type(model).__name__} depends on the number of inputs; give kernel(model, inputs=...)"
        )
    return inputs


def _trained(model: Any, s: Scales, gain: Any, fan_in: int, layer: type[Dense] = Dense, **more: Any) -> Dense:
    """A layer of a parametrised model: variances of what it adds, and what its training adds to the tangent kernel."""
    each = s.multiplier**2 * fan_in
    biased = {"bias_variance": 0.0, "bias_rate": 0.0}
    if model.bias:
        factor = model.bias_scale**2
        biased = {"bias_variance": factor * (model.bias_variance or 0.0), "bias_rate": factor * s.rate}
    variance = each * s.deviation**2 * gain * model.scale**2
    return layer(weight_variance=variance, weight_rate=float(each * s.rate), **biased, **more)


@layers_of_model.register
def _(model: MLP, inputs: int | None) -> list[Layer]:
    inputs = inputs if model.parametrisation in WIDTH_FREE and inputs is None else _needed(model, inputs)
    sizes, made = model.sizes(inputs or 1, 1), []
    hidden: list[Role] = ["hidden"] * model.depth
    roles: list[Role] = ["input", *hidden[2:], "output"] if model.depth > 1 else ["output"]
    for role, fan_in, fan_out in zip(roles, sizes, sizes[1:], strict=False):
        s, gain = model.scales_of(role, fan_in, fan_out)
        made += [_trained(model, s, gain, fan_in), Activation(model.activation)]
    return made[:-1]


@layers_of_model.register
def _(model: Macroscopic, inputs: int | None) -> list[Layer]:
    count, width, scales = float(_needed(model, inputs)), model.width, model.scales
    made: list[Layer] = [Dense(count, 0.0, count * width / scales[0] ** 2, 0.0), Activation(model.activation)]
    for scale in scales[1:-1]:
        made += [Dense(1.0, 0.0, width / scale**2, 0.0), Activation(model.activation)]
    return [*made, Dense(model.kappa**2 / width, 0.0, (model.kappa / scales[-1]) ** 2, 0.0)]


@layers_of_model.register
def _(model: ConvolutionalNet, inputs: int | None) -> list[Layer]:
    made: list[Layer] = []
    for role, fan_in, fan_out in model.sizes(int(np.prod(model.shape))):
        s, gain = model.scales_of(role, fan_in, fan_out)
        if role == "output":
            made += [Flatten() if model.pooling == "flatten" else GlobalAveragePool(), _trained(model, s, gain, fan_in)]
        else:
            grid = {"size": model.size, "stride": model.stride, "padding": model.padding}
            made += [_trained(model, s, gain, fan_in, Convolution, **grid), Activation(model.activation)]
    return made


@layers_of_model.register
def _(model: DeepLinear, inputs: int | None) -> list[Layer]:
    start = model.initialisation
    if not isinstance(start, Gaussian | Orthogonal):
        raise InvalidValue(
            f"a DeepLinear that starts {type(start).__name__} is not random; its kernel is its own alone"
        )
    sizes = model.sizes(_needed(model, inputs), 1)
    rate = 1 / model.depth if model.rate_by_depth else 1.0
    made: list[Layer] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        if isinstance(start, Orthogonal):
            variance = start.gain**2 / max(fan_in, fan_out)
        else:
            variance = start.scale**2 / (1 if start.per_entry else fan_in)
        made.append(Dense(variance * fan_in, 0.0, fan_in * rate, 0.0))
    return made


@layers_of_model.register
def _(model: RandomFeatures, inputs: int | None) -> list[Layer]:
    count = _needed(model, inputs)
    fixed = Dense(model.projection_scale**2 * count, 0.0, 0.0, 0.0)
    readout = Dense(model.scale**2 * model.width, 0.0, model.width, 0.0)
    return [fixed, Activation(model.activation), readout]


@layers_of_model.register
def _(model: FiniteWidth, inputs: int | None) -> list[Layer]:
    count = float(_needed(model, inputs))  # its weights are N(0, 1), not over the number of inputs
    gain = GAINS.get(model.activation, 1.0) if isinstance(model.activation, str) else 1.0
    first = Dense(count, 0.0, count * model.first_layer, 0.0)
    return [first, Activation(model.activation), Dense(gain, 0.0, gain * model.read_out, 0.0)]
