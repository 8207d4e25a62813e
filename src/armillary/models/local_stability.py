"""Networks made locally stable before they are trained: the radius of every one-step Jacobian brought to a target.

A network exposes its one-step maps by `one_steps(sequence)`, a list with one `OneStep(cell, before, below)` a layer
(`models/recurrent.py` has the form): h = cell(before, below) is any function that JAX can differentiate, with `before` [time,
state] and `below` [time, input] what it was given. The multiplicative rule also asks for `rescaled(time, depth)`, the network
with each layer's weights multiplied by these factors. Source: Herranz-Celotti & Rouat (2023)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue, require_between
from armillary.models.model import Model, draw_network, parameters
from armillary.settings import floats

Radii = Float[Array, "layer"]


def spectral_radius(matrix: Float[Array, "row row"], squarings: int = 10) -> Float[Array, ""]:
    """The largest absolute eigenvalue, by powers: (|A^2k|/|A^k|)^(1/k) with 2k = 2^squarings, kept at norm 1.

    What a power of a non-normal matrix transiently grows by cancels in the ratio; at 10 the error is far below 1 % for
    matrices of some hundred rows. Unlike eigenvalues it needs no LAPACK (so that it runs on any device) and its gradient is
    finite at double eigenvalues. 0 for what vanishes (a nilpotent matrix, a dead layer). Cost: `squarings` products.

    >>> print(round(float(spectral_radius(jnp.array([[0.0, 4.0], [-0.25, 0.0]]))), 4))
    1.0
    """
    tiny = jnp.finfo(matrix.dtype).tiny

    def norm(power: Array) -> Array:
        return jnp.sqrt(jnp.sum(power**2) + tiny)

    def square(carry: tuple[Array, Array, Array], _: Any) -> tuple[tuple[Array, Array, Array], None]:
        power, log, _ = carry
        power = power @ power
        size = norm(power)
        return (power / size, 2 * log + jnp.log(size), log), None

    size = norm(matrix)
    begin = (matrix / size, jnp.log(size), jnp.zeros((), matrix.dtype))
    (power, log, before), _ = lax.scan(square, begin, None, squarings)
    return jnp.where(jnp.sum(power**2) > 0.5, jnp.exp((log - before) / 2 ** (squarings - 1)), 0.0)


def one_step_jacobians(network: PyTree, sequence: Array, times: Array | None = None) -> list[tuple[Array, Array]]:
    """Each layer's Jacobians at one input: in time [time, unit, unit] and in depth [time, unit, input].

    `times` are the steps at which they are taken, all unless given. Raises `InvalidValue` for a network without one-step
    maps.
    """
    if not hasattr(network, "one_steps"):
        raise InvalidValue(
            f"a {type(network).__name__} has no one-step maps; give it a method one_steps(sequence) (see Recurrent)"
        )
    both = []
    for cell, before, below in network.one_steps(sequence):
        if times is not None:
            before, below = before[times], below[times]
        both.append(jax.vmap(jax.jacrev(cell, argnums=(0, 1)))(before, below))
    return both


def step_radii(
    network: PyTree, sequences: Float[Array, "sample time input"], times: Array | None = None, squarings: int = 10
) -> tuple[Radii, Radii]:
    """Mean radii of each layer's one-step Jacobians, in time and in depth, over samples and times.

    nan in depth for layers whose Jacobian is not square (the first, usually). Cost: radii of samples x times x layers x 2
    matrices.
    """
    jacobians = jax.vmap(lambda sequence: one_step_jacobians(network, sequence, times))(sequences)

    # Matrices of one size go through one loop: it compiles as fast for many layers as for one.
    flat = [matrices.reshape(-1, *matrices.shape[-2:]) for pair in jacobians for matrices in pair]
    found: dict[int, Array] = {}
    for rows in {m.shape[-1] for m in flat if m.shape[-1] == m.shape[-2]}:
        same = [index for index, m in enumerate(flat) if m.shape[1:] == (rows, rows)]
        radii = jax.vmap(lambda m: spectral_radius(m, squarings))(jnp.concatenate([flat[index] for index in same]))
        means = jnp.mean(radii.reshape(len(same), -1), axis=1)
        found.update(zip(same, means, strict=True))
    unknown = jnp.full((), jnp.nan, flat[0].dtype)
    each = jnp.stack([found.get(index, unknown) for index in range(len(flat))])
    return each[0::2], each[1::2]


class Rescale(eqx.Module):
    """The multiplicative rule: each layer's weights times target/radius, the factor kept within 1 ± `limit`.

    Radii that are 0 or not known leave weights alone but for the limit (0 counts as too small). No labels, no gradients.
    """

    limit: float = 0.15

    def __check_init__(self):
        require_between("the limit of a factor", self.limit, 0.0, 1.0, open_low=True)

    def init(self, network: PyTree) -> Any:
        """No memory."""
        return ()

    def step(self, network: PyTree, memory: Any, radii: Any, target: ArrayLike) -> tuple[PyTree, Any]:
        """The network after one step; `radii(network)` gives those in time and depth."""
        if not hasattr(network, "rescaled"):
            raise InvalidValue(f"a {type(network).__name__} has no method rescaled(time, depth); use RadiusDescent")
        factors = [self._factor(found, target) for found in radii(network)]
        return network.rescaled(*factors), memory

    def _factor(self, found: Radii, target: ArrayLike) -> Radii:
        ratio = target / jnp.maximum(found, 1e-6)
        return jnp.where(jnp.isnan(found), 1.0, jnp.clip(ratio, 1 - self.limit, 1 + self.limit))


class RadiusDescent(eqx.Module):
    """The gradient rule: `optimiser` (of `armillary.rules`) on the mean of (radius - target)², over layers, time and depth.

    It needs nothing of the network but its one-step maps, and moves all that they depend on. Cost: some three times
    the radii's.
    """

    optimiser: Any

    def init(self, network: PyTree) -> Any:
        """The optimiser's memory."""
        return self.optimiser.transformation().init(parameters(network))

    def step(self, network: PyTree, memory: Any, radii: Any, target: ArrayLike) -> tuple[PyTree, Any]:
        """The network after one step."""

        def loss(network: PyTree) -> Array:
            found = jnp.concatenate(radii(network))
            known = ~jnp.isnan(found)
            return jnp.sum(jnp.where(known, (jnp.where(known, found, 0.0) - target) ** 2, 0.0)) / jnp.sum(known)

        gradient = eqx.filter_grad(loss)(network)
        updates, memory = self.optimiser.transformation().update(gradient, memory, parameters(network))
        return eqx.apply_updates(network, updates), memory


