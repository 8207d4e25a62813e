"""Losses and accuracy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from armillary.errors import ProbeError, require_between
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity


def data_of(now: Snapshot, probe: Probe) -> Any:
    """The snapshot's data, or an error that says who wanted them."""
    if now.data is None:
        raise ProbeError(f"{type(probe).__name__} needs data; pass data=(inputs, targets)")
    return now.data


class Losses(Probe):
    """The rule's own loss on the training samples and, where there are any, on the test samples.

    Returns `train_loss` and `test_loss`, scalars, in the loss's reduction (mean or sum over samples).
    Raises `ProbeError` without data. Cost: one pass over all samples.
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        seen = {"train_loss": Quantity(now.loss(now.network, data.train), long_name="training loss")}
        if data.test is not None:
            seen["test_loss"] = Quantity(now.loss(now.network, data.test), long_name="test loss")
        return seen


class Accuracy(Probe):
    """The share of samples whose class is right, on the training and the test samples.

    The class is the largest output, or the output's sign where there is one output; targets are class
    numbers, one-hot vectors or ±1. Returns `train_accuracy` and `test_accuracy`, scalars in [0, 1].
    Raises `ProbeError` without data.
    """

    foreign = True

    def __call__(self, now: Snapshot) -> Observation:
        data = data_of(now, self)
        seen = {}
        for name in ("train", "test"):
            samples = getattr(data, name)
            if samples is not None:
                label = f"{'training' if name == 'train' else 'test'} accuracy"
                seen[f"{name}_accuracy"] = Quantity(accuracy(now.network, samples), long_name=label)
        return seen


def accuracy(network: Any, samples: Any) -> jax.Array:
    """The share of `samples` that the network puts in the right class."""
    if getattr(network, "foreign", False):
        outputs, targets = network.predictions(samples)
    else:
        outputs, targets = jax.vmap(network)(samples.inputs), samples.targets
    if outputs.shape[-1] == 1:
        return jnp.mean(jnp.sign(outputs) == jnp.sign(targets.reshape(outputs.shape)))
    classes = targets if jnp.issubdtype(targets.dtype, jnp.integer) else jnp.argmax(targets, axis=-1)
    return jnp.mean(jnp.argmax(outputs, axis=-1) == classes)


class NetworkOutputs(Probe):
    """What the network says of the first `samples` training and test inputs.

    Returns `train_outputs` and `test_outputs`, float[sample, output] and float[test_sample, output]. Raises `ProbeError`
    without data. Cost: one pass over those samples.
    """

    samples: int = eqx.field(static=True, default=64)
    foreign = True

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)

    def __call__(self, now: Snapshot) -> Observation:
        data, seen = data_of(now, self), {}
        for name, dim in (("train", "sample"), ("test", "test_sample")):
            samples = getattr(data, name)
            if samples is not None:
                if getattr(now.network, "foreign", False):
                    values = now.network.predictions(samples.first(self.samples))[0]
                else:
                    values = jax.vmap(now.network)(samples.inputs[: self.samples])
                label = f"output on {'training' if name == 'train' else 'test'} inputs"
                seen[f"{name}_outputs"] = Quantity(values.reshape(len(values), -1), (dim, "output"), long_name=label)
        return seen
