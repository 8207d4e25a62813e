"""Draws whose random integers are worked out before them, against the same draws as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from armillary import drawing, threefry
from armillary.drawing import draw_of

DRAWS = {
    "normals of several keys": lambda key: [jax.random.normal(one, (2, 3)) for one in jax.random.split(key, 3)],
    "vectorised over keys": lambda key: jax.vmap(lambda one: jax.random.uniform(one, (2,)))(jax.random.split(key, 4)),
    "the same function twice": lambda key: [jax.random.normal(jax.random.fold_in(key, n), (2,)) for n in range(2)],
    "integers and choices": lambda key: (jax.random.randint(key, (3,), 0, 5), jax.random.choice(key, 9, (2,), replace=False)),
    "bits of all widths": lambda key: [jax.random.bits(key, (3,), kind) for kind in ("uint8", "uint16", "uint32")],
    "orthogonal": lambda key: jax.random.orthogonal(key, 3),
    "one of a grid of keys": lambda key: jax.random.normal(jax.random.split(key, (2, 2))[1, 0], (2,)),
    "in a loop": lambda key: jax.lax.map(lambda one: jax.random.normal(one, (2,)), jax.random.split(key, 3)),
    "after a branch": lambda key: jax.lax.cond(jax.random.bernoulli(key), lambda k: jax.random.normal(k), lambda k: 0.0, key),
    "a number that is not known": lambda key: jax.random.normal(jax.random.fold_in(key, jnp.arange(3)[1]), (2,)),
    "a table of keys": lambda key: jax.random.normal(jax.random.split(key, 3)[jnp.array([2, 0])][1], (2,)),
    "keys among the results": lambda key: (jax.random.key_data(jax.random.split(key)), jnp.ones(2)),
    "by rejection": lambda key: jax.random.gamma(key, 2.0, (2,)),
    "nothing": lambda key: jnp.ones(2),
}  # fmt: skip


def both(function, seeds=(0, 5)):
    """What a draw gives for some seeds, with integers handed in and as it was; and the draw."""
    flat = lambda key: jax.tree.leaves(function(key))
    traced = jax.make_jaxpr(flat)(jax.random.key(0))
    draw = draw_of(traced, 0, 1)
    run = jaxpr_as_fun(draw.closed([]))
    rows = draw.numbers(np.stack([threefry.key_of(seed) for seed in seeds]))
    assert rows.shape == (len(seeds), draw.words) and rows.dtype == np.uint32
    ours = [jax.jit(lambda row: run(*draw.integers(row)))(row) for row in rows]
    return ours, [jax.jit(flat)(jax.random.key(seed)) for seed in seeds], draw


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same(name):
    ours, theirs, draw = both(DRAWS[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours, theirs)
    inside = ("in a loop", "after a branch", "a number that is not known", "a table of keys", "by rejection")
    assert ("random_" in str(draw.program)) == (name in inside or name == "keys among the results")


def test_in_double_precision():
    with jax.enable_x64(True):
        ours, theirs, draw = both(lambda key: jax.random.normal(key, (3,)))
    assert ours[0][0].dtype == np.float64 and draw.words == 6
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_many_numbers_are_left_to_the_program(monkeypatch):
    monkeypatch.setattr(drawing, "FEW", 10)
    ours, theirs, draw = both(lambda key: [jax.random.normal(one, (11,)) for one in jax.random.split(key)])
    assert draw.words == 4  # the two keys
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_what_nobody_wants_is_not_drawn():
    def wasteful(key):
        jax.random.normal(jax.random.fold_in(key, 1), (100,))
        return jax.random.normal(key, (2,))

    assert both(wasteful)[2].words == 2


def test_another_generator_of_integers_is_left_alone():
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", not before)
    try:
        ours, theirs, draw = both(lambda key: jax.random.normal(key, (3,)))
    finally:
        jax.config.update("jax_threefry_partitionable", before)
    assert draw.words == 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
