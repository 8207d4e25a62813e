"""Two linear layers under a disturbed gradient flow: scalar closure, gain, and all equilibria.

Loss ½|S - W2 W1|² with white unit inputs. With one input and one output the target is s = |S| > 0 (a negative one
exchanges the halves), p = (k1 + k2)/sqrt(2), q = (k1 - k2)/sqrt(2), and e = s - (|p|² - |q|²)/2 is the error:
dp/dt = e p + u_p, dq/dt = -e q + u_q.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.experiment import Experiment
from armillary.models import Decoupled, DeepLinear
from armillary.rules.disturbed_flow import DisturbedFlow, Opposing, Trapping
from armillary.tasks import Correlations
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.trajectory import Trajectory


def saddle_flow(
    time: Float[np.ndarray, " time"], target: float, growing: float, decaying: float, amplitude: float = 0.0,
    against: Literal["all", "growth"] = "all",
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:  # fmt: skip
    """(|p|, |q|) at `time` from (`growing`, `decaying`): the exact closure, without and with an adversary.

    The adversary cancels the velocity as far as `amplitude` goes: of all weights (`against="all"`), or of p alone
    (`"growth"`). Both act along p and q, so their norms close. Source: derived here.

    >>> p, q = saddle_flow(np.array([0.0, 20.0]), 2.0, growing=0.1, decaying=1.0)
    >>> round(float(p[1]**2 - q[1]**2) / 2, 6), round(float(p[1] * q[1]), 6)
    (2.0, 0.1)
    """
    from scipy.integrate import solve_ivp  # loads slowly

    def velocity(_: float, norms: np.ndarray) -> np.ndarray:
        p, q = norms
        error = target - (p**2 - q**2) / 2
        free = np.array([error * p, -error * q])
        size = np.hypot(*free) if against == "all" else abs(free[0])
        kept = max(0.0, 1.0 - amplitude / size) if size > 0 else 1.0
        return free * (kept if against == "all" else np.array([kept, 1.0]))

    time = np.asarray(time, float)
    found = solve_ivp(velocity, (0.0, float(time[-1])), [growing, decaying], "DOP853", time, rtol=1e-9, atol=1e-14)
    return found.y[0], found.y[1]


def critical_amplitude(target: float) -> float:
    """The largest disturbance that cannot hold a network near its saddle: (2 s/3)^(3/2), for a target of size s.

    The pull e |p| towards the target, along q = 0, is nowhere between the start and it stronger than this; below
    it the region e < 2 s/3 is never left. In units of weights over time. Source: derived here.

    >>> round(critical_amplitude(2.0), 4)
    1.5396
    """
    require_between("the target's size", abs(target), 0.0, open_low=True)
    return (2 * abs(target) / 3) ** 1.5


def error_bound(amplitude: float, target: float, *, linear: bool = False) -> float:
    """Where the error ends under any disturbance of at most `amplitude`: the smallest e with e sqrt(2 (s - e)) = u.

    Along a trajectory d|e|/dt <= -|z|² |e| + |z| u, and |z|² >= 2 k1.k2 = 2 (s - e), so |e| ends below u/|z|. Holds
    for starts with e < 2 s/3, or that get there; inf above `critical_amplitude`. `linear` gives u/sqrt(2 s), its limit
    for small u: the gain. The loss then ends below u²/(4 s). Source: derived here.

    >>> round(error_bound(0.1, 2.0), 4), error_bound(0.1, 2.0, linear=True)
    (0.0506, 0.05)
    """
    require_between("amplitude", amplitude, 0.0)
    size = abs(target)
    if linear:
        return float(amplitude / np.sqrt(2 * size))
    if amplitude > critical_amplitude(size):
        return float("inf")
    # e²(s - e) = u²/2 has two roots in [0, s]; the polynomial rises up to 2 s/3, so the smaller is below it.
    low, high = 0.0, 2 * size / 3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * np.sqrt(2 * (size - middle)) < amplitude else (low, middle)
    return high


@dataclass(frozen=True)
class Equilibrium:
    """Where two linear layers rest: the modes they keep, the loss there, and the Hessian's eigenvalues, ascending."""

    kept: tuple[int, ...]
    loss: float
    eigenvalues: np.ndarray

    @property
    def is_strict_saddle(self) -> bool:
        """Whether the loss falls in some direction to second order."""
        return bool(self.eigenvalues[0] < 0)


