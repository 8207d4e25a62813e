"""What unlabelled data are worth: excess risk of a factor model's pretrained features, and informativeness."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.rules.pretraining import LeastSquares, PrincipalFactors
from armillary.rules.solved import Solved
from armillary.tasks.latent import FactorModel
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.trajectory import Trajectory

FEWEST_UNLABELLED = 10.0
"""Unlabelled samples times strength² over dimension, from which first-order perturbation of the factors holds."""


def representation_error(unlabelled: ArrayLike, dimension: int, strength: ArrayLike, coefficients: ArrayLike) -> Any:
    """eps_m = (d - r)/m sum of beta_k²/(l_k (1 + l_k)): what the estimated factors leave out of the prediction.

    `strength` [factor] are the singular values b_k of B, l_k = b_k²; `coefficients` [factor] are beta_k. To first order
    in 1/m, the factors' directions err by (1 + l)/(l² m) in each of the d - r others. Derived here.

    >>> round(float(representation_error(1000, 100, [2.0] * 5, [5**-0.5] * 5)), 5)
    0.00475
    """
    power, beta = np.broadcast_arrays(np.asarray(strength, float) ** 2, np.asarray(coefficients, float))
    return (dimension - power.size) / np.asarray(unlabelled, float) * (beta**2 / (power * (1 + power))).sum()


def residual_variance(noise: float, strength: ArrayLike, coefficients: ArrayLike) -> float:
    """Of the label given the input: noise² + sum of beta_k²/(1 + l_k). Derived here."""
    power, beta = np.broadcast_arrays(np.asarray(strength, float) ** 2, np.asarray(coefficients, float))
    return float(noise**2 + (beta**2 / (1 + power)).sum())


def least_squares_excess(labelled: ArrayLike, features: float, variance: Any) -> Any:
    """variance features/(labelled - features - 1): of ordinary least squares on Gaussian features; inf below that.

    >>> round(float(least_squares_excess(150, 100, 0.45)), 3)
    0.918
    """
    labelled = np.asarray(labelled, float)
    left = labelled - features - 1
    return np.where(left > 0, variance * features / np.where(left > 0, left, 1.0), np.inf)


def pretrained_excess(labelled: ArrayLike, factors: int, error: ArrayLike, variance: float) -> Any:
    """eps_m + (variance + eps_m) r/(n - r - 1): a floor from the unlabelled data, and r parameters to fit. Derived here."""
    error = np.asarray(error, float)
    return error + least_squares_excess(labelled, factors, variance + error)


def crossing(unlabelled: ArrayLike, dimension: int, factors: int, strength: float, noise: float) -> Any:
    """Labelled samples at which least squares on all inputs catches up with pretrained factors, all of one strength.

    Where `pretrained_excess` equals `least_squares_excess`: about variance d/eps_m, of the order of m l (1 + l).
    Derived here.

    >>> n = float(crossing(1000, 100, 5, 2.0, 0.5))
    >>> bool(abs(pretrained_excess(n, 5, representation_error(1000, 100, [2.0] * 5, [5**-0.5] * 5), 0.45)
    ...      / least_squares_excess(n, 100, 0.45) - 1) < 1e-9)
    True
    """
    equal = np.full(factors, factors**-0.5)
    error = representation_error(unlabelled, dimension, [strength] * factors, equal)
    s = residual_variance(noise, [strength] * factors, equal)
    # error + (s + error) r/(n - r - 1) = s d/(n - d - 1), a quadratic in n with one root above d + 1.
    p, q = factors + 1.0, dimension + 1.0
    b = error * (-p - q) + (s + error) * factors - s * dimension
    c = error * p * q - (s + error) * factors * q + s * dimension * p
    return (-b + np.sqrt(b**2 - 4 * error * c)) / (2 * error)


def hellinger(first: Float[np.ndarray, "row row"], second: Float[np.ndarray, "row row"]) -> float:
    """The Hellinger distance of N(0, first) and N(0, second): sqrt(1 - det^1/4 det^1/4/det((first + second)/2)^1/2).

    >>> hellinger(np.eye(2), np.eye(2))
    0.0
    """
    logs = [np.linalg.slogdet(c)[1] for c in (first, second, (first + second) / 2)]
    return float(np.sqrt(max(0.0, -np.expm1((logs[0] + logs[1]) / 4 - logs[2] / 2))))


def informativeness(loadings: Float[np.ndarray, "input factor"], other: Float[np.ndarray, "input factor"]) -> float:
    """kappa of a pair: Hellinger distance of (x, z) over that of x alone, at the rotation of z that brings them nearest.

    For x = B z + N(0, I) with B `loadings` or `other`. Large where x tells little about z: what unsupervised
    learning finds then may be far from what it should. Of the two halves of all orthogonal matrices, a search from the
    Procrustes rotation in each. Source: Ge et al. (2023), the definition; Hellinger form derived here.
    """
    from scipy.linalg import expm  # these load slowly
    from scipy.optimize import minimize

    size, factors = loadings.shape

    def joint(b: np.ndarray) -> np.ndarray:
        return np.block([[np.eye(size) + b @ b.T, b], [b.T, np.eye(factors)]])

    u, _, vt = np.linalg.svd(other.T @ loadings)
    mirror = np.diag([*[1.0] * (factors - 1), -1.0])
    places = np.triu_indices(factors, 1)

    def turned(start: np.ndarray, angles: np.ndarray) -> np.ndarray:
        skew = np.zeros((factors, factors))
        skew[places] = angles
        return start @ expm(skew - skew.T)

    truth, found = joint(loadings), []
    for start in (u @ vt, u @ mirror @ vt):
        away = lambda angles, s=start: hellinger(truth, joint(other @ turned(s, angles))) ** 2
        found.append(minimize(away, np.zeros(len(places[0]))).fun if factors > 1 else away(np.zeros(0)))
    apart = hellinger(truth[:size, :size], np.eye(size) + other @ other.T)
    return float(np.sqrt(min(found))) / apart if apart > 0 else float("nan")


def typical_informativeness(
    dimension: int, factors: int, strength: float, change: float, draws: int = 10, seed: int = 0
) -> float:
    """Mean `informativeness` of loadings of equal `strength` under Gaussian changes of Frobenius norm `change`.

    Raises `InvalidValue` for no draws or no change.
    """
    require_between("the number of draws", draws, 1)
    require_between("the change", change, 0.0, open_low=True)
    draw = np.random.default_rng(seed)
    loadings = strength * np.linalg.qr(draw.normal(size=(dimension, factors)))[0]
    moves = draw.normal(size=(draws, dimension, factors))
    moves *= change / np.linalg.norm(moves, axis=(1, 2), keepdims=True)
    return float(np.mean([informativeness(loadings, loadings + move) for move in moves]))


@theory
class FactorRegression(Theory):
    """Excess risk of regression on pretrained factors, or on all inputs, of a factor model."""

    name = "factor regression"
    source = "setting of Ge et al. (2023), arXiv:2303.01566; first order in 1/m derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, rule = experiment.task, experiment.rule
        yield kind("a factor model", task, FactorModel)
        yield kind("a learner that is solved", rule, Solved)
        if not isinstance(task, FactorModel) or not isinstance(rule, Solved):
            return
        yield kind("pretrained factors or least squares", rule.solver, PrincipalFactors, LeastSquares)
        yield limit("labels that depend on the factors alone", "their part outside", float(task.outside), 0.0)
        n, d, r = float(task.labelled), task.dimension, task.factors
        if isinstance(rule.solver, LeastSquares):
            yield limit("no ridge penalty", "the penalty", float(rule.solver.penalty), 0.0)
            yield Check(n > d + 1, "more labelled samples than inputs", f"there are {n:g} (more than {d + 1})")
        if isinstance(rule.solver, PrincipalFactors):
            found = rule.solver.factors
            yield Check(found == r, "as many factors as there are", f"{found} are fitted of {r}")
            yield Check(n > r + 1, "more labelled samples than factors", f"there are {n:g} (more than {r + 1})")
            enough = float(task.unlabelled) * float(task.strength) ** 2 / d
            given = f"samples times strength² over inputs are {enough:.3g} (at least {FEWEST_UNLABELLED:g})"
            yield Check(enough >= FEWEST_UNLABELLED, "many unlabelled samples", given)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, solver = experiment.task, experiment.rule.solver
        beta = np.full(task.factors, task.factors**-0.5)
        strength = np.full(task.factors, float(task.strength))
        variance = residual_variance(float(task.noise), strength, beta)
        if isinstance(solver, PrincipalFactors):
            error = representation_error(float(task.unlabelled), task.dimension, strength, beta)
            risk = pretrained_excess(float(task.labelled), task.factors, error, variance)
        else:
            risk = least_squares_excess(float(task.labelled), task.dimension, variance)
        said = ("time", [float(risk)], {"units": "1", "long_name": "excess risk"})
        return xr.Dataset({"excess_risk": said}, coords={"time": experiment.times})
