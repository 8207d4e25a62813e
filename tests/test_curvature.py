"""Curvature operators, eigenvalues, densities and traces against dense matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import armillary as arm
from armillary import curvature
from armillary.curvature.operators import Operator
from armillary.errors import InvalidValue, ProbeError, UnknownName
from armillary.models import MLP
from armillary.probes.curvature import (
    DenseSpectrum,
    ExtremeEigenvalues,
    GradientNoise,
    Sharpness,
    SpectralDensity,
    Traces,
)  # fmt: skip
from armillary.rules import SGD, Descent, Loss
from armillary.tasks import Samples


@pytest.fixture(scope="module")
def double():
    with jax.enable_x64(True):
        yield


def problem(kind: str, outputs: int = 3):
    """A small tanh network and its samples, as NumPy would have them."""
    network = MLP(width=5, depth=2, activation="tanh")(jax.random.key(0), 4, outputs)
    x = jax.random.normal(jax.random.key(1), (17, 4))
    if kind == "cross_entropy":
        return network, Samples(x, jax.random.randint(jax.random.key(2), (17,), 0, outputs))
    return network, Samples(x, jax.random.normal(jax.random.key(2), (17, outputs)))


def flat_loss(network, samples, loss):
    """The loss as a function of one flat vector."""
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, tree = ravel_pytree(trained)
    return flat, lambda v, s=samples: loss(eqx.combine(tree(v), rest), s)


def matrix(operator: Operator) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(operator.product))(jnp.eye(operator.size, dtype=operator.dtype)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["squared_error", "cross_entropy"])
def test_the_hessian_is_the_dense_one_whole_and_in_chunks(kind, reduction, double):
    (network, samples), loss = problem(kind), Loss(kind, reduction)
    flat, value = flat_loss(network, samples, loss)
    dense = np.asarray(jax.jit(jax.hessian(value))(flat))
    for memory in (1e9, 4e3, 1.0):
        np.testing.assert_allclose(matrix(curvature.hessian(loss, network, samples, memory=memory)), dense, atol=1e-12)


@pytest.mark.parametrize("kind", ["squared_error", "cross_entropy"])
def test_gauss_newton_is_the_jacobians_sandwich(kind, double):
    (network, samples), loss = problem(kind), Loss(kind)
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, tree = ravel_pytree(trained)
    outputs = lambda v: jax.vmap(eqx.combine(tree(v), rest))(samples.inputs)
    jacobian, f = np.asarray(jax.jit(jax.jacobian(outputs))(flat)), np.asarray(outputs(flat))
    if kind == "squared_error":
        bends = np.broadcast_to(np.eye(3), (17, 3, 3))
    else:
        p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
        bends = np.stack([np.diag(q) - np.outer(q, q) for q in p])
    dense = np.einsum("sop,soq,sqr->pr", jacobian, bends, jacobian) / 17
    for memory in (1e9, 4e3):
        found = matrix(curvature.gauss_newton(loss, network, samples, memory=memory))
        np.testing.assert_allclose(found, dense, atol=1e-12)


def test_the_gradient_covariance_is_that_of_single_samples(double):
    (network, samples), loss = problem("cross_entropy"), Loss("cross_entropy")
    flat, value = flat_loss(network, samples, loss)
    each = np.stack([np.asarray(jax.grad(value)(flat, samples[i : i + 1])) for i in range(17)])
    for memory in (1e9, 2e3):
        found = matrix(curvature.gradient_covariance(loss, network, samples, memory=memory))
        np.testing.assert_allclose(found, np.cov(each.T, bias=True), atol=1e-12)
    plain = matrix(curvature.gradient_covariance(loss, network, samples, centred=False))
    np.testing.assert_allclose(plain, each.T @ each / 17, atol=1e-12)


def test_parts_of_a_network_and_its_own_metric(double):
    (network, samples), loss = problem("squared_error"), Loss()
    whole = matrix(curvature.hessian(loss, network, samples))
    first = matrix(curvature.hessian(loss, network, samples, where=lambda n: n.layers[0]))
    np.testing.assert_allclose(first, whole[: len(first), : len(first)], atol=1e-13)
    scaled = MLP(width=5, depth=2, activation="tanh", parametrisation="mup")(jax.random.key(0), 4, 3)
    rates = arm.models.learning_rate_scales(scaled, adaptive=False)
    spread = [np.full(np.size(leaf), np.sqrt(rate)) for leaf, rate in zip(
        jax.tree.leaves(arm.models.parameters(scaled)), jax.tree.leaves(rates), strict=True)]  # fmt: skip
    d = np.concatenate(spread)
    assert len(set(d.tolist())) > 1
    plain = matrix(curvature.hessian(loss, scaled, samples))
    own = matrix(curvature.hessian(loss, scaled, samples, own_metric=True))
    np.testing.assert_allclose(own, d[:, None] * plain * d, atol=1e-12)


solved = jax.jit(
    lambda a, start, count, which: curvature.eigenpairs(lambda v: a @ v, start, count, which=which),
    static_argnums=(2, 3),
)


@given(seed=st.integers(0, 1000), size=st.sampled_from([5, 60]), count=st.sampled_from([1, 3]))
@settings(max_examples=15, deadline=None)
def test_eigenpairs_are_numpys_within_their_residuals(seed, size, count):
    draw = np.random.default_rng(seed)
    a = draw.normal(size=(size, size))
    a = (a + a.T) / np.sqrt(size)
    exact = np.linalg.eigvalsh(a)
    start = jnp.asarray(draw.normal(size=size), jnp.float32)
    a = jnp.asarray(a, jnp.float32)
    for which in ("largest", "smallest", "both"):
        found = solved(a, start, count, which)
        assert bool(found.converged)
        nearest = np.abs(np.asarray(found.values)[:, None] - exact).min(axis=1)
        assert (nearest <= np.asarray(found.residuals) + 1e-5).all()
        up = (count + 1) // 2 if which == "both" else count
        ends = {"largest": exact[-count:], "smallest": exact[:count], "both": np.r_[exact[: count - up], exact[-up:]]}
        np.testing.assert_allclose(np.sort(found.values), np.sort(ends[which]), atol=2e-3 * np.abs(exact).max())
        image = np.asarray(found.vectors) @ np.asarray(a)
        errors = np.linalg.norm(image - np.asarray(found.values)[:, None] * np.asarray(found.vectors), axis=1)
        np.testing.assert_allclose(errors, found.residuals, atol=1e-4)


def test_restarts_find_what_a_large_basis_finds(double):
    spectrum = np.concatenate([np.linspace(0, 1, 195), [1.05, 1.1, 1.2, 1.3, 1.4]])
    product = lambda v: jnp.asarray(spectrum) * v
    start = jnp.asarray(np.random.default_rng(0).normal(size=200))
    small = curvature.eigenpairs(product, start, 3, basis=10, tolerance=1e-6, most=400)
    large = curvature.eigenpairs(product, start, 3, basis=100, tolerance=1e-6)
    np.testing.assert_allclose(small.values, [1.4, 1.3, 1.2], atol=1e-9)
    np.testing.assert_allclose(large.values, [1.4, 1.3, 1.2], atol=1e-9)
    assert bool(small.converged) and int(large.products) < int(small.products) < 200


def test_a_warm_start_costs_few_products_and_outside_products_are_the_same():
    a = jnp.diag(jnp.arange(1.0, 101.0) ** 2)
    cold = curvature.eigenpairs(lambda v: a @ v, jnp.ones(100), tolerance=1e-2)
    warm = curvature.eigenpairs(lambda v: 1.01 * (a @ v), cold.vectors[0], tolerance=1e-2)
    assert int(warm.products) <= 2 < int(cold.products)
    b = np.asarray(a)
    outside = curvature.eigenpairs(
        lambda v: jnp.asarray(b @ np.asarray(v)), jnp.ones(100), tolerance=1e-2, compiled=False
    )
    np.testing.assert_allclose(outside.values, cold.values, rtol=1e-6)
    assert int(outside.products) == int(cold.products)


def test_too_few_products_are_said_to_be():
    a = jnp.diag(jnp.linspace(0.0, 1.0, 100))
    assert not bool(curvature.eigenpairs(lambda v: a @ v, jnp.ones(100), 3, tolerance=1e-6, most=8).converged)


def test_the_density_has_the_matrixs_moments_and_reaches_its_edges(double):
    (network, samples), loss = problem("cross_entropy"), Loss("cross_entropy")
    operator = curvature.hessian(loss, network, samples)
    exact = np.linalg.eigvalsh(matrix(operator))
    found = curvature.quadrature(operator, jax.random.key(0), steps=30, draws=200)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, rtol=1e-10)
    for power in (1, 2):
        mean, error = curvature.density.estimate(found.mean(lambda x, p=power: x**p))
        assert abs(mean - np.mean(exact**power)) < 4 * error
    np.testing.assert_allclose(found.nodes.max(), exact.max(), rtol=1e-6)
    at, width = jnp.linspace(-1.0, 2.0, 300), 0.05
    smeared = np.exp(-(((np.asarray(at)[:, None] - exact) / width) ** 2) / 2).mean(1) / np.sqrt(2 * np.pi) / width
    density = np.asarray(found.density(at, width))
    error = density.std(axis=0, ddof=1) / np.sqrt(200)
    assert (np.abs(density.mean(axis=0) - smeared) < 5 * error + 1e-3 * smeared.max()).all()


def test_without_reorthogonalisation_outliers_keep_their_weight():
    spectrum = jnp.concatenate([jnp.linspace(0.0, 1.0, 990), jnp.array([20.0] * 10)])
    operator = Operator(lambda v: spectrum * v, 1000, spectrum.dtype, lambda v: v)
    found = curvature.quadrature(operator, jax.random.key(0), steps=100, draws=20)
    share = found.mean(lambda x: (x > 10).astype(x.dtype))  # signs give each eigenvector of this matrix the same weight
    np.testing.assert_allclose(share, 0.01, rtol=1e-3)


def test_traces_and_norms_are_within_their_errors(double):
    (network, samples), loss = problem("cross_entropy"), Loss("cross_entropy")
    operator = curvature.hessian(loss, network, samples)
    dense = matrix(operator)
    plain = curvature.trace(operator, jax.random.key(1), draws=100)
    deflated = curvature.trace(operator, jax.random.key(1), draws=100, low_rank=10)
    norm = curvature.squared_norm(operator, jax.random.key(1), draws=100)
    assert abs(plain.value - np.trace(dense)) < 4 * plain.error
    assert abs(deflated.value - np.trace(dense)) < 4 * deflated.error
    assert deflated.error < plain.error / 2
    assert abs(norm.value - np.sum(dense**2)) < 4 * norm.error


PROBES = [
    ExtremeEigenvalues(top=2, bottom=1), Sharpness(), SpectralDensity(steps=10, draws=2), Traces(draws=8), DenseSpectrum(),
    GradientNoise(), Sharpness(matrix="gauss_newton"), DenseSpectrum(matrix="gradient_covariance"),
]  # fmt: skip


def test_probes_see_the_same_in_the_loop_and_alone():
    task = arm.tasks.LinearTeacher(5, samples=20, outputs=3)
    rule = Descent(SGD(0.05), steps=4)
    experiment = arm.Experiment(task, MLP(4, 2, "tanh"), rule, PROBES, arm.Evenly(3), precision="float64")
    seen = arm.simulate(experiment, seeds=2)
    np.testing.assert_allclose(seen.sharpness, seen.hessian_spectrum.max("parameter"), rtol=1e-3)
    np.testing.assert_allclose(seen.hessian_eigenvalues[..., 2], seen.hessian_spectrum.min("parameter"), rtol=1e-3)
    gap = np.abs(seen.gradient_variance - seen.gradient_covariance_spectrum.sum("parameter"))
    assert (gap / seen.gradient_variance).max() < 0.5
    with jax.enable_x64(True):
        process = experiment.draw(jax.random.key(0))
        alone = arm.probe(process.initial, PROBES, data=process.data)
    assert set(alone.data_vars) <= set(seen.data_vars)


def test_the_noise_scale_is_the_dense_ratio(double):
    (network, samples), loss = problem("cross_entropy"), Loss("cross_entropy")
    flat, value = flat_loss(network, samples, loss)
    gradient = np.asarray(jax.grad(value)(flat))
    covariance = matrix(curvature.gradient_covariance(loss, network, samples))
    dense = matrix(curvature.hessian(loss, network, samples))
    seen = arm.probe(network, [GradientNoise(draws=3000)], data=samples, loss=loss)
    np.testing.assert_allclose(seen.noise_scale, np.trace(covariance) / (gradient @ gradient), rtol=0.05)
    curved = np.trace(dense @ covariance) / (gradient @ dense @ gradient)
    np.testing.assert_allclose(seen.curved_noise_scale, curved, rtol=0.1)
    total = arm.probe(network, [GradientNoise(draws=300)], data=samples, loss=Loss("cross_entropy", "sum"))
    again = arm.probe(network, [GradientNoise(draws=300)], data=samples, loss=loss)
    np.testing.assert_allclose(total.curved_noise_scale, again.curved_noise_scale, rtol=1e-9)


def no_part(network):
    return network.layers[0].multiplier


def broken(leaf):
    return leaf.at[0].set(jnp.nan) if eqx.is_inexact_array(leaf) else leaf


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda n, s: curvature.hessian(Loss(), eqx.nn.Identity(), s), "no trainable weights"),
        (lambda n, s: curvature.hessian(Loss(), n, s, where=no_part), "must select a part"),
        (lambda n, s: curvature.hessian(lambda n, s: jnp.ones(3), n, s), "must be a scalar"),
        (lambda n, s: curvature.hessian(Loss(), n, s[:0]), "at least one"),
        (lambda n, s: curvature.gauss_newton(lambda n, s: jnp.ones(()), n, s), "loss of single samples"),
        (lambda n, s: curvature.hessian(Loss("exponential", "log_mean"), n, s, memory=1e3), "no sum over chunks"),
        (lambda n, s: curvature.eigenpairs(lambda v: v, jnp.ones(3), 4), "at most 3"),
        (lambda n, s: curvature.eigenpairs(lambda v: v, jnp.ones(3), tolerance=0.0), "above 0"),
        (lambda n, s: curvature.dense(curvature.hessian(Loss(), n, s), limit=10), "at most 10"),
        (lambda n, s: arm.probe(n, [ExtremeEigenvalues(top=1000)], data=s), "trainable weights"),
        (lambda n, s: Sharpness(matrix="hesian"), "nearest: hessian"),
        (lambda n, s: arm.probe(n, [Sharpness()]), "needs data"),
        (lambda n, s: arm.probe(jax.tree.map(broken, n), [Sharpness()], data=s), "nan or infinite"),
        (lambda n, s: arm.probe(n, [Sharpness()], data=Samples(s.inputs[:0], s.targets[:0])), "at least one"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says, unchecked):
    network, samples = problem("squared_error")
    with pytest.raises((InvalidValue, UnknownName, ProbeError), match=says) as caught:
        make(network, samples)
    assert "\n" not in str(caught.value)


def test_searches_in_a_run_begin_where_the_last_one_ended():
    rule = Descent(SGD(0.3), 40, Loss("cross_entropy"))
    probe = ExtremeEigenvalues(top=1, tolerance=1e-2)
    task = arm.tasks.Digits(50, pooled=2)
    experiment = arm.Experiment(task, MLP(4, 2, "tanh"), rule, [probe, DenseSpectrum()], arm.Evenly(41))
    seen = arm.simulate(experiment, seeds=2)
    found = seen.hessian_eigenvalues
    error = np.abs(found / seen.hessian_spectrum.isel(parameter=[0]).values - 1)
    # Where two are as near as the tolerance, either may be found.
    assert np.median(error) < 1e-3 and np.quantile(error, 0.95) < 1e-2
    nearest = np.abs(found - seen.hessian_spectrum).min("parameter")
    assert (nearest <= seen.hessian_residuals + 1e-5).all()
    products = seen.hessian_products.mean("seed")
    assert products[1:].mean() < 5 < products[0]


def test_a_warm_start_follows_the_largest_when_another_overtakes_it():
    falling = lambda t: jnp.concatenate([jnp.linspace(0.0, 0.5, 48), jnp.array([2.0 - t, 1.5])])
    search = jax.jit(lambda t, start: curvature.eigenpairs(lambda v: falling(t) * v, start, tolerance=1e-2))
    found = search(0.0, jnp.ones(50))
    for t in np.arange(0.0, 1.01, 0.1):
        found = search(t, found.warm)
        np.testing.assert_allclose(found.values[0], max(2.0 - t, 1.5), rtol=1e-2)
    assert int(found.products) <= 4
