"""Extreme eigenpairs of a symmetric operator by Lanczos with restarts, to a stated residual, from a warm start.

The basis is kept orthogonal by one full pass after the three-term recurrence; once it is full, the Ritz vectors wanted
(and a few more) are kept and the rest is built anew (thick restart, Wu & Simon 2000). The same steps serve operators
inside a compiled program and products that come from elsewhere.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, UInt

from armillary.errors import InvalidValue, require_between

Which = Literal["largest", "smallest", "both"]
NEXT = 0.2
"""Share in a warm start of the vector that follows those found."""

Vector = Float[Array, " parameter"]


class Eigenpairs(NamedTuple):
    """Eigenvalues (descending), unit vectors, their residuals |H v - λ v|, what they cost and whether all are exact enough.

    An eigenvalue is within its residual of a true one. `vectors` is [count, parameter]. `warm` is where to start a search
    for those of a matrix that has changed a little: all that was found, and what would have been found next, so that one
    that has overtaken them in the meantime is not missed.
    """

    values: Float[Array, " count"]
    vectors: Float[Array, "count parameter"]
    residuals: Float[Array, " count"]
    products: Int[Array, ""]
    converged: Bool[Array, ""]
    warm: Vector


class Krylov(NamedTuple):
    """A Krylov basis [size + 1, parameter], the operator on it [size + 1, size + 1], and how much of it is there."""

    basis: Float[Array, "row parameter"]
    projected: Float[Array, "row row"]
    filled: UInt[Array, ""]
    kept: UInt[Array, ""]
    products: Int[Array, ""]

    @property
    def last(self) -> Vector:
        """The vector whose product is wanted next."""
        return _row(self.basis, self.filled)

    @property
    def coupling(self) -> Float[Array, ""]:
        """What leads out of the space that is there."""
        return lax.dynamic_slice(self.projected, (self.filled - 1, self.filled), (1, 1))[0, 0]

    @property
    def there(self) -> Bool[Array, " row"]:
        """Which rows of the basis are."""
        return lax.iota(self.filled.dtype, len(self.projected)) < self.filled


# Places are unsigned, and rows are written by slices: `jnp`'s indices may count from the end, and its writes may be
# anywhere, which together were a quarter of the equations of a search and so of its compilation.
def _row(matrix: Array, index: Array) -> Array:
    return lax.dynamic_index_in_dim(matrix, index, keepdims=False)


def _with(matrix: Array, part: Array, *place: Any) -> Array:
    """The matrix with a part of it written anew, from `place` on."""
    return lax.dynamic_update_slice(matrix, part, [jnp.asarray(at, jnp.uint32) for at in place])


def begun(start: Vector, size: int) -> Krylov:
    """An empty space that starts with a vector (any but 0 or nan)."""
    # A start known when the program is compiled would be folded: a constant of the whole basis' size, several times.
    start = lax.optimization_barrier(start)
    basis = _with(jnp.zeros((size + 1, start.size), start.dtype), (start / jnp.linalg.norm(start))[None], 0, 0)
    none = jnp.zeros((), jnp.uint32)
    return Krylov(basis, jnp.zeros((size + 1, size + 1), start.dtype), none, none, jnp.zeros((), jnp.int32))


def expanded(space: Krylov, image: Vector) -> Krylov:
    """The space one larger, given the operator's product with its last vector."""
    basis, projected, j = space.basis, space.projected, space.filled
    row, last = _row(projected, j), space.last
    before = jnp.maximum(j, 1) - 1
    # What couples to earlier vectors is known by symmetry: the one before or, after a restart, all that were kept.
    rest = lax.cond(
        j == space.kept, lambda: image - row @ basis, lambda: image - _row(row, before) * _row(basis, before)
    )
    along = rest @ last
    rest = rest - along * last
    again = basis @ rest
    rest = rest - again @ basis
    norm = jnp.linalg.norm(rest)
    # Rounding is all that is left once the space is invariant.
    norm = jnp.where(norm > 10 * jnp.finfo(norm.dtype).eps * jnp.linalg.norm(image), norm, 0.0)
    basis = _with(basis, jnp.where(norm > 0, rest / jnp.where(norm > 0, norm, 1.0), 0.0)[None], j + 1, 0)
    for value, *place in ((along + _row(again, j), j, j), (norm, j, j + 1), (norm, j + 1, j)):
        projected = _with(projected, value[None, None], *place)
    return Krylov(basis, projected, j + 1, space.kept, space.products + 1)


