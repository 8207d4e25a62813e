"""How a layer's width enters its initial variance, its forward multiplier and its learning rate."""

from typing import Literal, NamedTuple

import numpy as np

from armillary.errors import require_between, unknown

Role = Literal["input", "hidden", "output"]

PARAMETRISATIONS = ("standard", "ntk", "mean_field", "mup")


class Scales(NamedTuple):
    """What a parametrisation says of one layer: W has entries N(0, deviation²), the layer computes
    multiplier * W x, and the rule's learning rate is multiplied by `rate` (`adaptive_rate` under Adam and
    its kin, whose updates do not shrink with the gradient)."""

    deviation: float
    multiplier: float
    rate: float
    adaptive_rate: float


def scales(parametrisation: str, role: Role, fan_in: int, fan_out: int, base_width: int = 1) -> Scales:
    """The scales of a layer of the given role, for weight gain 1 (an activation's gain multiplies `deviation`).

    - "standard": W ~ N(0, 1/fan_in), one rate for all (LeCun; PyTorch's default up to a constant).
    - "ntk": W ~ N(0, 1), multiplier 1/sqrt(fan_in) (Jacot et al. 2018): kernels stay put at infinite width.
    - "mean_field": as "ntk", but the output layer is divided by its fan-in and all rates are multiplied by
      that fan-in (Mei et al. 2018; two layers). Deeper networks want "mup".
    - "mup": maximal update (Yang & Hu 2021; Yang et al. 2022, table 3): input and hidden layers as
      "standard", output variance 1/fan_in²; rates x fan_out, 1, 1/fan_in by role under SGD and 1, 1/fan_in,
      1/fan_in under Adam. Widths count in units of `base_width`, at which it is "standard".

    "mean_field" gives its input layer's rate by its fan-out, which is the output layer's fan-in.
    Raises `UnknownName` for another parametrisation, `InvalidValue` for a size below 1.

    >>> scales("mup", "output", fan_in=64, fan_out=10)
    Scales(deviation=0.015625, multiplier=1.0, rate=0.015625, adaptive_rate=0.015625)
    """
    for name, size in (("fan_in", fan_in), ("fan_out", fan_out), ("base_width", base_width)):
        require_between(name, size, 1)
    spread = float(1 / np.sqrt(fan_in))
    match parametrisation, role:
        case "standard", _:
            return Scales(spread, 1.0, 1.0, 1.0)
        case "ntk", _:
            return Scales(1.0, spread, 1.0, 1.0)
        case "mean_field", "output":
            return Scales(1.0, 1.0 / fan_in, float(fan_in), 1.0)
        case "mean_field", _:
            return Scales(1.0, spread, float(fan_out), 1.0)
        case "mup", "input":
            return Scales(spread, 1.0, fan_out / base_width, 1.0)
        case "mup", "hidden":
            return Scales(spread, 1.0, 1.0, base_width / fan_in)
        case "mup", "output":
            return Scales(spread * float(np.sqrt(base_width / fan_in)), 1.0, base_width / fan_in, base_width / fan_in)
    raise unknown("parametrisation", parametrisation, PARAMETRISATIONS)
