"""Which interpolator a diagonal linear network finds: penalties, dual solver, mirror flow (Woodworth et al. 2020).

The network is b = u^D - v^D, u = v = alpha at the start, under gradient flow on ½|X b - y|². In the dual variable nu,
z = Xᵀ nu: b = alpha^D h_D(z), with h_2(z) = 2 sinh z, h_D(z) = (1-z)^(-D/(D-2)) - (1+z)^(-D/(D-2)) for D > 2, and
nu flows along the residual. The limit therefore is the interpolator of least sum_i q_D(b_i/alpha^D), q_D' = h_D⁻¹.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment
from armillary.members import as_arrays
from armillary.models.diagonal import DiagonalLinear
from armillary.once import drawn
from armillary.rules import Descent, GradientFlow
from armillary.tasks.sparse import SparseRegression
from armillary.theory.assumptions import Check, Theory, kind, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.trajectory import Trajectory

Numbers = Any


def link(z: Numbers, depth: int) -> Numbers:
    """h_D: coefficients over alpha^D as a function of the dual z (|z| < 1 for depth above 2)."""
    if depth == 2:
        return 2 * np.sinh(z)
    power = -depth / (depth - 2)
    return (1 - z) ** power - (1 + z) ** power


def inverse_link(b: Numbers, depth: int) -> Numbers:
    """h_D⁻¹, by bisection for depth above 2 (in -log(1 - |z|), so that large arguments keep their digits).

    >>> round(float(link(inverse_link(3.0, 4), 4)), 9)
    3.0
    """
    b = np.asarray(b, float)
    if depth == 2:
        return np.arcsinh(b / 2)
    size = np.abs(b)
    low, high = np.zeros_like(size), np.full_like(size, 1.0) + (depth - 2) / depth * np.log1p(size)
    for _ in range(80):
        middle = (low + high) / 2
        below = link(-np.expm1(-middle), depth) < size
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.sign(b) * -np.expm1(-high)


def penalty(b: Numbers, depth: int = 2) -> Numbers:
    """q_D(b), the integral of h_D⁻¹ from 0: near b² for small b, |b| (times ln|b| at depth 2) for large.

    Closed at depth 2, 2 - sqrt(4 + b²) + b arcsinh(b/2); else by Legendre duality, b z - H_D(z), with H_D the
    integral of h_D. Source: Woodworth et al. (2020).

    >>> round(float(penalty(0.01)) / (0.01**2 / 4), 4)
    1.0
    """
    b = np.asarray(b, float)
    z = inverse_link(b, depth)
    return b * z - _potential(z, depth)


def _potential(z: Numbers, depth: int) -> Numbers:
    """H_D, the integral of h_D from 0."""
    if depth == 2:
        return 4 * np.sinh(z / 2) ** 2  # 2 cosh z - 2, without cancellation
    power = -2 / (depth - 2)
    return (depth - 2) / 2 * ((1 - z) ** power + (1 + z) ** power - 2)


def _slope(z: Numbers, depth: int) -> Numbers:
    """h_D'."""
    if depth == 2:
        return 2 * np.cosh(z)
    power = -depth / (depth - 2)
    return -power * ((1 - z) ** (power - 1) + (1 + z) ** (power - 1))