class Ritz(NamedTuple):
    """Ritz values, the best first, their vectors' coordinates in the basis (columns), and their residuals."""

    values: Float[Array, " row"]
    coordinates: Float[Array, "row row"]
    residuals: Float[Array, " row"]


def unknown_ritz(size: int, dtype: Any) -> Ritz:
    """What an empty space knows: a search that starts with it has the product once in its program, and not twice."""
    row = jnp.zeros(size + 1, dtype)
    return Ritz(row, jnp.zeros((size + 1, size + 1), dtype), row)


def ritz(space: Krylov, which: Which) -> Ritz:
    """What the space knows of the operator; the first `space.filled` values count."""
    there = space.there
    block = jnp.where(there[:, None] & there, space.projected, 0.0)
    values, vectors = jnp.linalg.eigh(block)
    # A vector of the empty part has no weight in the part that is there.
    known = jnp.sum(jnp.where(there[:, None], vectors**2, 0.0), axis=0) > 0.5
    match which:
        case "largest":
            worth = values
        case "smallest":
            worth = -values
        case _:  # the outermost on either side first, in turn
            up, down = (jnp.cumsum(known[::-1])[::-1], jnp.cumsum(known))
            worth = -jnp.minimum(2 * up, 2 * down + 1).astype(values.dtype)
    order = jnp.argsort(jnp.where(known, -worth, jnp.inf)).astype(jnp.uint32)
    values, vectors = values[order], vectors[:, order]
    return Ritz(values, vectors, jnp.abs(space.coupling * _row(vectors, space.filled - 1)))


def settled(space: Krylov, found: Ritz, count: int, tolerance: float) -> Bool[Array, ""]:
    """Whether the first `count` residuals are below `tolerance` times their values, or rounding."""
    scale = jnp.max(jnp.abs(jnp.where(space.there, found.values, 0.0)))
    floor = 50 * jnp.finfo(scale.dtype).eps * scale
    close = found.residuals[:count] <= jnp.maximum(tolerance * jnp.abs(found.values[:count]), floor)
    return (jnp.all(close) | (space.coupling == 0)) & (space.filled >= count)


def restarted(space: Krylov, found: Ritz, keep: int) -> Krylov:
    """A full space cut down to its `keep` best Ritz vectors and the direction in which it was growing."""
    size = len(space.projected) - 1
    # One product of all that is kept: nothing of the basis is read after the first write, so that it is written in place.
    stays = _with(jnp.eye(size + 1, keep + 1, keep - size, dtype=space.basis.dtype), found.coordinates[:, :keep], 0, 0)
    basis = _with(_with(space.basis, stays.T @ space.basis, 0, 0), jnp.zeros_like(space.basis[keep + 1 :]), keep + 1, 0)
    coupling = space.projected[size - 1, size] * found.coordinates[size - 1, :keep]
    block = jnp.diag(found.values[:keep])
    projected = jnp.block([[block, coupling[:, None]], [coupling, jnp.zeros(1, block.dtype)]])
    projected = _with(jnp.zeros_like(space.projected), projected, 0, 0)
    kept = jnp.asarray(keep, space.kept.dtype)
    return Krylov(basis, projected, kept, kept, space.products)


def _result(space: Krylov, found: Ritz, count: int, tolerance: float) -> Eigenpairs:
    """The first `count` Ritz pairs in descending order."""
    order = jnp.argsort(-found.values[:count]).astype(jnp.uint32)
    vectors = (found.coordinates[:, :count].T @ space.basis)[order]
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    following = found.coordinates[:, min(count, len(found.values) - 1)] @ space.basis
    warm = jnp.sum(vectors, axis=0) + jnp.where(space.filled > count, NEXT, 0.0) * following
    values, residuals = found.values[:count][order], found.residuals[:count][order]
    return Eigenpairs(values, vectors, residuals, space.products, settled(space, found, count, tolerance), warm)


