"""Lazy training of wide networks: the whole course in closed form, from the model's own kernels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from armillary.experiment import Experiment
from armillary.models.convolutional import ConvolutionalNet
from armillary.models.mlp import MLP
from armillary.once import drawn
from armillary.probes.losses import NetworkOutputs
from armillary.rules import Descent, FullBatch, GradientFlow
from armillary.rules.optimisers import SGD
from armillary.tasks.data import Samples
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import squared_error
from armillary.theory.kernels.of_model import kernel
from armillary.theory.kernels.training import largest_stable_rate, trained_ensemble
from armillary.trajectory import Trajectory, numbered

NARROWEST = 1.0
"""Samples over width up to which a network counts as wide: its kernel then moves by some per cent (our limit)."""

MOST_SAMPLES = 4000
"""Training samples up to which the theory answers by itself: it takes the eigenvalues of their Gram matrix."""


@theory
class WideNetwork(Theory):
    """Squared error of a wide network in the NTK parametrisation: mean and variance over initial weights at every time."""

    name = "wide networks, tangent kernel"
    source = "Jacot, Gabriel & Hongler (2018), arXiv:1806.07572; Lee et al. (2019), arXiv:1902.06720"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        model, rule = experiment.model, experiment.rule
        yield kind("a network whose kernel is known", model, MLP, ConvolutionalNet)
        yield kind("gradient descent or flow", rule, Descent, GradientFlow)
        if not isinstance(model, MLP | ConvolutionalNet) or not isinstance(rule, Descent | GradientFlow):
            return
        lazy = model.parametrisation == "ntk"
        yield Check(
            lazy,
            "the NTK parametrisation",
            f"this is {model.parametrisation!r}, whose kernel moves or grows with width",
        )
        yield squared_error(experiment)
        if isinstance(rule, Descent):
            yield kind("full batches", rule.feed, FullBatch)
            plain = (
                isinstance(rule.optimiser, SGD) and not rule.optimiser.weight_decay and rule.optimiser.schedule is None
            )
            what = f"the optimiser is {type(rule.optimiser).__name__}, or has decay or a schedule"
            yield Check(plain, "gradient descent, with or without momentum", what)
        if not lazy:
            return  # data are drawn only for what may be answered
        data, other = (drawn(experiment.task, seed) for seed in (0, 1))
        if not isinstance(data.train, Samples):
            yield Check(False, "a finite set of training samples", f"this is a {type(data.train).__name__}")
            return
        same = np.array_equal(data.train.inputs, other.train.inputs) and np.array_equal(
            data.train.targets, other.train.targets
        )
        yield Check(same, "one data set for all seeds", "this task draws another for each")
        few = data.train.count <= MOST_SAMPLES
        yield Check(
            few, f"at most {MOST_SAMPLES} samples", f"there are {data.train.count}; use theory.kernels.trained_ensemble"
        )
        wide = model.width if isinstance(model, MLP) else model.channels
        yield limit("a wide network", "samples over width", data.train.count / wide, NARROWEST)
        if few and isinstance(rule, Descent) and isinstance(rule.optimiser, SGD):
            top = np.linalg.eigvalsh(kernel(model).ntk(_inputs(data.train)))[-1:]
            most = largest_stable_rate(top * _slower(rule, data.train), float(rule.optimiser.momentum or 0.0))
            rate = float(rule.optimiser.learning_rate) / most
            yield limit("a stable learning rate", "the learning rate over the largest stable one", rate, 1.0)

    def predict(self, experiment: Experiment) -> Trajectory:
        data, rule = drawn(experiment.task), experiment.rule
        how: dict[str, Any] = {"rule": "flow"}
        if isinstance(rule, Descent) and isinstance(rule.optimiser, SGD):
            momentum = float(rule.optimiser.momentum or 0.0)
            how = {"rule": "momentum" if momentum else "descent", "momentum": momentum}
            how["learning_rate"] = float(rule.optimiser.learning_rate)
        test = data.test if isinstance(data.test, Samples) else data.train[:1]
        y = np.asarray(data.train.targets, float).reshape(data.train.count, -1)
        per_sample = rule.loss.reduction == "mean"
        said = trained_ensemble(
            kernel(experiment.model),
            _inputs(data.train),
            y,
            _inputs(test),
            experiment.times,
            per_sample=per_sample,
            **how,
        )
        found: dict[str, Any] = {}
        shown = next((probe.samples for probe in experiment.probes if isinstance(probe, NetworkOutputs)), 64)
        for name, samples, dim in (("train", data.train, "sample"), ("test", data.test, "test_sample")):
            if not isinstance(samples, Samples):
                continue
            targets = np.asarray(samples.targets, float).reshape(samples.count, -1)
            mean, variance = said[f"{name}_mean"].values, said[f"{name}_variance"].values
            each = 0.5 * (((mean - targets) ** 2).sum(-1) + targets.shape[1] * variance)
            where = "training" if name == "train" else "test"
            loss = each.mean(1) if per_sample else each.sum(1)
            found[f"{name}_loss"] = ("time", loss, {"units": "1", "long_name": f"{where} loss"})
            labels = {"units": "1", "long_name": f"output on {where} inputs"}
            found[f"{name}_outputs"] = (("time", dim, "output"), mean[:, :shown], labels)
            labels = {"units": "1", "long_name": f"variance over initial weights of the output on {where} inputs"}
            found[f"{name}_outputs_variance"] = (("time", dim), variance[:, :shown], labels)
        found["kernel_drift"] = (
            "time",
            np.zeros(len(experiment.times)),
            {"units": "1", "long_name": "relative change of the kernel"},
        )
        return numbered(xr.Dataset(found, coords={"time": experiment.times}))


def _inputs(samples: Samples) -> np.ndarray:
    return np.asarray(samples.inputs, float)


def _slower(rule: Descent, samples: Samples) -> float:
    """What the loss's reduction divides the kernel by."""
    return 1 / samples.count if rule.loss.reduction == "mean" else 1.0
