"""Two linear layers from a start of given rank: how far weights and tangent kernel are from it in the end, and on the way.

The setting: f(x) = w2 W1 x, whitened inputs, a target beta of length `strength`, population loss, w2 = 0 and W1 of rank r with
equal singular values, |W1|_F = S. Of beta the squared share q lies in W1's row space. Only the hidden unit that carries beta's
image there moves: its row z (from length s = S/sqrt(r)) and its read-out a, with |z|² - a² = s² conserved.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.two_layer_linear import OfRank, TwoLayerLinear
from armillary.probes.tangent_kernel import KernelDrift
from armillary.tasks import Correlations
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.trajectory import Trajectory, numbered

Numbers = Any


class RankedEnd(NamedTuple):
    """What has become of a start: the cosine of the tangent kernel with that at the start, its relative change |A - A_0|/|A_0|
    (both Frobenius), the Euclidean norm of all weights' change, and half the squared distance from the target."""

    kernel_alignment: Numbers
    kernel_drift: Numbers
    weight_change: Numbers
    loss: Numbers


def _seen(z: Numbers, a: Numbers, rank: Numbers, size: Numbers, dimension: int, target: Numbers) -> RankedEnd:
    """From the moving row z = (along its start, beside it) and its read-out a; `target` likewise."""
    squared = np.asarray(size, float) ** 2 / rank
    zeta, others = z[0] ** 2 + z[1] ** 2, rank - 1
    inner = squared * (z[0] ** 2 + squared * others + rank * a**2)
    now = zeta**2 + squared**2 * others + dimension * a**4 + 2 * a**2 * zeta + 2 * a**2 * squared * others
    start = squared**2 * rank
    drift = np.sqrt(np.maximum(now + start - 2 * inner, 0.0) / start)
    moved = (z[0] - np.sqrt(squared)) ** 2 + z[1] ** 2 + a**2
    loss = 0.5 * ((target[0] - a * z[0]) ** 2 + (target[1] - a * z[1]) ** 2)
    return RankedEnd(inner / np.sqrt(start * now), drift, np.sqrt(moved), loss)


def target_share(rank: Numbers, dimension: int, alignment: Numbers) -> Numbers:
    """The share q of the target in the directions of a start (`OfRank`): rank/dimension, as in random ones, at alignment 0 and 1
    at 1."""
    return rank / dimension + alignment * (1 - rank / dimension)


def _check(rank: Numbers, size: Numbers, dimension: int, share: Numbers, strength: Numbers) -> None:
    require_between("the number of inputs (dimension)", dimension, 1)
    require_between("the rank", rank, 1.0, dimension, note="the number of inputs")
    require_between("the initial size", size, 0.0, open_low=True)
    require_between("the target's share in the start's directions", share, 0.0, 1.0)
    require_between("the target's strength", strength, 0.0, open_low=True)


def ranked_end(
    rank: Numbers, size: Numbers, dimension: int, share: Numbers | None = None, strength: Numbers = 1.0
) -> RankedEnd:
    """Where the flow ends, in closed form: a² = (-s² + sqrt(s⁴ + 4 strength²))/2 and z = beta/a.

    `share` is q; None takes rank/dimension, at which `kernel_alignment`, linear in q, is the mean over random targets (the
    other results are not linear). `rank` need be no whole number, for spectra of such an effective rank. Arguments
    broadcast. Raises `InvalidValue` for a rank outside [1, dimension] (without a start there is no alignment with it) and
    numbers out of range. Derived here; after Liu et al. (2023).

    >>> ranked_end([1, 2, 12], 1.0, 12).kernel_alignment.round(3).tolist()
    [0.248, 0.465, 0.973]
    """
    rank, size, strength = (np.asarray(v, float) for v in (rank, size, strength))
    share = np.asarray(rank / dimension if share is None else share, float)
    _check(rank, size, dimension, share, strength)
    squared = size**2 / rank
    # The smaller root of a² (a² + s²) = strength² without cancellation.
    a = np.sqrt(2 * strength**2 / (squared + np.sqrt(squared**2 + 4 * strength**2)))
    target = (strength * np.sqrt(share), strength * np.sqrt(1 - share))
    found = _seen((target[0] / a, target[1] / a), a, rank, size, dimension, target)
    return RankedEnd(*found[:3], np.zeros(found.loss.shape))


def largest_alignment(rank: Numbers, dimension: int) -> Numbers:
    """The mean kernel alignment over random targets that a start of any size tends to as it grows: 1 - 1/rank + 1/dimension.

    The one hidden unit that moves must leave its direction for the target's, however large it is. Below it for finite
    sizes of some ten upwards; 1 for full rank. Derived here.

    >>> largest_alignment(2, 12).round(4).item()
    0.5833
    """
    require_between("the rank", rank, 1.0, dimension, note="the number of inputs")
    return 1 - 1 / np.asarray(rank, float) + 1 / dimension


def ranked_course(
    times: ArrayLike, rank: float, size: float, dimension: int, share: float | None = None, strength: float = 1.0
) -> RankedEnd:
    """The same at flow times float[time], from dz/dt = a (beta - a z), da/dt = z (beta - a z), integrated.

    Times in units in which whitened inputs have variance 1. Raises `InvalidValue` as `ranked_end`, and for negative times.
    """
    from scipy.integrate import solve_ivp  # loads slowly

    times = np.asarray(times, float)
    share = rank / dimension if share is None else share
    _check(rank, size, dimension, share, strength)
    require_between("a time", times, 0.0)
    target = strength * np.array([np.sqrt(share), np.sqrt(1 - share)])

    def velocity(t: float, y: np.ndarray) -> np.ndarray:
        wrong = target - y[2] * y[:2]
        return np.array([*(y[2] * wrong), y[:2] @ wrong])

    start = np.array([size / np.sqrt(rank), 0.0, 0.0])
    span = (0.0, max(float(times[-1]), 1e-9))
    # A large start is stiff: its own direction relaxes size² times as fast as the others.
    y = solve_ivp(velocity, span, start, "LSODA", times, rtol=1e-10, atol=1e-13).y
    return _seen((y[0], y[1]), y[2], rank, size, dimension, target)


