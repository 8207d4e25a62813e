"""The time of a theory: gradient flow, and descent in steps small enough to follow it."""

from collections.abc import Iterator

import numpy as np

from armillary.experiment import Experiment
from armillary.rules import SGD, Descent, FullBatch, GradientFlow, LinearFlow
from armillary.theory.assumptions import Check, kind, limit

LARGEST_STEP = 0.1
"""Learning rate times curvature up to which plain descent follows the flow to about 5 %."""


def flow_checks(experiment: Experiment, curvature: float) -> Iterator[Check]:
    """That the rule is gradient flow, or full-batch gradient descent with a small step.

    `curvature` is the largest curvature that the run meets (for the loss as the rule reduces it).
    """
    rule = experiment.rule
    yield kind("gradient flow or descent", rule, GradientFlow, LinearFlow, Descent)
    if not isinstance(rule, GradientFlow | LinearFlow | Descent):
        return
    yield squared_error(experiment)
    if isinstance(rule, Descent):
        plain = isinstance(rule.optimiser, SGD) and rule.optimiser.plain
        yield Check(
            plain,
            "plain gradient descent",
            f"the optimiser is {type(rule.optimiser).__name__}, or has momentum, decay or a schedule",
        )
        yield kind("full batches", rule.feed, FullBatch)
        if isinstance(rule.optimiser, SGD):
            step = float(rule.optimiser.learning_rate) * curvature
            yield limit("small steps", "learning rate times largest curvature", step, LARGEST_STEP)


def squared_error(experiment: Experiment) -> Check:
    """That the loss is the squared error itself, not its logarithm."""
    loss = experiment.rule.loss
    said = f"log of the {loss.kind}" if loss.reduction == "log_mean" else loss.kind
    return Check(said == "squared_error", "the squared error", f"the loss is {said}")


def flow_times(experiment: Experiment) -> np.ndarray:
    """The experiment's observation times in flow time: steps count `learning_rate` each."""
    rule = experiment.rule
    rate = getattr(rule.optimiser, "learning_rate", np.nan) if isinstance(rule, Descent) else 1.0
    return experiment.times * float(rate)
