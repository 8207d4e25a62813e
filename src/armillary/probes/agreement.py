"""How often two classifiers decide alike, and how well each output is fitted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from armillary.compiled import form_of
from armillary.errors import InvalidValue, ProbeError
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.rules.solved import Solver
from armillary.tasks.data import Samples


class Agreement(Probe):
    """How often the network decides as reference classifiers do, on the test inputs.

    The references are `solver.fit` of each of the `models`, by name, on the same training samples (`KernelVote` of a
    `distance_kernel` or a `koenigs_kernel`, `KernelRidge`; `BayesClassifier` needs no model: None). A decision is the sign of the
    first output, +1 for 0 (the tie rule). Returns for each `NAME_agreement`, the share of test inputs, and `NAME_balanced_agreement`,
    the mean of that share over the reference's two decisions (over one, where it makes only one): chance is 1/2 in it even
    where classes are not balanced. Scalars in [0, 1]. Cost: one fit of each reference, one pass of each and of the network over
    the test inputs. Raises `ProbeError` without test samples, `InvalidValue` for a solver without `fit` or no models.
    """

    solver: Any
    models: dict[str, Any]

    def __check_init__(self):
        if not isinstance(self.solver, Solver):
            raise InvalidValue(
                f"the solver is a {type(self.solver).__name__}, but must have fit(task, data, network, key)"
            )
        if not isinstance(self.models, dict) or not self.models:
            raise InvalidValue(f"models is {self.models!r}, but must be {{name: model}}, of one model at least")

    def __call__(self, now: Snapshot) -> Observation:
        test = _tests(now, self)
        own = decisions(now.network, test.inputs)

        def shares(model: Any) -> tuple[Any, Any]:
            reference = self.solver.fit(now.task, now.data, model, jax.random.key(0))
            alike = own == (said := decisions(reference, test.inputs))
            parts = [(jnp.sum(alike & (said == side)), jnp.sum(said == side)) for side in (-1.0, 1.0)]
            hits = sum(hit / jnp.maximum(count, 1) for hit, count in parts)
            kinds = sum((count > 0).astype(test.inputs.dtype) for _, count in parts)
            return jnp.mean(alike, dtype=test.inputs.dtype), hits / kinds

        seen = {}
        for name, (plain, balanced) in zip(self.models, _of_each(shares, list(self.models.values())), strict=True):
            words = f"agreement with {name.replace('_', ' ')}"
            seen[f"{name}_agreement"] = Quantity(plain, long_name=words)
            seen[f"{name}_balanced_agreement"] = Quantity(balanced, long_name=f"balanced {words}")
        return seen


def _of_each(function: Callable[[Any], tuple[Any, Any]], models: list[Any]) -> list[tuple[Any, Any]]:
    """What a function says of each model; models that differ in numbers alone share one program."""
    as_jax = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
    (form, *forms), leaves = zip(*(form_of(jax.tree.map(as_jax, model)) for model in models), strict=True)
    if len(models) == 1 or not leaves[0] or any(other != form for other in forms):
        return [function(model) for model in models]
    stacked = [jnp.stack(each) for each in zip(*leaves, strict=True)]
    found = lax.map(lambda each: function(*form.whole(each)), stacked)
    return list(zip(*found, strict=True))


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
