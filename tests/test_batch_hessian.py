"""Noisy curvature: spikes of random matrices, stable rates by iteration, samples' noise by dense Hessians, the Lanczos learner."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import armillary as arm
from armillary.errors import InvalidValue, ProbeError, UnknownName
from armillary.models import MLP, DeepLinear, Gaussian
from armillary.prediction import refusals
from armillary.probes import Losses
from armillary.probes.curvature import ExtremeEigenvalues
from armillary.probes.hessian_noise import BatchCurvature, BatchDensity, EigenvectorOverlap, HessianNoise
from armillary.probes.weights import LearningRate
from armillary.rules import SGD, Adam, Descent, Loss, MiniBatch, Online
from armillary.rules.lanczos_rate import LanczosRate, extent, heavy_ball, scale_by_lanczos
from armillary.tasks import Correlations, Digits, Samples
from armillary.tasks.spiked import NoisyQuadratic, QuadraticForm
from armillary.theory.batch_rates import largest_rates
from armillary.theory.random_matrix import Semicircle
from armillary.theory.spiked import (
    coupled_limit,
    covariance_overlap,
    crossover_batch,
    effective_batch,
    mean_square_limit,
    second_moments,
    spiked_covariance,
    spiked_wigner,
    wigner_overlap,
)  # fmt: skip


@pytest.fixture(scope="module")
def double():
    with jax.enable_x64(True):
        yield


def wigner(size, draw):
    g = draw.normal(size=(size, size))
    return (g + g.T) / np.sqrt(2 * size)


def test_spikes_move_in_wigner_noise_as_said():
    spikes, size = np.array([3.0, 1.5, 0.5, -2.0]), 700
    true = np.zeros(size)
    true[:4] = spikes
    for noise in (0.25, 1.0):
        values, vectors = np.linalg.eigh(np.diag(true) + np.sqrt(noise) * wigner(size, np.random.default_rng(1)))
        said, overlaps = spiked_wigner(spikes, noise), wigner_overlap(spikes, noise)
        np.testing.assert_allclose(values[[-1, -2, 0]], said[[0, 1, 3]], rtol=0.03)
        np.testing.assert_allclose(np.abs(vectors[[0, 1, 3], [-1, -2, 0]]) ** 2, overlaps[[0, 1, 3]], atol=0.06)
    assert said[2] == 2.0 and overlaps[2] == 0.0  # lost at noise 1
    assert abs(values[-3] - 2.0) < 0.05


def test_spikes_move_in_sample_covariances_as_said():
    size, samples, draw = 60, 120, np.random.default_rng(2)
    found = []
    for _ in range(300):
        x = draw.normal(size=(samples, size)) * np.sqrt(np.r_[6.0, 1.2, np.ones(size - 2)])
        values, vectors = np.linalg.eigh(x.T @ x / samples)
        found.append((values[-1], values[-2], vectors[0, -1] ** 2))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(300)
    said = spiked_covariance(np.array([6.0, 1.2]), size / samples)
    assert abs(mean[0] - said[0]) < 3 * error[0] + 0.03
    assert abs(mean[2] - covariance_overlap(6.0, size / samples)) < 3 * error[2] + 0.005
    assert said[1] == pytest.approx((1 + np.sqrt(0.5)) ** 2) and covariance_overlap(1.2, 0.5) == 0.0
    np.testing.assert_allclose(mean[1], said[1], rtol=0.1)  # the edge itself, from below by size^(-2/3)


def test_the_semicircle_is_the_histogram():
    values = np.linalg.eigvalsh(1.5 * wigner(800, np.random.default_rng(3)))
    law = Semicircle(2.25)
    counts, edges = np.histogram(values, bins=12, range=law.edges, density=True)
    np.testing.assert_allclose(counts, law.density((edges[1:] + edges[:-1]) / 2), atol=0.02)
    assert np.isclose(
        np.trapezoid(law.density(np.linspace(*law.edges, 2001)), np.linspace(*law.edges, 2001)), 1, atol=1e-4
    )


@given(curvature=st.floats(0.05, 5.0), noise=st.floats(1e-4, 50.0))
def test_the_limit_is_where_mean_squares_stop_to_fall(curvature, noise):
    limit = mean_square_limit(curvature, noise)
    factor = lambda rate: (1 - rate * curvature) ** 2 + rate**2 * noise
    assert factor(0.99 * limit) < 1 < factor(1.01 * limit)
    assert limit <= 2 / spiked_wigner(curvature, noise) * (1 + 1e-12)
    half = mean_square_limit(curvature, crossover_batch(curvature, noise) ** -1.0 * noise)
    assert half == pytest.approx(1 / curvature)  # at the crossover batch noise counts as much as curvature


def test_coupled_moments_are_those_of_random_matrices():
    """The mean of many runs with fresh noise, and the limit at which its recursion turns."""
    values, noise, rate = np.linspace(0.4, 1.6, 8), 0.6, 0.7
    draw, w = np.random.default_rng(4), np.ones((40_000, 8))
    for _ in range(3):
        g = draw.normal(size=(len(w), 8, 8))
        e = (g + np.swapaxes(g, 1, 2)) * np.sqrt(noise / 16)
        w = w - rate * (values * w + np.einsum("nij,nj->ni", e, w))
    np.testing.assert_allclose((w**2).mean(axis=0), second_moments(values, noise, rate, np.ones(8), 3)[-1], rtol=0.05)
    for noise in (0.01, 0.5, 20.0):
        limit = coupled_limit(values, noise)
        below, above = (second_moments(values, noise, f * limit, np.ones(8), 4000)[-1].sum() for f in (0.98, 1.02))
        assert below < 1e-2 and above > 1e2
    assert coupled_limit(values, 0.0) == 2 / 1.6
    assert coupled_limit(np.full(500, 0.8), 0.3) == pytest.approx(mean_square_limit(0.8, 0.3), rel=2e-3)
    assert coupled_limit(np.array([2.0]), 1e-9) == pytest.approx(1.0)


def test_batches_without_replacement_count_for_more(double):
    """Variance of a batch's mean by enumeration of all batches."""
    import itertools

    x = np.random.default_rng(0).normal(size=7)
    means = [np.mean(batch) for batch in itertools.combinations(x, 3)]
    assert np.var(means) == pytest.approx(np.var(x, ddof=1) / effective_batch(3, 7))
    assert np.isinf(effective_batch(7, 7)) and effective_batch(5) == 5


