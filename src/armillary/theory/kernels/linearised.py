"""Lazy training of one network: what descent makes of it if its tangent kernel stays what it is at the start."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray, PyTree

from armillary.errors import InvalidValue
from armillary.experiment import Experiment
from armillary.models.model import draw_network
from armillary.once import once
from armillary.rules import SGD, Descent, FullBatch, GradientFlow
from armillary.tangents.empirical import empirical_kernel
from armillary.tasks.data import Samples
from armillary.theory.kernels.training import Rule, relaxation, stable_modes
from armillary.trajectory import numbered


def lazy_outputs(
    gram: Float[np.ndarray, "sample sample"],
    cross: Float[np.ndarray, "test_sample sample"],
    targets: Float[np.ndarray, "sample output"],
    start: Float[np.ndarray, "sample output"],
    test_start: Float[np.ndarray, "test_sample output"],
    times: Sequence[float] | np.ndarray,
    *,
    rule: Rule = "flow",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
) -> xr.Dataset:
    """Outputs under the squared error ½ sum (f - y)² from outputs that are known at the start, with a kernel that stays.

    `gram` and `cross` are tangent kernels of the training inputs and of test inputs with them, the same for each output.
    Each eigenvector of the Gram matrix relaxes alone; directions that it does not see stay. Returns `train_outputs` [time,
    sample, output], `test_outputs` [time, test_sample, output] and `eigenvalues` [mode], the largest first, in float64.
    Raises `InvalidValue` for a rate at which descent diverges. Source: Jacot et al. (2018); Lee et al. (2019)

    >>> said = lazy_outputs(np.eye(1), np.eye(1), np.ones((1, 1)), np.zeros((1, 1)), np.full((1, 1), 0.5), [0.0, np.inf])
    >>> print(said.test_outputs.values.ravel())
    [0.5 1.5]
    """
    values, vectors = stable_modes(gram, rule, learning_rate, momentum)
    course = relaxation(values, times, rule, learning_rate, momentum)
    gain = np.where((values > 0) | np.isfinite(course.gain), course.gain, 0.0)
    pull = vectors.T @ (np.asarray(targets, float) - start)  # [mode, output]
    pull[values == 0] = 0.0
    gain[:, values == 0] = 0.0
    found = {}
    for name, dim, first, seen in (
        ("train", "sample", start, vectors * values),
        ("test", "test_sample", test_start, np.asarray(cross, float) @ vectors),
    ):
        outputs = np.stack([first + seen @ (one[:, None] * pull) for one in gain])
        where = "training" if name == "train" else "test"
        labels = {"units": "1", "long_name": f"lazy output on {where} inputs"}
        found[f"{name}_outputs"] = (("time", dim, "output"), outputs, labels)
    labels = {"units": "1", "long_name": "eigenvalues of the tangent kernel"}
    found["eigenvalues"] = (("mode",), values[::-1], labels)
    return numbered(xr.Dataset(found, coords={"time": np.asarray(times, float)}))


def linearised_training(
    network: PyTree,
    inputs: Any,
    targets: Any,
    test_inputs: Any,
    times: Sequence[float] | np.ndarray,
    *,
    rule: Rule = "flow",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    per_sample: bool = False,
    own_metric: bool = True,
) -> xr.Dataset:
    """The course of a network linearised in its weights at where they are now: the lazy prediction for this very network.

    - `network`: any equinox module that maps one input to its outputs. `inputs` [sample, ...], `targets` [sample, output],
      `test_inputs` [test_sample, ...].
    - `rule`: "flow" (times are flow times; inf for the end), "descent" or "momentum" (times are steps).
    - `per_sample`: the loss is the mean over samples, so that all is slower by their number.
    - `own_metric`: whether each weight counts with its layer's learning rate.

    Returns `train_outputs`, `test_outputs` [time, (test_)sample, output] and `eigenvalues` [mode]. Outputs share weights, so
    the kernel of all pairs of outputs is taken: its side is samples times outputs. Raises `InvalidValue` for shapes that do
    not fit, and as `lazy_outputs` and `empirical_kernel`. Source: Lee et al. (2019)

    >>> network = eqx.nn.Linear(2, 1, key=jax.random.key(0))  # is linear in its weights, so that it says all
    >>> said = linearised_training(network, np.eye(2), np.ones((2, 1)), np.eye(2), [np.inf])
    >>> bool(np.allclose(said.test_outputs, 1.0))
    True
    """
    x, tests, y = np.asarray(inputs), np.asarray(test_inputs), np.asarray(targets, float)
    if not len(x) or y.ndim != 2 or len(y) != len(x):
        raise InvalidValue(
            f"there are {len(x)} inputs and targets of shape {y.shape}; give one row of targets for each"
        )
    gram = empirical_kernel(network, x, outputs="full", own_metric=own_metric)
    cross = empirical_kernel(network, tests, x, outputs="full", own_metric=own_metric)
    size, count = gram.shape[0] * gram.shape[1], gram.shape[1]
    if y.shape[1] != count:
        raise InvalidValue(f"targets have {y.shape[1]} columns, and the network {count} outputs; these must agree")
    start, test_start = (_outputs(network, points).reshape(-1, 1) for points in (x, tests))
    said = lazy_outputs(
        gram.reshape(size, size), cross.reshape(-1, size), y.reshape(-1, 1), start, test_start, times,
        rule=rule, learning_rate=learning_rate / (len(x) if per_sample else 1), momentum=momentum,
    )  # fmt: skip
    rows = {
        name: (("time", dim, "output"), said[name].values.reshape(len(said.time), -1, count), said[name].attrs)
        for name, dim in (("train_outputs", "sample"), ("test_outputs", "test_sample"))
    }
    return numbered(xr.Dataset({**rows, "eigenvalues": said.eigenvalues}, coords={"time": said.time.values}))


def _outputs(network: PyTree, inputs: np.ndarray) -> np.ndarray:
    """The network's outputs, in the precision of its weights."""
    dtype = np.result_type(*[leaf.dtype for leaf in jax.tree.leaves(network) if eqx.is_inexact_array(leaf)])
    with jax.enable_x64(dtype == np.float64):
        return np.asarray(jax.vmap(network)(inputs.astype(dtype)), float)


