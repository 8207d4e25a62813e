"""Mean field and rectifiers: closed forms, SciPy's integrals, finite networks within their standard errors, advice."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.optimize import brentq

import armillary as arm
from armillary.models import ACTIVATIONS, MLP
from armillary.theory.gaussian_means import error, mean, product_mean, value_and_slope
from armillary.theory.mean_field import (
    chi,
    correlation_map,
    correlation_slope,
    critical_bias_variance,
    critical_line,
    critical_weight_variance,
    fixed_correlation,
    fixed_length,
    length_map,
    length_slope,
)
from armillary.theory.phase_diagram import phase
from armillary.theory.rectified import (
    angles,
    correlations,
    deep_angle,
    deep_condition_number,
    deep_kernel,
    gain,
    kappa,
    layer_correlation,
    layer_slope,
    share,
    tangent_kernel,
)

COSINES = np.array([-0.99, -0.4, 0.0, 0.3, 0.9, 0.999999])


def phi(x, a, b):
    return a * x + b * abs(x)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0), (0.6, -0.8), (0.3, 1.2)])
def test_a_layer_of_rectifiers_is_the_gaussian_mean(a, b):
    size, part = gain(a, b), share(a, b)
    found = product_mean(lambda u: phi(u, a, b), 1.0, COSINES)
    np.testing.assert_allclose(found / size, layer_correlation(COSINES, part), atol=1e-11)
    slopes = product_mean(lambda u: a + b * np.sign(u), 1.0, COSINES)
    np.testing.assert_allclose(slopes / size, layer_slope(COSINES, part), atol=1e-11)
    assert np.isclose(kappa(a, b) ** 2, max(abs(a + b), abs(a - b)) ** 2 / size)


def test_the_derivative_of_the_correlation_is_the_slope():
    h = 1e-6
    rise = (layer_correlation(COSINES[:-1] + h, 0.7) - layer_correlation(COSINES[:-1] - h, 0.7)) / (2 * h)
    np.testing.assert_allclose(rise, layer_slope(COSINES[:-1], 0.7), atol=1e-5)


@given(rho=st.floats(-1.0, 1.0), part=st.floats(0.0, 1.0))
def test_layers_never_part_inputs_at_the_edge(rho, part):
    course = correlations(rho, 5, part)
    assert (np.diff(course) >= -1e-12).all() and course.max() <= 1 and np.isclose(course[0], rho)


def test_deep_networks_have_a_quarter_beside_the_diagonal():
    depth = 20_000
    for part in (0.5, 1.0):
        theta = angles(np.array([-0.5, 0.9]), depth, part)[-1]
        np.testing.assert_allclose(theta, deep_angle(depth, part), rtol=2e-3)
        np.testing.assert_allclose(tangent_kernel(0.0, depth, part) / depth, 0.25, rtol=2e-3)
        np.testing.assert_allclose(deep_kernel(theta, part), depth / 4, rtol=2e-3)
    rows = np.random.default_rng(0).normal(size=(8, 30))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    values = np.linalg.eigvalsh(tangent_kernel(rows @ rows.T, depth, 1.0))
    assert np.isclose(values[-1] / values[0], deep_condition_number(8), rtol=5e-3)


def test_small_angles_keep_their_digits():
    # The map of small angles is theta' = theta - 2 share theta²/(3 pi) + ...: of relative size 1e-7 here.
    course = angles(np.cos(1e-6), 1, 1.0)
    shrunk = (course[0] - course[1]) / course[0] ** 2
    assert np.isclose(shrunk, 2 / (3 * np.pi), rtol=1e-3)


def test_the_tangent_kernel_is_that_of_wide_networks():
    depth, width, variance = 4, 512, 1.5
    x = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]) * jnp.sqrt(3.0)

    @jax.jit
    def kernel(key):
        model = MLP(width, depth, "relu", "ntk", bias=False, gain=1.0, scale=1.0)
        net = model(key, 3, 1)
        # The weight variance is a multiplier in the tangent kernel's form.
        f = lambda layers, x: _forward(layers, x, variance)
        layers = [layer.weight for layer in net.layers]
        jac = jax.vmap(lambda one: jnp.concatenate([g.ravel() for g in jax.grad(f)(layers, one)]))(x)
        return jac @ jac.T

    seen = np.stack([kernel(jax.random.key(i)) for i in range(24)])
    said = tangent_kernel(np.array([[1.0, 0.6], [0.6, 1.0]]), depth, 0.5, 0.5, variance)
    off = (seen.mean(axis=0) - said) / (seen.std(axis=0, ddof=1) / np.sqrt(24))
    assert np.abs(off).max() < 4, off


def _forward(layers, x, variance):
    for index, w in enumerate(layers):
        x = jax.nn.relu(x) if index else x
        x = jnp.sqrt(variance / w.shape[1]) * w @ x
    return x[0]


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"quadratic"}))
@pytest.mark.parametrize("variance", [1e-6, 0.7, 400.0])
def test_means_are_those_of_adaptive_integration(name, variance):
    if name in ("sin", "cos") and variance > 10:  # it swings between nodes, and the estimate says so
        assert error(mean, lambda u, z: ACTIVATIONS[name](u) ** 2, variance) > 1e-3
        return
    if name == "exp" and variance > 10:  # grows faster than the powers that `mean` takes
        assert np.log(mean(lambda u, z: np.exp(2 * u), variance)) < 2 * variance - 7
        return
    value, slope = value_and_slope(name)
    for function in (lambda u: value(u) ** 2, lambda u: slope(u) ** 2):
        density = lambda z, f=function: (
            float(f(np.array(np.sqrt(variance) * z))) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        )
        near = 1 / np.sqrt(variance)
        edges = sorted({-12.0, *(s * min(k * near, 11.0) for s in (-1, 1) for k in (1, 5, 25)), 0.0, 12.0})
        whole = sum(
            quad(density, lo, hi, epsabs=1e-14, epsrel=1e-10, limit=50)[0] for lo, hi in itertools.pairwise(edges)
        )
        assert np.isclose(mean(lambda u, z, f=function: f(u), variance), whole, rtol=1e-8)


def test_products_of_a_smooth_activation_are_those_of_double_integration():
    both = lambda y, x, c=0.6: (
        np.tanh(1.3 * x) * np.tanh(1.3 * (c * x + np.sqrt(1 - c * c) * y)) * np.exp(-(x * x + y * y) / 2) / (2 * np.pi)
    )
    whole = dblquad(both, -8, 8, -8, 8, epsabs=1e-8)[0]
    assert np.isclose(product_mean(np.tanh, 1.69, 0.6), whole, atol=1e-8)
    assert error(product_mean, np.tanh, 1.69, 0.6) < 1e-9


def test_error_functions_follow_the_arcsine_law():
    q = np.array([0.01, 1.0, 1e4])[:, None]
    value, slope = value_and_slope("erf")
    said = 2 / np.pi * np.arcsin(2 * q * COSINES / (1 + 2 * q))
    np.testing.assert_allclose(product_mean(value, q, COSINES), said, atol=1e-11)
    said = 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - (2 * q * COSINES) ** 2)
    np.testing.assert_allclose(product_mean(slope, q, COSINES), said, rtol=1e-5)


def test_relu_and_linear_fixed_points_are_closed_forms():
    np.testing.assert_allclose(fixed_length("relu", np.array([0.5, 1.5]), 0.3), [0.4, 1.2], rtol=1e-9)
    assert fixed_length("linear", 0.5, 1.0) == pytest.approx(2.0) and np.isinf(fixed_length("linear", 1.2, 0.0))
    assert fixed_length("relu", 2.0, 0.0, start=3.0) == 3.0  # every length stays
    assert np.isinf(fixed_length("relu", 2.0, 1e-3)) and fixed_length("relu", 1.9, 0.0) == 0.0
    assert np.isclose(correlation_map("relu", 0.3, 1.0, 2.0), layer_correlation(0.3, 0.5))
    assert np.isclose(correlation_slope("relu", 0.3, 1.0, 2.0), layer_slope(0.3, 0.5))
    assert critical_weight_variance("relu", 0.0) == pytest.approx(2.0)
    assert critical_weight_variance("leaky_relu", 0.0) == pytest.approx(2 / (1 + 0.01**2))
    assert np.isnan(critical_bias_variance("relu", 1.5))


def test_a_quadratic_network_goes_to_0_or_to_infinity():
    # q' = 3 s q², whose fixed point 1/(3 s) is not stable.
    assert fixed_length("quadratic", 0.3) == 0.0 and np.isinf(fixed_length("quadratic", 0.4))
    assert length_slope("quadratic", 1 / 0.9, 0.3) == pytest.approx(2.0)


def test_tanh_is_critical_where_the_literature_has_it():
    assert round(critical_weight_variance("tanh", 0.05), 3) == 1.761
    assert round(critical_weight_variance("tanh", 0.1), 3) == 1.986
    assert round(float(fixed_length("tanh", 1.761, 0.05)), 3) == 0.570


@pytest.mark.parametrize("bias", [0.01, 0.2])
def test_the_edge_is_where_nested_roots_find_it(bias):
    """The same by SciPy, as a root in the weight variance of chi at an iterated fixed point."""
    z, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()

    def away(variance):
        q = 1.0
        for _ in range(3000):
            q = variance * w @ np.tanh(np.sqrt(q) * z) ** 2 + bias
        return variance * w @ np.cosh(np.sqrt(q) * z) ** -4.0 - 1

    found = critical_weight_variance("tanh", bias)
    assert np.isclose(found, brentq(away, 1.0, 3.0, xtol=1e-9), rtol=1e-5)
    assert np.isclose(critical_bias_variance("tanh", found), bias, rtol=1e-5)
    q = fixed_length("tanh", found, bias)
    np.testing.assert_allclose(critical_line("tanh", q), (found, bias), rtol=1e-6)


def test_gelu_is_critical_with_enough_bias_only():
    assert np.isnan(critical_weight_variance("gelu", 0.05))
    found = critical_weight_variance("gelu", 0.6)
    q = fixed_length("gelu", found, 0.6)
    assert np.isclose(chi("gelu", q, found), 1, atol=1e-6) and length_slope("gelu", q, found) < 1


def test_chaotic_networks_decorrelate_to_the_fixed_point():
    q = fixed_length("tanh", 2.5, 0.1)
    c, course = 0.99, []
    for _ in range(250):
        c = float(correlation_map("tanh", c, q, 2.5, 0.1))
        course.append(c)
    found = fixed_correlation("tanh", float(q), 2.5, 0.1)
    assert np.isclose(course[-1], found, atol=1e-3) and found < 0.9
    slope = correlation_slope("tanh", found, q, 2.5)
    rates = np.diff(np.log(np.abs(np.array(course[100:120]) - found)))
    np.testing.assert_allclose(np.exp(rates), slope, rtol=0.02)
    assert fixed_correlation("tanh", float(fixed_length("tanh", 3.0)), 3.0) == 0.0  # odd, without biases


@pytest.mark.parametrize(("name", "weight", "bias"), [("tanh", 2.5, 0.1), ("relu", 1.5, 0.2), ("gelu", 2.5, 0.3)])
def test_finite_networks_have_the_lengths_and_correlations(name, weight, bias):
    width, depth, draws = 400, 5, 40
    x = jnp.array([[1.0, 0.0], [0.3, np.sqrt(1 - 0.09)]]) * jnp.sqrt(2.0)

    def run(key):
        h, seen = x, []
        for index in range(depth):
            key, one, two = jax.random.split(key, 3)
            before = h if index == 0 else ACTIVATIONS[name](h)
            fan = before.shape[1]
            w = jax.random.normal(one, (fan, width)) * jnp.sqrt(weight / fan)
            h = before @ w + jnp.sqrt(bias) * jax.random.normal(two, (width,))
            seen.append(h @ h.T / width)
        return jnp.stack(seen)

    seen = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), draws)))
    q, c = weight + bias, (weight * 0.3 + bias) / (weight + bias)
    for layer in range(depth):
        if layer:
            c = float(correlation_map(name, c, q, weight, bias))
            q = float(length_map(name, q, weight, bias))
        for values, said in ((seen[:, layer, 0, 0], q), (seen[:, layer, 0, 1], q * c)):
            # Finite width has a bias of its own, of the order of the variance of one draw.
            spread = values.std(ddof=1)
            assert abs(values.mean() - said) < 4 * spread / np.sqrt(draws) + spread**2 / abs(said), (layer, said)


def test_advice_says_where_and_what_to_change():
    chaotic = phase("tanh", 2.5, 0.1, depth=100)
    assert (chaotic.regime, chaotic.trainable) == ("chaotic", False)
    assert np.isclose(chaotic.trainable_depth, 6 * chaotic.correlation_scale)
    moved = phase("tanh", 2.5 * chaotic.weight_factor**2, 0.1, depth=100)
    assert moved.regime == "edge" and moved.trainable and moved.error < 1e-10
    assert phase("tanh", 2.5, chaotic.critical_bias_variance).regime == "edge"
    ordered = phase("tanh", 1.0, 0.05, depth=10)
    assert (ordered.regime, ordered.trainable, ordered.correlation) == ("ordered", True, 1.0)
    assert np.isclose(ordered.correlation_scale, -1 / np.log(ordered.chi))
    assert "multiply the weights by 1.33" in str(ordered)
    growing = phase("relu", 2.5, depth=50)
    assert growing.diverges and "lengths grow without bound" in growing.advice and not growing.trainable
    assert np.isclose(growing.length_scale, 1 / np.log(1.25))
    assert "No weight variance is critical with these biases" in str(phase("gelu", 2.0, 0.1))


def test_any_function_has_a_phase():
    def clipped(x):
        return jnp.clip(x, -1.0, 1.0)

    found = phase(clipped, 1.2, 0.02)
    assert found.activation == "clipped" and 0 < found.length < 1.22
    assert np.isclose(found.chi, 1.2 * (1 - 2 * _tail(1 / np.sqrt(found.length))), rtol=0.05)  # a kink off 0
    assert found.error > 1e-6  # and it says so


def _tail(x):
    from scipy.stats import norm

    return norm.sf(x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: phase("relu", -1.0), "the weight variance is -1, but must be at least 0"),
        (lambda: phase("relu", 1.0, -0.1), "the bias variance is -0.1, but must be at least 0"),
        (lambda: phase("relu", 1.0, depth=0), "depth is 0, but must be at least 1"),
        (lambda: fixed_length("relu", 1.0, start=0.0), "the length at the start is 0, but must be above 0"),
        (lambda: layer_correlation(1.5, 0.5), "the cosine is 1.5, but must be at least -1 and at most 1"),
        (lambda: layer_correlation(0.5, 1.5), "the even part's share is 1.5, but must be at least 0 and at most 1"),
        (lambda: tangent_kernel(0.5, 0, 0.5), "depth is 0, but must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def test_an_unknown_activation_is_named():
    with pytest.raises(arm.ArmillaryError, match="unknown activation 'rellu'; nearest: relu"):
        phase("rellu", 2.0)
