"""How a layer's width, and the network's depth, enter its initial variance, forward multiplier and learning rate."""

from typing import Literal, NamedTuple

import numpy as np

from armillary.errors import require_between, unknown

Role = Literal["input", "hidden", "output"]

Parametrisation = Literal["standard", "ntk", "mean_field", "mup", "mup_ntk", "depth_mup", "nup"]

PARAMETRISATIONS = ("standard", "ntk", "mean_field", "mup", "mup_ntk", "depth_mup", "nup")

GROWTH = {"nup": 2.0}
"""Exponent with which hidden layers widen with their number, where a parametrisation has one of its own."""


class Scales(NamedTuple):
    """What a parametrisation says of one layer: W has entries N(0, deviation²), the layer computes
    multiplier * W x, and the rule's learning rate is multiplied by `rate` (`adaptive_rate` under Adam and
    its kin, whose updates do not shrink with the gradient)."""

    deviation: float
    multiplier: float
    rate: float
    adaptive_rate: float


def scales(
    parametrisation: str,
    role: Role,
    fan_in: int,
    fan_out: int,
    base_width: int = 1,
    *,
    width: int | None = None,
    depth: int = 1,
) -> Scales:
    """The scales of a layer of the given role, for weight gain 1 (an activation's gain multiplies `deviation`).

    - "standard": W ~ N(0, 1/fan_in), one rate for all (LeCun; PyTorch's default up to a constant).
    - "ntk": W ~ N(0, 1), multiplier 1/sqrt(fan_in) (Jacot et al. 2018): kernels stay put at infinite width.
    - "mean_field": as "ntk", but the output layer is divided by its fan-in and all rates are multiplied by
      that fan-in (Mei et al. 2018; two layers). Deeper networks want "mup".
    - "mup": maximal update (Yang & Hu 2021; Yang et al. 2022, table 3): input and hidden layers as
      "standard", output variance 1/fan_in²; rates x fan_out, 1, 1/fan_in by role under SGD and 1, 1/fan_in,
      1/fan_in under Adam. Widths count in units of `base_width`, at which it is "standard".
    - "mup_ntk": the same in the form of "ntk": outputs divided by sqrt(width), all rates times width. Hidden and output
      layers learn exactly as in "mup"; the input layer's rate is divided by the number of inputs, so that one step
      changes the pre-activations of every layer by as much.
    - "depth_mup": "mup_ntk" with all rates divided by the depth, so that a step changes the output by as much at any depth.
    - "nup": outputs divided by depth sqrt(width), all rates times depth width, for layers that widen as k^growth with
      their number k (`MLP`'s growth; 2 unless given). A step changes the output by as much at any width and depth, and layer
      k's pre-activations by k^(-growth/2) as much as the first's. A working definition of the normalised update parametrisation of
      Terjék (2025, arXiv:2502.13110) by these invariances; the paper's own constants may differ.

    Under Adam the last three multiply rates by sqrt(width/(fan_in fan_out)), with one fan-out for the output layer:
    updates have entries of one size and the signs of rank-one gradients, and the same invariances follow (derived here).

    `width` is that of the network's first hidden layer (None: of equal ones), `depth` its number of weight layers.
    "mean_field" gives its input layer's rate by its fan-out, which is the output layer's fan-in.
    Raises `UnknownName` for another parametrisation, `InvalidValue` for a size below 1.

    >>> scales("mup", "output", fan_in=64, fan_out=10)
    Scales(deviation=0.015625, multiplier=1.0, rate=0.015625, adaptive_rate=0.015625)
    >>> scales("nup", "hidden", fan_in=16, fan_out=64, width=16, depth=4)
    Scales(deviation=1.0, multiplier=0.25, rate=64.0, adaptive_rate=0.125)
    """
    width = (fan_out if role == "input" else fan_in) if width is None else width
    sizes = {"fan_in": fan_in, "fan_out": fan_out, "base_width": base_width, "width": width, "depth": depth}
    for name, size in sizes.items():
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
        case (("mup_ntk" | "depth_mup" | "nup"), _):
            return _in_ntk_form(parametrisation, role, fan_in, fan_out, width / base_width, base_width, depth)
    raise unknown("parametrisation", parametrisation, PARAMETRISATIONS)


def _in_ntk_form(name: str, role: Role, fan_in: int, fan_out: int, width: float, base_width: int, depth: int) -> Scales:
    """Scales of the forms with W ~ N(0, 1), one rate for all layers and the outputs divided; `width` in base widths."""
    outputs_over = np.sqrt(width) * (depth if name == "nup" else 1)
    rate = width * {"mup_ntk": 1.0, "depth_mup": 1.0 / depth, "nup": depth}[name]
    # Layers' sides in base widths; the numbers of inputs and outputs are no widths.
    below = fan_in if role == "input" else fan_in / base_width
    above = 1.0 if role == "output" else fan_out / base_width
    adaptive = np.sqrt(width / (below * above)) / (depth if name == "depth_mup" else 1)
    multiplier = 1 / np.sqrt(fan_in) / (outputs_over if role == "output" else 1.0)
    return Scales(1.0, float(multiplier), float(rate), float(adaptive))
