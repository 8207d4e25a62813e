"""Kernels of infinitely wide networks: closed forms against integration, entries against known numbers, and networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import armillary as arm
from armillary.errors import InvalidValue, UnknownName
from armillary.models import (
    MLP,
    ConvolutionalNet,
    DeepLinear,
    Gaussian,
    Orthogonal,
    Polynomial,
    RandomFeatures,
    Rectified,
)
from armillary.models.activations import ACTIVATIONS, activation
from armillary.tangents import empirical_kernel, traced_kernel
from armillary.theory.kernels import (
    CLOSED,
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    Kernel,
    LayerNorm,
    Serial,
    Sum,
    dual,
    series_error,
)  # fmt: skip
from armillary.theory.kernels.series import hermite_dual

SMOOTH = ["erf", "gelu", "sin", "cos", "exp", "gaussian", "quadratic", "linear"]


def pair_mean(function, q, p, c, count=200):
    """E f(u) f(v) by Gauss-Hermite on a grid; exact for smooth functions."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    w = w / w.sum()
    u = np.sqrt(q) * z
    v = c / np.sqrt(q) * z[:, None] + np.sqrt(p - c**2 / q) * z
    return float(np.einsum("a,b,a,ab->", w, w, function(u), function(v)))


def numpy_of(function):
    def evaluated(x):
        with jax.enable_x64(True):
            return np.asarray(function(jnp.asarray(x)))

    return evaluated


def at(found, q, p, c):
    with jax.enable_x64(True):
        return [float(v) for v in found.pair(*(jnp.asarray(float(v)) for v in (q, p, c)))]


@pytest.mark.parametrize("name", SMOOTH)
def test_closed_forms_equal_quadrature(name):
    phi = ACTIVATIONS[name]
    value, slope = at(dual(name), 1.3, 0.7, 0.5)
    assert np.isclose(value, pair_mean(numpy_of(phi), 1.3, 0.7, 0.5), atol=1e-10)
    assert np.isclose(slope, pair_mean(slope_of(phi), 1.3, 0.7, 0.5), atol=1e-9)


def slope_of(phi):
    return numpy_of(jax.jit(lambda x: jax.vmap(jax.grad(lambda t: phi(t).astype(float)))(x.ravel()).reshape(x.shape)))


def test_values_that_were_computed_elsewhere():
    """The catalogue's numbers at q = 1.3, q' = 0.7, c = 0.5."""
    known = {
        "relu": (0.298202, 0.337807), "abs": (0.692806, 0.351228), "erf": (0.220994, 0.460642), "gelu": (0.221526, 0.344604),
        "sin": (0.191700, 0.414830), "gaussian": (0.361787, 0.0947087), "tanh": (0.189790, 0.392488),
    }  # fmt: skip
    for name, values in known.items():
        assert np.allclose(at(dual(name), 1.3, 0.7, 0.5), values, atol=2e-6), name


