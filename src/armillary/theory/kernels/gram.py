"""The kernels of an infinitely wide network on data: Gram matrices in blocks of bounded memory."""

from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from armillary.compiled import FASTEST, Compiled
from armillary.errors import InvalidValue, require_between
from armillary.members import as_arrays, rows_of_block
from armillary.progress import Bar, Progress, chosen_progress
from armillary.theory.kernels.duals import dual
from armillary.theory.kernels.layers import Activation, Layer, LayerNorm, Serial, layers_of
from armillary.theory.kernels.norms import Norms, Pair
from armillary.theory.kernels.series import require_integrable

Kind = Literal["both", "nngp", "ntk"]

Inputs = Float[np.ndarray, "sample *position channel"]

BLOCK = 1 << 18
"""Numbers of a block at most, where one pair has fewer: they then stay in a core's cache."""

COPIES = 8
"""Arrays of a block's size that are alive at once, at most."""

SMALL = 1 << 12
"""Numbers in all up to which the quickest compilation will do."""

FEW_BLOCKS = 16
"""Blocks up to which no progress is shown."""


class Gram(NamedTuple):
    """Kernels of all pairs of samples, float[left, right] (of each sample with itself, float[sample], on the diagonal)."""

    nngp: Any
    ntk: Any


class Kernel(eqx.Module):
    """The infinitely wide network made of `layers`: `kernel(x)` is its covariance at the start (NNGP) and its tangent kernel.

    Inputs are [sample, channel] or, for convolutions, [sample, position..., channel] with one or two spatial axes; the
    covariance of inputs is their mean product over channels. Kernels are those of one output; several outputs have the same
    one each, and none with each other. `arm.kernel(model)` makes it from a model. `shape` is that of one input, into which
    flat ones are put.

    >>> from armillary.theory.kernels import Activation, Dense
    >>> kernel = Kernel(Dense(2.0), Activation("relu"), Dense(2.0))
    >>> print(kernel.ntk(np.eye(2)).round(4))
    [[2.     0.3183]
     [0.3183 2.    ]]
    """

    network: Serial
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, *layers: Any, shape: tuple[int, ...] | None = None):
        self.network, self.shape = Serial(tuple(layers)), shape

    def __call__(
        self,
        x: Any,
        y: Any = None,
        *,
        kind: Kind = "both",
        memory: float = 1e9,
        progress: bool | Progress | None = None,
    ) -> Gram:
        """Both kernels of all pairs of `x` and `y` (`x` with itself where that is None: each half once, exactly symmetric).

        - Computed in float64 where the inputs are float64, else in float32; NumPy arrays come back.
        - `kind`: "nngp" leaves the tangent kernel out (None), "ntk" the covariance.
        - `memory`: bytes that a block may take at once, beside the result.
        - `progress`: True or False, or any object with `begin`; None shows a bar to a terminal for many blocks.

        Raises `InvalidValue` for inputs that do not fit the layers, a sample that a layer cannot normalise (its variance
        is 0), an activation without a tangent kernel, or one that is not square-integrable.
        """
        x, y = self._checked(x, "x"), None if y is None else self._checked(y, "y")
        if y is not None and (y.shape[1:] != x.shape[1:] or y.dtype != x.dtype):
            raise InvalidValue(f"y is {y.dtype}{list(y.shape)}, but must be like x: {x.dtype}[..., {x.shape[1:]}]")
        self._require(kind)
        require_between("memory", memory, 1e6)
        with jax.enable_x64(x.dtype == np.float64):
            network = as_arrays(self.network, x.dtype)
            own, diagonal = self._alone(network, x, memory)
            other = own if y is None else self._alone(network, y, memory)[0]
            right = x if y is None else y
            out = [np.empty((len(x), len(right)), x.dtype) if kind in ("both", name) else None for name in Gram._fields]
            side, many = self._side(x, right, memory), len(x) * len(right) * _entries(network, x)
            rows, columns = range(0, len(x), side), range(0, len(right), side)
            pairs = [(i, j) for i in rows for j in columns if y is not None or j >= i]
            shown = chosen_progress(progress, worth_it=len(pairs) > FEW_BLOCKS)
            with shown if isinstance(shown, Bar) else nullcontext():
                advance = shown.begin("kernel", len(pairs))
                for i, j in pairs:
                    a, b = rows_of_block(len(x), i, side), rows_of_block(len(right), j, side)
                    norms = [(u[a], v[b]) for u, v in zip(own, other, strict=True)]
                    found = _called(_block, many, network, x[a], right[b], norms, kind)
                    self._filled(out, found, i, j, symmetric=y is None)
                    advance(1)
        if y is None:
            for values, exact in zip(out, diagonal, strict=True):
                if values is not None:
                    np.fill_diagonal(values, exact)
        return Gram(*out)

    def _filled(self, out: list, found: list, i: int, j: int, *, symmetric: bool) -> None:
        for values, block in zip(out, found, strict=True):
            if values is None:
                continue
            height, width = min(block.shape[0], len(values) - i), min(block.shape[1], values.shape[1] - j)
            values[i : i + height, j : j + width] = block[:height, :width]
            if symmetric and i != j:
                values[j : j + width, i : i + height] = np.asarray(block)[:height, :width].T

    def nngp(self, x: Any, y: Any = None, **options: Any) -> Float[np.ndarray, "left right"]:
        """The covariance of the network's output at the start, of all pairs. Options and errors as of a call."""
        return self(x, y, kind="nngp", **options).nngp

    def ntk(self, x: Any, y: Any = None, **options: Any) -> Float[np.ndarray, "left right"]:
        """The tangent kernel of all pairs. Options and errors as of a call."""
        return self(x, y, kind="ntk", **options).ntk

    def diagonal(self, x: Any, memory: float = 1e9) -> Gram:
        """Both kernels of each sample with itself, float[sample]; exact, and without all other pairs."""
        x = self._checked(x, "x")
        self._require("nngp")
        with jax.enable_x64(x.dtype == np.float64):
            return Gram(*self._alone(as_arrays(self.network, x.dtype), x, memory)[1])

    def _checked(self, x: Any, name: str) -> np.ndarray:
        x = np.asarray(x)
        if self.shape is not None and x.ndim == 2 and x.shape[1] == np.prod(self.shape):
            x = x.reshape(-1, *self.shape)
        if x.ndim not in (2, 3, 4) or not len(x) or not np.issubdtype(x.dtype, np.number):
            raise InvalidValue(
                f"{name} has shape {x.shape}, but must be [sample, channel] or [sample, position..., channel], not empty"
            )
        if not np.all(np.isfinite(x)):
            bad = int(np.argmin(np.isfinite(x.reshape(len(x), -1)).all(axis=1)))
            raise InvalidValue(f"{name} is not finite at sample {bad}; drop it or mend it")
        return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)

    def _require(self, kind: str) -> None:
        if kind not in ("both", "nngp", "ntk"):
            raise InvalidValue(f"kind is {kind!r}, but must be 'both', 'nngp' or 'ntk'")
        for layer in layers_of(self.network):
            if isinstance(layer, Activation) and kind != "nngp":
                layer.require_tangent()

    def _side(self, x: np.ndarray, y: np.ndarray, memory: float) -> int:
        """Samples along a block."""
        entries = _entries(self.network, x)
        most = min(BLOCK / entries, memory / (COPIES * x.dtype.itemsize * entries))
        return int(np.clip(most**0.5, 1, max(len(x), len(y))))

    def _alone(self, network: Serial, x: np.ndarray, memory: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What each normalising layer needs to know of each sample, and the two kernels of each with itself."""
        entries = _entries(network, x)
        size = int(np.clip(min(BLOCK, memory / (COPIES * x.dtype.itemsize)) / entries, 1, len(x)))
        groups = [rows_of_block(len(x), i, size) for i in range(0, len(x), size)]
        parts = [_called(_single, len(x) * entries, network, x[rows]) for rows in groups]
        records = [np.concatenate([np.asarray(p[0][k]) for p in parts])[: len(x)] for k in range(len(parts[0][0]))]
        ends = [np.concatenate([np.asarray(p[1][k]) for p in parts])[: len(x)] for k in range(2)]
        asking = [
            (i, layer) for i, layer in enumerate(layers_of(self.network)) if isinstance(layer, Activation | LayerNorm)
        ]
        for (number, layer), found in zip(asking, records, strict=True):
            self._require_variance(number, layer, found)
        return records, ends

    def _require_variance(self, number: int, layer: Layer, found: np.ndarray) -> None:
        flat = found.reshape(len(found), -1)
        name = f"layer {number} ({type(layer).__name__})"
        if isinstance(layer, Activation):
            name = f"layer {number} (Activation {layer.function!r})"
            if np.all(np.isfinite(flat)) and flat.max() > 0 and not dual(layer.function, layer.terms).closed:
                require_integrable(layer.function, float(flat.max()))
        if not np.all(np.isfinite(flat)):
            raise InvalidValue(f"the variance before {name} is not finite: it has grown too large; use smaller weights")
        if flat.min() <= 0:
            sample = int(np.argmin(flat.min(axis=1)))
            raise InvalidValue(
                f"sample {sample} has variance 0 before {name}, where its correlations are not defined: give the layers "
                "before a bias variance, or leave the sample out"
            )


def _entries(network: Serial, x: np.ndarray) -> int:
    """Numbers that a pair of samples has: of all pairs of positions, or of equal ones."""
    positions = int(np.prod(x.shape[1:-1], dtype=int))
    return positions**2 if network.mixes else positions


def _inputs(x: Array, y: Array | None, norms: Norms) -> Array:
    """Mean products over channels of all pairs of samples (of each with itself: `y` None) and of positions."""
    first, second = "hw"[: norms.axes], ("HW" if norms.full else "hw")[: norms.axes]
    inner = "".join(a + b for a, b in zip(first, second, strict=True)) if norms.full else first
    left, right = ("n", "n") if y is None else ("n", "m")
    out = "n" if y is None else "nm"
    product = jnp.einsum(f"{left}{first}c,{right}{second}c->{out}{inner}", x, x if y is None else y)
    return product / x.shape[-1]


@Compiled
def _single(network: Serial, x: Array) -> tuple[list[Array], list[Array]]:
    norms = Norms(x.ndim - 2, full=network.mixes)
    nngp = _inputs(x, None, norms)
    out = network(Pair(nngp, jnp.zeros_like(nngp)), norms)
    return norms.record, [_scalar(values, norms) for values in out]


@Compiled
def _block(network: Serial, x: Array, y: Array, known: list[tuple[Array, Array]], kind: str) -> list[Array | None]:
    norms = Norms(x.ndim - 2, full=network.mixes, known=known)
    nngp = _inputs(x, y, norms)
    out = network(Pair(nngp, jnp.zeros_like(nngp)), norms)
    return [_scalar(v, norms) if kind in ("both", n) else None for n, v in zip(Gram._fields, out, strict=True)]


def _called(function: Compiled, many: int, *args: Any) -> Any:
    """The function's value at `args`, compiled as well as `many` numbers are worth."""
    bound = function.bind(*args)
    bound = bound.under(FASTEST) if many <= SMALL else bound
    return bound.whole(bound(bound.leaves))


def _scalar(values: Array, norms: Norms) -> Array:
    if norms.axes:
        raise InvalidValue("the network ends with signals on positions; end with Flatten() or GlobalAveragePool()")
    return values
