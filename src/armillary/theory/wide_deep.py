"""Interpolation with the kernel of very deep and wide networks: it decides as a classical classifier does."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from armillary.experiment import Experiment
from armillary.models.activations import Activation, Hermite
from armillary.models.radial_kernel import RadialKernel
from armillary.probes.agreement import Agreement
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.rules.votes import KernelVote
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.kernels.depth import DeepKernel, Series, logarithms
from armillary.theory.kernels.taxonomies import limit_kernel, taxonomy
from armillary.trajectory import Trajectory, numbered

CLOSE = 0.05
"""Relative distance of the kernel from its limit's shape up to which the depth counts as infinite (our limit)."""

DIAGONAL = 0.1
"""Samples times an off-diagonal entry over a diagonal one up to which interpolation is a vote (our limit)."""


@theory
class WideDeepLimit(Theory):
    """Agreement of a deep kernel's classifier with the one to which it tends: 1."""

    name = "wide and deep classifiers"
    source = "Radhakrishnan, Belkin & Uhler (2022), arXiv:2204.14126"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        model, rule = experiment.model, experiment.rule
        yield kind("a kernel of deep networks", model, DeepKernel)
        yield kind("a fit in closed form", rule, Solved)
        if not isinstance(model, DeepKernel) or not isinstance(rule, Solved):
            return
        yield kind("interpolation or a vote", rule.solver, KernelRidge, KernelVote)
        found = taxonomy(activation_of(model))
        three = found.kind in ("nearest neighbour", "majority", "singular kernel")
        yield Check(
            three,
            "an activation of one of three classes",
            f"its class is {found.kind!r}: g'(1) is {found.slope:.3g} (above 1)",
        )
        if not three:
            return
        away, share = shape_distance(model)
        yield limit(
            "a depth at which the kernel has the shape of its limit", "the relative distance from it", away, CLOSE
        )
        if isinstance(rule.solver, KernelRidge):
            yield limit(
                "a nearly diagonal Gram matrix",
                "samples times its entry at cosine 0.9",
                experiment.task.samples * share,
                DIAGONAL,
            )
        yield Check(
            bool(_references(experiment)), "an Agreement with the limit's classifier among the probes", "there is none"
        )

    def predict(self, experiment: Experiment) -> Trajectory:
        ones, words = np.ones(len(experiment.times)), "agreement with the limit's classifier"
        found = {f"{name}_{which}": ("time", ones, {"units": "1", "long_name": words})
                 for name in _references(experiment) for which in ("agreement", "balanced_agreement")}  # fmt: skip
        return numbered(xr.Dataset(found, coords={"time": experiment.times}))


def activation_of(kernel: DeepKernel) -> str | Activation:
    """An activation of a deep kernel's dual: Hermite coefficients that are not negative, or the one that it was given."""
    if not isinstance(kernel.phi, Series):
        return kernel.phi.activation
    return Hermite(tuple(np.sqrt(np.asarray(kernel.phi.weights)).tolist()))


def shape_distance(kernel: DeepKernel) -> tuple[float, float]:
    """How far a deep kernel's ratio of its values at cosines 0.5 and 0.9 is from its limit's, relative to that (0 for the
    nearest neighbour: it is then the ratio itself); and its value at 0.9 over that at 1."""
    seen = [[1.0, 0.0]], [[0.5, 0.75**0.5], [0.9, 0.19**0.5], [1.0, 0.0]]
    plain = DeepKernel(kernel.phi, float(kernel.depth), float(kernel.tangent))
    low, high, own = logarithms(plain, *seen)[0][0]
    limits = logarithms(limit_kernel(activation_of(kernel)), *seen)[0][0]
    ratio, share = float(np.exp(low - high)), float(np.exp(high - own))
    said = float(np.exp(limits[0] - limits[1]))
    return (abs(ratio / said - 1) if said > 1e-6 else ratio), share


def _references(experiment: Experiment) -> list[str]:
    """Names of what is compared with and is the limit's classifier: a vote by its kernel, up to a factor."""
    wanted = limit_kernel(activation_of(experiment.model)).sizes
    return [
        name
        for probe in experiment.probes
        if isinstance(probe, Agreement) and isinstance(probe.solver, KernelVote)
        for name, model in probe.models.items()
        if isinstance(model, RadialKernel) and np.ptp(np.asarray(model.sizes)[:-1] - np.asarray(wanted)[:-1]) < 1e-6
    ]
