"""JAX's operations in NumPy: for each primitive, what its parameters make a function of arrays do.

A primitive has no rule where NumPy has nothing that does the same. Random keys are integers of 64 bits here, so that an
array of keys has the shape that it has in the program.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from armillary import threefry
from armillary.threefry import as_integers, of_integers

Function = Callable[..., Any]
Whole = Sequence[Any]
Rule = Callable[..., Function | None]


def rule(kind: str, parameters: dict[str, Any]) -> Function | None:
    """What a primitive with these parameters does: a function of arrays that returns one, or a list where it has several
    results. None: it has to be compiled.

    >>> total = rule("reduce_sum", {"axes": (0,), "out_sharding": None})
    >>> total(np.ones((3, 2))).tolist()
    [3.0, 3.0]
    """
    given = dict(parameters)
    for name in ("sharding", "out_sharding"):
        where = given.pop(name, None)
        if where is not None and where.mesh.axis_names:  # on several devices
            return None
    if kind in _ELEMENTWISE:
        return _ELEMENTWISE[kind]
    made = _RULES.get(kind)
    return made(**given) if made else None


def _quotient(x: Any, y: Any) -> Any:
    return np.true_divide(x, y) if x.dtype.kind in "fc" else (x - np.fmod(x, y)) // y


def _shifted(x: Any, by: Any) -> Any:
    words = np.dtype(f"u{x.dtype.itemsize}")  # zeros come from the left
    return np.right_shift(x.view(words), by.view(words)).view(x.dtype)


def _chosen(which: Any, *cases: Any) -> Any:
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.select([which == number for number in range(len(cases))], cases, cases[-1])


def _special(name: str) -> Function:
    def function(x: Any) -> Any:
        from scipy import special  # takes a fifth of a second to load

        return getattr(special, name)(x)

    return function


_ELEMENTWISE: dict[str, Function] = {
    "abs": np.abs, "acos": np.arccos, "add": np.add, "add_any": np.add, "and": np.bitwise_and, "asin": np.arcsin,
    "atan": np.arctan, "atan2": np.arctan2, "ceil": np.ceil, "copy": np.asarray, "copy_p": np.asarray, "cos": np.cos,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high), "cosh": np.cosh, "div": _quotient, "eq": np.equal,
    "erf": _special("erf"), "erf_inv": _special("erfinv"), "erfc": _special("erfc"), "exp": np.exp, "expm1": np.expm1,
    "floor": np.floor, "ge": np.greater_equal, "gt": np.greater, "is_finite": np.isfinite, "le": np.less_equal,
    "log": np.log, "log1p": np.log1p, "logistic": lambda x: 1 / (1 + np.exp(-x)), "lt": np.less, "max": np.maximum,
    "min": np.minimum, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.invert, "or": np.bitwise_or,
    "pow": lambda x, y: np.power(x, y.astype(x.dtype)), "rem": np.fmod, "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": _chosen, "shift_right_logical": _shifted, "sign": np.sign, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "square": np.square, "stop_gradient": np.asarray, "sub": np.subtract, "tan": np.tan,
    "tanh": np.tanh, "xor": np.bitwise_xor,
}  # fmt: skip


def _converted(new_dtype: Any, weak_type: bool) -> Function:
    new = np.dtype(new_dtype)

    def convert(x: Any) -> Any:
        whole = x.astype(new)
        if (
            new.kind in "iu" and x.dtype.kind == "f"
        ):  # XLA takes the nearest integer there is, and 0 for what is no number
            low, high = np.iinfo(new).min, np.iinfo(new).max
            return np.select([np.isnan(x), x <= low, x >= high], np.array([0, low, high], new), whole)
        return whole

    return convert


def _of_bits(new_dtype: Any) -> Function:
    return lambda x: np.ascontiguousarray(x).view(new_dtype).reshape(x.shape)


def _rounded(rounding_method: Any) -> Function:
    if rounding_method == lax.RoundingMethod.TO_NEAREST_EVEN:
        return np.rint
    return lambda x: np.where(np.abs(x - np.trunc(x)) == 0.5, np.trunc(x) + np.sign(x), np.rint(x))


def _spread(shape: Whole, broadcast_dimensions: Whole) -> Function:
    def spread(x: Any) -> Any:
        sizes = [1] * len(shape)
        for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
            sizes[axis] = size
        return np.broadcast_to(np.reshape(x, sizes), shape)

    return spread


def _counted(dtype: Any, shape: Whole, dimension: int) -> Function:
    sizes = [-1 if axis == dimension else 1 for axis in range(len(shape))]
    return lambda: np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(sizes), shape)


def _cut(start_indices: Whole, limit_indices: Whole, strides: Whole | None) -> Function:
    places = tuple(map(slice, start_indices, limit_indices, strides or [None] * len(start_indices)))
    return lambda x: x[places]


def _cut_at(slice_sizes: Whole) -> Function:
    def cut(x: Any, *starts: Any) -> Any:
        first = [
            min(max(int(at), 0), whole - size) for at, whole, size in zip(starts, x.shape, slice_sizes, strict=True)
        ]
        return x[tuple(slice(at, at + size) for at, size in zip(first, slice_sizes, strict=True))]

    return cut


def _padded(padding_config: Sequence[Whole]) -> Function | None:
    if any(min(low, high) < 0 for low, high, _ in padding_config):
        return None

    def pad(x: Any, value: Any) -> Any:
        inner = [max(size + (size - 1) * gap, 0) for size, (_, _, gap) in zip(x.shape, padding_config, strict=True)]
        out = np.full([low + n + high for n, (low, high, _) in zip(inner, padding_config, strict=True)], value, x.dtype)
        out[tuple(slice(low, low + n, gap + 1) for n, (low, _, gap) in zip(inner, padding_config, strict=True))] = x
        return out

    return pad


def _places(
    shape: Whole,
    indices: Any,
    sizes: Whole,
    mapped: Whole,
    kept: Whole,
    theirs: dict[int, int],
) -> tuple[tuple[Any, ...], Any]:
    """Where windows of these sizes lie in an array: places along each axis, of shape (*batch, *window), and which windows (of
    shape batch) begin inside; the others are moved there.

    An index says where a window begins along the axes `mapped`; the window has the axes `kept`, and along `theirs` it lies
    where it is in the batch.
    """
    batch, window = indices.shape[:-1], (..., *[None] * len(kept))
    places, inside = [], np.ones(batch, bool)
    for axis, size in enumerate(sizes):
        place, last = np.zeros((), np.int64), shape[axis] - size
        if axis in mapped:
            place = indices[..., mapped.index(axis)].astype(np.int64)
            inside &= (place >= 0) & (place <= last)
            place = place.clip(0, last)
        elif axis in theirs:
            place = np.indices(batch, sparse=True)[theirs[axis]]
        along = np.arange(size) if axis in kept else np.zeros(1, np.int64)
        places.append(place[window] + along.reshape([-1 if other == axis else 1 for other in kept]))
    return tuple(places), inside[window]


_IN_BOUNDS = lax.GatherScatterMode.PROMISE_IN_BOUNDS, lax.GatherScatterMode.CLIP
_OR_NOT = lax.GatherScatterMode.FILL_OR_DROP


def _gathered(
    dimension_numbers: Any, slice_sizes: Whole, mode: Any, fill_value: Any, **promises: Any
) -> Function | None:
    given = dimension_numbers
    theirs = dict(zip(given.operand_batching_dims, given.start_indices_batching_dims, strict=True))
    kept = [axis for axis in range(len(slice_sizes)) if axis not in (*given.collapsed_slice_dims, *theirs)]

    def gather(x: Any, indices: Any) -> Any:
        places, inside = _places(x.shape, indices, slice_sizes, given.start_index_map, kept, theirs)
        found = np.broadcast_to(x[places], (*indices.shape[:-1], *(slice_sizes[axis] for axis in kept)))
        if mode == _OR_NOT and not inside.all():
            found = np.where(inside, found, _filling(x.dtype) if fill_value is None else x.dtype.type(fill_value))
        return np.moveaxis(found, range(indices.ndim - 1, found.ndim), given.offset_dims)

    return gather if mode in (*_IN_BOUNDS, _OR_NOT) else None


def _scattered(add: bool) -> Rule:
    """Windows put into an array where the indices say, or added to what is there."""

    def made(dimension_numbers: Any, mode: Any, update_jaxpr: Any, **promises: Any) -> Function | None:
        given = dimension_numbers
        theirs = dict(zip(given.operand_batching_dims, given.scatter_indices_batching_dims, strict=True))

        def scatter(x: Any, indices: Any, updates: Any) -> Any:
            kept = [axis for axis in range(x.ndim) if axis not in (*given.inserted_window_dims, *theirs)]
            sizes = dict(zip(kept, (updates.shape[axis] for axis in given.update_window_dims), strict=True))
            every = [sizes.get(axis, 1) for axis in range(x.ndim)]
            places, inside = _places(x.shape, indices, every, given.scatter_dims_to_operand_dims, kept, theirs)
            windows = np.moveaxis(updates, given.update_window_dims, range(indices.ndim - 1, updates.ndim))
            fits = np.broadcast_to(inside | (mode != _OR_NOT), windows.shape)
            chosen = tuple(np.broadcast_to(place, windows.shape)[fits] for place in places)
            out = x.copy()
            if add:
                np.add.at(out, chosen, windows[fits])
            else:
                out[chosen] = windows[fits]
            return out

        return scatter if mode in (*_IN_BOUNDS, _OR_NOT) else None

    return made


def _filling(kind: np.dtype) -> Any:
    if kind.kind in "fc":
        return kind.type(np.nan)
    return np.iinfo(kind).min if kind.kind == "i" else np.iinfo(kind).max if kind.kind == "u" else True


def _product(dimension_numbers: Any, precision: Any, preferred_element_type: Any) -> Function:
    (left, right), (left_batch, right_batch) = dimension_numbers

    def product(x: Any, y: Any) -> Any:
        kind = np.dtype(preferred_element_type or x.dtype)
        rows = [axis for axis in range(x.ndim) if axis not in (*left, *left_batch)]
        columns = [axis for axis in range(y.ndim) if axis not in (*right, *right_batch)]
        batch, length = [x.shape[axis] for axis in left_batch], math.prod(x.shape[axis] for axis in left)
        ours, theirs = [x.shape[axis] for axis in rows], [y.shape[axis] for axis in columns]
        x = x.transpose(*left_batch, *rows, *left).reshape(*batch, math.prod(ours), length)
        y = y.transpose(*right_batch, *right, *columns).reshape(*batch, length, math.prod(theirs))
        return np.matmul(x.astype(kind), y.astype(kind)).reshape((*batch, *ours, *theirs))

    return product


def _over(reduction: Function) -> Rule:
    return lambda axes: lambda x: reduction(x, tuple(axes))


def _place_of(reduction: Function) -> Rule:
    return lambda axes, index_dtype: lambda x: reduction(x, axes[0]).astype(index_dtype)


def _running(operation: Any) -> Rule:
    def made(axis: int, reverse: bool) -> Function:
        along = lambda x: operation.accumulate(x, axis, x.dtype)
        return (lambda x: np.flip(along(np.flip(x, axis)), axis)) if reverse else along

    return made


def _sorted(dimension: int, is_stable: bool, num_keys: int) -> Function | None:
    if num_keys != 1:
        return None

    def sort(*arrays: Any) -> list[Any]:
        order = np.argsort(arrays[0], dimension, kind="stable")
        return [np.take_along_axis(array, order, dimension) for array in arrays]

    return sort


def _transform(fft_type: Any, fft_lengths: Whole) -> Function:
    axes = tuple(range(-len(fft_lengths), 0))
    kinds = {0: np.fft.fftn, 1: np.fft.ifftn, 2: np.fft.rfftn, 3: np.fft.irfftn}
    return lambda x: kinds[int(fft_type)](x, fft_lengths, axes)


def _orthogonal(pivoting: bool, full_matrices: bool, use_magma: Any) -> Function | None:
    return None if pivoting else lambda x: list(np.linalg.qr(x, "complete" if full_matrices else "reduced"))


def _spectrum(lower: Any, sort_eigenvalues: bool, subset_by_index: Any, algorithm: Any) -> Function | None:
    plain = sort_eigenvalues and subset_by_index is None and algorithm is None
    return (lambda x: list(reversed(np.linalg.eigh(x, "L" if lower else "U")))) if plain else None


def _singular(full_matrices: bool, compute_uv: bool, subset_by_index: Any, algorithm: Any) -> Function | None:
    def values(x: Any) -> list[Any]:
        if not compute_uv:
            return [np.linalg.svd(x, compute_uv=False)]
        left, strengths, right = np.linalg.svd(x, full_matrices)
        return [strengths, left, right]

    return values if subset_by_index is None and algorithm is None else None


def _solved(left_side: bool, lower: Any, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool) -> Function | None:
    if conjugate_a or unit_diagonal:
        return None

    def solve(a: Any, b: Any) -> Any:
        half = np.tril(a) if lower else np.triu(a)
        half = half.swapaxes(-1, -2) if transpose_a else half
        return np.linalg.solve(half, b) if left_side else _flipped(np.linalg.solve(_flipped(half), _flipped(b)))

    return solve


def _flipped(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _on_cpu(platforms: Sequence[Any]) -> Function:
    """Which of several ways to do something is a CPU's, or anyone's."""
    ours = [index for index, names in enumerate(platforms) if names is None or "cpu" in names]
    return lambda: np.asarray(ours[0], np.int32)


def _seeded(impl: Any) -> Function | None:
    return (lambda seeds: seeds.astype(f"u{seeds.itemsize}").astype(np.uint64)) if impl.name == threefry.NAME else None


_RULES: dict[str, Rule] = {
    "argmax": _place_of(np.argmax), "argmin": _place_of(np.argmin), "bitcast_convert_type": _of_bits,
    "broadcast_in_dim": _spread, "cholesky": lambda symmetrize_input=True: np.linalg.cholesky,
    "concatenate": lambda dimension: lambda *parts: np.concatenate(parts, dimension), "convert_element_type": _converted,
    "cumprod": _running(np.multiply), "cumsum": _running(np.add), "dot_general": _product, "dynamic_slice": _cut_at,
    "eigh": _spectrum, "fft": _transform, "gather": _gathered,
    "integer_pow": lambda y: lambda x: np.power(x, np.asarray(y, x.dtype)), "iota": _counted, "pad": _padded,
    "platform_index": _on_cpu, "qr": _orthogonal,
    "random_bits": lambda bit_width, shape: lambda keys: threefry.bits(of_integers(keys), bit_width, shape),
    "random_fold_in": lambda: lambda keys, number: as_integers(threefry.fold_in(of_integers(keys), number)),
    "random_seed": _seeded, "random_split": lambda shape: lambda keys: as_integers(threefry.split(of_integers(keys), shape)),
    "random_unwrap": lambda: of_integers, "random_wrap": lambda impl: as_integers if impl.name == threefry.NAME else None,
    "reduce_and": _over(np.logical_and.reduce), "reduce_max": _over(np.max), "reduce_min": _over(np.min),
    "reduce_or": _over(np.logical_or.reduce), "reduce_prod": _over(np.prod),
    "reduce_sum": lambda axes: lambda x: np.sum(x, tuple(axes), x.dtype),
    "reshape": lambda new_sizes, dimensions: lambda x: np.reshape(x, new_sizes),
    "rev": lambda dimensions: lambda x: np.flip(x, dimensions), "round": _rounded, "scatter": _scattered(add=False),
    "scatter-add": _scattered(add=True), "slice": _cut, "sort": _sorted,
    "split": lambda sizes, axis: lambda x: np.split(x, np.cumsum(sizes)[:-1], axis),
    "squeeze": lambda dimensions: lambda x: np.squeeze(x, tuple(dimensions)),
    "stack": lambda axis: lambda *parts: np.stack(parts, axis), "svd": _singular,
    "tile": lambda reps: lambda x: np.tile(x, reps), "transpose": lambda permutation: lambda x: np.transpose(x, permutation),
    "triangular_solve": _solved,
}  # fmt: skip
