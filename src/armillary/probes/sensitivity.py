"""How much a network's output changes with its input, and what makes it so in a fitted kernel machine."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from armillary.errors import ProbeError, require_between, unknown
from armillary.probes.losses import data_of
from armillary.probes.probing import Probe
from armillary.process import Snapshot
from armillary.quantity import Observation, Quantity
from armillary.rules.solvers import KernelSmoother
from armillary.tasks.data import Samples


class PointwiseProbe(Probe):
    """What probes of sensitivity share: the first `samples` test inputs (`on` "train": training inputs) at which they look."""

    samples: int = eqx.field(static=True, default=16)
    on: Literal["train", "test"] = eqx.field(static=True, default="test", kw_only=True)

    def __check_init__(self):
        require_between("the number of samples", self.samples, 1)
        if self.on not in ("train", "test"):
            raise unknown("part of the data", self.on, ("train", "test"))

    def points(self, now: Snapshot) -> Float[Array, "point *input"]:
        """Those inputs."""
        found = getattr(data_of(now, self), self.on)
        if not isinstance(found, Samples):
            name = "training" if self.on == "train" else "test"
            raise ProbeError(f"{type(self).__name__} needs {name} samples; give them, or look on the other ones")
        return found.inputs[: self.samples]


class InputSensitivity(PointwiseProbe):
    """Change of a network's outputs for relative changes of its input: its length times the gradient's, root mean square.

    Returns `input_sensitivity`, in the outputs' unit: what the worst change of relative size 1 would do to the output, were
    the network linear; and `input_gradient`, that of |∇f(x)| alone, in outputs per input. Gradients of several outputs, and
    of inputs that are arrays, count by their Frobenius norms. Any differentiable network does; one with `input_jacobian` (a
    fitted `KernelRidge`) says its own. Raises `ProbeError` without such samples. Cost: a backward pass for each output and
    input. Source: Bubeck & Sellke (2021); Bombari, Kiyani & Mondelli (2023), arXiv:2302.01629
    """

    def __call__(self, now: Snapshot) -> Observation:
        jacobian = getattr(now.network, "input_jacobian", None) or jax.jacrev(now.network)
        points = self.points(now)
        squares = jax.vmap(lambda x: jnp.sum(jacobian(x) ** 2))(points)
        sizes = jnp.sum(points.reshape(len(points), -1) ** 2, axis=1)
        return {
            "input_sensitivity": Quantity(jnp.sqrt(jnp.mean(sizes * squares)), long_name="sensitivity to the input"),
            "input_gradient": Quantity(jnp.sqrt(jnp.mean(squares)), long_name="gradient in the input"),
        }


class LabelSensitivity(PointwiseProbe):
    """The `InputSensitivity` of a fitted kernel, root mean square over independent labels of variance 1 that are not drawn.

    Returns `label_sensitivity`, |z| |I K⁻¹| with the interaction matrix I (gradients of the kernel between z and the training
    inputs), the kernel's matrix K and Frobenius norms; root mean square over the inputs z; dimensionless, to be multiplied by
    the labels' deviation. With `parts` also what it is made of, all in the kernel's unit: `interaction_norm`, |z| |I|, and
    `kernel_smallest`, `kernel_middle` (the median) and `kernel_largest` eigenvalue of K. Norm over largest and over smallest
    eigenvalue bound the sensitivity below and above.

    Raises `ProbeError` for a network that is no fitted kernel. Cost: the interaction matrix of each input (see
    `Kernel.gradients`); `parts` adds a kernel matrix and its eigenvalues. Derived here; the split by Bombari, Kiyani &
    Mondelli (2023), arXiv:2302.01629
    """

    parts: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, now: Snapshot) -> Observation:
        points, smoother = self.points(now), now.network
        if not isinstance(smoother, KernelSmoother):
            raise ProbeError(f"LabelSensitivity needs a fitted kernel (KernelRidge), not a {type(smoother).__name__}")
        kernel, centres = smoother.kernel, smoother.centres

        def squares(z: Array) -> tuple[Array, Array]:
            interaction = kernel.gradients(z, centres)
            whole = jnp.sum((interaction @ smoother.inverse) ** 2)
            return jnp.sum(z**2) * whole, jnp.sum(z**2) * jnp.sum(interaction**2)

        size, interaction = (jnp.sqrt(jnp.mean(each)) for each in jax.vmap(squares)(points))
        said = {"label_sensitivity": Quantity(size, long_name="sensitivity to the input, over labels")}
        if self.parts:
            values = jnp.linalg.eigvalsh(kernel(centres, centres))
            middle = jnp.median(values)
            said["interaction_norm"] = Quantity(interaction, long_name="norm of the interaction matrix")
            for name, value in (("smallest", values[0]), ("middle", middle), ("largest", values[-1])):
                said[f"kernel_{name}"] = Quantity(value, long_name=f"{name} eigenvalue of the kernel")
        return said
