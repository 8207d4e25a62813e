"""Kernel ridge regression on tens of thousands of samples: conjugate gradients, and no Gram matrix beyond a memory budget."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.progress import Bar, Progress, chosen_progress
from armillary.theory.kernels.gram import Kernel, Kind

SLAB = 1024
"""Samples of a slab of the Gram matrix at most: the rows that are worked out together."""


class GramProduct:
    """Products of the Gram matrix of `inputs` with vectors, each pair of samples worked out once.

    Slabs of rows on and right of the diagonal are kept as far as they fit into `memory` bytes, and the others worked out
    again at each product: a product of n samples then takes n²/2 kernels of pairs.

    >>> from armillary.theory.kernels import Dense
    >>> print(GramProduct(Kernel(Dense(1.0)), np.eye(2), "nngp", 1e6)(np.ones((2, 1))).ravel())
    [0.5 0.5]
    """

    def __init__(self, kernel: Kernel, inputs: Any, which: Literal["ntk", "nngp"], memory: float):
        self._kernel, self._inputs = kernel, np.asarray(inputs)
        self._which: Kind = which
        self.size = len(self._inputs)
        require_between("memory", memory, 1e6)
        # A slab takes that much beside the blocks in which it is worked out.
        self._rows = int(np.clip(memory / (4 * self.size * self._inputs.dtype.itemsize), 1, SLAB))
        self._room, self._kept = memory / 2, dict[int, np.ndarray]()

    def __call__(
        self, vectors: Float[np.ndarray, "sample vector"], advance: Callable[[float], None] = lambda done: None
    ) -> Float[np.ndarray, "sample vector"]:
        """The Gram matrix times `vectors`, in float64 whatever its own type; `advance` is told the share done since."""
        out = np.zeros(vectors.shape)
        for first in range(0, self.size, self._rows):
            slab = self._slab(first).astype(float)
            last = first + len(slab)
            out[first:last] += slab @ vectors[first:]
            out[last:] += slab[:, len(slab) :].T @ vectors[first:last]
            advance(len(slab) * (2 * self.size - first - last) / self.size**2)
        return out

    def columns(self, chosen: np.ndarray) -> Float[np.ndarray, "sample chosen"]:
        """Some columns of the Gram matrix."""
        return self._of(self._inputs, self._inputs[chosen])

    def _slab(self, first: int) -> np.ndarray:
        if first in self._kept:
            return self._kept[first]
        own = self._inputs[first : first + self._rows]
        parts = [self._of(own, None)]
        if first + len(own) < self.size:
            parts.append(self._of(own, self._inputs[first + len(own) :]))
        slab = np.concatenate(parts, axis=1)
        if slab.nbytes <= self._room:
            self._room -= slab.nbytes
            self._kept[first] = slab
        return slab

    def _of(self, x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        return self._kernel(x, y, kind=self._which, progress=False)._asdict()[self._which]


class Preconditioner:
    """The inverse of K + ridge where `columns` of K show it, and of its smallest part elsewhere.

    K is taken as C (C_chosen)⁻¹ Cᵀ (Nyström), whose eigenvectors U and values s give (s_least + ridge) U (s + ridge)⁻¹ Uᵀ +
    1 - U Uᵀ. Source: Frangella, Tropp & Udell (2023).
    """

    def __init__(self, columns: Float[np.ndarray, "sample chosen"], chosen: np.ndarray, ridge: float):
        columns = np.asarray(columns, float)
        small = columns[chosen]
        # Rounding must not make it indefinite: shifted, and shifted back below.
        shift = np.finfo(float).eps * np.trace(small) * len(small)
        factor = np.linalg.cholesky(small + shift * np.eye(len(small)))
        from scipy.linalg import solve_triangular  # loads slowly

        half = solve_triangular(factor, columns.T, lower=True).T
        squares, vectors = np.linalg.eigh(half.T @ half)
        seen = squares > np.finfo(float).eps * len(columns) * squares[-1]  # the rest is rounding
        self._vectors = half @ (vectors[:, seen] / np.sqrt(squares[seen]))
        values = np.maximum(squares[seen] - shift, 0.0)
        self._factors = (values[0] + ridge) / (values + ridge) - 1.0

    def __call__(self, vectors: Float[np.ndarray, "sample vector"]) -> Float[np.ndarray, "sample vector"]:
        return vectors + self._vectors @ (self._factors[:, None] * (self._vectors.T @ vectors))


class IterativeFit(NamedTuple):
    """A fit by conjugate gradients: dual weights [sample, output], the residuals |y - (K + ridge) dual| over |y| of each
    output after each product [product, output] (the last worked out anew); call it with inputs for predictions [sample, output]."""

    dual: Float[np.ndarray, "sample output"]
    residual: Float[np.ndarray, "product output"]
    kernel: Kernel
    inputs: np.ndarray
    which: Kind

    def __call__(self, inputs: Any) -> Float[np.ndarray, "sample output"]:
        """What the fit predicts, in slabs."""
        x = np.asarray(inputs, self.inputs.dtype)
        slabs = (x[first : first + SLAB] for first in range(0, len(x), SLAB))
        found = [self.kernel(slab, self.inputs, kind=self.which, progress=False) for slab in slabs]
        return np.concatenate([one._asdict()[self.which] @ self.dual for one in found])


def iterative_regression(
    kernel: Kernel,
    inputs: Any,
    targets: Any,
    ridge: float,
    *,
    which: Literal["ntk", "nngp"] = "ntk",
    rank: int | None = None,
    tolerance: float = 1e-4,
    products: int = 200,
    memory: float = 4e9,
    key: int = 0,
    progress: bool | Progress | None = None,
) -> IterativeFit:
    """`ridge_regression` where the Gram matrix is too large: f(x) = K(x, X) (K + ridge)⁻¹ y by conjugate gradients.

    - `inputs` [sample, ...] in float32 or float64, in which kernels are worked out; vectors are float64. `targets` [sample]
      or [sample, output]: all outputs share each product with the Gram matrix.
    - `rank`: samples, drawn with `key`, whose columns precondition it (None: the root of 100 times the samples' number, 1,000
      at most; 0: none). They take 24 bytes a sample each.
    - `tolerance`: residual over the targets' norm, for each output (twice that, worked out anew at the end, is let pass).
    `products`: with the Gram matrix, at most, and one for the check.
    - `memory`: bytes for the Gram matrix: what fits into half of it is kept, the rest is worked out again at each product.

    Raises `InvalidValue` for a ridge that is not above 0, sizes that do not fit, and where the tolerance is not reached
    (naming the residual that was).

    >>> from armillary.theory.kernels import Dense
    >>> fit = iterative_regression(Kernel(Dense(1.0)), np.eye(3), np.arange(3.0), ridge=1.0, which="nngp")
    >>> print(fit(np.eye(3)).ravel().round(3))
    [0.   0.25 0.5 ]
    """
    x, y = np.asarray(inputs), np.asarray(targets, float)
    if not len(x) or len(y) != len(x):
        raise InvalidValue(f"{len(x)} inputs and targets of shape {y.shape} do not fit")
    if not np.all(np.isfinite(y)):
        raise InvalidValue(
            f"targets are not finite at sample {int(np.argmin(np.isfinite(y.reshape(len(y), -1)).all(1)))}"
        )
    if not ridge > 0:
        raise InvalidValue(
            f"ridge is {ridge}, but must be above 0: without it, fewer samples fit exactly; see ridge_regression"
        )
    require_between("tolerance", tolerance, 0.0, 1.0)
    require_between("products", products, 1)
    rank = min(1000, len(x), int(10 * np.sqrt(len(x)))) if rank is None else rank
    require_between("rank", rank, 0, len(x))
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    gram = GramProduct(kernel, x, which, memory)
    chosen = np.sort(np.random.default_rng(key).choice(len(x), rank, replace=False))
    precondition = Preconditioner(gram.columns(chosen), chosen, ridge) if rank else lambda vectors: vectors
    shown = chosen_progress(progress, worth_it=len(x) > 4 * SLAB)
    with shown if isinstance(shown, Bar) else nullcontext():
        dual, residual = _conjugate_gradients(
            gram, y.reshape(len(y), -1), ridge, precondition, tolerance, products, shown.begin("products", products + 1)
        )
    if not np.all(residual[-1] <= 2 * tolerance):
        raise InvalidValue(
            f"after {len(residual) - 2} products the residual is {residual[-1].max():.2g} of the targets, asked {tolerance:.2g}: raise "
            f"ridge ({ridge:.3g}), rank ({rank}), products or tolerance"
        )
    return IterativeFit(dual, residual, kernel, x, which)


def _conjugate_gradients(
    gram: GramProduct, y: np.ndarray, ridge: float, precondition: Any, tolerance: float, products: int, advance: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Each output's own conjugate gradients; they share the products, which are what takes time."""
    dual, left = np.zeros_like(y), y.copy()
    size = np.linalg.norm(y, axis=0)
    size = np.where(size > 0, size, 1.0)
    toward = conditioned = precondition(left)
    energy = (left * conditioned).sum(axis=0)
    course = [np.linalg.norm(left, axis=0) / size]
    for _ in range(products):
        if np.all(course[-1] <= tolerance):
            break
        image = gram(toward, advance) + ridge * toward
        curvature = (toward * image).sum(axis=0)
        step = np.divide(energy, curvature, where=curvature > 0, out=np.zeros_like(energy))  # 0: this output is done
        dual, left = dual + step * toward, left - step * image
        conditioned = precondition(left)
        before, energy = energy, (left * conditioned).sum(axis=0)
        toward = conditioned + np.divide(energy, before, where=before > 0, out=np.zeros_like(energy)) * toward
        course.append(np.linalg.norm(left, axis=0) / size)
    # What the recursion says drifts from what is left indeed.
    course.append(np.linalg.norm(y - gram(dual, advance) - ridge * dual, axis=0) / size)
    return dual, np.stack(course)
