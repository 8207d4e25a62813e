"""Deep linear networks from decoupled weights: every mode learns by itself (Saxe, McClelland & Ganguli 2013)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models import Decoupled, DeepLinear
from armillary.tasks import Correlations
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.trajectory import Trajectory, numbered

Numbers = Any


def mode_sigmoid(time: Numbers, s: Numbers, u0: Numbers) -> Numbers:
    """Strength of a mode of a balanced two-layer network: u = s / (1 + (s/u0 - 1) exp(-2 s t)).

    Solves du/dt = 2 u (s - u) with white unit inputs; for s = 0 it is u0/(1 + 2 u0 t). Arguments broadcast.
    Source: Saxe et al. (2013), in the form that does not overflow at late times.

    >>> round(float(mode_sigmoid(0.0, 2.0, 0.001)), 6)
    0.001
    """
    time, s, u0 = (np.asarray(v, dtype=float) for v in (time, s, u0))
    nonzero = np.where(s == 0, 1.0, s)
    sigmoid = nonzero / (1 + (nonzero / u0 - 1) * np.exp(-2 * nonzero * time))
    return np.where(s == 0, u0 / (1 + 2 * u0 * time), sigmoid)[()]


def unbalanced_mode(time: Numbers, s: float, u0: float, imbalance: float) -> Numbers:
    """Strength of a two-layer mode with conserved a² - b² = `imbalance`: du/dt = sqrt(c² + 4 u²)(s - u).

    With u = (c/2) sinh(theta) and T = tanh(theta/2) the flow is a Riccati equation in T between its two fixed
    points; its solution is explicit. Source: Saxe et al. (2013); form derived here.
    Raises `InvalidValue` for a zero imbalance (use `mode_sigmoid`).
    """
    c = abs(float(imbalance))
    require_between("the imbalance", c, 0.0, open_low=True)
    time = np.asarray(time, dtype=float)
    root = np.sqrt(4 * s**2 + c**2)
    high, low = (-c + root) / (2 * s), (-c - root) / (2 * s)
    start = np.tanh(np.arcsinh(2 * u0 / c) / 2)
    # R grows as exp(root t): divide through by it, so that nothing overflows.
    left = np.exp(-root * time) * (high - start) / (start - low)
    value = (low * left + high) / (left + 1)
    return (c / 2) * np.sinh(2 * np.arctanh(value))


def mode_time(u: Numbers, s: Numbers, u0: Numbers) -> Numbers:
    """Time at which a balanced two-layer mode reaches strength u: ln[u (s - u0)/(u0 (s - u))]/(2 s)."""
    return np.log(u * (s - u0) / (u0 * (s - u))) / (2 * s)


def infinitely_deep_time(u: Numbers, s: Numbers, u0: Numbers) -> Numbers:
    """Depth times learning time in the limit of infinite depth, from u0 to u (Saxe et al. 2013).

    [ln(u (s - u0)/(u0 (s - u)))/s² + (1/u0 - 1/u)/s]: with a learning rate ~ 1/depth, the number of steps.
    """
    return np.log(u * (s - u0) / (u0 * (s - u))) / s**2 + (1 / u0 - 1 / u) / s


def depth_time(u: float, s: float, u0: float, depth: int) -> float:
    """Time at which a mode of a network of `depth` weight layers (`depth_strength`) reaches strength u < s from u0.

    The integral of du / (depth u^(2 - 2/depth) (s - u)), by quadrature in ln u.

    >>> round(depth_time(1.9, 2.0, 0.5, depth=2), 6) == round(float(mode_time(1.9, 2.0, 0.5)), 6)
    True
    """
    from scipy.integrate import quad  # loads slowly

    slowness = lambda log_u: np.exp(log_u * (2 / depth - 1)) / (depth * (s - np.exp(log_u)))
    return float(quad(slowness, np.log(u0), np.log(u), epsabs=0, epsrel=1e-10, limit=500)[0])


def layer_strengths(
    time: Float[np.ndarray, " time"], s: Float[np.ndarray, " mode"], initial: Float[np.ndarray, "layer mode"],
    variance: float = 1.0,
) -> Float[np.ndarray, "time layer mode"]:  # fmt: skip
    """Strengths of all layers' modes: da_l/dt = (prod over k != l of a_k)(s - variance prod a), integrated.

    Holds for any depth and any initial strengths; `variance` is that of the white inputs. Source: Saxe et al.
    (2013), before layers are set equal.
    """
    s, begin = np.asarray(s, float), np.asarray(initial, float)
    others = ~np.eye(len(begin), dtype=bool)[:, :, None]

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        a = flat.reshape(begin.shape)
        rest = np.prod(np.where(others, a[None], 1.0), axis=1)
        return (rest * (s - variance * a.prod(axis=0))).ravel()

    return _solved(velocity, time, begin.ravel()).reshape(len(time), *begin.shape)


def depth_strength(
    time: Float[np.ndarray, " time"], s: Float[np.ndarray, " mode"] | float, u0: float, depth: int
) -> Float[np.ndarray, "time mode"]:
    """Strengths of the modes of a network of `depth` weight layers of equal strengths, from u0.

    du/dt = depth u^(2 - 2/depth) (s - u): Saxe et al. (2013), with N_l - 1 = depth. White unit inputs.

    >>> strength = depth_strength(np.array([0.0, 1.0]), 2.0, 0.5, depth=2)
    >>> bool(np.allclose(strength[:, 0], mode_sigmoid(np.array([0.0, 1.0]), 2.0, 0.5)))
    True
    """
    s = np.atleast_1d(np.asarray(s, float))
    return _solved(lambda t, u: depth * u ** (2 - 2 / depth) * (s - u), time, np.full(s.shape, u0))


def _solved(velocity: Any, time: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """The flow from `begin` at time 0, at `time`. A few numbers only: compiling it would take longer than solving."""
    from scipy.integrate import solve_ivp  # loads slowly

    found = solve_ivp(velocity, (0.0, float(time[-1])), begin, "DOP853", time, rtol=1e-10, atol=1e-14)
    return found.y.T


@theory
class DeepLinearModes(Theory):
    """Mode strengths and loss of a deep linear network that starts decoupled, on white inputs."""

    name = "deep linear modes"
    source = "Saxe, McClelland & Ganguli (2013), arXiv:1312.6120"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a task known by its correlations", task, Correlations)
        yield kind("a deep linear network", model, DeepLinear)
        if not isinstance(task, Correlations) or not isinstance(model, DeepLinear):
            return
        spectrum = np.linalg.eigvalsh(np.asarray(task.input_correlation, float))
        yield limit("white inputs", "the covariance's condition number", spectrum[-1] / spectrum[0], 1.01)
        initial = model.initialisation
        yield kind("decoupled initial weights", initial, Decoupled)
        if isinstance(initial, Decoupled):
            coupling = mode_coupling(np.asarray(task.input_output_correlation), np.asarray(initial.target))
            yield limit("initial modes along the task's", "the largest coupling between modes", coupling, 1e-3)
        largest = np.linalg.norm(np.asarray(task.input_output_correlation), 2) / spectrum[0]
        yield from flow_checks(
            experiment, (1 if model.rate_by_depth else model.depth) * spectrum[-1] * largest ** (2 - 2 / model.depth)
        )

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        initial = model.initialisation
        s = np.linalg.svd(np.asarray(task.input_output_correlation, float), compute_uv=False)
        variance = float(np.trace(np.asarray(task.input_correlation, float)) / task.inputs)
        rate = 1 / model.depth if model.rate_by_depth else 1.0
        time = flow_times(experiment) * variance * rate  # in this time the target is s/variance and inputs are unit
        u0, s = float(initial.strength), s / variance
        imbalance = float(initial.imbalance)
        if imbalance == 1.0 or model.depth == 1:
            strength = (
                mode_sigmoid(time[:, None], s, u0) if model.depth == 2 else depth_strength(time, s, u0, model.depth)
            )
        else:
            begin = np.full((model.depth, len(s)), u0 ** (1 / model.depth))
            begin[0], begin[-1] = begin[0] * imbalance, begin[-1] / imbalance
            strength = layer_strengths(time, s, begin).prod(axis=1)
        loss = 0.5 * variance * ((strength - s) ** 2).sum(axis=1)
        if experiment.rule.loss.reduction == "sum":
            loss = loss * task.inputs
        return numbered(
            xr.Dataset(
                {
                    "mode_strength": (("time", "mode"), strength, {"units": "1", "long_name": "mode strength"}),
                    "train_loss": ("time", loss, {"units": "1", "long_name": "training loss"}),
                    "off_diagonal": ("time", np.zeros(len(time)), {"units": "1"}),
                },
                coords={"time": experiment.times},
            )
        )


def mode_coupling(target: np.ndarray, frame: np.ndarray) -> float:
    """The largest |u_iᵀ S v_j|, i ≠ j, of `target` in the singular frame of `frame`, over |S|.

    Rotations within equal singular values are no coupling: the target is then diagonal in either frame.
    """
    u, _, vt = np.linalg.svd(frame, full_matrices=False)
    rotated = u.T @ target @ vt.T
    outside = np.linalg.norm(target - u @ rotated @ vt)
    off = np.abs(rotated - np.diag(np.diagonal(rotated))).max()
    return float(max(off, outside) / max(np.linalg.norm(target, 2), 1e-300))