def stability_step(
    rule: Any, network: PyTree, memory: Any, key: PRNGKeyArray, sequences: Array, target: ArrayLike, samples: int,
    times: int | None, squarings: int,
) -> tuple[PyTree, Any]:  # fmt: skip
    """One step of a rule on `samples` random sequences, with Jacobians at `times` random steps of each batch."""
    key_samples, key_times = jax.random.split(key)
    batch = sequences[jax.random.randint(key_samples, (samples,), 0, sequences.shape[0])]
    chosen = None if times is None else jax.random.randint(key_times, (times,), 0, sequences.shape[1])
    return rule.step(network, memory, lambda n: step_radii(n, batch, chosen, squarings), target)


class Stabilised(Model):
    """Networks of `model`, pre-trained on `sequences` [sample, time, input] alone until one-step radii are near `target`.

    - `model`: any model or network that exposes its one-step maps.
    - `target`: the radius, 1/2 for stacks ("a half for time, a half for depth"), 1 for single layers; can be swept. inf
      leaves the network as it was drawn: the control, in the same program.
    - `rule`: `Rescale()` or `RadiusDescent(optimiser)`. `steps` of it, each on `samples` sequences at `times` random
      steps (None: all).

    Raises `InvalidValue` for numbers out of range, and at drawing for networks without what the rule asks for.
    Source: Herranz-Celotti & Rouat (2023)
    """

    model: Any
    sequences: Float[Array, "sample time input"]
    target: float = 0.5
    rule: Any = Rescale()
    steps: int = eqx.field(static=True, default=40)
    samples: int = eqx.field(static=True, default=6)
    times: int | None = eqx.field(static=True, default=None)
    squarings: int = eqx.field(static=True, default=6)

    def __init__(
        self, model: Any, sequences: ArrayLike, target: float = 0.5, rule: Any = None, steps: int = 40,
        samples: int = 6, times: int | None = None, squarings: int = 6,
    ):  # fmt: skip
        check_stabilising(target, steps, samples, times)
        self.model, self.sequences, self.target = model, floats(sequences), target
        self.rule = Rescale() if rule is None else rule
        self.steps, self.samples, self.times, self.squarings = steps, samples, times, squarings

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> Any:
        key_network, key_steps = jax.random.split(key)
        network = draw_network(self.model, key_network, inputs, outputs)
        arrays, static = eqx.partition(network, eqx.is_array)
        settings = (self.sequences, self.target, self.samples, self.times, self.squarings)

        def one(step: Array, carry: Any) -> Any:
            network = eqx.combine(carry[0], static)
            network, memory = stability_step(
                self.rule, network, carry[1], jax.random.fold_in(key_steps, step), *settings
            )
            return eqx.filter(network, eqx.is_array), memory

        after, _ = lax.fori_loop(0, self.steps, one, (arrays, self.rule.init(network)))
        finite = jnp.isfinite(jnp.asarray(self.target))
        return eqx.combine(jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, arrays), static)


def check_stabilising(target: Any, steps: int, samples: int, times: int | None) -> None:
    """Raise `InvalidValue` for settings out of range."""
    require_between("the target radius", target, 0.0, open_low=True)
    require_between("the number of steps", steps, 0)
    require_between("the number of samples", samples, 1)
    require_between("the number of times", 1 if times is None else times, 1)
