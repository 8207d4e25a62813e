"""Matrices as products of factors: quadratic networks W Wᵀ, and F Gᵀ of two sides."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, is_traced, require_between
from armillary.models.initialisation import haar_orthogonal
from armillary.models.model import Model


class SymmetricProduct(eqx.Module):
    """Z = W Wᵀ: a vector x -> xᵀ Z x (a layer of squared units), a measurement matrix A -> <A, Z>, or a pair of
    vectors (a, b), which stands for a bᵀ, -> aᵀ Z b; float[1] all.

    `factor` is W, [input, unit]. `rate` scales learning rates: at ½ gradient descent on half a squared error moves W by
    the gradient in Z times W, the form in which the flows of the literature are written.
    """

    factor: Float[Array, "input unit"]
    rate: float = eqx.field(static=True, default=0.5)
    adaptive_rate: float = eqx.field(static=True, default=1.0)

    @property
    def matrix(self) -> Float[Array, "input input"]:
        """Z."""
        return self.factor @ self.factor.T

    def __call__(self, x: Float[Array, " input"] | Float[Array, "row input"]) -> Float[Array, " 1"]:
        if x.ndim == 1:
            return jnp.sum((x @ self.factor) ** 2)[None]
        return measured(x, self.factor, self.factor)[None]


class AsymmetricProduct(eqx.Module):
    """Z = F Gᵀ: a measurement matrix A -> <A, Z>, or a pair of vectors (a, b) -> aᵀ Z b, float[1].

    `left` is F and `right` is G, [row, unit] each.
    """

    left: Float[Array, "row unit"]
    right: Float[Array, "column unit"]

    @property
    def matrix(self) -> Float[Array, "row column"]:
        """Z."""
        return self.left @ self.right.T

    def __call__(self, x: Float[Array, "_row column"]) -> Float[Array, " 1"]:
        return measured(x, self.left, self.right)[None]


def measured(
    x: Float[Array, "_row column"], left: Float[Array, "row unit"], right: Float[Array, "column unit"]
) -> Array:
    """<A, F Gᵀ> for a matrix A [row, column], or aᵀ F Gᵀ b for a pair of vectors [2, column] of more than 2 numbers."""
    if x.shape[0] == 2 < left.shape[0]:
        return jnp.vdot(x[0] @ left, x[1] @ right)
    return jnp.vdot(x, left @ right.T)


Product = SymmetricProduct | AsymmetricProduct
"""Any factorised matrix."""


class SymmetricFactors(Model):
    """Draws W Wᵀ with `width` columns: independent entries N(0, scale²/inputs), or `orthonormal` columns times scale.

    Both `scale` and, where `capacity` says how many columns there may be, `width` can be swept in one program: the
    columns beyond the width are 0, and columns of zeros stay zero under any gradient method. Raises `InvalidValue` for
    a width below 1 or above the capacity, and for more orthonormal columns than inputs.

    >>> network = SymmetricFactors(width=3, orthonormal=True)(jax.random.key(0), inputs=5, outputs=1)
    >>> bool(jnp.allclose(network.factor.T @ network.factor, jnp.eye(3), atol=1e-5))
    True
    """

    width: float = 2
    scale: float = 1.0
    orthonormal: bool = eqx.field(static=True, default=False)
    capacity: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_width(self.width, self.capacity)
        require_between("the initial scale", self.scale, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> SymmetricProduct:
        columns = columns_of(self.width, self.capacity)
        if self.orthonormal:
            if not is_traced(self.width):
                require_between("the width", self.width, 1, inputs, note="orthonormal columns, at most the inputs")
            # More columns than inputs can be there for other widths only: they are 0 for this one.
            frame = haar_orthogonal(key, inputs, min(columns, inputs))
            factor = jnp.pad(frame, ((0, 0), (0, max(columns - inputs, 0))))
        else:
            factor = jax.random.normal(key, (inputs, columns)) / jnp.sqrt(float(inputs))
        return SymmetricProduct(self.scale * first_columns(factor, self.width))


class AsymmetricFactors(Model):
    """Draws F Gᵀ with `width` columns each: F's entries N(0, scale²/inputs), G's `ratio` times as large.

    Unequal scales give the two sides an imbalance Fᵀ F - Gᵀ G of order scale², which gradient flow conserves. `scale`,
    `ratio` and, up to `capacity`, `width` can be swept in one program (see `SymmetricFactors`). Raises `InvalidValue`
    for a width below 1 or above the capacity. Source: Xiong, Ding & Du (2023)

    >>> AsymmetricFactors(width=3)(jax.random.key(0), inputs=5, outputs=1).matrix.shape
    (5, 5)
    """

    width: float = 2
    scale: float = 1.0
    ratio: float = 1.0 / 3.0
    capacity: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_width(self.width, self.capacity)
        require_between("the initial scale", self.scale, 0.0)
        require_between("the ratio of the scales", self.ratio, 0.0)

    def __call__(self, key: PRNGKeyArray, inputs: int, outputs: int) -> AsymmetricProduct:
        columns = columns_of(self.width, self.capacity)
        drawn = jax.random.normal(key, (2, inputs, columns)) * self.scale / jnp.sqrt(float(inputs))
        left, right = first_columns(drawn[0], self.width), first_columns(drawn[1], self.width)
        return AsymmetricProduct(left, self.ratio * right)


def rebalanced(network: AsymmetricProduct, size: float, width: int) -> AsymmetricProduct:
    """The same matrix with a left factor whose `width` leading columns are orthonormal times `size`.

    With F = A S Bᵀ it is (size A)(G B S / size)ᵀ: the product is kept, and every direction of the right factor then
    relaxes at a rate of size². Columns beyond `width` become 0. Source: the step of Xiong, Ding & Du (2023), in a form
    that keeps the product (derived here).

    >>> drawn = AsymmetricFactors(width=2)(jax.random.key(0), inputs=5, outputs=1)
    >>> even = rebalanced(drawn, 1.0, width=2)
    >>> bool(jnp.allclose(even.matrix, drawn.matrix, atol=1e-5))
    True
    """
    a, s, bt = jnp.linalg.svd(network.left, full_matrices=False)
    left, right = first_columns(size * a, width), first_columns(network.right @ bt.T * s / size, width)
    return AsymmetricProduct(left, right)


def first_columns(factor: Float[Array, "row unit"], count: float | Array) -> Float[Array, "row unit"]:
    """The factor with zeros in all but its `count` first columns."""
    return jnp.where(jnp.arange(factor.shape[1]) < count, factor, 0.0)


def check_width(width: float | Array, capacity: int | None, name: str = "the width") -> None:
    """Raise `InvalidValue` for a width that is no whole number from 1 to the capacity."""
    note = "" if capacity is None else "the capacity"
    require_between(name, width, 1, float("inf") if capacity is None else capacity, note=note)
    if not is_traced(width) and isinstance(width, float) and width != round(width):
        raise InvalidValue(f"{name} is {width:g}, but must be a whole number")


def columns_of(width: float | Array, capacity: int | None) -> int:
    """How many columns are kept."""
    if capacity is not None:
        return capacity
    if is_traced(width):
        raise InvalidValue("the width is swept in one program, which needs a capacity: give capacity=the largest width")
    return round(float(width))
