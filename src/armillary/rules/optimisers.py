"""Optimisers: optax's, with their numbers as leaves that can be swept in one compiled program."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import optax

from armillary.errors import InvalidValue, require_between
from armillary.rules.curvature_rate import CurvatureRate
from armillary.rules.lanczos_rate import LanczosRate
from armillary.rules.schedules import check_schedule


class SGD(eqx.Module):
    """Gradient descent with optional heavy-ball momentum (None: none, and no memory for it).

    `schedule` is a factor on the learning rate as a function of the step (`rules/schedules.py`), None for 1; its numbers
    can be swept as the others (`schedule.ratio`). Raises `InvalidValue` for negative numbers, a momentum above 1 and
    what is no schedule.
    """

    learning_rate: float = 0.1
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: Any = None

    adaptive = False

    def __check_init__(self):
        require_between("learning_rate", self.learning_rate, 0.0)
        require_between("momentum", 0.0 if self.momentum is None else self.momentum, 0.0, 1.0)
        require_between("weight_decay", 0.0 if self.weight_decay is None else self.weight_decay, 0.0)
        check_schedule(self.schedule)

    @property
    def plain(self) -> bool:
        """Whether it is gradient descent and no more: no momentum, no decay, one learning rate."""
        return not self.momentum and not self.weight_decay and self.schedule is None

    def rate(self, step: Any) -> Any:
        """The learning rate at a step (or at steps)."""
        return self.learning_rate if self.schedule is None else self.learning_rate * self.schedule(step)

    def transformation(self) -> optax.GradientTransformation:
        rate: Any = self.learning_rate if self.schedule is None else self.rate
        descent = optax.sgd(rate, momentum=self.momentum)
        return _with_decay(descent, self.weight_decay)


class Adam(eqx.Module):
    """Adam (Kingma & Ba 2015); a `weight_decay` makes it AdamW, decoupled from the gradient."""

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float | None = None

    adaptive = True

    def __check_init__(self):
        require_between("learning_rate", self.learning_rate, 0.0)
        for name in ("b1", "b2"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        require_between("eps", self.eps, 0.0)
        require_between("weight_decay", 0.0 if self.weight_decay is None else self.weight_decay, 0.0)

    def transformation(self) -> optax.GradientTransformation:
        if self.weight_decay is None:
            return optax.adam(self.learning_rate, self.b1, self.b2, self.eps)
        return optax.adamw(self.learning_rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay)


class Optax(eqx.Module):
    """Any optax transformation: `Optax(optax.lion, {"learning_rate": 1e-4})`.

    `make` is called with `settings`, whose numbers can be swept (`settings.learning_rate`). `adaptive` says
    whether its updates keep their size when gradients shrink, as Adam's do: parametrisations ask.
    """

    make: Callable[..., optax.GradientTransformation] = eqx.field(static=True)
    settings: dict[str, float] = eqx.field(default_factory=dict)
    adaptive: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if isinstance(self.make, optax.GradientTransformation) or not callable(self.make):
            raise InvalidValue(
                "Optax takes the function and its settings, as in Optax(optax.lion, {'learning_rate': 1e-4}), so "
                "that the settings can be swept; for a ready-made transformation pass lambda: transformation"
            )

    def transformation(self) -> optax.GradientTransformation:
        return self.make(**self.settings)


def _with_decay(descent: optax.GradientTransformation, decay: Any) -> optax.GradientTransformation:
    return descent if decay is None else optax.chain(optax.add_decayed_weights(decay), descent)


Optimiser = SGD | Adam | Optax | CurvatureRate | LanczosRate
