"""Ridge regression and minimum-norm interpolation, in closed form."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
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

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return (self.smoother(x[None]) @ self.targets)[0]


class KernelRidge(eqx.Module):
    """Kernel ridge regression: k(x) (K + penalty I)⁻¹ y; at penalty 0 the interpolator of least norm.

    That is where gradient descent from 0 ends. Where K is singular, eigenvalues below `cut` times the largest are left
    out. The model is a `Kernel`, or draws one; the fitted network is a `KernelSmoother`. `penalty` can be swept in
    one program. Cost: samples³. Raises `InvalidValue` for a negative penalty or a network that is no kernel.
    """

    penalty: float = 0.0
    cut: float = eqx.field(static=True, default=1e-10)

    def __check_init__(self):
        require_between("the penalty", self.penalty, 0.0)
        require_between("the cut", self.cut, 0.0, 0.1)

    def fit(self, task: Task, data: Data, network: Any, key: PRNGKeyArray) -> KernelSmoother:
        if not isinstance(network, Kernel):
            raise InvalidValue(
                f"KernelRidge needs a kernel (LinearKernel, TangentKernel, FiniteWidth), not a {type(network).__name__}"
            )
        inputs = data.train.inputs
        gram = network(inputs, inputs)
        inverse = pseudo_inverse(gram + self.penalty * jnp.eye(len(gram)), self.cut)
        return KernelSmoother(network, inputs, inverse, data.train.targets)