def least_penalty(
    inputs: Float[np.ndarray, "sample input"], targets: Float[np.ndarray, " sample"], scale: float, depth: int = 2
) -> Float[np.ndarray, " input"]:
    """argmin of sum_i q_D(b_i/scale^D) over X b = y: where gradient flow from `scale` ends.

    Damped Newton on the convex dual sum_i scale^D H_D((Xᵀ nu)_i) - y.nu, from nu = 0. A step changes no z by more than
    1 (depth above 2: takes no z more than 0.7 of the way to its bound), so nothing overflows at any scale, and
    exponentially small scales cost steps in proportion to their logarithm. Raises `InvalidValue` for shapes that do
    not fit, a scale that is not positive or too small for double
    precision (scale^depth below about 1e-12), and inputs whose rows are dependent.

    >>> x = np.array([[2.0, 1.0]])
    >>> [np.round(least_penalty(x, np.array([1.0]), scale), 3).tolist() for scale in (100.0, 1e-30)]
    [[0.4, 0.2], [0.5, 0.0]]
    """
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InvalidValue(f"inputs are {x.shape} and targets {y.shape}, but must be (samples, inputs) and (samples,)")
    require_between("the initial scale", scale, 0.0, open_low=True)
    require_between("depth", depth, 2)
    if np.linalg.matrix_rank(x) < len(y):
        raise InvalidValue(f"the {len(y)} rows of the inputs are dependent; drop samples until they are not")
    size = float(scale) ** depth
    nu = np.zeros(len(y))
    residual_at = lambda nu: x @ (size * link(x.T @ nu, depth)) - y
    for _ in range(2000):
        z = x.T @ nu
        if depth > 2 and np.abs(z).max() > 1 - 1e-14:
            raise _too_small(scale, depth)
        residual = residual_at(nu)
        slopes = size * _slope(z, depth)
        rounding = 1e-15 * (np.abs(x) @ slopes).max() * np.abs(z).max()  # of z: no dual is more exact than this
        if np.abs(residual).max() <= max(1e-11 * np.abs(y).max(), min(rounding, 1e-4 * np.abs(y).max())):
            break
        try:
            step = -np.linalg.solve(x * slopes @ x.T, residual)
        except np.linalg.LinAlgError:
            raise _too_small(scale, depth) from None
        moved = x.T @ step
        room = 1.0 if depth == 2 else 0.7 * (np.where(moved > 0, 1 - z, 1 + z) - 1e-15)
        share = min(1.0, float((room / np.maximum(np.abs(moved), 1e-300)).min()))
        # Along the step the convex dual's slope must not grow: told from residuals, exact where its values cancel.
        while share > 1e-8 and abs(residual_at(nu + share * step) @ step) > abs(residual @ step):
            share /= 2
        nu = nu + share * step
    else:
        raise _too_small(scale, depth)
    return size * link(x.T @ nu, depth)


def _too_small(scale: float, depth: int) -> InvalidValue:
    return InvalidValue(f"scale {scale:g} at depth {depth} is too small for double precision; use a larger scale")


def minimum_l2(
    inputs: Float[np.ndarray, "sample input"], targets: Float[np.ndarray, " sample"]
) -> Float[np.ndarray, " input"]:
    """The interpolator of smallest l2 norm: the limit of large scales."""
    return np.linalg.pinv(np.asarray(inputs, float)) @ np.asarray(targets, float)


def minimum_l1(
    inputs: Float[np.ndarray, "sample input"], targets: Float[np.ndarray, " sample"]
) -> Float[np.ndarray, " input"]:
    """The interpolator of smallest l1 norm, a linear program: the limit of small scales.

    >>> minimum_l1(np.array([[2.0, 1.0]]), np.array([1.0])).tolist()
    [0.5, 0.0]
    """
    from scipy.optimize import linprog  # loads slowly

    x = np.asarray(inputs, float)
    found = linprog(np.ones(2 * x.shape[1]), A_eq=np.hstack([x, -x]), b_eq=np.asarray(targets, float), method="highs")
    if not found.success:
        raise InvalidValue(f"no linear map fits these {len(x)} samples: {found.message}")
    return found.x[: x.shape[1]] - found.x[x.shape[1] :]


def mirror_flow(
    time: Float[np.ndarray, " time"], inputs: Float[np.ndarray, "sample input"],
    targets: Float[np.ndarray, " sample"], scale: float, depth: int = 2,
) -> Float[np.ndarray, "time input"]:  # fmt: skip
    """Coefficients of the network at `time` under gradient flow on ½|X b - y|², exactly: one dual equation a sample.

    dnu/dt = -D² (X b - y) at depth 2, -D (D-2) alpha^(D-2) (X b - y) above; stiff, solved by BDF with its Jacobian.
    Source: Woodworth et al. (2020), in the loss's units here.
    """
    from scipy.integrate import solve_ivp  # loads slowly

    x, y, size = np.asarray(inputs, float), np.asarray(targets, float), float(scale) ** depth
    rate = 4.0 if depth == 2 else depth * (depth - 2) * float(scale) ** (depth - 2)
    bound = 300.0 if depth == 2 else 1 - 1e-9
    dual = lambda nu: np.clip(x.T @ nu, -bound, bound)  # a solver's trial steps may leave the domain
    velocity = lambda _, nu: -rate * (x @ (size * link(dual(nu), depth)) - y)
    jacobian = lambda _, nu: -rate * (x * (size * _slope(dual(nu), depth)) @ x.T)
    end = float(time[-1])
    found = solve_ivp(velocity, (0.0, end), np.zeros(len(y)), "BDF", time, jac=jacobian, rtol=1e-7, atol=1e-9)
    return size * link(x.T @ found.y, depth).T


