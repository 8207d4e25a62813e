"""A network whose outputs are multiplied by a number: the knob from rich to lazy learning."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.frozen import Frozen, frozen, thawed
from armillary.models.model import Model, draw_network


class ScaledNetwork(eqx.Module):
    """f(x) = scale * (inner(x) - start(x)); `start` is None where the output is not centred."""

    inner: Any
    scale: Frozen
    start: Any = None

    def __call__(self, x: Float[Array, "*input"]) -> Float[Array, " output"]:
        said = self.inner(x)
        if self.start is not None:
            said = said - thawed(self.start)(x)
        return self.scale.value * said


class ScaledOutput(Model):
    """Any model with its outputs times `scale`: the larger, the less the weights have to move, and the lazier it learns.

    `centred` takes the network's own output at the start away, so that it begins at 0 at any scale. Plain descent goes as
    fast at every scale with the learning rate divided by scale²; Adam and its kin need no other rate. The scale can be
    swept in one program, and is neither trained nor decayed. Raises `InvalidValue` for a scale that is not above 0.
    Source: Chizat, Oyallon & Bach (2019)

    >>> import jax, jax.numpy as jnp
    >>> from armillary.models import MLP
    >>> ScaledOutput(MLP(8), scale=3.0, centred=True)(jax.random.key(0), 2, 1)(jnp.ones(2)).tolist()
    [0.0]
    """

    model: Any
    scale: float = 1.0
    centred: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("scale", self.scale, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> ScaledNetwork:
        network = draw_network(self.model, key, inputs, outputs)
        return ScaledNetwork(network, Frozen(self.scale), frozen(network) if self.centred else None)
