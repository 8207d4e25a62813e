"""What theory says of state-space layers in training: end-to-end weights, modes of several channels, stacks."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.experiment import Experiment
from armillary.members import as_arrays
from armillary.models import Decoupled
from armillary.models.state_space import EqualEntries, StateSpace, StateSpaceStack
from armillary.once import drawn
from armillary.tasks.sequences import FilteredNoise
from armillary.theory.assumptions import Check, Theory, kind, limit, theory
from armillary.theory.clocks import flow_checks, flow_times
from armillary.theory.deep_linear import depth_strength, layer_strengths, mode_coupling, mode_sigmoid
from armillary.theory.state_space import Statistics, copies_weight, quadratic_loss, statistics, weight_flow
from armillary.trajectory import Trajectory, numbered

SOURCE = "Smekal et al. (2024), arXiv:2407.07279"


def problem_data(
    task: FilteredNoise, *, double: bool = True
) -> tuple[Float[np.ndarray, "sequence time input"], Float[np.ndarray, "sequence time output"]]:
    """What a run on this numbered problem sees, as NumPy arrays: inputs and targets.

    `double` is the run's precision: random numbers differ between the two.
    """
    with jax.enable_x64(double):
        train = drawn(as_arrays(task, np.float64 if double else np.float32)).train
        return np.asarray(train.inputs, float), np.asarray(train.targets, float)


def problem_statistics(experiment: Experiment) -> Statistics:
    """sigma, H and the targets' power of a numbered problem, for the poles of the experiment's model.

    One response a pole and input; one an input for a stack, whose layers' poles filter one after another.
    """
    task, model = experiment.task, experiment.model
    inputs, targets = problem_data(task, double=experiment.precision == "float64")
    stack = isinstance(model, StateSpaceStack)
    poles = [layer.poles[0] for layer in model.layers] if stack else model.poles
    periodic = model.layers[0].periodic if stack else model.periodic
    known = np.array([float(p) for p in poles])
    return statistics(inputs, targets, known, periodic=periodic, cascade=stack)


def _one_channel_problem(task: FilteredNoise) -> Iterator[Check]:
    channels = f"there are {task.inputs} and {task.outputs}"
    yield Check(task.inputs == task.outputs == 1, "one input and one output", channels)
    yield Check(task.problem is not None, "one numbered problem", "problem is None: each seed draws its own data")


def _layer_checks(model: StateSpace) -> Iterator[Check]:
    trained = f"they are trained at {model.pole_rate:g} of the learning rate"
    yield Check(model.pole_rate == 0.0, "fixed poles", trained)
    yield kind("initial weights that are all equal", model.initialisation, EqualEntries)


def _start(model: StateSpace) -> tuple[int, float, float]:
    """Copies of a pole, and the B and C at which each of them starts."""
    copies, initial = float(model.copies), model.initialisation
    assert isinstance(initial, EqualEntries)  # checked
    share = copies ** -float(model.dilution)
    return round(copies), share * float(initial.first), share * float(initial.last)


def _answer(experiment: Experiment, **values: tuple[Any, Any, str]) -> Trajectory:
    variables = {name: (dims, seen, {"units": "1", "long_name": words}) for name, (dims, seen, words) in values.items()}
    return numbered(xr.Dataset(variables, {"time": experiment.times}))


@theory
class StateSpaceFlow(Theory):
    """End-to-end weights and loss of one layer with fixed poles and one channel, from sigma and H of the data."""

    name = "state-space weights"
    source = SOURCE

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("filtered noise", task, FilteredNoise)
        yield kind("a state-space layer", model, StateSpace)
        if not isinstance(task, FilteredNoise) or not isinstance(model, StateSpace):
            return
        yield from (*_one_channel_problem(task), *_layer_checks(model))
        known = task.inputs == task.outputs == 1 and task.problem is not None
        if not known or not isinstance(model.initialisation, EqualEntries):
            return
        found = problem_statistics(experiment)
        copies, b, c = _start(model)
        ends = np.linalg.lstsq(found.response, found.target[0], rcond=None)[0]
        largest = max(np.abs(ends).max(), abs(copies * b * c))
        kernel = np.hypot(copies * (c**2 - b**2), 2 * largest) * (copies if model.tied else 1)
        yield from flow_checks(experiment, float(np.linalg.eigvalsh(found.response)[-1] * kernel))

    def predict(self, experiment: Experiment) -> Trajectory:
        model, found, time = experiment.model, problem_statistics(experiment), flow_times(experiment)
        copies, b, c = _start(model)
        if len(model.poles) == 1:
            sigma, eta = float(found.target[0, 0]), float(found.response[0, 0])
            weights = copies_weight(time, sigma, eta, copies, b, c, tied=model.tied)[:, None]
        else:
            start, imbalance = (np.full(len(model.poles), copies * v) for v in (b * c, c**2 - b**2))
            speed = copies if model.tied else 1
            weights = weight_flow(time, start, imbalance, found.target[0], found.response, speed)
        return _answer(
            experiment,
            total_weight=("time", weights.sum(axis=1), "end-to-end weight"),
            pole_weight=(("time", "pole"), weights, "end-to-end weight of a pole"),
            train_loss=("time", quadratic_loss(weights[:, None], found), "training loss"),
        )


@theory
class StateSpaceModes(Theory):
    """Mode strengths of a layer with several channels and one pole, behind whitened input, from decoupled weights."""

    name = "state-space modes"
    source = SOURCE

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("filtered noise", task, FilteredNoise)
        yield kind("a state-space layer", model, StateSpace)
        if not isinstance(task, FilteredNoise) or not isinstance(model, StateSpace):
            return
        apart = max(abs(float(p) - float(q)) for p in model.poles for q in task.poles)
        yield limit("one pole, the teacher's", "the largest distance of two poles", apart, 1e-9)
        yield Check(model.periodic == task.periodic, "the teacher's initial state", "one of the two is periodic")
        behind = task.whitened is not None and (len(task.poles) == 1 or not task.cascade)
        given = "whitened is None" if task.whitened is None else "the teacher filters by several poles"
        yield Check(behind, "a whitened filtered input", given)
        trained = f"they are trained at {model.pole_rate:g} of the learning rate"
        yield Check(model.pole_rate == 0.0, "fixed poles", trained)
        yield Check(not model.tied and model.capacity is None, "states of their own", "copies are tied or left out")
        yield kind("decoupled initial weights", model.initialisation, Decoupled)
        if not isinstance(model.initialisation, Decoupled) or not behind:
            return
        target = _target(task)
        coupling = mode_coupling(target, np.asarray(model.initialisation.target, float))
        yield limit("initial modes along the teacher's", "the largest coupling between modes", coupling, 1e-3)
        share, level = float(model.copies) ** (-2 * float(model.dilution)), float(model.initialisation.imbalance) ** 2
        start = float(model.initialisation.strength) * share * (level + 1 / level)
        eta = float(np.asarray(task.whitened))
        yield from flow_checks(experiment, eta * max(2 * float(np.linalg.norm(target, 2)), start))

    def predict(self, experiment: Experiment) -> Trajectory:
        task, model = experiment.task, experiment.model
        eta, initial = float(np.asarray(task.whitened)), model.initialisation
        s = np.linalg.svd(_target(task), compute_uv=False)
        # In eta times flow time it is a two-layer linear network whose target is the teacher's matrix.
        clock, share = flow_times(experiment) * eta, float(model.copies) ** (-2 * float(model.dilution))
        u0, imbalance = float(initial.strength) * share, float(initial.imbalance)
        if imbalance == 1.0:
            strength = mode_sigmoid(clock[:, None], s, u0)
        else:
            begin = np.outer([imbalance, 1 / imbalance], np.full(len(s), np.sqrt(u0)))
            strength = layer_strengths(clock, s, begin).prod(axis=1)
        return _answer(
            experiment,
            mode_strength=(("time", "mode"), strength, "mode strength"),
            off_diagonal=("time", np.zeros(len(clock)), "largest coupling between modes"),
            train_loss=("time", 0.5 * eta * ((strength - s) ** 2).sum(axis=1), "training loss"),
        )


@theory
class StateSpaceStackFlow(Theory):
    """End-to-end weight of layers in series, one state each: a linear network of twice as many layers."""

    name = "state-space stack"
    source = f"{SOURCE}; the law of depth is derived here"

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        task, model = experiment.task, experiment.model
        yield kind("filtered noise", task, FilteredNoise)
        yield kind("a stack of state-space layers", model, StateSpaceStack)
        if not isinstance(task, FilteredNoise) or not isinstance(model, StateSpaceStack):
            return
        yield from _one_channel_problem(task)
        yield Check(model.width == 1, "one channel between layers", f"there are {model.width}")
        states = max(len(layer.poles) * round(float(layer.copies)) for layer in model.layers)
        yield Check(states == 1, "one state in each layer", f"one of them has {states}")
        periodic = {layer.periodic for layer in model.layers}
        yield Check(len(periodic) == 1, "one kind of initial state", "some layers are periodic and some are not")
        checks = [check for layer in model.layers for check in _layer_checks(layer)]
        yield from dict.fromkeys(check for check in checks if not check.holds)
        if not all(check.holds for check in checks) or task.problem is None or task.inputs != 1 or task.outputs != 1:
            return
        found, start = problem_statistics(experiment), _factors(model)
        eta, end = float(found.response[0, 0]), abs(float(found.target[0, 0] / found.response[0, 0]))
        size = max(end ** (2 - 2 / len(start)), np.abs(start).max() ** (2 * len(start) - 2))
        yield from flow_checks(experiment, len(start) * eta * size)

    def predict(self, experiment: Experiment) -> Trajectory:
        found, start = problem_statistics(experiment), _factors(experiment.model)
        eta = float(found.response[0, 0])
        clock, s = flow_times(experiment) * eta, float(found.target[0, 0]) / eta
        if np.ptp(start) == 0 and start[0] > 0:
            weight = depth_strength(clock, s, float(start.prod()), len(start))[:, 0]
        else:
            weight = layer_strengths(clock, np.array([s]), start[:, None]).prod(axis=1)[:, 0]
        return _answer(
            experiment,
            total_weight=("time", weight, "end-to-end weight"),
            train_loss=("time", quadratic_loss(weight[:, None, None], found), "training loss"),
        )


def _target(task: FilteredNoise) -> np.ndarray:
    """The sum of the teacher's matrices, all behind one filter."""
    return np.asarray(task.weights, float).reshape(-1, task.outputs, task.inputs).sum(axis=0)


def _factors(model: StateSpaceStack) -> np.ndarray:
    """B and C of each layer in turn."""
    return np.array([value for layer in model.layers for value in _start(layer)[1:]])
