"""Samples, and what a task draws."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Integer, PRNGKeyArray


class Samples(eqx.Module):
    """Inputs and their targets: `inputs[sample, ...]`, `targets[sample, ...]` (or class numbers)."""

    inputs: Float[Array, "sample ..."]
    targets: Float[Array, "sample ..."] | Integer[Array, "sample ..."]

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.inputs.shape[0]

    def __getitem__(self, index: Any) -> "Samples":
        """The samples at `index` (an index array, a slice or a mask)."""
        return Samples(self.inputs[index], self.targets[index])


class Data(eqx.Module):
    """One draw of a task: what is trained on, what is tested on, and the truth where it is known.

    `teacher` is whatever made the targets (a matrix, a network), without the noise.
    """

    train: Samples
    test: Samples | None = None
    teacher: Any = None


class Task(eqx.Module):
    """What is learned. A task draws `Data`; those with an endless supply also draw fresh `Samples`.

    A subclass gives `inputs` and `outputs` (sizes of one sample's input and of the network's output),
    `draw(key)`, and `sample(data, key, count)` where fresh samples can be had. Numbers that may be swept in
    one compiled program (noise, scale) are plain float fields; what changes shapes is a static field.
    """

    def draw(self, key: PRNGKeyArray) -> Data:
        """The data of one member of a run."""
        raise NotImplementedError

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        """`count` fresh samples of the same source as `data`, for one-pass online learning."""
        raise NotImplementedError
