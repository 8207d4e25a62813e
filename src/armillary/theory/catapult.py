"""The catapult, solved: two linear layers on one sample, whose descent closes in the output and the curvature.

With layers u (into the hidden units) and v (out of them), f = x v·u and the loss ½ (f - y)², the tangent kernel
lambda = x² (|u|² + |v|²) and f obey two equations. In the form f = v·u/sqrt(n) of Lewkowycz et al. (2020) the same hold
with lambda = (|u|² + |v|²)/n: what they call 1/n is `coupling` here, x² without the factor. A vector x counts by its length.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import require_between
from armillary.experiment import Experiment
from armillary.models.two_layer_linear import Prepared, TwoLayerLinear, WidthScaled
from armillary.rules import SGD, Descent, FullBatch
from armillary.tasks import Correlations
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.trajectory import Trajectory

Numbers = Any
Phase = Literal["lazy", "catapult", "diverging"]

SMALLEST_LOSS = 1e-30
"""Loss at which scheduled courses stop: rates of c/lambda overflow where the curvature has vanished."""


class Course(NamedTuple):
    """Output, curvature (tangent kernel) and learning rate at steps 0 to `steps`, [time, ...]."""

    output: Float[np.ndarray, "time ..."]
    curvature: Float[np.ndarray, "time ..."]
    rate: Float[np.ndarray, "time ..."]

    def loss(self, target: float = 0.0) -> Float[np.ndarray, "time ..."]:
        """½ (f - y)²."""
        with np.errstate(over="ignore"):  # a diverging run's
            return (self.output - target) ** 2 / 2

    def sharpness(self, coupling: Numbers, target: float = 0.0) -> Float[np.ndarray, "time ..."]:
        """The Hessian's largest eigenvalue; see `sharpness`."""
        return sharpness(self.output, self.curvature, coupling, target)


def step(output: Numbers, curvature: Numbers, rate: Numbers, coupling: Numbers, target: float = 0.0) -> tuple[Any, Any]:
    """Output and curvature one step of gradient descent later; exact at any width.

    With e = f - y: f' = f - rate lambda e + rate² coupling e² f and lambda' = lambda + rate coupling e (rate lambda e
    - 4 f). Source: Lewkowycz et al. (2020) for y = 0; any target derived here.

    >>> f, curvature = step(1.0, 2.0, 1.5, 0.01)
    >>> print(round(f, 6), round(curvature, 6))
    -1.9775 1.985
    """
    e = output - target
    after = output - rate * curvature * e + rate**2 * coupling * e**2 * output
    return after, curvature + rate * coupling * e * (rate * curvature * e - 4 * output)


def course(
    output: Numbers, curvature: Numbers, rate: Numbers, coupling: Numbers, steps: int, target: float = 0.0
) -> Course:
    """`step` again and again at one learning rate. Arguments broadcast; what diverges becomes inf, then nan."""
    require_between("the number of steps", steps, 0)
    require_between("coupling", coupling, 0.0)
    state = np.broadcast_arrays(*(np.asarray(a, float) for a in (output, curvature, rate, coupling)))
    f, curvature, rate, coupling = state
    seen = [(f, curvature)]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            seen.append(step(*seen[-1], rate, coupling, target))
    outputs, curvatures = (np.stack(part) for part in zip(*seen, strict=True))
    return Course(outputs, curvatures, np.broadcast_to(rate, outputs.shape))


def scheduled_course(output: Numbers, curvature: Numbers, constant: Numbers, coupling: Numbers, steps: int) -> Course:
    """Target 0, and the rate `constant`/lambda at every step: between 2 and 4 a catapult for ever, that converges.

    It stops (keeps its values) where the loss has fallen to `SMALLEST_LOSS`. See `scheduled_shrinkage` for its law.
    """
    require_between("the schedule's constant", constant, 0.0)
    state = np.broadcast_arrays(*(np.asarray(a, float) for a in (output, curvature, constant, coupling)))
    f, curvature, constant, coupling = state
    seen = [(f, curvature, constant / curvature)]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            f, curvature, rate = seen[-1]
            gone = f**2 / 2 < SMALLEST_LOSS
            after = step(f, curvature, rate, coupling)
            f, curvature = (np.where(gone, old, new) for old, new in zip((f, curvature), after, strict=True))
            seen.append((f, curvature, constant / curvature))
    return Course(*(np.stack(part) for part in zip(*seen, strict=True)))


def sharpness(output: Numbers, curvature: Numbers, coupling: Numbers, target: float = 0.0) -> Numbers:
    """The largest eigenvalue of the loss's Hessian: lambda/2 + sqrt(lambda²/4 + 2 s e f + s e²), s the coupling, e = f - y.

    At least |e| sqrt(s), that of the other hidden directions (with more than one hidden unit). It is lambda where the
    error is 0; lambda is the Gauss-Newton matrix's everywhere. Derived here.

    >>> print(round(float(sharpness(0.0, 2.0, 0.01)), 6))
    2.0
    """
    e = output - target
    inside = np.maximum(curvature**2 / 4 + coupling * e * (2 * output + e), 0.0)
    return np.maximum(curvature / 2 + np.sqrt(inside), np.abs(e) * np.sqrt(coupling))


