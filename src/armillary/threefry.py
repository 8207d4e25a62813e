"""JAX's random integers in NumPy, bit for bit: nothing is compiled for them.

The generator is Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), used as
JAX uses it where `jax_threefry_partitionable` is set, its default: the i-th number of a key is the key's cipher of i. A key
is two words; arrays of keys have a last axis of two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

NAME = "threefry2x32"

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)
AT_ONCE = 1 << 14
"""Numbers in a piece: its arrays stay in a core's cache."""

Words = np.ndarray


def key_of(seed: int) -> Words:
    """The key that `jax.random.key` makes of a seed below 2**32, shape (2,)."""
    return np.array([0, seed], np.uint32)


def fold_in(keys: Words, number: Any) -> Words:
    """`jax.random.fold_in` of each key, or of one key with each number.

    >>> import jax
    >>> np.array_equal(fold_in(key_of(3), 5), jax.random.key_data(jax.random.fold_in(jax.random.key(3), 5)))
    True
    """
    return np.stack(_cipher(keys[..., 0], keys[..., 1], np.zeros((), np.uint32), np.asarray(number, np.uint32)), -1)


def split(keys: Words, shape: Sequence[int]) -> Words:
    """`jax.random.split` of each key: keys (..., 2) to (..., *shape, 2)."""
    return np.stack(_numbered(keys, shape), -1)


def bits(keys: Words, width: int, shape: Sequence[int]) -> Words:
    """`jax.random.bits` of each key: (..., *shape) integers of `width` bits, 8, 16, 32 or 64."""
    high, low = _numbered(keys, shape)
    if width == 64:
        return high.astype(np.uint64) << np.uint64(32) | low
    return (high ^ low).astype(f"uint{width}")


def as_integers(keys: Words) -> np.ndarray:
    """Each key (..., 2) as one integer of 64 bits (...)."""
    return np.asarray(keys[..., 0].astype(np.uint64) << np.uint64(32) | keys[..., 1])


def of_integers(integers: Any) -> Words:
    """The keys (..., 2) that `as_integers` made integers of.

    >>> of_integers(as_integers(key_of(7))).tolist()
    [0, 7]
    """
    return np.stack([integers >> np.uint64(32), integers & np.uint64(0xFFFFFFFF)], -1).astype(np.uint32)


def _numbered(keys: Words, shape: Sequence[int]) -> tuple[Words, Words]:
    """The ciphers of 0, 1, ... in an array of a shape, for each key."""
    flat, count = keys.reshape(-1, 2), int(np.prod(shape, dtype=np.int64))
    high, low = np.empty((2, len(flat), count), np.uint32)
    together = max(AT_ONCE // max(count, 1), 1)
    for first in range(0, len(flat), together):
        some = slice(first, first + together)
        for begin in range(0, count, AT_ONCE):
            numbers = np.arange(begin, min(begin + AT_ONCE, count), dtype=np.uint64)
            piece = some, slice(begin, begin + len(numbers))
            above, below = (numbers >> np.uint64(32)).astype(np.uint32), numbers.astype(np.uint32)
            high[piece], low[piece] = _cipher(flat[some, :1], flat[some, 1:], above, below)
    return high.reshape(*keys.shape[:-1], *shape), low.reshape(*keys.shape[:-1], *shape)


def _cipher(key: Words, other: Words, high: Words, low: Words) -> tuple[Words, Words]:
    """Threefry of (high, low) under the key (key, other), element by element."""
    schedule = [key, other, key ^ other ^ _PARITY]
    with np.errstate(over="ignore"):  # scalars would warn that they wrap around
        x, y = np.broadcast_arrays(high + key, low + other)
        x, y = x.copy(), y.copy()
        spare = np.empty_like(y)
        for turn in range(5):
            for rotation in _ROTATIONS[turn % 2]:
                x += y
                np.right_shift(y, np.uint32(32 - rotation), out=spare)
                y <<= np.uint32(rotation)
                y |= spare
                y ^= x
            x += schedule[(turn + 1) % 3]
            y += schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y
