"""Networks told by their macroscopic scales: one number for the size of the output, one a layer for who learns it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.activations import Activation, Rectified, activation
from armillary.models.freezing import Frozen
from armillary.models.initialisation import gaussian_alike
from armillary.models.model import Dense, Model


class MacroscopicNetwork(eqx.Module):
    """f(x) = kappa/√m v . phi(U_L phi(... phi(U_1 x))) with entries of U_1 and √m times those of the others of variance 1.

    What is trained, with one learning rate, are the weights W_l = (alpha_l/√m) √m U_l (of the first layer alpha_1/√m U_1):
    layer l's part of the tangent kernel is of the size (kappa/alpha_l)². With phi of degree one and kappa the product of the
    alpha_l, as here, f is the plain network W_D phi(... phi(W_1 x)) to the letter; any other phi sees signals of order one whatever
    the scales are.
    """

    layers: tuple[Dense, ...]
    scales: Frozen
    width: int = eqx.field(static=True)
    activation: str | Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        phi, scales, root = activation(self.activation), self.scales.value, self.width**0.5
        signal = (root / scales[0]) * self.layers[0](x)
        for number, layer in enumerate(self.layers[1:], start=1):
            signal = layer(phi(signal)) / scales[number]
        return (jnp.prod(scales) / root) * signal


def relative_scales(depth: int, first: Any, last: Any) -> list[Any]:
    """Scales of `depth` layers whose product is 1: the first layer's `first` times a hidden one's, the last one's `last` times.

    >>> relative_scales(3, 8.0, 1.0)
    [4.0, 0.5, 0.5]
    """
    mean = (first * last) ** (1 / depth)
    return [first / mean, *[1 / mean] * (depth - 2), last / mean]


class Macroscopic(Model):
    """A network of `depth` weight layers without biases, given by the macroscopic scale kappa = width^exponent of its output
    and by how its layers share it.

    Weights are W_l ~ N(0, alpha_l²/width), and the product of the alpha_l is kappa; outputs start with the standard deviation
    kappa/√width (times |x|, with the default activation). `first` and `last` are the first and the last layer's alpha over a
    hidden layer's; at 1 all are kappa^(1/depth). Exponent 1/2 is the scale of the NTK parametrisation, 0 that of the mean field and
    of muP. `exponent`, `first` and `last` can be swept in one program.

    The default activation is the ReLU of unit gain. Raises `InvalidValue` for a width below 1, a depth below 2, a factor that is not
    above 0 and an exponent beyond -4 to 4; `UnknownName` for an unknown activation. Source: Li, Luo & Zhou (2024),
    Luo, Xu, Ma & Zhang (2021); the definition of the scales and the form for other activations are ours.

    >>> import jax, math
    >>> model = Macroscopic(width=64, depth=3, exponent=0.5, first=2.0)
    >>> model(jax.random.key(0), inputs=4, outputs=1)(jnp.ones(4)).shape, round(math.prod(model.scales), 6)
    ((1,), 8.0)
    """

    width: int = eqx.field(static=True, default=128)
    depth: int = eqx.field(static=True, default=3)
    activation: str | Activation = eqx.field(static=True, default=Rectified(1.0, 1.0))
    exponent: float = 0.5
    first: float = 1.0
    last: float = 1.0

    def __check_init__(self):
        require_between("the width", self.width, 1)
        require_between("the depth", self.depth, 2)
        require_between("the exponent", self.exponent, -4.0, 4.0)
        require_between("first", self.first, 0.0, open_low=True)
        require_between("last", self.last, 0.0, open_low=True)
        activation(self.activation)

    @property
    def kappa(self) -> Any:
        """The macroscopic scale of the output."""
        return float(self.width) ** self.exponent

    @property
    def scales(self) -> list[Any]:
        """alpha_l of each layer, the first one's first."""
        each = self.kappa ** (1 / self.depth)
        return [each * share for share in relative_scales(self.depth, self.first, self.last)]

    def sizes(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """The widths of all neuron layers, input and output included."""
        return (inputs, *[self.width] * (self.depth - 1), outputs)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> MacroscopicNetwork:
        if outputs < 1 or inputs < 1:
            raise InvalidValue(
                f"the network has {inputs} inputs and {outputs} outputs, but must have 1 or more of each"
            )
        scales = jnp.asarray(self.scales)
        drawn = [weight for stack in gaussian_alike(key, self.sizes(inputs, outputs)) for weight in stack]
        layers = [Dense(scale / self.width**0.5 * weight, None) for scale, weight in zip(scales, drawn, strict=True)]
        return MacroscopicNetwork(tuple(layers), Frozen(scales), self.width, self.activation)
