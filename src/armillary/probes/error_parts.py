"""What the test error of a quadratic function is made of, and the moments of the weights behind it."""

import jax.numpy as jnp

from armillary.errors import ProbeError
from armillary.models.mean_readout import MeanReadoutNetwork, QuadraticForm
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.tasks.single_index import SingleIndexPopulation


class ErrorParts(Probe):
    """The exact mean squared test error of a quadratic function of Gaussian inputs, in three parts that add up to it.

    Returns `variance_error`, (tr Q)²/D²; `misalignment_error`, 2 |Q|²/D²; `linear_error`, |a|²/D, with a and Q the errors
    of the linear and quadratic coefficients in D inputs; and `population_error`, their sum (twice the loss). Raises
    `ProbeError` for networks that are no quadratic form, and tasks other than a `QuadraticSingleIndex`. Cost: units x
    inputs². Source: Kumar, Bordelon, Gershman & Pehlevan (2023); derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        truth = data_of(now, self).teacher
        if not isinstance(truth, SingleIndexPopulation):
            raise ProbeError("ErrorParts needs a task with a quadratic target, such as QuadraticSingleIndex")
        if not isinstance(getattr(now.network, "form", None), QuadraticForm):
            raise ProbeError(f"ErrorParts needs a network with a quadratic form, not a {type(now.network).__name__}")
        variance, misalignment, linear = truth.errors(now.network)
        return {
            "variance_error": Quantity(variance, long_name="error by a wrong variance"),
            "misalignment_error": Quantity(misalignment, long_name="error by misaligned weights"),
            "linear_error": Quantity(linear, long_name="error by linear power"),
            "population_error": Quantity(variance + misalignment + linear, long_name="mean squared test error"),
        }


class WeightMoments(Probe):
    """The mean of the units' weights and their second moment: all that training a mean read-out depends on.

    Returns `mean_weights`, float[input], `second_moment`, float[input, other], and `weight_growth`, the norm of all weights
    over that at the start. Raises `ProbeError` for other networks. Cost: units x inputs².
    Source: derived here.
    """

    def __call__(self, now: Snapshot) -> Observation:
        network = now.network
        if not isinstance(network, MeanReadoutNetwork):
            raise ProbeError(f"WeightMoments needs a mean read-out (MeanReadout), not a {type(network).__name__}")
        growth = jnp.linalg.norm(network.weights) / jnp.linalg.norm(network.start.value)
        return {
            "mean_weights": Quantity(network.mean, "input", long_name="mean weights of the units"),
            "second_moment": Quantity(network.second, ("input", "other"), long_name="second moment of the weights"),
            "weight_growth": Quantity(growth, long_name="norm of the weights over that at the start"),
        }
