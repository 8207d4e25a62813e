"""Programs worked out in NumPy, against the same compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from armillary import numpy_rules, threefry
from armillary.interpreter import TooLong, interpreted, seconds
from armillary.once import once

A = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
B = np.random.default_rng(1).normal(size=(2, 3, 4))
P = np.array([[2.0, 0.5, 0.1], [0.5, 1.5, 0.2], [0.1, 0.2, 1.0]])
N = np.array([[-7, 3, 0, 5], [2, -2, 9, 4], [1, 8, -9, 6]], np.int32)
LABELS = np.array([2, 0, 1])

ONE = [
    "abs",
    "ceil",
    "cos",
    "cosh",
    "exp",
    "expm1",
    "floor",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "arctan",
    "isfinite",
    "negative",
    "sign",
    "square",
    "round",
]

PROGRAMS = {
    "arithmetic": (lambda x: (x + 1) * (x - 2) / (x**2 + 1) - x**3 + x ** jnp.float32(-1), A),
    "elementwise": (lambda x: [getattr(jnp, name)(x) for name in ONE ], A),
    "inverse functions": (lambda x: (jnp.arccos(x / 9), jnp.arcsin(x / 9), jnp.arctan2(x, 1 + x * x)), A),
    "positive": (lambda x: (jnp.sqrt(x), jnp.log(x), jnp.log1p(x), jax.lax.rsqrt(x), x**1.3), A**2),
    "special": (lambda x: (jax.scipy.special.erf(x), jax.scipy.special.erfc(x), jax.nn.sigmoid(x), jax.lax.erf_inv(x / 9)), B),
    "activations": (lambda x: (jax.nn.relu(x), jax.nn.softplus(x), jax.nn.gelu(x), jax.nn.leaky_relu(x)), B),
    "whole numbers": (lambda n: (n // 3, n % 3, n**3, jnp.abs(n), n * n - 1, -n, jax.lax.div(n, jnp.int32(2)), jax.lax.rem(n, jnp.int32(4))), N),
    "bits": (lambda n: (n & 6, n | 1, n ^ 3, ~n, jax.lax.shift_right_logical(n, jnp.int32(3))), N),
    "comparisons": (lambda x: ((x < 0) | (x >= 1), (x > 0) & (x <= 1), x == x[0, 0], x != 0, jnp.maximum(x, 0), jnp.minimum(x, 0)), A),
    "choices": (lambda x: (jnp.where(x > 0, x, -1.0), jnp.clip(x, -0.5, 0.5), jax.lax.select_n(jnp.int32(2), x, x + 1, x + 2)), A),
    "types": (lambda x: (x.astype(int), (x > 0).astype(float), (1e10 * x).astype(jnp.int32), (x / 0).astype(jnp.int32)), A),
    "bits of numbers": (lambda x: jax.lax.bitcast_convert_type(x, jnp.uint32), A),
    "no numbers": (lambda x: (x / 0 * 0).astype(jnp.int32), A),
    "rounding": (lambda x: (jnp.round(x), jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO)), np.arange(-2.5, 3, 0.5)),
    "shapes": (lambda x: (x.T, x.reshape(2, 6), x[None], x[:, :1].squeeze(1), x[::2, 1:], x[::-1], jnp.tile(x, (2, 1))), A),
    "putting together": (lambda x: (jnp.concatenate([x, x], 1), jnp.stack([x, x], 1), jnp.split(x, 2, 1), jnp.pad(x, ((1, 2), (0, 1)))), A),
    "padding within": (lambda x: jax.lax.pad(x, jnp.float32(7), ((1, 0, 2), (0, 3, 1))), A),
    "counting": (lambda x: (jnp.arange(5), jnp.eye(3), jnp.tril(x), jnp.diag(x[:, 0]), jnp.linspace(0, 1, 5) + x[0, 0]), A),
    "sums": (lambda x: (x.sum(), x.sum(0), x.mean((1, 2)), x.prod(2), x.max(1), x.min((0, 2)), x.std(), jnp.var(x, 1)), B),
    "logic": (lambda x: ((x > 0).all(0), (x > 0).any(1), jnp.argmax(x, 1), jnp.argmin(x, 2)), B),
    "running": (lambda x: (jnp.cumsum(x, 1), jnp.cumprod(x, 0), jax.lax.cumsum(x, 2, reverse=True)), B),
    "order": (lambda x: (jnp.sort(x, 1), jnp.argsort(x, 0), jnp.median(x, 1)), A),
    "products": (lambda x: (x @ x.T, x.T @ x[:, 0], x[0] @ x[1], jnp.outer(x[0], x[1]), jnp.tensordot(x, x, ((0, 1), (0, 1)))), A),
    "batches of products": (lambda x: (jnp.einsum("bij,bkj->bik", x, x), jnp.einsum("bij,cij->ibc", x, x), x @ x[0].T), B),
    "looking up": (lambda x: (x[LABELS], x[:, LABELS], x[LABELS, LABELS], x[jnp.int32(1)], jnp.diagonal(x), x[jnp.array([-1, 0])]), A),
    "looking up outside": (lambda x: (jnp.take(x, jnp.array([0, 5]), 0), jnp.take_along_axis(x, jnp.argsort(x, 1), 1)), A),
    "slices anywhere": (lambda x: (jax.lax.dynamic_slice(x, (jnp.int32(2), jnp.int32(3)), (2, 2)), x[:, jnp.int32(1)]), A),
    "setting": (lambda x: (x.at[0].set(7.0), x.at[:, LABELS].set(x[:, :3] + 1), x.at[LABELS, 1].add(x[:, 0]), x.at[1, 2].set(0.0)), A),
    "adding twice": (lambda x: (jnp.zeros(3).at[jnp.array([0, 2, 0, 9])].add(x[0]), jax.nn.one_hot(LABELS, 3)), A),
    "orthogonal": (lambda x: (jnp.linalg.qr(x.T)[0], jnp.linalg.qr(x, "complete")[1]), A),
    "spectrum": (lambda x: (jnp.linalg.eigvalsh(x), jnp.abs(jnp.linalg.eigh(x)[1])), P),
    "singular values": (lambda x: (jnp.linalg.svd(x, compute_uv=False), jnp.abs(jnp.linalg.svd(x, full_matrices=False)[0])), B),
    "roots": (lambda x: (jnp.linalg.cholesky(x), jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(x), True), x[0])), P),
    "triangles": (lambda x: [jax.scipy.linalg.solve_triangular(x, x + 1, lower=low, trans=t) for low in (0, 1) for t in (0, 1)], P),
    "triangles from the right": (lambda x: jax.lax.linalg.triangular_solve(x, x + 1, lower=True), P),
    "Fourier": (lambda x: (jnp.fft.rfft(x), jnp.abs(jnp.fft.fft(x, axis=0)), jnp.fft.irfft(jnp.fft.rfft(x)), jnp.fft.ifft(x)), B),
    "loops": (lambda x: jax.lax.scan(lambda c, row: (c * 0.5 + row, c.sum()), x[0], x, reverse=True), A),
    "a loop that ends when it is done": (lambda x: jax.lax.while_loop(lambda y: y.max() < 9, lambda y: 1 + 2 * y, x), A),
    "loops side by side": (lambda x: jax.vmap(lambda v: jax.lax.while_loop(lambda y: y.max() < 9, lambda y: 1 + 2 * y, v))(x), A),
    "a loop of nothing": (lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c + i * x, x), A),
    "branches": (lambda x: [jax.lax.switch(n, [jnp.sin, jnp.cos, jnp.tan], x) for n in (0, 2, 5)], A),
    "derivatives": (lambda x: (jax.grad(lambda y: jnp.sum(jax.nn.relu(y) ** 2))(x), jax.jvp(jnp.tanh, (x,), (x,))), A),
}  # fmt: skip


def alike(function, *arrays):
    """What a program gives in NumPy has the numbers and types that it has compiled."""
    flat = lambda *given: jax.tree.leaves(function(*given))
    with jax.enable_x64(True):
        ours = interpreted(jax.make_jaxpr(flat)(*arrays))(*arrays)
        theirs = jax.jit(flat)(*arrays)
    for found, right in zip(ours, theirs, strict=True):
        found = np.asarray(found)
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        double = right.dtype in (np.float64, np.complex128)
        np.testing.assert_allclose(found, right, rtol=1e-12 if double else 2e-6, atol=1e-13 if double else 1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_worked_out_as_compiled_ones(name):
    alike(*PROGRAMS[name])


@given(some.data())
def test_windows_are_found_and_put_anywhere(data):
    """Any gather and scatter of windows, also such as reach over the edge."""
    size, count = data.draw(some.tuples(some.integers(1, 3), some.integers(1, 3))), data.draw(some.integers(1, 3))
    places = np.array(
        data.draw(some.lists(some.tuples(some.integers(-2, 4), some.integers(-2, 5)), min_size=count, max_size=count))
    )
    mode = data.draw(some.sampled_from(["clip", "fill"]))
    numbers = jax.lax.GatherDimensionNumbers((0, 2), (), (0, 1))
    alike(lambda x, i: jax.lax.gather(x, i, numbers, size, mode=mode), A, places)
    where = jax.lax.ScatterDimensionNumbers((0, 2), (), (0, 1))
    updates = np.random.default_rng(2).normal(size=(size[0], count, size[1])).astype(np.float32)
    alike(lambda x, i, u: jax.lax.scatter_add(x, i, u, where, mode=mode), A, places, updates)


KEYED = {
    "normals": lambda key: jax.random.normal(key, (3, 2)),
    "of several keys": lambda key: jax.vmap(lambda one: jax.random.uniform(one, (2,)))(jax.random.split(key, 4)),
    "keys looked up": lambda key: jax.random.normal(jax.random.split(key, 3)[jnp.array([2, 0])][1], (2,)),
    "folded": lambda key: jax.random.bits(jax.random.fold_in(key, 3), (3,), "uint8"),
    "permuted": lambda key: (jax.random.permutation(key, 7), jax.random.choice(key, 9, (2,), replace=False)),
    "seeds and words": lambda key: jax.random.key_data(jax.random.split(jax.random.key(key.size + 2**33 - 9))),
    "signs and whole numbers": lambda key: (jax.random.rademacher(key, (5,)), jax.random.randint(key, (4,), 0, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYED)
def test_keys_are_used_as_in_compiled_programs(name):
    flat = lambda key: jax.tree.leaves(KEYED[name](key))
    key = jax.random.key(5)
    ours = interpreted(jax.make_jaxpr(flat)(key))(threefry.as_integers(threefry.key_of(5)))
    for found, right in zip(ours, flat(key), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5)


def test_keys_of_another_generator_are_left_to_compiled_programs():
    normal = jax.random.normal(key := jax.random.key(5, impl="rbg"), (2,))
    np.testing.assert_array_equal(once(two_normals, key), normal)


def two_normals(key):
    return jax.random.normal(key, (2,))


def test_constants_of_a_program_may_be_keys():
    key = jax.random.key(5)
    [found] = interpreted(jax.make_jaxpr(lambda x: x + jax.random.normal(key, (2,)))(1.0))(np.float32(1))
    np.testing.assert_allclose(found, 1 + jax.random.normal(key, (2,)), rtol=1e-5)


def test_what_numpy_lacks_is_left_alone():
    lacking = {
        "a loop of no rounds": lambda x: jax.lax.scan(lambda c, row: (c, row), x[0], x[:0]),
        "numbers of another kind": lambda x: x.astype(jnp.bfloat16) / 3,
        "a rare function": lambda x: jax.scipy.special.digamma(x),
        "a rare order": lambda x: jnp.lexsort((x[:, 0], x[:, 1])),
        "within a branch": lambda x: jax.lax.cond(x[0, 0] > 0, jax.scipy.special.digamma, jnp.sin, x),
        "a cut by padding": lambda x: jax.lax.pad(x, jnp.float32(0), ((-1, 0, 0), (0, 0, 0))),
    }
    for function in lacking.values():
        assert interpreted(jax.make_jaxpr(function)(A)) is None
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    try:
        assert interpreted(jax.make_jaxpr(lambda key: jax.random.normal(key))(jax.random.key(0))) is None
    finally:
        jax.config.update("jax_threefry_partitionable", before)


def test_loops_that_take_too_long_are_given_up_all_calls_together():
    program = jax.make_jaxpr(lambda x, n: jax.lax.fori_loop(0, n, lambda i, y: y + 1, x))(1.0, 5)
    work = interpreted(program)
    assert work(np.float32(0), np.int32(1000))[0] == 1000
    with pytest.raises(TooLong):
        for _ in range(1000):
            work(np.float32(0), np.int32(1000))


def test_a_factorisation_that_fails_says_so():
    with pytest.raises(np.linalg.LinAlgError):
        interpreted(jax.make_jaxpr(jnp.linalg.cholesky)(jnp.eye(2)))(-np.eye(2, dtype=np.float32))


def test_loops_and_large_arrays_count():
    of = lambda function, *arrays: seconds(jax.make_jaxpr(function)(*arrays))
    small, large = jnp.ones(3), jnp.ones((500, 500))
    assert of(lambda x: jax.lax.fori_loop(0, 50, lambda i, y: y + x, x), small) > 40 * of(lambda x: x + x, small)
    assert of(jnp.linalg.cholesky, large) > 50 * of(lambda x: x + 1, large) > 50 * of(lambda x: x + 1, small)


def test_a_primitive_with_parameters_of_another_version_is_compiled(monkeypatch):
    traced = jax.make_jaxpr(jax.lax.cumsum)(jnp.arange(3.0))
    assert interpreted(traced)(np.arange(3.0)) == [pytest.approx([0, 1, 3])]
    monkeypatch.setitem(numpy_rules._RULES, "cumsum", lambda axis: np.cumsum)  # no `reverse` in that version
    assert interpreted(traced) is None