def catapult_phase(rate: float, curvature: float) -> Phase:
    """What wide networks do at a learning rate, from the curvature at the start: rate times it below 2 the loss falls
    ("lazy"); up to 4 it first rises, to the order of the width, and ends where the curvature is below 2/rate
    ("catapult"); above it diverges. Source: Lewkowycz et al. (2020)

    >>> catapult_phase(1.5, 2.0)
    'catapult'
    """
    require_between("the learning rate", rate, 0.0)
    size = rate * curvature
    return "lazy" if size < 2 else "catapult" if size < 4 else "diverging"


def final_sharpness_bound(rate: Numbers) -> Numbers:
    """Where a run at one rate can rest, sharpness is at most 2/rate: the catapult ends below."""
    return 2 / np.asarray(rate, float)


def scheduled_shrinkage(constant: Numbers) -> Numbers:
    """The factor a step, on average over many, by which the curvature falls at the rate constant/lambda, 2 < constant < 4:
    (constant/4)². The loss falls by its square, so that the run stays in the catapult and converges.

    Along the schedule z = 2 sqrt(coupling) f/lambda, in [-1, 1], runs a map of its own (`scheduled_map`) whose invariant law
    is the arcsine law. nan outside (2, 4), where z rests or the run ends. Derived here.

    >>> print(scheduled_shrinkage(3.0))
    0.5625
    """
    constant = np.asarray(constant, float)
    return np.where((constant > 2) & (constant < 4), (constant / 4) ** 2, np.nan)


def scheduled_map(z: Numbers, constant: Numbers) -> tuple[Any, Any]:
    """One scheduled step of z = 2 sqrt(coupling) f/lambda, and lambda'/lambda = 1 - z² c (4 - c)/4. Derived here.

    >>> after, ratio = scheduled_map(1.0, 3.0)
    >>> print(after, ratio)
    1.0 0.25
    """
    ratio = 1 - z**2 * constant * (4 - constant) / 4
    return z * (1 - constant + constant**2 * z**2 / 4) / ratio, ratio


def arcsine_density(z: Numbers) -> Numbers:
    """The invariant density of `scheduled_map` for 2 < c < 4: 1/(pi sqrt(1 - z²)) on (-1, 1), 0 outside. Derived here."""
    z = np.asarray(z, float)
    inside = np.abs(z) < 1
    return np.where(inside, 1 / (np.pi * np.sqrt(np.where(inside, 1 - z**2, 1.0))), 0.0)


SMALLEST_WIDTH = 100
"""Hidden units from which the curvature of random weights is near its mean (to some 10 %)."""


@theory
class SolvableCatapult(Theory):
    """Loss, sharpness and curvature of two linear layers on one sample by plain descent, at any learning rate.

    From a `Prepared` start it is exact for every draw. From a `WidthScaled` one it is the course from the mean
    curvature and the root mean square output; single draws rise earlier or later by how large their own output is.
    """

    name = "solvable catapult"
    source = "Lewkowycz et al. (2020), arXiv:2003.02218"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model, rule = experiment.task, experiment.model, experiment.rule
        yield kind("one sample (Correlations of one input)", task, Correlations)
        yield kind("two linear layers (TwoLayerLinear)", model, TwoLayerLinear)
        yield kind("gradient descent", rule, Descent)
        if not isinstance(task, Correlations) or not isinstance(model, TwoLayerLinear) or not isinstance(rule, Descent):
            return
        sizes = f"there are {task.inputs} inputs and {task.outputs} outputs"
        yield Check(task.inputs == task.outputs == 1, "one input and one output", sizes)
        yield kind("a prepared or random start", model.start, Prepared, WidthScaled)
        if isinstance(model.start, WidthScaled):
            wide = f"there are {model.width} (at least {SMALLEST_WIDTH})"
            yield Check(model.width >= SMALLEST_WIDTH, "many hidden units", wide)
            if task.inputs == task.outputs == 1:
                target = float(task.samples.targets[0, 0])
                yield limit("a target of 0, if the start is random", "its size", abs(target), 0.0)
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        given = f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule"
        yield Check(plain, "plain gradient descent", given)
        yield kind("full batches", rule.feed, FullBatch)
        yield squared_error(experiment)

    def predict(self, experiment: Experiment) -> Trajectory:
        model, sample = experiment.model, experiment.task.samples
        x, y = float(sample.inputs[0, 0]), float(sample.targets[0, 0])
        steps = experiment.times.astype(int)
        if isinstance(model.start, Prepared):
            output, curvature = float(model.start.output) * x, float(model.start.curvature) * x**2
        else:
            variance = model.width ** (-2 * float(model.start.exponent))
            output, curvature = abs(x) * np.sqrt(model.width) * variance, 2 * x**2 * model.width * variance
        rate = float(experiment.rule.optimiser.learning_rate)
        whole = course(output, curvature, rate, x**2, int(steps[-1]), y)
        seen = Course(*(part[steps] for part in whole))
        healthy = np.isfinite(seen.output) & np.isfinite(seen.curvature)
        label = lambda values, unit, name: (
            "time",
            np.where(healthy, values, np.nan),
            {"units": unit, "long_name": name},
        )
        with np.errstate(over="ignore", invalid="ignore"):
            said = {
                "train_loss": label(seen.loss(y), "1", "training loss"),
                "sharpness": label(seen.sharpness(x**2, y), "1/rate", "largest eigenvalue"),
                "gauss_newton_sharpness": label(seen.curvature, "1/rate", "largest eigenvalue"),
            }
        return xr.Dataset(said, coords={"time": experiment.times})
