"""Infinitely wide networks as kernels that can be fitted, and differentiated in their inputs, inside a program."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, unknown
from armillary.models.model import Model
from armillary.models.tangent_kernel import Gram, Interaction, Kernel
from armillary.theory.kernels.layers import Serial
from armillary.theory.kernels.norms import Norms, Pair
from armillary.theory.kernels.of_model import kernel as kernel_of

KINDS = ("ntk", "nngp")


class InfiniteWidthKernel(Kernel):
    """The tangent kernel ("ntk") or covariance ("nngp") of infinitely many units in each of `layers`, for vectors.

    The layers are those of `armillary.theory.kernels`. All is traced, so that kernels and their `gradients`, variances of the
    inputs included, are part of whatever program fits them; `armillary.kernel` is for Gram matrices in blocks.

    >>> from armillary.theory.kernels import Activation, Dense
    >>> kernel = InfiniteWidthKernel(Serial((Dense(2.0), Activation("relu"), Dense(2.0))))
    >>> [[round(float(k), 4) for k in row] for row in kernel(jnp.eye(2), jnp.eye(2))]
    [[2.0, 0.3183], [0.3183, 2.0]]
    """

    layers: Serial
    kind: Literal["ntk", "nngp"] = eqx.field(static=True, default="ntk")

    def __check_init__(self):
        if self.kind not in KINDS:
            raise unknown("kind of kernel", self.kind, KINDS)

    def __call__(self, x: Float[Array, "left input"], y: Float[Array, "right input"]) -> Gram:
        known = list(zip(self._variances(x), self._variances(y), strict=True))
        norms = Norms(0, full=False, known=known)
        products = x @ y.T / x.shape[1]
        return getattr(self.layers(Pair(products, jnp.zeros_like(products)), norms), self.kind)

    def gradients(self, point: Float[Array, " input"], centres: Float[Array, "sample input"]) -> Interaction:
        """The interaction matrix by two derivatives: in the products with the centres, and in the point's own size."""
        count, beside = len(point), self._variances(centres)

        def of(size: Array, products: Array) -> Array:
            known = list(zip(self._recorded(size[None]), beside, strict=True))
            pair = Pair(products[None], jnp.zeros_like(products[None]))
            return getattr(self.layers(pair, Norms(0, full=False, known=known)), self.kind)[0]

        size, products = jnp.sum(point**2) / count, centres @ point / count
        by_size = jax.jvp(lambda s: of(s, products), (size,), (jnp.ones_like(size),))[1]
        by_product = jax.jvp(lambda p: of(size, p), (products,), (jnp.ones_like(products),))[1]
        return (centres.T * by_product + 2 * point[:, None] * by_size) / count

    def _variances(self, x: Float[Array, "sample input"]) -> list[Array]:
        """What activations ask of each input alone, in their order."""
        return self._recorded(jnp.sum(x**2, axis=1) / x.shape[1])

    def _recorded(self, own: Float[Array, " sample"]) -> list[Array]:
        norms = Norms(0, full=False)
        self.layers(Pair(own, jnp.zeros_like(own)), norms)
        return norms.record


class InfiniteWidth(Model):
    """Another model in the limit of infinite width: draws its `InfiniteWidthKernel`, the same for all seeds.

    `Solved(KernelRidge())` fits it, so that the trained infinite network is swept and probed as a finite one. `model` is any
    that has a kernel for vectors (see `armillary.kernel`): MLP, FiniteWidth, RandomFeatures and others; its numbers can be
    swept in one program. Raises `UnknownName` for another kind of kernel and, when it draws, `InvalidValue` for a model that
    has none or takes images.

    >>> import jax
    >>> from armillary.models import FiniteWidth
    >>> kernel = InfiniteWidth(FiniteWidth(activation="quadratic", first_layer=0.0))(jax.random.key(0), inputs=2, outputs=1)
    >>> print(kernel(jnp.eye(2), jnp.eye(2)))  # 2 <x, y>² + |x|² |y|²
    [[3. 1.]
     [1. 3.]]
    """

    model: Any
    kind: Literal["ntk", "nngp"] = eqx.field(static=True, default="ntk")

    def __check_init__(self):
        if self.kind not in KINDS:
            raise unknown("kind of kernel", self.kind, KINDS)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> InfiniteWidthKernel:
        found = kernel_of(self.model, inputs)
        if found.shape is not None:
            raise InvalidValue(
                f"InfiniteWidth takes vectors, but a {type(self.model).__name__} takes images; use armillary.kernel"
            )
        return InfiniteWidthKernel(found.network, self.kind)
