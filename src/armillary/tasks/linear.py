"""Linear tasks: a linear teacher with noise, and regression given by its correlations alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.settings import derived, floats
from armillary.tasks.data import Data, Samples, Task


class LinearTeacher(Task):
    """Targets of a random linear teacher with label noise.

    Inputs are Gaussian with covariance diag(spectrum)/inputs (all ones unless given, so that a sample has
    unit norm on average), the teacher's entries N(0, signal²), the noise N(0, noise²):
    y = W x + e. High-dimensional limits keep samples/inputs fixed (Advani & Saxe 2017).

    Fields that can be swept in one program: `signal`, `noise`. Raises `InvalidValue` for a negative
    noise or signal, no samples, or a spectrum that is not a non-negative vector of length `inputs`.

    >>> LinearTeacher(dimension=4, samples=8).draw(jax.random.key(0)).train.inputs.shape
    (8, 4)
    """

    dimension: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    signal: float = 1.0
    noise: float = 0.0
    outputs: int = eqx.field(static=True, default=1)
    test_samples: int = eqx.field(static=True, default=0)
    spectrum: tuple[float, ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        require_between("the number of inputs (dimension)", self.dimension, 1)
        require_between("the number of samples", self.samples, 1)
        require_between("signal", self.signal, 0.0)
        require_between("noise", self.noise, 0.0)
        if self.spectrum is not None:
            require_between("the input spectrum", self.spectrum, 0.0)
            if len(self.spectrum) != self.dimension:
                raise InvalidValue(
                    f"the input spectrum has {len(self.spectrum)} entries, but must have one for each of the "
                    f"{self.dimension} inputs"
                )

    @property
    def inputs(self) -> int:
        return self.dimension

    @property
    def input_covariance(self) -> Float[np.ndarray, "input input"]:
        """The population covariance of the inputs."""
        spectrum = np.ones(self.dimension) if self.spectrum is None else np.asarray(self.spectrum)
        return np.diag(spectrum / self.dimension)

    def draw(self, key: PRNGKeyArray) -> Data:
        key_teacher, key_train, key_test = jax.random.split(key, 3)
        teacher = self.signal * jax.random.normal(key_teacher, (self.outputs, self.dimension))
        data = Data(self._samples(teacher, key_train, self.samples), None, teacher)
        if self.test_samples:
            data = Data(data.train, self._samples(teacher, key_test, self.test_samples), teacher)
        return data

    def sample(self, data: Data, key: PRNGKeyArray, count: int) -> Samples:
        return self._samples(data.teacher, key, count)

    def _samples(self, teacher: Array, key: PRNGKeyArray, count: int) -> Samples:
        key_inputs, key_noise = jax.random.split(key)
        scale = np.sqrt(np.diag(self.input_covariance)).astype(np.float32 if teacher.dtype == jnp.float32 else float)
        inputs = jax.random.normal(key_inputs, (count, self.dimension)) * scale
        noise = self.noise * jax.random.normal(key_noise, (count, self.outputs))
        return Samples(inputs, inputs @ teacher.T + noise)


class Correlations(Task):
    """Linear regression known by its correlations: inputs S11 = E[x xᵀ] and input-output S31 = E[y xᵀ].

    A linear network under the squared error sees nothing else of its data. The task therefore draws as many
    pseudo-samples as there are inputs, with exactly these correlations (mean over samples); training on
    them is training on the full data, and the loss is the gap to the linear optimum: the error that
    no linear map can remove is left out. Source: Saxe et al. (2013)

    `solution` is the optimal linear map S31 S11⁻¹. Raises `InvalidValue` if S11 is not symmetric positive definite or the shapes do not match.

    >>> task = Correlations(jnp.eye(2), jnp.array([[3.0, 0.0]]))
    >>> data = task.draw(jax.random.key(0)).train
    >>> bool(jnp.allclose(data.targets.T @ data.inputs / data.count, task.input_output_correlation))
    True
    """

    input_correlation: Float[Array, "input input"]
    input_output_correlation: Float[Array, "output input"]
    solution: Float[Array, "output input"] = derived()
    samples: Samples = derived()

    def __init__(self, input_correlation: ArrayLike, input_output_correlation: ArrayLike):
        self.input_correlation = floats(input_correlation)
        self.input_output_correlation = floats(input_output_correlation)
        inputs, cross = (np.asarray(c, dtype=float) for c in (input_correlation, input_output_correlation))
        self._check(inputs, cross)
        solution = np.linalg.solve(inputs, cross.T).T
        # The Cholesky factor's rows are inputs with the right correlation; the optimum gives their targets.
        rows = np.sqrt(len(inputs)) * np.linalg.cholesky(inputs).T
        self.solution = floats(solution)
        self.samples = Samples(floats(rows), floats(rows @ solution.T))

    @staticmethod
    def _check(inputs: np.ndarray, cross: np.ndarray) -> None:
        if inputs.ndim != 2 or inputs.shape[0] != inputs.shape[1] or cross.shape[1:] != inputs.shape[:1]:
            raise InvalidValue(
                f"the input correlation is {inputs.shape} and the input-output correlation {cross.shape}, but must "
                "be (inputs, inputs) and (outputs, inputs)"
            )
        smallest = np.linalg.eigvalsh((inputs + inputs.T) / 2)[0]
        if not np.allclose(inputs, inputs.T, atol=1e-5) or smallest <= 0:
            raise InvalidValue(
                f"the input correlation must be symmetric and positive definite, but its smallest eigenvalue is "
                f"{smallest:.3g}; drop the input directions without data"
            )

    @classmethod
    def of(cls, samples: Samples) -> "Correlations":
        """The correlations of real `samples` (class numbers become one-hot vectors)."""
        inputs, targets = np.asarray(samples.inputs), np.asarray(samples.targets)
        if np.issubdtype(targets.dtype, np.integer):
            targets = np.eye(targets.max() + 1)[targets]
        return cls(inputs.T @ inputs / len(inputs), targets.T @ inputs / len(inputs))

    @property
    def inputs(self) -> int:
        return self.input_correlation.shape[0]

    @property
    def outputs(self) -> int:
        return self.input_output_correlation.shape[0]

    def draw(self, key: PRNGKeyArray) -> Data:
        return Data(self.samples, None, self.solution)
