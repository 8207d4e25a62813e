"""Your own samples as a task."""

import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue
from armillary.settings import floats
from armillary.tasks.data import Data, Samples, Task


class GivenSamples(Task):
    """Samples that are given, the same in every draw: inputs [sample, input] and targets [sample] or [sample, output], and
    those to test on, if any.

    Raises `InvalidValue` for shapes that do not fit, and for numbers that are not finite.

    >>> task = GivenSamples(np.eye(3), np.array([1.0, -1.0, 1.0]))
    >>> task.inputs, task.outputs
    (3, 1)
    """

    train_inputs: Float[Array, "sample input"]
    train_targets: Float[Array, "sample output"]
    test_inputs: Float[Array, "test_sample input"] | None
    test_targets: Float[Array, "test_sample output"] | None

    def __init__(
        self, train_inputs: ArrayLike, train_targets: ArrayLike, test_inputs: ArrayLike | None = None,
        test_targets: ArrayLike | None = None,
    ):  # fmt: skip
        self.train_inputs, self.train_targets = _pair(train_inputs, train_targets, "train")
        self.test_inputs, self.test_targets = None, None
        if (test_inputs is None) != (test_targets is None):
            raise InvalidValue("test_inputs and test_targets must both be given, or neither")
        if test_inputs is not None and test_targets is not None:
            self.test_inputs, self.test_targets = _pair(test_inputs, test_targets, "test")
            if self.test_inputs.shape[1] != self.inputs or self.test_targets.shape[1] != self.outputs:
                raise InvalidValue(
                    f"test samples have {self.test_inputs.shape[1]} inputs and {self.test_targets.shape[1]} outputs, but "
                    f"training samples {self.inputs} and {self.outputs}"
                )

    @property
    def inputs(self) -> int:
        return self.train_inputs.shape[1]

    @property
    def outputs(self) -> int:
        return self.train_targets.shape[1]

    def draw(self, key: PRNGKeyArray) -> Data:
        test = None
        if self.test_inputs is not None and self.test_targets is not None:
            test = Samples(self.test_inputs, self.test_targets)
        return Data(Samples(self.train_inputs, self.train_targets), test)


def _pair(inputs: ArrayLike, targets: ArrayLike, name: str) -> tuple[Array, Array]:
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise InvalidValue(
            f"{name}_inputs are {x.shape} and {name}_targets {y.shape}, but must be [sample, input] and [sample] or "
            "[sample, output], with one sample or more"
        )
    if not np.all(np.isfinite(x)) or not np.all(np.isfinite(y)):
        raise InvalidValue(f"{name}_inputs or {name}_targets are not finite; drop or mend those samples")
    return floats(x), floats(y)