@pytest.mark.parametrize("name", [n for n in CLOSED if n not in ("sign", "step")])
def test_slopes_are_derivatives_by_the_covariance(name):
    """Price's theorem, up to correlation -0.95 and 0.95."""
    for c in (-0.9, 0.0, 0.3, 0.9):
        up, down = at(dual(name), 1.3, 0.7, c + 1e-5)[0], at(dual(name), 1.3, 0.7, c - 1e-5)[0]
        assert np.isclose(at(dual(name), 1.3, 0.7, c)[1], (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


@given(st.floats(0.2, 3.0), st.floats(0.2, 3.0), st.floats(-0.95, 0.95))
@settings(max_examples=8, deadline=None)
def test_the_series_agrees_with_closed_forms_within_its_stated_error(q, p, rho):
    c = rho * np.sqrt(q * p)
    for name in ("erf", "relu", "rectified_quadratic"):
        found, exact = at(hermite_dual(name, 64), q, p, c), at(dual(name), q, p, c)
        bounds = [max(series_error(name, v, 64)[k] for v in (q, p)) for k in (0, 1)]
        sizes = [at(dual(name), max(q, p), max(q, p), max(q, p) * (1 - 1e-12))[k] for k in (0, 1)]
        for k in (0, 1):
            assert abs(found[k] - exact[k]) <= 1.01 * bounds[k] * sizes[k] + 1e-8


def test_the_float32_angle_is_exact_to_single_precision():
    from armillary.theory.kernels.duals import angle

    c = np.linspace(-1, 1, 4001)
    assert np.abs(np.asarray(angle(jnp.asarray(c, jnp.float32))) - np.arccos(c.astype(np.float32))).max() < 4e-7


def test_polynomials_and_rectifiers():
    # (1 + 2 s²): E = 1 + 2 q + 2 p + 4 (2 c² + q p)
    assert np.isclose(at(dual(Polynomial((1.0, 0.0, 2.0))), 1.3, 0.7, 0.5)[0], 1 + 4.0 + 4 * (0.5 + 0.91), atol=1e-9)
    relu = at(dual("relu"), 1.3, 0.7, 0.5)
    assert np.allclose(at(dual(Rectified(1.0, 1.0)), 1.3, 0.7, 0.5), [2 * v for v in relu])


def layers(phi, depth, weight, bias):
    made = [layer for _ in range(depth) for layer in (Dense(weight, bias), Activation(phi))]
    return Kernel(*made, Dense(weight, bias))


@pytest.mark.parametrize(
    ("phi", "weight", "bias", "depth", "expected"),
    [
        ("relu", 2.0, 0.0, 1, (1.272335, 4.0, 2.008972)),
        ("relu", 2.0, 0.0, 3, (1.505119, 8.0, 3.639265)),
        ("relu", 2.0, 0.1, 3, (1.890595, 9.0, 4.464016)),
        ("erf", 1.5, 0.1, 3, (0.454028, 3.157160, 1.396701)),
    ],
)
def test_known_kernels_of_two_inputs(phi, weight, bias, depth, expected):
    x = np.sqrt(2) * np.array([[1.0, 0.0], [np.cos(1), np.sin(1)]])
    found = layers(phi, depth, weight, bias)(x)
    assert np.allclose([found.nngp[0, 1], *found.ntk[0]], expected, atol=2e-6)
    assert np.array_equal(found.ntk, found.ntk.T)


def test_known_kernels_of_convolutions():
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    body = [layer for _ in range(2) for layer in (Convolution(2.0, 0.1), Activation("relu"))]
    flat, pooled = Kernel(*body, Flatten(), Dense(2.0, 0.1))(x), Kernel(*body, GlobalAveragePool(), Dense(2.0, 0.1))(x)
    assert np.allclose([*flat.nngp[0], *flat.ntk[0]], [1.843845, 1.100447, 5.231534, 2.224916], atol=2e-6)
    assert np.allclose([*pooled.nngp[0], *pooled.ntk[0]], [1.131479, 0.836288, 2.057584, 1.262099], atol=2e-6)


def test_blocks_halves_and_the_diagonal_agree():
    x = np.random.default_rng(0).normal(size=(70, 5))
    kernel = layers("relu", 2, 2.0, 0.1)
    whole, blocks, other = kernel(x), kernel(x, memory=1e6), kernel(x, x[:7])
    assert np.allclose(whole.ntk, blocks.ntk, rtol=1e-12) and np.allclose(whole.ntk[:, :7], other.ntk, atol=1e-6)
    assert (
        np.allclose(np.diag(whole.nngp), kernel.diagonal(x).nngp)
        and kernel.ntk(x.astype(np.float32)).dtype == np.float32
    )


def drawn(model, inputs, inputs_at, count):
    """Means and standard errors of products of outputs and of tangent kernels over networks."""

    def one(key):
        network, x = model(key, inputs, 1), jnp.asarray(inputs_at)
        f = jax.vmap(network)(x)[:, 0]
        return f[:, None] * f, traced_kernel(network, x, outputs="mean", own_metric=True)

    with jax.enable_x64(True):
        found = jax.lax.map(one, jax.random.split(jax.random.key(1), count))
    return [(np.asarray(v).mean(0), np.asarray(v).std(0) / np.sqrt(count)) for v in found]


MODELS = {
    "ntk": MLP(128, 3, "relu", "ntk", bias_variance=1.0, bias_scale=0.3),
    "standard": MLP(128, 3, "tanh", "standard", bias_variance=0.2),
    "mup": MLP(128, 3, "erf", "mup", bias=False),
    "mean field": MLP(128, 2, "gelu", "mean_field"),
    "deep linear": DeepLinear(3, 64, Gaussian(0.9)),
    "orthogonal": DeepLinear(3, 64, Orthogonal(1.1)),
    "features": RandomFeatures(128, scale=0.1, projection_scale=0.3),
    "flattened": ConvolutionalNet(
        (6, 3), 64, 2, padding="same", parametrisation="ntk", bias_variance=1.0, bias_scale=0.3
    ),
    "pooled": ConvolutionalNet((3, 3, 2), 48, 2, padding="circular", pooling="average", parametrisation="ntk"),
    "strided": ConvolutionalNet((6, 3), 64, 2, size=2, stride=2, padding="valid", parametrisation="ntk"),
}


@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_the_means_of_wide_networks(name):
    """Within 5 standard errors of 200 networks, and 2 % for what is of order 1/width."""
    x = np.random.default_rng(0).normal(size=(3, 18))
    said = arm.kernel(MODELS[name], 18)(x)
    for (mean, error), exact in zip(drawn(MODELS[name], 18, x, 200), said, strict=True):
        assert np.all(np.abs(mean - exact) <= 5 * error + 0.02 * np.abs(exact).max())
        assert error.max() < 0.2 * np.abs(exact).max() + 1e-6


def test_fluctuations_fall_as_one_over_the_root_of_the_width():
    x = np.random.default_rng(0).normal(size=(2, 4))
    spread = [drawn(MLP(w, 3, "relu", "ntk", bias=False), 4, x, 150)[1][1].max() for w in (32, 512)]
    assert 2.5 < spread[0] / spread[1] < 6.5  # 4


def test_branches_norms_and_pools_against_networks():
    """A residual network with layer normalisation and a local pool, drawn by hand."""
    width, x = 96, np.random.default_rng(0).normal(size=(2, 4, 3))
    kernel = Kernel(
        Convolution(2.0, size=1), Sum((Serial(), Serial((LayerNorm(), Activation("relu"), Convolution(1.5, 0.0, size=3))))),
        AveragePool(2), Activation("tanh"), Flatten(), Dense(1.0),
    )  # fmt: skip

    def network(weights, x):
        first, second, last = weights
        h = np.sqrt(2.0 / 3) * x @ first
        normed = h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True))
        a = jax.nn.relu(normed)
        patches = jnp.concatenate([jnp.roll(a, -d, axis=0) for d in (-1, 0, 1)], axis=-1)
        h = h + np.sqrt(1.5 / (3 * width)) * patches @ second
        pooled = h.reshape(2, 2, width).mean(1)
        return jnp.tanh(pooled).ravel() @ last / np.sqrt(2 * width)

    def one(key):
        a, b, c = jax.random.split(key, 3)
        weights = tuple(
            jax.random.normal(k, s) for k, s in ((a, (3, width)), (b, (3 * width, width)), (c, (2 * width,)))
        )
        gradients = jax.vmap(lambda one: ravel_pytree(jax.grad(network)(weights, one))[0])(jnp.asarray(x))
        f = jax.vmap(lambda one: network(weights, one))(jnp.asarray(x))
        return f[:, None] * f, gradients @ gradients.T

    with jax.enable_x64(True):
        found = jax.lax.map(one, jax.random.split(jax.random.key(0), 150))
    for values, exact in zip(found, kernel(x), strict=True):
        mean, error = np.asarray(values).mean(0), np.asarray(values).std(0) / np.sqrt(150)
        assert np.all(np.abs(mean - exact) <= 5 * error + 0.02 * exact.max())