@eqx.filter_jit
def small_net():
    network = MLP(width=4, depth=2, activation="tanh", parametrisation="ntk")(jax.random.key(0), 3, 3)
    x = jax.random.normal(jax.random.key(1), (21, 3))
    return network, Samples(x, jax.random.randint(jax.random.key(2), (21,), 0, 3))


def dense_hessians(network, samples, kind="cross_entropy"):
    """Each sample's Hessian, whole."""
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, tree = ravel_pytree(trained)
    one = lambda v, x, y: Loss(kind)(eqx.combine(tree(v), rest), Samples(x[None], y[None]))
    each = jax.jit(jax.vmap(jax.hessian(one), in_axes=(None, 0, 0)))  # op by op it would take ten times as long
    return np.asarray(each(flat, samples.inputs, samples.targets))


def test_noise_is_that_of_dense_hessians_in_chunks_and_for_sums(double):
    network, samples = small_net()
    hessians = dense_hessians(network, samples)
    mean = hessians.mean(axis=0)
    values, vectors = np.linalg.eigh(mean)
    probe = HessianNoise(draws=200, tolerance=1e-9, memory=5e3)
    seen = arm.probe(network, [probe], data=samples, loss=Loss("cross_entropy", "sum"))
    assert seen.hessian_largest.item() == pytest.approx(values[-1], rel=1e-8)
    assert seen.hessian_smallest.item() == pytest.approx(values[0], rel=1e-8)
    for name, v in (("largest", vectors[:, -1]), ("smallest", vectors[:, 0])):
        each = (((hessians - mean) @ v) ** 2).sum(axis=1) * 21 / 20
        assert seen[f"hessian_{name}_noise"].item() == pytest.approx(each.mean(), rel=1e-6)
        assert seen[f"hessian_{name}_noise_error"].item() == pytest.approx(each.std(ddof=1) / np.sqrt(21), rel=1e-6)
    whole = ((hessians - mean) ** 2).sum() / 20 / len(values)
    gap = abs(seen.hessian_mean_noise.item() - whole)
    assert gap < 3 * seen.hessian_mean_noise_error.item() and gap < 0.2 * whole


