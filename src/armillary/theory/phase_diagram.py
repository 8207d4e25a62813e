"""Where a random network is: ordered, at the edge of chaos or chaotic; what depth trains; what would bring it to the edge."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from armillary.errors import require_between
from armillary.models.activations import Activation
from armillary.theory import mean_field
from armillary.theory.gaussian_means import error, mean, value_and_slope

TRAINABLE = 6.0
"""Depth scales of the correlation over which networks were found to train. Source: Schoenholz et al. (2017)"""


@dataclass(frozen=True)
class Phase:
    """What mean field says of a network; `print` it for the advice in words.

    - `regime`: "ordered" (gradients vanish, inputs become alike), "edge" or "chaotic" (gradients explode, alike inputs part).
    - `chi`: chi_1, what a layer multiplies squared gradients by.
    - `length`, `correlation`: the fixed points q* and c* of squared lengths (an entry's mean square) and of correlations;
      q* is 0 where signals vanish and inf where they grow without bound (c* is nan then).
    - `length_scale`, `correlation_scale`: xi_q and xi_c, the layers in which differences from q* and c* fall by a factor e;
      inf where they fall as a power only. Where lengths grow without bound xi_q counts the layers in which they grow by e.
    - `trainable_depth`: 6 xi_c layers, or 6 xi_q where lengths grow without bound. `trainable`: whether `depth` is at most that.
    - `critical_weight_variance`: chi_1 is 1 there, at the same biases; nan if there is none. `critical_bias_variance`: the same
      for the biases, at the same weights.
    - `error`: of chi_1, by the quadrature (an upper estimate).
    """

    activation: str
    weight_variance: float
    bias_variance: float
    depth: int | None
    regime: Literal["ordered", "edge", "chaotic"]
    chi: float
    length: float
    correlation: float
    length_scale: float
    correlation_scale: float
    trainable_depth: float
    critical_weight_variance: float
    critical_bias_variance: float
    error: float

    @property
    def diverges(self) -> bool:
        """Whether lengths grow without bound from layer to layer."""
        return bool(np.isinf(self.length))

    @property
    def trainable(self) -> bool:
        """Whether a network of this depth is expected to train; True where no depth was given."""
        return self.depth is None or self.depth <= self.trainable_depth

    @property
    def weight_factor(self) -> float:
        """What to multiply the initial weights by to be at the edge with the same biases; nan if nothing does."""
        return float(np.sqrt(self.critical_weight_variance / self.weight_variance)) if self.weight_variance else np.nan

    @property
    def advice(self) -> str:
        """One line: where it is, what depth trains, what to change."""
        return " ".join([self._place, self._depth, self._change]).strip()

    @property
    def _place(self) -> str:
        where = {"edge": "at the edge of chaos", "ordered": "ordered", "chaotic": "chaotic"}[self.regime]
        lengths = "; lengths grow without bound" if self.diverges else "; signals vanish" if self.length == 0 else ""
        return f"{self.activation} with weight variance {self.weight_variance:g} and bias variance {self.bias_variance:g} is {where} (chi_1 = {self.chi:.3g}{lengths})."

    @property
    def _depth(self) -> str:
        if np.isinf(self.trainable_depth):
            return f"Any depth passes {'gradients, as lengths grow by a power only' if self.diverges else 'signals and gradients'}."
        says = f"Up to about {self.trainable_depth:.0f} layers are expected to train"
        return (
            f"{says}."
            if self.depth is None
            else f"{says}: {self.depth} are {'' if self.trainable else 'not '}among them."
        )

    @property
    def _change(self) -> str:
        if self.regime == "edge":
            return ""
        if np.isnan(self.critical_weight_variance):
            return "No weight variance is critical with these biases."
        says = f"The edge is at weight variance {self.critical_weight_variance:.4g}"
        if self.weight_variance:
            says += f": multiply the weights by {self.weight_factor:.3g}"
        if np.isfinite(self.critical_bias_variance):
            says += f"; or at bias variance {self.critical_bias_variance:.3g} with these weights"
        return f"{says}."

    def __str__(self) -> str:
        return self.advice


def phase(
    activation: str | Activation, weight_variance: float, bias_variance: float = 0.0, depth: int | None = None, *,
    start: float = 1.0, tolerance: float = 0.01,
) -> Phase:  # fmt: skip
    """Where a deep random network is, by mean field: W ~ N(0, weight_variance/fan_in), b ~ N(0, bias_variance).

    `start` is the inputs' squared length per entry. "edge" means chi_1 within `tolerance` of 1. `depth` counts layers.
    The activation is a name or any function that JAX can differentiate; exact to about 1e-12 where that is smooth but for a
    kink at 0. Raises `InvalidValue` for variances below 0, `UnknownName` for unknown names. Source: Poole et al. (2016);
    Schoenholz et al. (2017)

    >>> print(phase("tanh", 1.0, 0.05, depth=50))
    tanh with weight variance 1 and bias variance 0.05 is ordered (chi_1 = 0.759). Up to about 22 layers are expected to train: 50 are not among them. The edge is at weight variance 1.761: multiply the weights by 1.33.
    >>> print(phase("relu", 2.0))
    relu with weight variance 2 and bias variance 0 is at the edge of chaos (chi_1 = 1). Any depth passes signals and gradients.
    """
    require_between("depth", 1 if depth is None else depth, 1)
    length = float(mean_field.fixed_length(activation, weight_variance, bias_variance, start))
    at = min(length, mean_field.LARGEST)
    chi = float(mean_field.chi(activation, at, weight_variance))
    growth = float(mean_field.length_slope(activation, at, weight_variance))
    if np.isinf(length):
        growth = 1 / (float(mean_field.length_map(activation, at, weight_variance, bias_variance)) / at)
    correlation = mean_field.fixed_correlation(activation, length, weight_variance, bias_variance)
    slope = chi if correlation == 1.0 else _slope(activation, correlation, length, weight_variance)
    scales = _scale(growth), _scale(slope)
    trainable = TRAINABLE * (scales[0] if np.isinf(length) else scales[1])
    _, derivative = value_and_slope(activation)
    wrong = weight_variance * error(mean, lambda u, z: derivative(u) ** 2, max(at, mean_field.SMALLEST))
    return Phase(
        activation if isinstance(activation, str) else getattr(activation, "__name__", "the activation"),
        float(weight_variance), float(bias_variance), depth,
        "edge" if abs(chi - 1) <= tolerance else "ordered" if chi < 1 else "chaotic",
        chi, length, correlation, *scales, trainable,
        mean_field.critical_weight_variance(activation, bias_variance),
        mean_field.critical_bias_variance(activation, weight_variance), float(wrong),
    )  # fmt: skip


def _slope(activation: str | Activation, correlation: float, length: float, weight_variance: float) -> float:
    if np.isinf(length):
        return np.nan
    return float(mean_field.correlation_slope(activation, correlation, length, weight_variance))


def _scale(slope: float) -> float:
    """Layers in which what a layer multiplies by `slope` falls by a factor e; inf from 1 on."""
    size = abs(slope)
    if np.isnan(size):
        return np.nan
    return 0.0 if size == 0 else float("inf") if size >= 1 - 1e-9 else float(-1 / np.log(size))