def test_ranks_of_kernels():
    """Ten points on the circle, antipodal pairs: the catalogue's ranks."""
    angles = 2 * np.pi * np.arange(10) / 10
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rank = lambda *args: np.linalg.matrix_rank(layers(*args).ntk(x), tol=1e-6)
    assert rank("relu", 1, 1.0, 0.0) == 7 and rank("relu", 1, 1.0, 0.1) == 10 and rank("relu", 2, 1.0, 0.0) == 10
    assert rank("quadratic", 1, 1.0, 0.0) == 3 and rank("quadratic", 1, 1.0, 0.1) == 5


BAD = [
    (lambda: layers("relu", 1, 2.0, 0.0)(np.array([[1.0, 0.0], [0.0, 0.0]])), "sample 1 has variance 0 before layer 1"),
    (lambda: layers("sign", 1, 2.0, 0.0).ntk(np.eye(2)), "'sign' jumps"),
    (lambda: layers(lambda u: jnp.exp(u**2), 1, 2.0, 0.0)(np.eye(2)), "not square-integrable"),
    (lambda: layers("rellu", 1, 2.0, 0.0), "unknown activation 'rellu'"),
    (lambda: Kernel(jnp.tanh), "no layer with a kernel"),
    (lambda: Sum((Serial(), Serial((Dense(), Activation())))), "branches [0, 1] of a Sum do not end in"),
    (lambda: Kernel(Convolution(), Dense())(np.ones((2, 4, 3))), "end with Flatten() or GlobalAveragePool()"),
    (lambda: Kernel(Convolution(), Flatten(), Dense())(np.ones((2, 3))), "these are vectors"),
    (lambda: Kernel(Dense())(np.full((2, 3), np.nan)), "x is not finite at sample 0"),
    (lambda: Kernel(Dense())(np.ones((0, 3))), "not empty"),
    (lambda: Kernel(Dense())(np.ones((2, 3)), np.ones((2, 4))), "but must be like x"),
    (lambda: Convolution(size=2), "must be odd"),
    (lambda: arm.kernel(MLP(parametrisation="standard")), "give kernel(model, inputs=...)"),
    (lambda: arm.kernel(eqx.nn.Identity()), "a Identity has no known kernel"),
    (lambda: ConvolutionalNet((4, 4, 1))(jax.random.key(0), 15, 1), "there are 15 inputs"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_has_no_kernel_says_why(call, message):
    with pytest.raises((InvalidValue, UnknownName)) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_empirical_kernels_take_any_user_network():
    """One with a layer that is used twice and weights outside layers, against the whole Jacobian."""

    class Odd(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        last: eqx.nn.Linear

        def __call__(self, x):
            return self.last(self.norm(self.first(x) + jnp.tanh(self.first(2 * x))))

    a, b = jax.random.split(jax.random.key(0))
    network = Odd(eqx.nn.Linear(5, 6, key=a), eqx.nn.LayerNorm(6), eqx.nn.Linear(6, 2, key=b))
    check_against_jacobian(network, 5)


def check_against_jacobian(network, inputs, **how):
    x = np.random.default_rng(0).normal(size=(5, inputs)).astype(np.float32)
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, back = ravel_pytree(weights)
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda w, x: eqx.combine(back(w), rest)(x)), (None, 0)))(
        flat, jnp.asarray(x)
    )
    full = np.asarray(jnp.einsum("nka,mla->nkml", jacobian, jacobian))
    found = empirical_kernel(network, x, outputs="full", own_metric=False, **how)
    assert np.allclose(found, full, atol=1e-4 * full.max())
    each = empirical_kernel(network, x, x[:2], outputs="each", own_metric=False)
    assert np.allclose(each, np.einsum("nkmk->nmk", full)[:, :2], atol=1e-4 * full.max())
    mean = np.einsum("nkmk->nm", full) / full.shape[1]
    parts = empirical_kernel(network, x, by_layer=True, own_metric=False)
    assert np.allclose(parts.sum(0), mean, atol=1e-4 * full.max())


