"""Several networks of one recipe, drawn together."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from armillary.errors import require_between
from armillary.models.model import Model, draw_network


class EnsembleNetwork(eqx.Module):
    """Networks of one architecture, whose output is their mean; `stack` has a leading axis `member` in each array."""

    stack: PyTree
    count: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        arrays, static = eqx.partition(self.stack, eqx.is_array)
        return jnp.mean(jax.vmap(lambda one: eqx.combine(one, static)(x))(arrays), axis=0)

    @property
    def members(self) -> list[PyTree]:
        """The networks, one by one."""
        arrays, static = eqx.partition(self.stack, eqx.is_array)
        return [eqx.combine(jax.tree.map(lambda a, i=i: a[i], arrays), static) for i in range(self.count)]


class Ensemble(Model):
    """Draws `count` networks of `model` (a `Model` or a function of a key), each from a key of its own.

    Trained by a rule as it is, the members learn together from the error of their mean; with `Independently` around
    the rule each learns alone. Raises `InvalidValue` for a count below 1.

    >>> from armillary.models import MLP
    >>> network = Ensemble(MLP(4), count=2)(jax.random.key(0), inputs=3, outputs=1)
    >>> network(jnp.ones(3)).shape, len(network.members)
    ((1,), 2)
    """

    model: Any
    count: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        require_between("the number of networks", self.count, 1)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> EnsembleNetwork:
        keys = jax.random.split(key, self.count)
        return EnsembleNetwork(
            eqx.filter_vmap(lambda k: draw_network(self.model, k, inputs, outputs))(keys), self.count
        )
