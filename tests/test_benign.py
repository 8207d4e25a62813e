"""Benign overfitting: kernels, interpolators, exact bias and variance, and the spectral formulas against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.tangent_kernel import (
    FiniteWidth,
    LinearKernel,
    TangentKernel,
    arc_cosine_features,
    arc_cosine_tangent,
    finite_width_kernels,
)
from armillary.prediction import refusals
from armillary.probes.smoother import EffectiveRanks, SmootherErrors
from armillary.rules import SGD, Descent
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge, KernelSmoother, pseudo_inverse
from armillary.tasks.covariate_noise import CovariateNoise, SignalTeacher, WideCovariateNoise
from armillary.tasks.wishart import bartlett
from armillary.theory.benign import (
    Spectrum,
    benign_variance,
    effective_ranks,
    effective_ridge,
    leading_variance,
    linear_errors,
    noisy_covariate_errors,
    spiked_spectrum,
)

NAME = "linear regression on noisy covariates"


def experiment(task=None, model=None, rule=None, probes=None):
    return arm.Experiment(
        task or WideCovariateNoise(1000.0, 60, 4, test_samples=200), model or LinearKernel(),
        rule or Solved(KernelRidge()), probes or [SmootherErrors()], precision="float64")  # fmt: skip


def test_second_moments_without_samples_have_wishart_means_and_variances():
    for degrees in (2, 9):
        draws = jax.jit(jax.vmap(lambda k, n=degrees: bartlett(k, 4, n)))(jax.random.split(jax.random.key(0), 20_000))
        moments = np.asarray(draws @ draws.mT)
        np.testing.assert_allclose(moments.mean(axis=0), degrees * np.eye(4), atol=0.06 * degrees**0.5)
        expected = degrees * (np.ones((4, 4)) + np.eye(4))  # of a Wishart matrix's entries
        np.testing.assert_allclose(moments.var(axis=0), expected, rtol=0.08)
        assert np.linalg.matrix_rank(moments[0], tol=1e-4) == min(degrees, 4)


@pytest.mark.parametrize(
    "task", [CovariateNoise(40, 3, 2, 0.7, test_samples=2), WideCovariateNoise(40.0, 3, 2, 0.7, test_samples=2)]
)
def test_inner_products_have_the_same_law_in_the_small_frame(task):
    def products(key):
        data = task.draw(key)
        rows = jnp.concatenate([data.train.inputs, data.test.inputs[:1]])
        return rows @ rows.T

    seen = np.asarray(jax.jit(jax.vmap(products))(jax.random.split(jax.random.key(1), 20_000)))
    np.testing.assert_allclose(seen.mean(axis=0), (1 + 0.49) * np.eye(4), atol=0.03)
    pair = 2 * (0.5 + 0.49 / 40) ** 2 + 38 * (0.49 / 40) ** 2  # the sum of squared eigenvalues
    np.testing.assert_allclose(seen.var(axis=0), pair * (1 + np.eye(4)), rtol=0.08)


def test_teachers_have_second_moment_one_and_see_clean_signals():
    for teacher in ("linear", "neuron"):
        data = CovariateNoise(6, 40_000, 3, 0.5, 0.3, teacher, test_samples=1).draw(jax.random.key(2))
        assert np.isclose(np.mean(np.square(data.teacher.targets)), 1, atol=0.05)
        assert np.isclose(np.std(data.train.targets - data.teacher.targets), 0.3, rtol=0.02)
    inputs, clean = np.asarray(data.train.inputs[:, :3]), np.asarray(data.teacher.targets)
    quiet = CovariateNoise(6, 40, 3, 0.0, 0.3, test_samples=1).draw(jax.random.key(2))
    expected = np.sqrt(3) * np.asarray(quiet.train.inputs[:, :3]) @ np.asarray(quiet.teacher.direction)
    np.testing.assert_allclose(quiet.teacher.targets[:, 0], expected, rtol=1e-4)
    assert inputs.shape == (40_000, 3) and (clean >= 0).all()


@given(seed=st.integers(0, 100))
def test_infinitely_wide_kernels_are_the_angle_formulas(seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 3, 4))
    angle = np.array(
        [
            [
                np.arctan2(
                    np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)),
                    np.linalg.norm(a / np.linalg.norm(a) + b / np.linalg.norm(b)),
                )
                * 2
                for b in y
            ]
            for a in x
        ]
    )
    sizes = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            arc_cosine_tangent(jnp.asarray(x), jnp.asarray(y)), x @ y.T * (np.pi - angle) / np.pi, atol=1e-7
        )
        expected = sizes * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
        np.testing.assert_allclose(arc_cosine_features(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-7)


def test_finite_width_kernels_tend_to_the_infinite_ones_and_grow_neuron_by_neuron():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    first, second = finite_width_kernels(jax.random.key(0), 100_000, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(first, arc_cosine_tangent(jnp.asarray(x), jnp.asarray(y)), atol=0.05)
    np.testing.assert_allclose(second, arc_cosine_features(jnp.asarray(x), jnp.asarray(y)), atol=0.05)
    sums = [70 * np.array(finite_width_kernels(jax.random.key(0), 70, jnp.asarray(x), jnp.asarray(y)))]
    sums.append(71 * np.array(finite_width_kernels(jax.random.key(0), 71, jnp.asarray(x), jnp.asarray(y))))
    neuron = jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (64, 4))[6]
    added = 2 * np.outer(np.maximum(x @ neuron, 0), np.maximum(y @ neuron, 0))
    np.testing.assert_allclose(sums[1][1] - sums[0][1], added, atol=1e-4)


def test_bias_and_variance_are_those_of_many_label_draws():
    data = CovariateNoise(12, 8, 2, test_samples=30).draw(jax.random.key(3))
    task = CovariateNoise(12, 8, 2, noise=0.5, test_samples=30)
    network = KernelRidge(0.1).fit(task, data, LinearKernel(), jax.random.key(0))
    seen = SmootherErrors()(arm.process.Snapshot(network, None, data, None, task=task))
    z, t = (np.asarray(s.inputs, float) for s in (data.train, data.test))
    draw = np.random.default_rng(0)
    labels = np.asarray(data.teacher.targets, float) + 0.5 * draw.normal(size=(8, 20_000))
    said = t @ z.T @ np.linalg.solve(z @ z.T + 0.1 * np.eye(8), labels)
    target = np.asarray(data.test.targets, float)
    assert np.isclose(np.mean((said - target) ** 2), float(seen["excess_risk"].values), rtol=0.02)
    assert np.isclose(np.mean((said.mean(axis=1) - target[:, 0]) ** 2), float(seen["bias"].values), rtol=0.03)
    assert np.isclose(np.mean(said.var(axis=1)), float(seen["variance"].values), rtol=0.02)


def test_an_interpolator_fits_and_ridge_is_the_textbook_formula():
    seen = arm.simulate(experiment(model=TangentKernel(), probes=[SmootherErrors(), EffectiveRanks(4)]), seeds=2)
    assert (seen.training_error < 1e-14).all() and (seen.spread_rank <= 56).all() and (seen.spread_rank > 30).all()
    task = arm.tasks.LinearTeacher(5, 12, noise=0.1)
    data = task.draw(jax.random.key(0))
    network = KernelRidge(0.2).fit(task, data, LinearKernel(), jax.random.key(0))
    x, y = (np.asarray(a, float) for a in (data.train.inputs, data.train.targets))
    w = np.linalg.solve(x.T @ x + 0.2 * np.eye(5), x.T @ y)
    np.testing.assert_allclose(network(jnp.arange(5.0)), np.arange(5) @ w, atol=1e-4)


def test_the_pseudo_inverse_leaves_out_what_is_singular():
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    with jax.enable_x64(True):
        found = pseudo_inverse(jnp.asarray(frame * [3.0, 1.0, 1e-4, 1e-13, 0.0] @ frame.T))
    np.testing.assert_allclose(found, frame * [1 / 3, 1.0, 1e4, 0.0, 0.0] @ frame.T, rtol=1e-6, atol=1e-4)


def test_swept_widths_are_the_single_runs():
    task = CovariateNoise(10, 20, covariate_noise=0.5, test_samples=50)
    swept = arm.simulate(
        arm.Sweep(experiment(task, FiniteWidth()), {"width": [3.0, 90.0], "first_layer": [0.0, 0.1]}), seeds=2
    )
    alone = arm.simulate(experiment(task, FiniteWidth(90.0, 0.1)), seeds=2)
    np.testing.assert_allclose(swept.excess_risk.sel(width=90, first_layer=0.1), alone.excess_risk, rtol=1e-6)


def test_a_fit_that_fails_counts_as_diverged():
    class Bad(KernelRidge):
        def fit(self, task, data, network, key):
            good = super().fit(task, data, network, key)
            return KernelSmoother(good.kernel, good.centres, good.inverse * jnp.nan, good.targets)

    seen = arm.simulate(experiment(rule=Solved(Bad())), seeds=2)
    assert (seen.diverged_at == 0).all() and seen.excess_risk.isnull().all()


def test_effective_ranks_and_the_ridge_that_a_tail_is():
    values = [4.0, 3.0, *[0.02] * 500]
    assert effective_ranks(values, 2) == pytest.approx((500, 500))
    assert benign_variance(values, 100, noise=2.0) == pytest.approx((2, 4 * (2 / 100 + 100 / 500)))
    assert benign_variance([1.0] * 10, 100) == (None, np.inf)
    spectrum = Spectrum(np.array([3.0, 0.02]), np.array([2.0, 500.0]))
    k = effective_ridge(spectrum, 100)
    assert k == pytest.approx((0.02 * 500) / 100, rel=0.25) and effective_ridge(spectrum, 1000) == 0
    assert 2 * 3 / (3 + k) + 500 * 0.02 / (0.02 + k) == pytest.approx(100)


def test_the_trace_formula_is_least_squares_where_there_are_more_samples():
    bias, variance = linear_errors(Spectrum(np.array([2.0]), np.array([20.0])), [1.0], 0.5, 100, 0.3)
    assert variance == pytest.approx(0.09 * 20 / 80) and bias == pytest.approx(0.5 * 100 / 80)


@pytest.mark.parametrize(("dimension", "penalty"), [(300, 0.0), (300, 0.5), (60, 0.0), (60, 2.0)])
def test_the_trace_formula_is_that_of_plain_numpy_draws(dimension, penalty):
    draw, n, rank, s = np.random.default_rng(0), 150, 4, 0.8
    found = []
    for _ in range(40):
        g = draw.normal(size=(n, rank))
        z = s / np.sqrt(dimension) * draw.normal(size=(n, dimension))
        z[:, :rank] += g / np.sqrt(rank)
        back = (
            z.T @ np.linalg.inv(z @ z.T + penalty * np.eye(n))
            if dimension > n
            else np.linalg.inv(z.T @ z + penalty * np.eye(dimension)) @ z.T
        )
        values, counts = spiked_spectrum(dimension, rank, s)
        covariance = np.repeat(values, counts.astype(int))
        w = back @ g[:, 0]  # the teacher sees the first coordinate
        cross = np.zeros(dimension)
        cross[0] = 1 / np.sqrt(rank)  # E z f
        bias = 1 - 2 * w @ cross + w**2 @ covariance
        found.append((bias, 0.25 * (covariance[:, None] * back**2).sum()))
    said = noisy_covariate_errors(n, dimension, rank, s, 0.5, penalty)
    np.testing.assert_allclose(np.mean(found, axis=0), said, rtol=0.08)


def test_theory_is_what_is_measured_and_leading_where_dimensions_are_many():
    ran = arm.Sweep(experiment(WideCovariateNoise(3000.0, 200, 5, test_samples=500)), {"covariate_noise": [0.3, 1.0]})
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=4).mean("seed")
    assert NAME in said.attrs["theories"]
    for name in ("bias", "variance", "excess_risk"):
        np.testing.assert_allclose(seen[name], said[name], rtol=0.15)
    assert said.variance.sel(covariate_noise=1.0).item() == pytest.approx(
        float(leading_variance(200, 3000, 5, 0.5)), rel=0.1
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": WideCovariateNoise(500.0, 40, 4)}, "needs many samples; there are 40 (at least 50)"),
        ({"task": WideCovariateNoise(500.0, 60, 4, teacher="neuron")}, "needs a linear teacher; the teacher is a neuron"),
        ({"task": arm.tasks.LinearTeacher(100, 60)}, "needs covariates that carry noise; this is LinearTeacher"),
        ({"model": TangentKernel()}, "needs a linear kernel; this is TangentKernel"),
        ({"rule": Descent(SGD(0.1))}, "needs a learner that is solved; this is Descent"),
        ({"task": CovariateNoise(66, 60, 4)}, "1 - |samples/inputs - 1| is 0.909 (allowed 0.8)"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "bias" not in said and any(says in reason for reason in refusals(said)[NAME])


def fitted(**change):
    task = CovariateNoise(4, 3)
    data = task.draw(jax.random.key(0))
    return KernelRidge().fit(task, data, LinearKernel(), jax.random.key(0)), arm.tasks.Data(
        **{"train": data.train, "test": data.test, "teacher": data.teacher, **change}
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CovariateNoise(4, 3, 5), "the rank is 5, but must be at least 1 and at most 4 (the dimension)"),
        (lambda: CovariateNoise(4, 3, covariate_noise=-1.0), "the covariates' noise is -1, but must be at least 0"),
        (lambda: CovariateNoise(4, 3, teacher="liner"), "unknown teacher 'liner'; nearest: linear, neuron (all: linear, neuron)"),
        (lambda: WideCovariateNoise(50.0, 60, 4), "the dimension is 50, but must be at least 65 (rank + samples + 1; else use CovariateNoise)"),
        (lambda: KernelRidge(-1.0), "the penalty is -1, but must be at least 0"),
        (lambda: FiniteWidth(0.0), "width is 0, but must be at least 1"),
        (lambda: Solved(SGD()), "the solver is a SGD, but must have fit(task, data, network, key)"),
        (lambda: arm.simulate(experiment(model=MLP(3))),
         "KernelRidge needs a kernel (LinearKernel, TangentKernel, FiniteWidth), not a MLPNetwork"),
        (lambda: arm.probe(MLP(3)(jax.random.key(0), 4, 1), [SmootherErrors()], data=fitted()[1]),
         "SmootherErrors needs a linear smoother (a fitted KernelRidge), not a MLPNetwork"),
        (lambda: arm.probe(fitted()[0], [SmootherErrors()], data=fitted()[1]),
         "SmootherErrors needs test samples and a task that knows its label noise; use CovariateNoise"),
        (lambda: arm.probe(fitted()[0], [EffectiveRanks(3)], data=fitted()[1]),
         "EffectiveRanks skips 3 eigenvalues, but the kernel has only 3"),
        (lambda: effective_ranks([1.0, 2.0], 2), "the number of skipped eigenvalues is 2, but must be at least 0 and at most 1 (fewer than there are)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def test_noiseless_targets_come_from_any_teacher():
    from armillary.errors import ProbeError
    from armillary.probes.smoother import noiseless

    network, data = fitted()
    x = np.asarray(data.train.inputs)
    assert isinstance(data.teacher, SignalTeacher)
    np.testing.assert_allclose(noiseless(fitted(teacher=jnp.ones((1, 4)))[1]), x.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(noiseless(fitted(teacher=network)[1]), data.train.targets, atol=1e-4)
    with pytest.raises(ProbeError, match="needs a teacher"):
        noiseless(fitted(teacher=None)[1])