def _go_on(space: Krylov, found: Ritz, count: int, tolerance: float, most: int) -> Bool[Array, ""]:
    return (space.products < most) & ~settled(space, found, count, tolerance)


def _ready(space: Krylov, found: Ritz, keep: int) -> Krylov:
    """The space, cut down to `keep` vectors if it is full."""
    size = len(space.projected) - 1
    if keep == size:
        return space
    # A loop of one round or none: unlike a branch, it writes the basis where it is.
    return lax.while_loop(lambda space: space.filled == size, lambda space: restarted(space, found, keep), space)


def _grown(space: Krylov, image: Array, which: Which) -> tuple[Krylov, Ritz]:
    space = expanded(space, image)
    return space, ritz(space, which)


def _empty(start: Vector, size: int) -> tuple[Krylov, Ritz]:
    return begun(start, size), unknown_ritz(size, start.dtype)


# For products that come from elsewhere: compiled once for all searches of one size.
_empty_jit = jax.jit(_empty, static_argnames=("size",))
_result_jit = jax.jit(_result, static_argnames=("count", "tolerance"))
_go_on_jit = jax.jit(_go_on, static_argnames=("count", "tolerance", "most"))
_ready_jit = jax.jit(_ready, static_argnames=("keep",))
_grown_jit = jax.jit(_grown, static_argnames=("which",))
_last_jit = jax.jit(lambda space: space.last)


def eigenpairs(
    product: Callable[[Array], Array],
    start: Float[Array, " parameter"],
    count: int = 1,
    *,
    which: Which = "largest",
    tolerance: float = 1e-3,
    most: int = 200,
    basis: int | None = None,
    compiled: bool = True,
) -> Eigenpairs:
    """The `count` largest (algebraically), smallest, or both ends' eigenvalues of a symmetric `product`, with vectors.

    - `start`: any vector with a part along what is sought: random, or the last search's `warm` (near the answer a few
      products are enough).
    - `tolerance`: residual over value at which the search ends. The value's error is at most that and, where others are
      farther away than the residual, only of the order of its square.
    - `most`: products at most; `converged` says whether they sufficed.
    - `basis`: vectors kept, each of the weights' size; by default 20 more than twice the `count`.
    - `compiled`: False for a product that JAX cannot trace (another library's); steps are then compiled one by one.

    A start without any part in an eigenvector's direction never finds it. Raises `InvalidValue` for a count above the
    dimension, or a tolerance or number of products out of range.

    >>> found = eigenpairs(lambda v: jnp.arange(1.0, 31.0) * v, jnp.ones(30), count=2)
    >>> [f"{value:.3f}" for value in found.values], bool(found.converged)
    (['30.000', '29.000'], True)
    """
    dimension = start.size
    require_between("the number of eigenvalues (count)", count, 1, dimension, note="the number of weights")
    require_between("tolerance", tolerance, 0.0, 1.0, open_low=True)
    require_between("the number of products (most)", most, 1)
    if which not in ("largest", "smallest", "both"):
        raise InvalidValue(f"which is {which!r}, but must be 'largest', 'smallest' or 'both'")
    size = min(2 * count + 20 if basis is None else basis, dimension)
    require_between("the number of vectors kept (basis)", size, min(count + 2, dimension), dimension)
    keep = min(count + max(1, (size - count) // 3), size - 1)

    if size == dimension or keep < count:
        keep = size  # a space as large as all there is becomes invariant; it is never cut down
    if compiled:

        def step(state: tuple[Krylov, Ritz]) -> tuple[Krylov, Ritz]:
            space = _ready(*state, keep)
            return _grown(space, product(space.last), which)

        # Outside of any program, what is around the loop would be compiled operation by operation.
        empty, result = (_empty, _result) if isinstance(start, Tracer) else (_empty_jit, _result_jit)
        state = lax.while_loop(lambda state: _go_on(*state, count, tolerance, most), step, empty(start, size))
        return result(*state, count, tolerance)
    state = _empty_jit(start, size)
    while _go_on_jit(*state, count, tolerance, most):
        space = _ready_jit(*state, keep)
        state = _grown_jit(space, product(_last_jit(space)), which)
    return _result_jit(*state, count, tolerance)