def integrated_end(
    first: Float[np.ndarray, "hidden input"], target: Float[np.ndarray, " input"], until: float,
    last: Float[np.ndarray, " hidden"] | None = None,
) -> RankedEnd:  # fmt: skip
    """The same for any first layer (any spectrum, any directions) and second layer (None: 0), by direct integration.

    Cost: hidden * input equations. With more hidden units than the rank of `first`, rounding errors grow as
    exp(strength t) unless the surplus rows are exactly 0.

    >>> start = np.eye(12)[:4] * 0.5
    >>> end = integrated_end(start, np.eye(12)[0], until=40.0)
    >>> bool(np.isclose(end.kernel_alignment, ranked_end(4, 1.0, 12, share=1.0).kernel_alignment))
    True
    """
    from scipy.integrate import solve_ivp  # loads slowly

    hidden, dimension = first.shape
    begin = np.concatenate([first, np.zeros((hidden, 1)) if last is None else last[:, None]], axis=1)

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        y = flat.reshape(begin.shape)
        wrong = target - y[:, -1] @ y[:, :-1]
        return np.column_stack([np.outer(y[:, -1], wrong), y[:, :-1] @ wrong]).ravel()

    end = (
        solve_ivp(velocity, (0.0, until), begin.ravel(), "DOP853", rtol=1e-9, atol=1e-12).y[:, -1].reshape(begin.shape)
    )
    kernels = [y[:, :-1].T @ y[:, :-1] + np.sum(y[:, -1] ** 2) * np.eye(dimension) for y in (begin, end)]
    sizes = [np.linalg.norm(k) for k in kernels]
    wrong = target - end[:, -1] @ end[:, :-1]
    alignment, drift = (
        np.sum(kernels[0] * kernels[1]) / np.prod(sizes),
        np.linalg.norm(kernels[1] - kernels[0]) / sizes[0],
    )
    return RankedEnd(alignment, drift, np.linalg.norm(end - begin), 0.5 * wrong @ wrong)


@theory
class RankedStart(Theory):
    """Tangent kernel, weights and loss of two linear layers on their way from a start of given rank."""

    name = "linear networks, rank of the start"
    source = "Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2023), arXiv:2310.08513; derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a task known by its correlations", task, Correlations)
        yield kind("two linear layers", model, TwoLayerLinear)
        if not isinstance(task, Correlations) or not isinstance(model, TwoLayerLinear):
            return
        yield kind("a start of given rank", model.start, OfRank)
        if not isinstance(model.start, OfRank):
            return
        start, spectrum = model.start, np.linalg.eigvalsh(np.asarray(task.input_correlation, float))
        yield limit("white inputs", "the covariance's condition number", spectrum[-1] / spectrum[0], 1.01)
        yield Check(task.outputs == 1, "one output", f"there are {task.outputs}")
        known = start.alignment is not None
        yield Check(
            known, "a known alignment with the target", "directions are drawn at random; ranked_end has the mean"
        )
        yield limit("equal singular values", "their decay's exponent", float(start.decay), 0.0)
        yield limit("a read-out that starts at 0", "its initial size", float(start.read_out), 0.0)
        if task.outputs == 1:
            solution, aim = np.asarray(task.solution[0], float), np.asarray(start.target[0], float)
            cosine = solution @ aim / (np.linalg.norm(solution) * np.linalg.norm(aim))
            yield limit("a start that is aligned with the solution", "one minus their cosine", float(1 - cosine), 1e-6)
        few = [p.samples for p in experiment.probes if isinstance(p, KernelDrift) and p.samples < task.inputs]
        yield Check(not few, "the kernel on all inputs", f"KernelDrift looks at {min(few, default=0)} of {task.inputs}")
        strength = float(np.linalg.norm(np.asarray(task.solution, float)))
        size = float(start.size) ** 2 / float(start.rank)
        curvature = size + 2 * strength**2 / (size + np.sqrt(size**2 + 4 * strength**2)) * 2
        yield from flow_checks(experiment, spectrum[-1] * curvature)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, start = experiment.task, experiment.model.start
        variance = float(np.trace(np.asarray(task.input_correlation, float)) / task.inputs)
        strength = float(np.linalg.norm(np.asarray(task.solution, float)))
        rank, size, aligned = float(start.rank), float(start.size), float(start.alignment)
        share = target_share(rank, task.inputs, aligned)
        summed = task.inputs if experiment.rule.loss.reduction == "sum" else 1
        time = flow_times(experiment) * variance * summed
        course = ranked_course(time, rank, size, task.inputs, share, strength)
        labels = {
            "kernel_alignment": "cosine of the tangent kernel with its start",
            "kernel_drift": "relative change of the tangent kernel",
            "parameter_distance": "relative distance, all",
            "train_loss": "training loss",
        }
        values = (
            course.kernel_alignment,
            course.kernel_drift,
            course.weight_change / size,
            variance * summed * course.loss,
        )
        said = {
            name: ("time", value, {"units": "1", "long_name": label})
            for (name, label), value in zip(labels.items(), values, strict=True)
        }
        return numbered(xr.Dataset(said, coords={"time": experiment.times}))
