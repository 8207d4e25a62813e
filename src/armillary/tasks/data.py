"""Samples, and what a task draws."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from armillary.once import in_one_go


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


class Population(eqx.Module):
    """All samples there could be: what is trained on where the risk is known in closed form.

    A subclass holds the teacher and gives `risk(network)`, half the mean squared error over the inputs' law unless
    it says otherwise. It stands in the place of training or test samples; a `Loss` of squared errors hands over to
    it, and feeds of batches refuse it.
    """

    def risk(self, network: Any) -> Float[Array, ""]:
        """The expected loss of a network."""
        raise NotImplementedError


class Data(eqx.Module):
    """One draw of a task: what is trained on, what is tested on, and the truth where it is known.

    `train` and `test` are `Samples` or a `Population`, `test` may be None.
    `teacher` is whatever made the targets (a matrix, a network), without the noise.
    """

    train: Any
    test: Any = None
    teacher: Any = None


class Task(eqx.Module):
    """What is learned. A task draws `Data`; those with an endless supply also draw fresh `Samples`.

    A subclass gives `inputs` and `outputs` (sizes of one sample's input and of the network's output),
    `draw(key)`, and `sample(data, key, count)` where fresh samples can be had. Numbers that may be swept in
    one compiled program (noise, scale) are plain float fields; what changes shapes is a static field. Asked by itself, `draw`
    is worked out as in a run (`armillary.once.in_one_go`).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "draw" in vars(cls):
            cls.draw = cast(Any, in_one_go(cls.draw))

    def draw(self, key: PRNGKeyArray) -> Data:
        """The data of one member of a run."""
        raise NotImplementedError

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples | Population:
        """`count` fresh samples of the same source as `data` (or what so many look like), for one-pass online learning."""
        raise NotImplementedError


def problem_key(problem: Any, key: PRNGKeyArray) -> PRNGKeyArray:
    """The key of a numbered problem, the same for all seeds; `key` where `problem` is None."""
    if problem is None:
        return key
    return jax.random.fold_in(jax.random.key(0), jnp.asarray(problem).astype(jnp.uint32))