def test_fewer_samples_are_an_estimate(double):
    network, samples = small_net()
    hessians = dense_hessians(network, samples)
    mean = hessians.mean(axis=0)
    values, vectors = np.linalg.eigh(mean)
    whole = (((hessians - mean) @ vectors[:, -1]) ** 2).sum(axis=1).mean() * 21 / 20
    some = arm.probe(network, [HessianNoise(samples=12)], data=samples, loss=Loss("cross_entropy"))
    apart = abs(some.hessian_largest_noise.item() - whole)
    assert 0 < apart < 3 * some.hessian_largest_noise_error.item()
    assert some.hessian_largest.item() == pytest.approx(values[-1], rel=1e-5) and some.training_samples.item() == 21


def test_batches_are_the_matrices_of_those_samples(double):
    """Single samples are found by enumeration; all 21 are one batch. The Gauss-Newton matrix has nothing negative."""
    network, samples = small_net()
    probes = [BatchCurvature((1, 21), 5, tolerance=1e-6), BatchCurvature((3,), 4, matrix="gauss_newton")]
    seen = arm.probe(network, probes[:1], data=samples, loss=Loss("cross_entropy"))
    hessians = dense_hessians(network, samples)
    ends = np.linalg.eigvalsh(hessians.mean(axis=0))
    np.testing.assert_allclose(seen.batch_largest[1], ends[-1], rtol=1e-6)
    np.testing.assert_allclose(seen.batch_smallest[1], ends[0], rtol=1e-6)
    np.testing.assert_allclose(seen.batch_overlap[1], 1.0, atol=1e-6)
    assert set(np.round(seen.batch_largest[0].values, 4)) <= set(np.round(np.linalg.eigvalsh(hessians)[:, -1], 4))
    positive = arm.probe(network, probes[1:], data=samples, loss=Loss("cross_entropy"))
    assert positive.gauss_newton_batch_smallest.min() > -1e-9 and positive.gauss_newton_batch_largest.min() > 0


def test_densities_of_batches_are_those_of_their_matrices(double):
    """All 21 samples have the whole matrix's ends and trace; single samples are found by enumeration."""
    network, samples = small_net()
    hessians = dense_hessians(network, samples)
    size = hessians.shape[-1]
    given = {"data": samples, "loss": Loss("cross_entropy")}
    seen = arm.probe(network, [BatchDensity((1, 21), steps=size, draws=6), BatchCurvature((3,), 2)], **given)
    assert seen.batch_nodes.dims == ("density_batch", "density_draw", "node") and seen.batch_nodes.shape == (2, 6, size)
    positive = arm.probe(network, [BatchDensity((3,), 5, 2, matrix="gauss_newton")], **given)
    assert positive.gauss_newton_batch_nodes.shape == (1, 2, 5) and positive.gauss_newton_batch_nodes.min() > -1e-9
    np.testing.assert_allclose(seen.batch_node_weights.sum("node"), 1.0, rtol=1e-10)
    values = np.linalg.eigvalsh(hessians.mean(axis=0))
    np.testing.assert_allclose(seen.batch_nodes[1].max("node"), values[-1], rtol=1e-6)
    np.testing.assert_allclose(seen.batch_nodes[1].min("node"), values[0], rtol=1e-6)
    traces = (seen.batch_nodes * seen.batch_node_weights).sum("node")[1].values
    assert abs(traces.mean() - values.mean()) < 4 * traces.std() / np.sqrt(6)
    assert set(np.round(seen.batch_nodes[0].max("node").values, 4)) <= set(
        np.round(np.linalg.eigvalsh(hessians)[:, -1], 4)
    )
    assert len(set(np.round(seen.batch_nodes[0].max("node").values, 4))) > 1