def equilibria(
    strengths: Sequence[float], width: int, *, inputs: int | None = None, outputs: int | None = None
) -> list[Equilibrium]:
    """The balanced equilibria of ½|S - W2 W1|² with unused hidden directions at 0: truncated SVDs of S.

    `strengths` are S's min(inputs, outputs) singular values, distinct. Every subset of at most `width` modes is one
    (the full set is the target set); kept modes are split evenly over the layers. The Hessian's eigenvalues, with i
    kept, j missing: s_i ± s_j; ±s_j for each unused hidden direction; s_i + s_i' and 0 for each ordered pair of
    kept ones; s_i for inputs or outputs without a mode; else 0. Source: derived here.

    >>> [e.kept for e in equilibria((3.0, 1.0), width=1)], equilibria((3.0, 1.0), width=1)[1].is_strict_saddle
    ([(), (0,), (1,)], False)
    """
    s = np.asarray(strengths, float)
    inputs, outputs = inputs or len(s), outputs or len(s)
    if min(inputs, outputs) != len(s) or width < 1:
        raise InvalidValue(
            f"{len(s)} strengths, {inputs} inputs, {outputs} outputs and width {width}; give min(inputs, outputs) "
            "strengths and a width of at least 1"
        )
    extra = inputs + outputs - 2 * len(s)
    found = []
    for size in range(min(width, len(s)) + 1):
        for kept in itertools.combinations(range(len(s)), size):
            mine, missing = s[list(kept)], np.delete(s, list(kept))
            mixed = [mine[:, None] + missing, mine[:, None] - missing, mine[:, None] + mine]
            free = np.repeat(missing, width - size)
            values = np.concatenate([*(m.ravel() for m in mixed), np.repeat(mine, extra), free, -free])
            values = np.pad(values, (0, width * (inputs + outputs) - len(values)))
            found.append(Equilibrium(kept, 0.5 * float((missing**2).sum()), np.sort(values)))
    return found


@theory
class DisturbedScalarFlow(Theory):
    """Loss, product and norms of two linear layers with one input and one output, under an adversary or none."""

    name = "disturbed scalar flow"
    source = "after de Oliveira, Siami & Sontag (2023), arXiv:2305.09904; closure derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("gradient flow with a disturbance", rule, DisturbedFlow)
        yield kind("a task known by its correlations", task, Correlations)
        yield kind("a deep linear network", model, DeepLinear)
        known = isinstance(rule, DisturbedFlow) and isinstance(task, Correlations) and isinstance(model, DeepLinear)
        if not known:
            return
        yield limit("one input and one output", "the larger of their numbers", max(task.inputs, task.outputs), 1)
        if task.inputs == task.outputs == 1:
            away = abs(float(task.input_correlation[0, 0]) - 1)
            yield limit("inputs of unit variance", "the variance's distance from 1", away, 1e-6)
            target = float(task.input_output_correlation[0, 0])
            yield Check(target != 0, "a target other than 0", f"the target is {target:g}")
            negative = isinstance(rule.disturbance, Trapping) and (float(rule.disturbance.sign) * target < 0)
            yield Check(not negative, "an adversary of the target's sign", "Trapping.sign is the other one")
        yield limit("two layers", "the distance of the depth from 2", abs(model.depth - 2), 0)
        yield Check(not model.rate_by_depth, "a learning rate of 1", "the model divides it by depth")
        yield kind("decoupled initial weights", model.initialisation, Decoupled)
        yield squared_error(experiment)
        if not isinstance(rule.disturbance, Opposing | Trapping):
            needed = "an adversary, or no disturbance"
            yield limit(needed, f"the amplitude of {type(rule.disturbance).__name__}", float(rule.amplitude), 0.0)

    def predict(self, experiment: Experiment) -> Trajectory:
        task, initial, rule = experiment.task, experiment.model.initialisation, experiment.rule
        target = abs(float(task.input_output_correlation[0, 0]))
        u0, b = float(initial.strength), float(initial.imbalance)
        against = "growth" if isinstance(rule.disturbance, Trapping) else "all"
        # Decoupled weights lie along one hidden direction, sqrt(u0) b and sqrt(u0)/b, on the target's side. Their
        # balance is measured, not assumed: an initial target of the other sign starts on the other side.
        side = np.sign(float(task.input_output_correlation[0, 0]) * float(initial.target[0, 0]))
        growing, decaying = (float(np.sqrt(u0 / 2) * abs(b + half / b)) for half in (side, -side))
        p, q = saddle_flow(experiment.times, target, growing, decaying, float(rule.amplitude), against)
        error = target - (p**2 - q**2) / 2
        said = {
            "train_loss": 0.5 * error**2, "target_error": error, "growing_norm": p, "decaying_norm": q,
            "weight_size": np.hypot(p, q),
        }  # fmt: skip
        variables = {name: ("time", values, {"units": "1"}) for name, values in said.items()}
        return xr.Dataset(variables, coords={"time": experiment.times})
