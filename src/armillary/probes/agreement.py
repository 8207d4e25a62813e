"""How often two classifiers decide alike, and how well each output is fitted."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import InvalidValue, ProbeError
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.rules.solved import Solver
from armillary.tasks.data import Samples


class Agreement(Probe):
    """How often the network decides as a reference classifier does, on the test inputs.

    The reference is `solver.fit` of `model` on the same training samples (`KernelVote` of a `distance_kernel` or a
    `koenigs_kernel`, `KernelRidge`, `BayesClassifier`). A decision is the sign of the first output, +1 for 0 (the tie rule). Returns
    `NAME_agreement`, the share of test inputs, and `NAME_balanced_agreement`, the mean of that share over the reference's two
    decisions (over one, where it makes only one): chance is 1/2 in it even where classes are not balanced. Scalars in [0, 1].
    Cost: one fit of the reference, one pass of each over the test inputs. Raises `ProbeError` without test samples, `InvalidValue`
    for a solver without `fit`.
    """

    name: str = eqx.field(static=True)
    solver: Any
    model: Any = None

    def __check_init__(self):
        if not isinstance(self.solver, Solver):
            raise InvalidValue(
                f"the solver is a {type(self.solver).__name__}, but must have fit(task, data, network, key)"
            )

    def __call__(self, now: Snapshot) -> Observation:
        test = _tests(now, self)
        reference = self.solver.fit(now.task, now.data, self.model, jax.random.key(0))
        alike = decisions(now.network, test.inputs) == (said := decisions(reference, test.inputs))
        parts = [(jnp.sum(alike & (said == side)), jnp.sum(said == side)) for side in (-1.0, 1.0)]
        shares = sum(hit / jnp.maximum(count, 1) for hit, count in parts)
        kinds = sum((count > 0).astype(test.inputs.dtype) for _, count in parts)
        words = f"agreement with {self.name.replace('_', ' ')}"
        return {
            f"{self.name}_agreement": Quantity(jnp.mean(alike, dtype=test.inputs.dtype), long_name=words),
            f"{self.name}_balanced_agreement": Quantity(shares / kinds, long_name=f"balanced {words}"),
        }


class TestFit(Probe):
    """How well the test targets are fitted, output by output.

    Returns `r_squared` [output], 1 - squared error over the targets' variance; `sign_accuracy` [output], the share of test inputs
    with the right sign; `root_mean_square` [output] of the predictions. Cost: one pass over the test inputs. Raises `ProbeError`
    without test samples.
    """

    __test__ = False  # no test of pytest's

    def __call__(self, now: Snapshot) -> Observation:
        test = _tests(now, self)
        said, targets = jax.vmap(now.network)(test.inputs), test.targets.reshape(test.count, -1)
        wrong = jnp.mean((said - targets) ** 2, axis=0)
        right = jnp.mean(_side(said) == _side(targets), axis=0, dtype=said.dtype)
        return {
            "r_squared": Quantity(
                1 - wrong / jnp.var(targets, axis=0), ("output",), long_name="share of variance explained"
            ),
            "sign_accuracy": Quantity(right, ("output",), long_name="accuracy of the sign"),
            "root_mean_square": Quantity(
                jnp.sqrt(jnp.mean(said**2, axis=0)), ("output",), long_name="size of predictions"
            ),
        }


def decisions(network: Any, inputs: Float[Array, "sample input"]) -> Float[Array, " sample"]:
    """The sign of a network's first output for each input, ±1; 0 counts as +1."""
    return _side(jax.vmap(network)(inputs).reshape(len(inputs), -1)[:, 0])


def _side(values: Array) -> Array:
    return jnp.where(values < 0, -1.0, 1.0).astype(values.dtype)


def _tests(now: Snapshot, probe: Probe) -> Samples:
    test = data_of(now, probe).test
    if not isinstance(test, Samples):
        raise ProbeError(f"{type(probe).__name__} looks at test samples, and this task has none")
    return test