PROBES = (ExtremeEigenvalues(3, 1), EigenvectorOverlap(2), Losses())


def noisy(task=None, model=None, rule=None, probes=PROBES):
    task = task or NoisyQuadratic(500, (3.0, 1.5, -2.5), noise=4.0, batch=16.0)
    return arm.Experiment(task, model or DeepLinear(depth=1), rule or Descent(steps=0), probes, arm.At((0.0,)))


def test_the_theory_is_found_and_right():
    experiment = noisy()
    seen, said = arm.simulate(experiment, seeds=2), arm.predict(experiment)
    assert "spiked Wigner" in said.attrs["theories"]
    np.testing.assert_allclose(
        seen.hessian_eigenvalues.isel(time=0).mean("seed"), said.hessian_eigenvalues[0], rtol=0.04
    )
    overlap = seen.eigenvector_overlap.isel(time=0, eigenvalue=slice(2)).mean("seed")
    np.testing.assert_allclose(overlap, wigner_overlap(np.array([3.0, 1.5]), 0.25), atol=0.05)
    lost = arm.predict(noisy(NoisyQuadratic(500, (3.0, 1.5, -2.5), noise=64.0, batch=16.0)))
    np.testing.assert_allclose(lost.hessian_eigenvalues[0], [3 + 4 / 3, 4.0, 4.0, -2.5 - 4 / 2.5])


def test_noisy_descent_follows_its_mean():
    task = NoisyQuadratic(40, tuple(np.linspace(0.5, 1.5, 40).tolist()), noise=2.0)
    rule = Descent(SGD(0.3), steps=20, feed=Online(2))
    experiment = arm.Experiment(task, DeepLinear(depth=1, initialisation=Gaussian(2.0)), rule, [Losses()])
    seen, said = arm.simulate(experiment, seeds=300), arm.predict(experiment)
    wrong = (seen.test_loss.mean("seed") - said.test_loss) / (seen.test_loss.std("seed") / np.sqrt(300))
    assert np.abs(wrong).max() < 4
    assert said.test_loss[0].item() == pytest.approx(4 * 0.5)


@pytest.mark.parametrize(
    ("experiment", "name", "says"),
    [
        (noisy(NoisyQuadratic(100, (3.0,))), "spiked Wigner", "needs many weights (at least 200); there are 100"),
        (noisy(NoisyQuadratic(500, (1.0,) * 50)), "spiked Wigner",
         "needs few eigenvalues that are not 0; their share is 0.1 (allowed 0.02)"),
        (noisy(NoisyQuadratic(500, (3.0,), rest=0.1)), "spiked Wigner",
         "needs a bulk at 0; the rest of the spectrum is 0.1 (allowed 0)"),
        (noisy(probes=(Losses(),)), "spiked Wigner", "needs one ExtremeEigenvalues of the Hessian; there are 0"),
        (noisy(), "noisy descent", "needs fresh noise at each step; this is FullBatch"),
        (noisy(rule=Descent(Adam(), feed=Online())), "noisy descent",
         "needs plain gradient descent; the optimiser is Adam, or has momentum, decay or a schedule"),
        (noisy(model=DeepLinear(depth=2)), "noisy descent", "needs one linear layer; the depth is 2 (allowed 1)"),
        (noisy(Correlations(np.eye(2), np.eye(2))), "spiked Wigner", "needs a noisy quadratic; this is Correlations"),
    ],
)  # fmt: skip
def test_near_misses_are_named(experiment, name, says):
    assert says in refusals(arm.predict(experiment))[name]


