"""Ridge regression and minimum-norm interpolation, in closed form."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.ensemble import EnsembleNetwork
from armillary.models.features import FeaturesKernel
from armillary.models.tangent_kernel import Kernel
from armillary.tasks.data import Data, Task


def pseudo_inverse(matrix: Float[Array, "row row"], cut: float = 1e-10) -> Float[Array, "row row"]:
    """The inverse of a positive semi-definite matrix on its eigenvalues above `cut` times the largest, 0 on the others.

    Single precision cannot tell eigenvalues apart below about 1e-7 times the size: the cut is then that.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    cut = max(cut, float(jnp.finfo(matrix.dtype).eps) * len(matrix))
    keep = values > cut * values[-1]
    return (vectors * jnp.where(keep, 1 / jnp.where(keep, values, 1.0), 0.0)) @ vectors.T


class KernelSmoother(eqx.Module):
    """A fitted kernel machine x -> k(x, centres) inverse targets: what it says is linear in the `targets`."""

    kernel: Kernel
    centres: Float[Array, "sample input"]
    inverse: Float[Array, "sample sample"]
    targets: Float[Array, "sample output"]

    def smoother(self, inputs: Float[Array, "point input"]) -> Float[Array, "point sample"]:
        """The weight of each training target in each point's prediction."""
        return self.kernel(inputs, self.centres) @ self.inverse

    def label_gradients(self, point: Float[Array, " input"]) -> Float[Array, "input sample"]:
        """The gradient in the point of each training target's weight in its prediction: interaction matrix times inverse."""
        return self.kernel.gradients(point, self.centres) @ self.inverse

    def input_jacobian(self, point: Float[Array, " input"]) -> Float[Array, "output input"]:
        """Derivatives of the prediction in the point; kernels that loop over neurons have none by reverse mode."""
        return (self.label_gradients(point) @ self.targets).T

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return (self.smoother(x[None]) @ self.targets)[0]


class KernelRidge(eqx.Module):
    """Kernel ridge regression: k(x) (K + penalty I)⁻¹ y; at penalty 0 the interpolator of least norm.

    That is where gradient descent from 0 ends. Where K is singular, eigenvalues below `cut` times the largest are left
    out; `definite` says that the penalty leaves none, and K + penalty I is then inverted by Cholesky, some ten times
    sooner. The model is a `Kernel`, or draws one; a network with `features` (`RandomFeatures`) stands for their
    `FeaturesKernel`; of an `Ensemble` of them each member is fitted alone. The fitted network is a `KernelSmoother`, or an
    ensemble of them. `penalty` can be swept in one program. Cost: samples³. Raises `InvalidValue` for a negative penalty
    or a network that is no kernel.
    """

    penalty: float = 0.0
    cut: float = eqx.field(static=True, default=1e-10)
    definite: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the penalty", self.penalty, 0.0)
        require_between("the cut", self.cut, 0.0, 0.1)

    def fit(self, task: Task, data: Data, network: Any, key: PRNGKeyArray) -> KernelSmoother | EnsembleNetwork:
        if isinstance(network, EnsembleNetwork):
            return self._each(task, data, network, key)
        if hasattr(network, "features"):
            network = FeaturesKernel(network)
        if not isinstance(network, Kernel):
            raise InvalidValue(
                f"KernelRidge needs a kernel (LinearKernel, TangentKernel, FiniteWidth), not a {type(network).__name__}"
            )
        inputs = data.train.inputs
        gram = network(inputs, inputs)
        gram = gram + self.penalty * jnp.eye(len(gram), dtype=gram.dtype)
        inverse = _inverse(gram) if self.definite else pseudo_inverse(gram, self.cut)
        return KernelSmoother(network, inputs, inverse, data.train.targets)

    def _each(self, task: Task, data: Data, network: EnsembleNetwork, key: PRNGKeyArray) -> EnsembleNetwork:
        """Members one after another: a kernel may loop over neurons, which is best not done for several at once."""
        arrays, static = eqx.partition(network.stack, eqx.is_array)
        constant: list[Any] = []

        def alone(one: Any) -> Any:
            fitted, rest = eqx.partition(self.fit(task, data, eqx.combine(one, static), key), eqx.is_array)
            constant[:] = [rest]
            return fitted

        return EnsembleNetwork(eqx.combine(lax.map(alone, arrays), constant[0]), network.count)


def _inverse(matrix: Float[Array, "row row"]) -> Float[Array, "row row"]:
    """The inverse of a positive definite matrix; nan where it is not."""
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(matrix), dtype=matrix.dtype))
