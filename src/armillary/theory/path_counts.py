"""Gradients of stacked recurrent nets as sums over paths through time and depth, and where they neither vanish nor explode.

From an input to the output of the last of L layers, `delay` steps later, a path makes L moves up (the first of them into the
first layer) and `delay` moves on in time, in any order: binom(L + delay - 1, L - 1) paths. If all moves have the same sign
they add up coherently, and the critical line of their radii is time + depth = 1; if signs are random their squares add up, and
it is time² + depth² = 1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.recurrent import Recurrent
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.trajectory import Trajectory, numbered

Numbers = Any

LONGEST = 1.5
"""Steps of the sequence over units up to which repeated recurrent weights count as independent, to some 10 %."""


def path_count(layers: Numbers, delay: Numbers) -> Numbers:
    """Paths from an input to the top layer's state so many steps later: binom(layers + delay - 1, layers - 1).

    Source: Herranz-Celotti & Rouat (2023)

    >>> print(path_count(3, np.arange(4)))
    [ 1.  3.  6. 10.]
    """
    from scipy.special import binom

    return binom(np.add(layers, delay) - 1.0, np.asarray(layers) - 1.0)


def state_path_count(layers: Numbers, delay: Numbers) -> Numbers:
    """Paths from a state to one so many layers above and steps later: binom(layers + delay, delay)."""
    from scipy.special import binom

    return binom(np.add(layers, delay) * 1.0, delay)


def path_sum(layers: Numbers, delay: Numbers, time: Numbers, depth: Numbers) -> Numbers:
    """The derivative of the scalar net h = time before + depth below by the input `delay` steps back:
    depth^layers time^delay times the number of paths. Exact. Arguments broadcast. Derived here.

    >>> print(path_sum(3, np.array([0, 1, 2]), 0.5, 0.5))
    [0.125  0.1875 0.1875]
    """
    return np.power(depth, layers) * np.power(time, delay) * path_count(layers, delay)


def total_gradient(layers: int, length: int, time: Numbers, depth: Numbers) -> Numbers:
    """The derivative by all inputs of a sequence of that length together: the sum of `path_sum` over delays.

    At radii 1 it is binom(layers + length - 1, layers). Derived here.

    >>> print(total_gradient(3, 20, 1.0, 1.0), round(float(total_gradient(3, 20, 0.5, 0.5)), 5))
    1540.0 0.99994
    """
    require_between("the number of layers", layers, 1)
    require_between("the length", length, 1)
    delays = np.arange(length)
    return path_sum(layers, delays, np.asarray(time)[..., None], np.asarray(depth)[..., None]).sum(axis=-1)


def endless_gradient(layers: Numbers, time: Numbers, depth: Numbers) -> Numbers:
    """`total_gradient` of endless sequences: (depth/(1 - time))^layers, inf from time 1 on. Derived here.

    1 at every number of layers if time + depth = 1: "a half for time, a half for depth".

    >>> print(endless_gradient(10, 0.5, 0.5), endless_gradient(10, 0.7, 0.3).round(6))
    1.0 1.0
    """
    time = np.asarray(time, float)
    with np.errstate(divide="ignore"):
        return np.where(time < 1, (np.asarray(depth) / np.where(time < 1, 1 - time, 1.0)) ** layers, np.inf)


def mean_square_path_sum(layers: Numbers, delay: Numbers, time: Numbers, depth: Numbers) -> Numbers:
    """The mean square of that derivative, for random weights: `path_sum` with squared radii.

    Independent Gaussian matrices of those radii in each layer, a unit vector of the output, wide layers: different paths
    are uncorrelated. `total_gradient` and `endless_gradient` of squared radii are the sums over delays. Derived here.
    """
    return path_sum(layers, delay, np.square(time), np.square(depth))


def critical_depth_radius(time: Numbers, *, random: bool) -> Numbers:
    """The depth radius at which endless sequences give gradients that neither grow nor shrink with depth: 1 - time for
    weights of one sign, sqrt(1 - time²) for random ones.

    >>> print(critical_depth_radius(0.5, random=False), critical_depth_radius(0.6, random=True))
    0.5 0.8
    """
    require_between("the radius in time", time, 0.0, 1.0)
    time = np.asarray(time, float)
    return np.sqrt(1 - time**2) if random else 1 - time


def largest_delay(layers: int, time: float) -> int:
    """The delay whose inputs count most: the last at which another step adds paths faster than `time` shrinks each.

    It grows with depth: stacks look back by themselves. For time below 1. Derived here.

    >>> largest_delay(3, 0.5), largest_delay(10, 0.5)
    (2, 9)
    """
    require_between("the radius in time", time, 0.0, 1 - 1e-12)
    # One more step multiplies by time (layers + delay)/(delay + 1); ties are counted up to rounding.
    return max(0, int(np.floor((time * layers - 1) / (1 - time) + 1e-9)) + 1)


@theory
class StackedPaths(Theory):
    """Squared derivatives of a stacked linear net by each step of its input, at the start."""

    name = "paths through time and depth"
    source = "Herranz-Celotti & Rouat (2023), arXiv:2308.12075; random weights derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a recurrent stack (Recurrent)", model, Recurrent)
        if not isinstance(model, Recurrent):
            return
        yield Check(model.cell == "linear", "linear cells", f"they are {model.cell}")
        known = model.weights in ("gaussian", "constant")
        yield Check(known, "Gaussian or constant weights", f"they are {model.weights}")
        plain = model.connectivity is None and model.leak == 1.0 and not model.biases and float(model.read_out) == 1.0
        what = "a connectivity, a leak, biases or a scaled read-out is set"
        yield Check(plain, "plain recurrent layers", what)
        length = getattr(task, "length", None)
        yield Check(length is not None, "sequences of known length", f"{type(task).__name__} has no length")
        yield limit("weights at the start", "the training time", float(experiment.times[-1]), 0.0)
        if model.weights == "gaussian" and length is not None:
            yield limit("units for each step", "the sequence's length over the width", length / model.width, LONGEST)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        across = float(model.radius)
        up = across if model.depth_radius is None else float(model.depth_radius)
        delay = np.arange(task.length)[::-1]
        if model.weights == "gaussian":
            each = task.outputs * mean_square_path_sum(model.depth, delay, across, up)
            whole = each.sum()
        else:
            derivative = path_sum(model.depth, delay, across, up)
            scale = task.outputs * model.width / task.inputs
            each, whole = scale * derivative**2, scale * derivative.sum() ** 2
        labels = {"units": "1", "long_name": "squared derivative by a step's input"}
        said = {
            "squared_sensitivity": (("time", "step"), np.tile(each, (len(experiment.times), 1)), labels),
            "squared_total_sensitivity": (
                "time", np.full(len(experiment.times), whole), {**labels, "long_name": "squared derivative by all steps' inputs"},
            ),
        }  # fmt: skip
        return numbered(xr.Dataset(said, coords={"time": experiment.times}))