def largest_curvature(
    inputs: Float[np.ndarray, "sample input"], coefficients: Float[np.ndarray, " input"], scale: float, depth: int
) -> float:
    """The largest eigenvalue of the tangent kernel at an interpolator that a flow from `scale` reached.

    It is the Hessian's there, X diag(D² (u^(2D-2) + v^(2D-2))) Xᵀ. For ½|X b - y|².
    """
    z = inverse_link(np.asarray(coefficients, float) / float(scale) ** depth, depth)
    if depth == 2:
        squares = 8 * scale**2 * np.cosh(z)
    else:
        power = -(2 * depth - 2) / (depth - 2)
        squares = depth**2 * float(scale) ** (2 * depth - 2) * ((1 - z) ** power + (1 + z) ** power)
    return float(np.linalg.eigvalsh(inputs * squares @ inputs.T)[-1])


@theory
class DiagonalMirrorFlow(Theory):
    """Coefficients, norms and errors of a diagonal linear network in time, on one numbered problem."""

    name = "diagonal mirror flow"
    source = "Woodworth et al. (2020), arXiv:2002.09277"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("a sparse regression", task, SparseRegression)
        yield kind("a diagonal linear network", model, DiagonalLinear)
        yield kind("gradient flow or descent", experiment.rule, GradientFlow, Descent)
        known = isinstance(task, SparseRegression) and isinstance(model, DiagonalLinear)
        if not known or not isinstance(experiment.rule, GradientFlow | Descent):
            return
        yield Check(task.problem is not None, "one numbered problem", "problem is None: each seed draws its own data")
        fewer = f"there are {task.samples} samples and {task.inputs} inputs"
        yield Check(task.samples < task.inputs, "fewer samples than inputs", fewer)
        if task.problem is None or task.samples >= task.inputs:
            return
        x, y, _ = _problem(experiment)
        scale, depth = float(model.scale), model.depth
        ends = np.zeros(x.shape[1]), least_penalty(x, y, scale, depth)
        curvature = max(largest_curvature(x, b, scale, depth) for b in ends)
        mean = experiment.rule.loss.reduction == "mean"
        yield from flow_checks(experiment, curvature / (len(y) if mean else 1))

    def predict(self, experiment: Experiment) -> Trajectory:
        x, y, teacher = _problem(experiment)
        model, loss = experiment.model, experiment.rule.loss
        count = len(y) if loss.reduction == "mean" else 1
        b = mirror_flow(flow_times(experiment) / count, x, y, float(model.scale), model.depth)
        values = {
            "train_loss": 0.5 * ((b @ x.T - y) ** 2).sum(axis=1) / count,
            "l1_norm": np.abs(b).sum(axis=1),
            "l2_norm": np.linalg.norm(b, axis=1),
            "distance_to_min_l2": np.linalg.norm(b - minimum_l2(x, y), axis=1),
            "population_error": ((b - teacher) ** 2).sum(axis=1),
        }
        variables: dict[str, Any] = {name: ("time", seen, {"units": "1"}) for name, seen in values.items()}
        variables["coefficients"] = (("time", "feature"), b, {"units": "1"})
        return xr.Dataset(variables, {"time": experiment.times, "feature": np.arange(1, x.shape[1] + 1)})


def _problem(experiment: Experiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs [sample, input], targets [sample] and teacher [input] of the experiment's numbered problem."""
    return problem_data(experiment.task, double=experiment.precision == "float64")


def problem_data(task: SparseRegression, *, double: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a run on this numbered problem sees, as NumPy arrays: inputs [sample, input], targets, teacher.

    `double` is the run's precision: random numbers differ between the two.
    """
    with jax.enable_x64(double):
        data = drawn(as_arrays(task, np.float64 if double else np.float32))
        x, y, teacher = (np.asarray(a, float) for a in (data.train.inputs, data.train.targets, data.teacher))
    return x, y[:, 0], teacher[0]