def measured(**changed):
    numbers = {"hessian_largest": 0.5, "hessian_largest_noise": 4.0, "hessian_largest_noise_error": 0.4, "hessian_mean_noise": 0.1,
               "hessian_mean_noise_error": 0.01, "training_samples": 1000.0}  # fmt: skip
    return xr.Dataset({**numbers, **changed})


def test_rates_follow_their_law_and_carry_the_noises_error():
    sizes = np.array([1, 2, 16, 250, 1000])
    found = largest_rates(measured(), sizes, adam=(0.01, 16))
    effective = effective_batch(sizes, 1000)
    np.testing.assert_allclose(found.sgd_rate, 2 / (0.5 + 4 / effective / 0.5))
    bumped = largest_rates(measured(hessian_largest_noise=4.0 + 1e-4), sizes)
    slope = (found.sgd_rate - bumped.sgd_rate) / 1e-4
    np.testing.assert_allclose(found.sgd_rate_error, 0.4 * slope, rtol=1e-3, atol=1e-12)
    np.testing.assert_allclose(found.adam_rate, 0.01 * np.sqrt(sizes / 16))
    assert found.crossover.item() == 16 and found.resolved.values.tolist() == [False, False, True, True, True]
    assert (largest_rates(measured(), sizes, noise="mean").sgd_rate >= found.sgd_rate).all()
    many = largest_rates(measured(hessian_largest=xr.DataArray([0.5, 1.0], dims="seed")), sizes)
    assert dict(many.sgd_rate.sizes) == {"seed": 2, "batch": 5}


def test_lanczos_finds_the_outliers_and_leaves_the_bulk(double):
    of = jax.jit(lambda values, start: extent(lambda v: values * v, start, 10))
    start = lambda size: jax.random.normal(jax.random.key(0), (size,))
    found = of(jnp.concatenate([jnp.array([10.0, 6.0, 3.0]), jnp.linspace(-0.2, 0.2, 397)]), start(400))
    assert float(found.high) == pytest.approx(10.0, rel=1e-6) and float(found.low) == pytest.approx(3.0, rel=1e-4)
    flat = of(2 * jnp.ones(400), start(400))
    assert float(flat.high) == pytest.approx(2.0) and float(flat.low) == pytest.approx(2.0)
    assert float(of(jnp.linspace(-5.0, 2.0, 400), start(400)).high) == pytest.approx(
        5.0, rel=0.05
    )  # ten steps: still below it


def test_the_learner_is_polyaks_heavy_ball():
    H = np.array([1.0, 4.0, 9.0])
    learner = optax.chain(scale_by_lanczos(1000, steps=3), optax.scale(-1.0))
    update = jax.jit(lambda w, state: learner.update(H * w, state, w, curvature=lambda v: H * v))
    w = np.ones(3)
    state, x, v = learner.init(jnp.asarray(w)), jnp.asarray(w), 0 * w
    for step in range(8):
        moved, state = update(x, state)
        x = optax.apply_updates(x, moved)
        own = state[0]
        if step == 0:
            assert float(own.curvature) == pytest.approx(9.0, rel=1e-5)
            np.testing.assert_allclose(
                (own.learning_rate, own.momentum), heavy_ball(own.curvature, own.low_curvature), rtol=1e-6
            )
        v = float(own.learning_rate) * H * w + float(own.momentum) * v
        w = w - v
    np.testing.assert_allclose(x, w, rtol=1e-4, atol=1e-6)


def test_the_rate_changes_by_bounded_factors():
    learner = scale_by_lanczos(1, steps=2, share=0.5)
    update = jax.jit(lambda g, state, h: learner.update(g, state, curvature=lambda v: h * v))
    state = scale_by_lanczos().init(jnp.ones(4))
    rates = []
    for curvature in (1.0, 100.0, 100.0, 1e-4):
        _, state = update(jnp.ones(4), state, curvature)
        rates.append(float(state.learning_rate))
    np.testing.assert_allclose(rates, [0.5, 0.25, 0.125, 0.25], rtol=1e-5)


