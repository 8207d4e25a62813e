"""Functions compiled for structures and shapes."""

import jax
import jax.numpy as jnp
import numpy as np

from armillary.compiled import LIGHT, Compiled


def test_a_program_is_compiled_once_for_each_structure_and_shape():
    traced = []

    def scaled(factor, tree):
        traced.append(factor)
        return {name: factor * value for name, value in tree.items()}

    program = Compiled(scaled, LIGHT)
    for factor, size in [(2, 3), (2, 3), (3, 3), (2, 4), (2, 3)]:
        seen = program(factor, {"a": jnp.ones(size)})
        np.testing.assert_array_equal(seen["a"], factor * np.ones(size))
    assert traced == [2, 3, 2]


def test_only_the_last_programs_are_kept():
    traced = []
    program = Compiled(lambda n, x: (traced.append(n), n * x)[1], LIGHT, kept=2)
    for n in (1, 2, 3, 2, 1):
        assert float(program(n, jnp.ones(()))) == n
    assert traced == [1, 2, 3, 1]


def test_shapes_are_told_without_running():
    program = Compiled(lambda x: (x.T, "name"), LIGHT)
    shape, name = program.bind(jnp.ones((2, 3))).shapes()
    assert shape.shape == (3, 2) and name == "name"


def test_operations_are_counted_through_loops_and_branches():
    def work(x, n):
        scanned, _ = jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=7)
        ended = jax.lax.fori_loop(0, n, lambda _, c: c @ c, x)
        branch = jax.lax.cond(n > 0, jnp.cos, lambda a: jnp.cos(jnp.sin(jnp.exp(a))), x)
        return scanned, ended, branch

    x = jnp.ones((10, 10))
    seen = Compiled(work).bind(x, jnp.asarray(3)).work()
    exact = 7 * 100 + 2 * 10**3 + 3 * 100
    assert exact <= seen <= exact + 20  # and what the loops count


def test_random_numbers_and_convolutions_count_as_what_they_take():
    drawn = Compiled(lambda key: jax.random.bits(key, (1000,))).bind(jax.random.key(0)).work()
    assert 1e5 <= drawn <= 1.1e5
    image, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((5, 3, 3, 3))
    convolved = Compiled(lambda a, b: jax.lax.conv(a, b, (1, 1), "SAME")).bind(image, kernel).work()
    assert convolved == 2 * (5 * 8 * 8) * (3 * 3 * 3)


def test_a_program_under_other_options_is_not_traced_again():
    traced = []
    program = Compiled(lambda x: (traced.append(x), 2 * x)[1]).bind(jnp.ones(3))
    assert program.work() == 3
    np.testing.assert_array_equal(program.under(LIGHT)(program.leaves)[0], 2 * np.ones(3))
    np.testing.assert_array_equal(program.under({})(program.leaves)[0], 2 * np.ones(3))
    assert len(traced) == 1
