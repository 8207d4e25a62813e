"""Random integers in NumPy against JAX's own."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from armillary import threefry

seeds = some.integers(0, 2**32 - 1)
KEYS = threefry.split(threefry.key_of(7), (2, 3))
THEIRS = jax.random.split(jax.random.key(7), (2, 3))


@given(seeds, seeds)
def test_keys_and_numbers_folded_in(seed, number):
    folded = jax.random.fold_in(jax.random.key(np.uint32(seed)), np.uint32(number))
    np.testing.assert_array_equal(threefry.fold_in(threefry.key_of(seed), number), jax.random.key_data(folded))


def test_one_key_with_many_numbers():
    many = threefry.fold_in(threefry.key_of(1), np.arange(3))
    for number, key in enumerate(many):
        np.testing.assert_array_equal(key, threefry.fold_in(threefry.key_of(1), number))


def test_splits():
    np.testing.assert_array_equal(KEYS, jax.random.key_data(THEIRS))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_bits_of_many_keys(width, shape):
    with jax.enable_x64(True):
        draw = lambda key: jax.random.bits(key, shape, f"uint{width}")
        theirs = jax.vmap(jax.vmap(draw))(THEIRS)
    ours = threefry.bits(KEYS, width, shape)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_more_numbers_than_are_worked_out_at_once():
    count = threefry.AT_ONCE + 3
    np.testing.assert_array_equal(threefry.bits(KEYS[0], 32, (count,))[2], jax.random.bits(THEIRS[0, 2], (count,)))
