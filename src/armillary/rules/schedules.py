"""Schedules: factors on the learning rate, step by step, whose numbers can be swept in one compiled program."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from armillary.errors import InvalidValue, require_between

Step = Int[Array, "..."] | Float[Array, "..."] | Int[np.ndarray, "..."] | int
"""Steps that were taken before this one; 0 at the first."""


class Geometric(eqx.Module):
    """The learning rate times ratio^step. Its sum over all steps is the learning rate over 1 - ratio.

    Raises `InvalidValue` for a ratio outside (0, 1].

    >>> print(Geometric(0.5)(3))
    0.125
    """

    ratio: float = 0.999

    def __check_init__(self):
        require_between("the ratio of successive steps", self.ratio, 0.0, 1.0, open_low=True)

    def __call__(self, step: Step) -> Float[Array, "..."]:
        # Powers by the exponential: XLA's own power of a traced ratio is slower and no more accurate.
        return jnp.exp(jnp.log(self.ratio) * step)


class Cosine(eqx.Module):
    """The learning rate times half a cosine: from 1 at the first step to `final` after `steps`, and so ever after.

    Raises `InvalidValue` for fewer than one step and a final factor outside [0, 1]. Source: Loshchilov & Hutter (2017)

    >>> print(round(float(Cosine(steps=10.0, final=0.2)(5)), 3))
    0.6
    """

    steps: float = 1000.0
    final: float = 0.0

    def __check_init__(self):
        require_between("the schedule's steps", self.steps, 1.0)
        require_between("the final factor", self.final, 0.0, 1.0)

    def __call__(self, step: Step) -> Float[Array, "..."]:
        done = jnp.minimum(step / self.steps, 1.0)
        return self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * done)) / 2


class WarmUp(eqx.Module):
    """The factor rises in equal parts from 1/steps at the first step to 1 at step `steps`; `then` takes over, if given.

    `then` is another schedule, counted from the end of the warm-up. Raises `InvalidValue` for fewer than one step.

    >>> print(WarmUp(4.0)(jnp.arange(5)))
    [0.25 0.5  0.75 1.   1.  ]
    """

    steps: float = 100.0
    then: Any = None

    def __check_init__(self):
        require_between("the steps of the warm-up", self.steps, 1.0)
        check_schedule(self.then)

    def __call__(self, step: Step) -> Float[Array, "..."]:
        rising = jnp.minimum((step + 1) / self.steps, 1.0)
        after = 1.0 if self.then is None else self.then(jnp.maximum(step - self.steps + 1, 0))
        return rising * after


def check_schedule(schedule: Any) -> None:
    """Raise `InvalidValue` for what is neither None nor a function of the step."""
    if schedule is not None and (isinstance(schedule, type) or not callable(schedule)):
        name = getattr(schedule, "__name__", type(schedule).__name__)
        raise InvalidValue(f"the schedule is a {name}, but must be None or a function of the step, as Geometric(0.99)")