def test_empirical_kernels_where_layers_cannot_listen():
    """A network that maps its layer over tokens itself, and a deep one whose layers run in a compiled loop."""

    class Tokens(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x):
            return jnp.tanh(jax.vmap(self.layer)(x.reshape(3, 2))).mean(0)

    check_against_jacobian(Tokens(eqx.nn.Linear(2, 4, key=jax.random.key(0))), 6)
    check_against_jacobian(MLP(7, 12, "tanh")(jax.random.key(0), 6, 2), 6)


@pytest.mark.parametrize("channels", [3, 40])  # contracted by gradients, and by positions
def test_empirical_kernels_of_convolutions(channels):
    check_against_jacobian(ConvolutionalNet((6, 2), channels, 2)(jax.random.key(0), 12, 2), 12, memory=1e6)


def test_probes_of_the_kernel():
    x = jax.random.normal(jax.random.key(0), (8, 3))
    y = x[:, :1] * x[:, 1:2]
    model = MLP(16, 2, "tanh", "ntk")
    start, later = (model(jax.random.key(seed), 3, 1) for seed in (0, 1))
    probes = [arm.probes.KernelDrift(8), arm.probes.KernelTargetAlignment(8), arm.probes.KernelSpectrum(8)]
    seen = arm.probe(later, probes, data=(x, y), initial=start)
    before, after = (empirical_kernel(n, x) for n in (start, later))
    drift = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert np.isclose(seen.kernel_drift, drift, rtol=1e-4)
    aligned = (y.T @ after @ y).item() / np.linalg.norm(after) / (y.T @ y).item()
    assert np.isclose(seen.target_alignment, aligned, rtol=1e-4)
    values = np.linalg.eigvalsh(after)[::-1]
    assert np.allclose(seen.kernel_eigenvalues, values, atol=1e-4 * values[0])
    assert np.isclose(seen.kernel_rank, values.sum() ** 2 / (values**2).sum(), rtol=1e-3)
    with pytest.raises(arm.ArmillaryError, match="pass initial="):
        arm.probe(later, probes[:1], data=(x, y))


def test_linearisation_error_is_zero_for_networks_linear_in_weights():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    for model, low, high in ((MLP(8, 1), 0.0, 1e-5), (MLP(8, 3), 0.05, 1e3)):
        start, later = (model(jax.random.key(seed), 4, 2) for seed in (0, 1))
        seen = arm.probe(later, [arm.probes.LinearisationError()], data=(x, x), initial=start)
        assert low <= float(seen.linearisation_error) <= high
    same = arm.probe(start, [arm.probes.LinearisationError()], data=(x, x), initial=start)
    assert np.isnan(float(same.linearisation_error))


def test_activations_have_the_names_that_kernels_know():
    assert set(CLOSED) <= set(ACTIVATIONS)
    assert callable(activation("gelu")) and np.isclose(float(activation("gelu")(jnp.asarray(1.0))), 0.841345, atol=1e-5)
