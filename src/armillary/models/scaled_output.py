"""A network whose outputs are multiplied by a number: the knob from rich to lazy learning."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import require_between
from armillary.models.freezing import Frozen, frozen, thawed
from armillary.models.model import Model, draw_network


class ScaledNetwork(eqx.Module):
    """f(x) = scale * (inner(x) - share * start(x)); `start` is None where the output is not centred, `share` where it is all."""

    inner: Any
    scale: Frozen
    start: Any = None
    share: Frozen | None = None

    def __call__(self, x: Float[Array, "*input"]) -> Float[Array, " output"]:
        said = self.inner(x)
        if self.start is not None:
            begun = thawed(self.start)(x)
            said = said - (begun if self.share is None else self.share.value * begun)
        return self.scale.value * said


class ScaledOutput(Model):
    """Any model with its outputs times `scale`: the larger, the less the weights have to move, and the lazier it learns.

    `centred` takes the network's own output at the start away, so that it begins at 0 at any scale; a number from 0 to 1
    takes that share of it. Plain descent goes as fast at every scale with the learning rate divided by scale²; Adam and its
    kin need no other rate. The scale, and the share, can be swept in one program, and are neither trained nor decayed. Raises
    `InvalidValue` for a scale that is not above 0 and a share outside [0, 1]. Source: Chizat, Oyallon & Bach (2019)

    >>> import jax, jax.numpy as jnp
    >>> from armillary.models import MLP
    >>> ScaledOutput(MLP(8), scale=3.0, centred=True)(jax.random.key(0), 2, 1)(jnp.ones(2)).tolist()
    [0.0]
    """

    model: Any
    scale: float = 1.0
    centred: bool | Any = False

    def __check_init__(self):
        require_between("scale", self.scale, 0.0, open_low=True)
        require_between("centred", self.centred, 0.0, 1.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> ScaledNetwork:
        network = draw_network(self.model, key, inputs, outputs)
        if isinstance(self.centred, bool):
            return ScaledNetwork(network, Frozen(self.scale), frozen(network) if self.centred else None)
        return ScaledNetwork(network, Frozen(self.scale), frozen(network), Frozen(self.centred))
