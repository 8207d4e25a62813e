"""Gradient flow of quadratic networks: a matrix Riccati equation, and its high-dimensional limit.

Time is that of dW/dt = -(2 D + tr D) W with D = W Wᵀ - Z*: half the gradient of the risk |D|² + (tr D)²/2, which is
`GradientFlow`'s time for a `SymmetricFactors` network.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue
from armillary.experiment import Experiment
from armillary.models.factorised import SymmetricFactors
from armillary.tasks.quadratic import QuadraticTeacher
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.theory.jacobi import FreeJacobi
from armillary.trajectory import Trajectory

Times = Float[np.ndarray, " time"]

SMALLEST_DIMENSION = 100
"""Inputs below which a single draw strays from the high-dimensional limit by more than a few percent."""


class QuadraticFlow(NamedTuple):
    """The course of a flow: the risk, and the overlap tr(Z Z*)/(|Z| |Z*|), at each time."""

    risk: Times
    overlap: Times


def stationary_risk(teachers: float, width: float) -> float:
    """The risk that remains for orthonormal teachers: k + k²/(width + 2), with k missing units; 0 without any.

    The learnt eigenvalues are then 1 + k/(width + 2). Derived here.

    >>> round(stationary_risk(5, 4), 4), stationary_risk(5, 5)
    (1.1667, 0.0)
    """
    missing = max(teachers - width, 0.0)
    return missing + missing**2 / (width + 2)


def riccati_flow(
    time: Times, initial: Float[np.ndarray, "input unit"], teacher: Float[np.ndarray, "input input"]
) -> QuadraticFlow:
    """Risk and overlap of the flow from any weights `initial` towards any `teacher` Z*.

    Given s(t) = tr(Z - Z*) the flow is a matrix Riccati equation and explicit,
    Z = e^A W (1 + 4 Wᵀ [int e^2A] W)⁻¹ Wᵀ e^A with A = 2 Z* t - int s: what is integrated are int s and one number for
    each distinct eigenvalue of Z*. Rows are kept in units of their own growth and W is made triangular in the teacher's
    frame, so that late times are exact too. Cost: O(inputs units²) a step. Derived here.

    >>> flow = riccati_flow(np.array([0.0, 20.0]), np.eye(3, 2), np.diag([1.0, 0.0, 0.0]))
    >>> bool(flow.risk[0] == 1.5 and flow.risk[1] < 1e-3)
    True
    """
    values, frame = np.linalg.eigh(np.asarray(teacher, float))
    values, frame = values[::-1], frame[:, ::-1]  # the fastest growing rows first
    values = np.where(np.abs(values) < 1e-12 * max(values[0], 1.0), 0.0, values)
    rates, group = np.unique(values.round(12), return_inverse=True)
    turned = frame.T @ np.asarray(initial, float)
    triangular = np.linalg.qr(turned.T)[1].T  # W = L Oᵀ, and O drops out
    own = values[: triangular.shape[1]]  # each column grows as the row on its diagonal

    def matrix(t: float, state: np.ndarray) -> np.ndarray:
        sigma, relaxed = state[0], state[1:][group]
        # Above the diagonal are zeros; their factor must not overflow.
        rows = triangular * np.exp(np.minimum(2 * t * (values[:, None] - own), 0.0))
        small = np.diag(np.exp(np.maximum(2 * sigma - 4 * t * own, -600.0)))  # never 0: units may be
        return rows @ np.linalg.solve(small + 4 * rows.T @ (relaxed[:, None] * rows), rows.T)

    def velocity(t: float, state: np.ndarray) -> np.ndarray:
        s = np.trace(matrix(t, state)) - values.sum()
        return np.concatenate([[s], 1 - (4 * rates - 2 * s) * state[1:]])

    states = _integrated(velocity, time, np.zeros(1 + len(rates)))
    found = [matrix(t, state) for t, state in zip(time, states, strict=True)]
    wrong = [z - np.diag(values) for z in found]
    risk = [np.sum(d**2) + np.trace(d) ** 2 / 2 for d in wrong]
    overlap = [np.diagonal(z) @ values / (np.linalg.norm(z) * np.linalg.norm(values)) for z in found]
    return QuadraticFlow(np.array(risk), np.array(overlap))


def orthonormal_flow(
    time: Times, cosines: Float[np.ndarray, " angle"], weights: Float[np.ndarray, " angle"], missing: float,
    scale: float = 1.0,
) -> QuadraticFlow:  # fmt: skip
    """Risk and overlap of the flow between orthonormal families, from the squared `cosines` of their principal angles.

    The flow splits into blocks of rank one that only share s = tr(Z - Z*). `weights` counts the units of each cosine
    and `missing` the teachers beyond them, (teachers - units with a cosine above 0); initial weights have orthonormal
    columns times `scale`. Three scalar equations, and sums in which nothing cancels at late times. Derived here.

    >>> flow = orthonormal_flow(np.array([0.0, 10.0]), np.array([0.5, 0.0]), np.ones(2), missing=0.0)
    >>> flow.risk.round(2).tolist()
    [2.5, 0.0]
    """
    from scipy.special import expit  # loads slowly

    cosines, weights = np.clip(cosines, 0.0, 1.0), np.asarray(weights, float)
    with np.errstate(divide="ignore"):
        aligned, beside = np.log(cosines), np.log1p(-cosines)
    touched = cosines > 0
    teachers = missing + weights[touched].sum()

    def block(t: float, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each block's eigenvalue, and the log-odds that it lies along the teachers."""
        sigma, null, signal = state
        odds = aligned + 4 * t - beside
        begun = np.exp(2 * sigma - np.logaddexp(beside, aligned + 4 * t)) / scale**2
        return 1 / (begun + 4 * (null * expit(-odds) + signal * expit(odds))), odds

    def surplus(z: np.ndarray) -> float:
        return float(weights @ (z - touched) - missing)

    def velocity(t: float, state: np.ndarray) -> np.ndarray:
        s = surplus(block(t, state)[0])
        return np.array([s, 1 + 2 * s * state[1], 1 - (4 - 2 * s) * state[2]])

    risk, overlap = [], []
    for t, state in zip(time, _integrated(velocity, time, np.zeros(3)), strict=True):
        z, odds = block(t, state)
        along, away = expit(odds), expit(-odds)
        gap = (z - along) ** 2 + along * away + touched * away
        risk.append(weights @ gap + missing + surplus(z) ** 2 / 2)
        overlap.append(weights @ (z * along) / np.sqrt(weights @ z**2 * teachers))
    return QuadraticFlow(np.array(risk), np.array(overlap))