def _drawn(task: Any, model: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
    """Data and network, as `Experiment.draw` draws them."""
    key_data, key_network = jax.random.split(key)
    return task.draw(key_data), draw_network(model, key_network, task.inputs, task.outputs)


def lazy_course(experiment: Experiment, key: PRNGKeyArray | None = None) -> xr.Dataset:
    """The losses of an experiment's network if it stayed lazy, beside those that it will have, on the experiment's own clock.

    Full-batch descent (with or without momentum) or gradient flow on the squared error. `key` draws data and network (None:
    key 0, which is as good as any where a numbered problem and a fixed network leave nothing to draw).

    Returns `train_loss` and `test_loss` [time], and `end_train_loss` and `end_test_loss`, scalars: those of kernel regression,
    which the course would end at, however late. Raises `InvalidValue` for other rules and for data that are no samples, and as
    `linearised_training`.

    >>> import armillary as arm
    >>> from armillary.tasks.single_index import QuadraticSingleIndex
    >>> task = QuadraticSingleIndex(4, samples=8, test_samples=5, problem=0)
    >>> model = arm.models.MLP(8, parametrisation="ntk")
    >>> lazy_course(arm.Experiment(task, model, arm.rules.Descent(steps=10), observe=arm.At((0, 10)))).train_loss.dims
    ('time',)
    """
    rule = experiment.rule
    steps = isinstance(rule, Descent)
    plain = (
        steps and isinstance(rule.optimiser, SGD) and not rule.optimiser.weight_decay and not rule.optimiser.schedule
    )
    known = (plain and isinstance(rule.feed, FullBatch)) or isinstance(rule, GradientFlow)
    if not known or rule.loss.kind != "squared_error" or rule.loss.reduction == "log_mean":
        raise InvalidValue(
            "the lazy course is known for full-batch SGD at a constant rate, and gradient flow, on the squared error; "
            f"this is {type(rule).__name__} by {type(getattr(rule, 'optimiser', rule)).__name__} on {rule.loss.kind}"
        )
    with jax.enable_x64(experiment.precision == "float64"):
        parts = (experiment.task, experiment.model)
        numbers = jax.tree.map(jnp.asarray, eqx.filter(parts, eqx.is_inexact_array_like))  # one program for all of them
        data, network = once(_drawn, *eqx.combine(numbers, parts), jax.random.key(0) if key is None else key)
    if not isinstance(data.train, Samples) or not isinstance(data.test, Samples):
        raise InvalidValue(
            "the lazy course needs training and test samples; this task has a population (set test_samples)"
        )
    samples = (data.train.inputs, data.train.targets, data.test.inputs)
    per_sample = rule.loss.reduction == "mean"
    optimiser: Any = getattr(rule, "optimiser", None)
    momentum = float(optimiser.momentum or 0.0) if steps else 0.0
    how: dict[str, Any] = {"rule": ("momentum" if momentum else "descent") if steps else "flow", "momentum": momentum}
    how["learning_rate"] = float(optimiser.learning_rate) if steps else 1.0
    course = linearised_training(network, *samples, experiment.times, per_sample=per_sample, **how)
    end = linearised_training(network, *samples, [np.inf], per_sample=per_sample)
    found = {}
    for name, part in (("train", data.train), ("test", data.test)):
        for prefix, said in (("", course), ("end_", end)):
            wrong = said[f"{name}_outputs"].values - np.asarray(part.targets, float)
            share = wrong.shape[1] if per_sample else 1
            loss = (wrong**2).sum(axis=(1, 2)) / (2 * share)
            labels = {"units": "1", "long_name": f"lazy {'training' if name == 'train' else 'test'} loss"}
            found[f"{prefix}{name}_loss"] = ((), loss[0], labels) if prefix else ("time", loss, labels)
    return xr.Dataset(found, coords={"time": experiment.times})
