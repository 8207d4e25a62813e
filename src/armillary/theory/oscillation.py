"""Why bounded oscillation teaches a weak feature: one sample, two coordinates (after Lu, Wu, Yang & Zou 2023)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from armillary.errors import require_between

Numbers = float | Float[np.ndarray, "..."]


class Oscillation(NamedTuple):
    """A run of `oscillating_growth`: strong and weak part of the output y f and the residual, each [step, ...]."""

    strong: Float[np.ndarray, "step ..."]
    weak: Float[np.ndarray, "step ..."]
    residual: Float[np.ndarray, "step ..."]


def oscillating_growth(c_strong: Numbers, c_weak: Numbers, strong: float, weak: float, steps: int) -> Oscillation:
    """Gradient descent on one sample of a squared-ReLU network with a strong and a weak feature.

    s' = s (1 + c_strong r)², w' = w (1 + c_weak r)², r = 1 - s - w, with c = 2 (learning rate) |feature|²/units: exact
    while the same units stay active. (A factor 1 + c r below zero would switch units off for good; the map squares it.)
    Arguments broadcast; the run has `steps` + 1 entries, the start included. Derived here.

    >>> end = oscillating_growth(1.5, 0.075, strong=1e-3, weak=1e-6, steps=20_000).weak[-1]
    >>> bool(abs(end / final_weak_share(1.5, 0.075) - 1) < 0.02)
    True
    """
    require_between("the number of steps", steps, 0)
    c_strong, c_weak = np.broadcast_arrays(np.asarray(c_strong, float), np.asarray(c_weak, float))
    s, w = np.full(c_strong.shape, float(strong)), np.full(c_strong.shape, float(weak))
    seen = np.empty((3, steps + 1, *c_strong.shape))
    for step in range(steps + 1):
        residual = 1 - s - w
        seen[:, step] = s, w, residual
        s, w = (x * (1 + c * residual) ** 2 for x, c in ((s, c_strong), (w, c_weak)))
    return Oscillation(*seen)


def final_weak_share(c_strong: Numbers, c_weak: Numbers) -> Numbers:
    """The weak part at which oscillation ends, (c_strong - 1)/(c_strong - c_weak); 0 below the threshold c_strong = 1.

    There s + w = 1 has just become stable, c_strong s + c_weak w = 1: learning rate times sharpness is 2. The run
    approaches it from below. Derived here.
    """
    return np.maximum(np.asarray(c_strong, float) - 1, 0.0) / (np.asarray(c_strong) - np.asarray(c_weak))


def critical_learning_rate(units: int, strong_norm: float) -> float:
    """The learning rate at which the strong feature starts to oscillate: units / (2 |u|²). Derived here.

    >>> round(critical_learning_rate(10, 6.0), 4)
    0.1389
    """
    return units / (2 * strong_norm**2)