def high_dimensional_flow(
    time: Times, width: float, teachers: float, dimension: float = 1.0, scale: float = 1.0, nodes: int = 400
) -> QuadraticFlow:
    """The limit of `orthonormal_flow` for independent families as the dimension grows at fixed width/dimension and
    teachers/dimension: the principal angles follow the free Jacobi law. The risk is that of `dimension` inputs.
    Source: Martin, Bach & Biroli (2023); the equations are derived here.

    >>> flow = high_dimensional_flow(np.array([0.1, 5.0]), width=60, teachers=40, dimension=200)
    >>> (flow.risk / 40).round(4).tolist()
    [1.1266, 0.0011]
    """
    law = FreeJacobi(width / dimension, teachers / dimension)
    cosines, weights = law.quadrature(nodes)
    cosines = np.concatenate([cosines, [0.0, 1.0]])
    weights = dimension * np.concatenate([weights, [law.atom_at_zero, law.atom_at_one]])
    return orthonormal_flow(np.asarray(time, float), cosines, weights, max(teachers - width, 0.0), scale)


def _integrated(velocity: Callable[..., Any], time: Times, begin: np.ndarray) -> Float[np.ndarray, "time state"]:
    """The flow from time 0, at `time`; the trace makes it stiff, hence LSODA."""
    from scipy.integrate import solve_ivp  # loads slowly

    if not time[-1]:
        return np.tile(begin, (len(time), 1))
    found = solve_ivp(velocity, (0.0, float(time[-1])), begin, "LSODA", time, rtol=1e-9, atol=1e-12)
    if not found.success:
        raise InvalidValue(f"the flow of a quadratic network could not be integrated: {found.message}")
    return found.y.T


@theory
class HighDimensionalQuadratic(Theory):
    """Risk and overlap of a quadratic network when teachers and initial units are independent orthonormal families."""

    name = "high-dimensional quadratic networks"
    source = "Martin, Bach & Biroli (2023), arXiv:2311.03794"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a quadratic teacher", task, QuadraticTeacher)
        yield kind("a quadratic network (SymmetricFactors)", model, SymmetricFactors)
        if not isinstance(task, QuadraticTeacher) or not isinstance(model, SymmetricFactors):
            return
        samples = f"there are {task.samples} samples"
        yield Check(task.samples is None, "the population's risk", samples)
        yield Check(task.orthonormal, "orthonormal teachers", "theirs are independent Gaussian entries")
        yield Check(model.orthonormal, "orthonormal initial units", "theirs are independent Gaussian entries")
        enough = task.dimension >= SMALLEST_DIMENSION
        yield Check(enough, "many inputs", f"there are {task.dimension} (at least {SMALLEST_DIMENSION})")
        width, scale = float(model.width), float(model.scale)
        yield limit("no more units than inputs", "the width over the inputs", width / task.dimension, 1.0)
        yield Check(scale > 0, "initial weights", f"their scale is {scale:g}")
        # Every unit shares the trace; the initial weights are no stiffer than their squared scale.
        yield from flow_checks(experiment, 4 + 2 * max(width * scale**2, float(task.teachers)))

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        sizes = float(model.width), float(task.teachers), float(task.dimension)
        flow = high_dimensional_flow(flow_times(experiment), *sizes, scale=float(model.scale))
        return xr.Dataset(
            {
                "train_loss": ("time", flow.risk, {"units": "1", "long_name": "risk"}),
                "overlap": ("time", flow.overlap, {"units": "1", "long_name": "overlap with the teacher"}),
            },
            coords={"time": experiment.times},
        )