def test_the_learner_learns_in_descent_and_shows_its_rate():
    rule = Descent(LanczosRate(5, 8), 40, Loss("cross_entropy"), MiniBatch(50))
    seen = arm.simulate(
        arm.Experiment(Digits(200), MLP(8, activation="tanh"), rule, [Losses(), LearningRate()], arm.Evenly(41)),
        seeds=2,
    )
    loss, rate = seen.train_loss, seen.learning_rate.isel(time=slice(1, None))
    assert (loss.isel(time=-1) < 0.5 * loss.isel(time=0)).all()
    assert (np.diff(rate.isel(time=slice(0, 5))) == 0).all() and (np.diff(rate.isel(time=slice(4, 6))) != 0).all()
    assert (np.abs(np.log2(rate.values[:, 1:] / rate.values[:, :-1])) < 1.001).all()
    assert seen.rate_curvature.isel(time=slice(1, None)).min() > 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: spiked_wigner(1.0, -1.0), "the noise is -1, but must be at least 0"),
        (lambda: spiked_covariance(0.5, 0.2), "the spike is 0.5, but must be at least 1 (the bulk's)"),
        (lambda: mean_square_limit(0.0, 1.0), "the curvature is 0, but must be above 0"),
        (lambda: effective_batch(30, 20), "the batch size is 30, but must be at least 1 and at most 20 (the number of samples)"),
        (lambda: NoisyQuadratic(2, (1.0, 1.0, 1.0)), "the number of eigenvalues is 3, but must be at least 0 and at most 2 (the dimension)"),
        (lambda: HessianNoise(draws=1), "the number of random vectors (draws) is 1, but must be at least 2"),
        (lambda: HessianNoise(matrix="hessien"), "unknown matrix 'hessien'; nearest: hessian"),
        (lambda: arm.probe(small_net()[0], [BatchCurvature((50,))], data=small_net()[1], loss=Loss("cross_entropy")),
         "the batch size is 50, but must be at least 1 and at most 21 (the number of training samples)"),
        (lambda: BatchDensity((0, 4)), "the batch size is 0, but must be at least 1"),
        (lambda: BatchDensity(steps=0), "the number of Lanczos steps is 0, but must be at least 1"),
        (lambda: arm.probe(small_net()[0], [HessianNoise()], data=small_net()[1], loss=lambda n, s: 0.0), "HessianNoise needs a loss of single samples"),
        (lambda: arm.probe(small_net()[0], [HessianNoise(matrix="gradient_covariance")], data=small_net()[1]), "HessianNoise knows the hessian and the gauss_newton matrix only"),
        (lambda: arm.probe(small_net()[0], [EigenvectorOverlap()], data=small_net()[1]), "EigenvectorOverlap compares with the test samples, and there are none"),
        (lambda: largest_rates(xr.Dataset(), (1,)), "largest_rates needs what the probe HessianNoise returns, and hessian_largest is not there"),
        (lambda: largest_rates(measured(hessian_largest=-1.0), (1,)), "the largest curvature is -1, but must be above 0; train a little first"),
        (lambda: largest_rates(measured(), (1,), noise="men"), "unknown noise 'men'; nearest: mean"),
        (lambda: LanczosRate(0), "every is 0, but must be at least 1"),
        (lambda: LanczosRate(share=-1.0), "the share of Polyak's rate is -1, but must be at least 0"),
        (lambda: LanczosRate(change=1.0), "the largest change of the rate is 1, but must be above 1"),
        (lambda: LanczosRate(matrix="fisher"), "unknown matrix 'fisher'"),
        (lambda: scale_by_lanczos().update(jnp.ones(3), scale_by_lanczos().init(jnp.ones(3))), "scale_by_lanczos knows no curvature: pass"),
        (lambda: QuadraticForm(jnp.ones(2)).risk(DeepLinear(1)(jax.random.key(0), 2, 3)), "a quadratic form needs a linear map with one output, and this has 3"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises((InvalidValue, UnknownName, ProbeError)) as caught:
        make()
    assert says in str(caught.value) and "\n" not in str(caught.value)
