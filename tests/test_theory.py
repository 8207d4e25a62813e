"""Theories against direct integration, other closed forms and simulation; refusals against near misses."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

import armillary as arm
from armillary import theory
from armillary.models import MLP, Decoupled, DeepLinear, Gaussian
from armillary.prediction import refusals
from armillary.rules import SGD, Adam, Descent, GradientFlow, LinearFlow, Loss, MiniBatch
from reference import euler


@given(s=st.floats(0.1, 5.0), u0=st.floats(1e-3, 0.05), time=st.floats(0.1, 3.0))
def test_the_sigmoid_solves_its_equation(s, u0, time):
    found = solve_ivp(lambda t, u: 2 * u * (s - u), (0, time), [u0], rtol=1e-10, atol=1e-12).y[0, -1]
    assert np.isclose(theory.mode_sigmoid(time, s, u0), found, rtol=1e-6)


def test_a_mode_without_target_decays_as_one_over_time():
    assert np.isclose(theory.mode_sigmoid(5.0, 0.0, 0.3), 0.3 / (1 + 2 * 0.3 * 5.0))
    assert np.isclose(theory.mode_sigmoid(5.0, 0.0, 0.3), euler(lambda u: -2 * u**2, 0.3, 5.0, 100_000), rtol=1e-4)


def test_half_time_is_when_the_sigmoid_is_half_way():
    assert np.isclose(theory.mode_sigmoid(theory.mode_time(1.0, 2.0, 1e-3), 2.0, 1e-3), 1.0)


@given(s=st.floats(0.2, 3.0), u0=st.floats(0.0, 0.5), c=st.floats(0.05, 3.0), time=st.floats(0.0, 4.0))
def test_the_unbalanced_mode_solves_its_equation(s, u0, c, time):
    velocity = lambda t, u: np.sqrt(c**2 + 4 * u**2) * (s - u)
    found = solve_ivp(velocity, (0, time), [u0], rtol=1e-10, atol=1e-12).y[0, -1] if time else u0
    assert np.isclose(theory.unbalanced_mode(time, s, u0, c), found, rtol=1e-5, atol=1e-8)


def test_the_unbalanced_mode_tends_to_the_sigmoid():
    assert np.isclose(theory.unbalanced_mode(1.0, 2.0, 0.01, 1e-6), theory.mode_sigmoid(1.0, 2.0, 0.01), rtol=1e-4)


def test_layer_strengths_agree_with_both_closed_forms():
    time = np.linspace(0, 3, 7)
    balanced = theory.layer_strengths(time, np.array([2.0]), np.full((2, 1), 0.1)).prod(axis=1)[:, 0]
    np.testing.assert_allclose(balanced, theory.mode_sigmoid(time, 2.0, 0.01), rtol=1e-6)
    a, b = 0.5, 0.02
    skew = theory.layer_strengths(time, np.array([2.0]), np.array([[a], [b]])).prod(axis=1)[:, 0]
    np.testing.assert_allclose(skew, theory.unbalanced_mode(time, 2.0, a * b, a**2 - b**2), rtol=1e-6)


def test_very_deep_networks_reach_the_limit_of_infinite_depth():
    expected = {2: 2.02, 3: 1.89, 5: 1.82, 10: 1.78, 50: 1.752, 200: 1.749}
    for depth, steps in expected.items():
        time = np.linspace(0, 2.5, 2000)
        strength = theory.depth_strength(time / depth, 2.0, 0.5, depth)[:, 0]
        assert np.isclose(np.interp(1.9, strength, time), steps, rtol=4e-3)
    assert np.isclose(theory.infinitely_deep_time(1.9, 2.0, 0.5), 1.7476, rtol=1e-4)


@given(ratio=st.floats(0.1, 5.0))
def test_the_marchenko_pastur_law_has_its_mass_and_moments(ratio):
    law = theory.MarchenkoPastur(ratio)
    nodes, weights = law.quadrature(20_000)
    assert np.isclose(weights.sum() + law.atom, 1.0, atol=2e-3)
    assert np.isclose(weights @ nodes, ratio, rtol=1e-4)
    assert np.isclose(weights @ nodes**2, ratio * (1 + ratio), rtol=1e-4)


def test_the_density_integrates_to_the_quadrature():
    law = theory.MarchenkoPastur(2.5)
    nodes, weights = law.quadrature()
    assert np.isclose(quad(lambda x: law.density(x) / (x + 1), *law.edges)[0], weights @ (1 / (nodes + 1)), rtol=1e-6)


def test_the_law_is_the_spectrum_of_random_matrices():
    draw = np.random.default_rng(0).normal(size=(600, 1200)) / np.sqrt(600)
    eigenvalues = np.linalg.eigvalsh(draw @ draw.T)
    nodes, weights = theory.MarchenkoPastur(2.0).quadrature()
    assert np.isclose((1 / (eigenvalues + 0.5)).mean(), weights @ (1 / (nodes + 0.5)), rtol=0.01)


@pytest.mark.parametrize(
    ("ratio", "expected"), [(2.0, 2.0), (4.0, 4 / 3), (0.5, 0.5 * 5 + 2.0), (0.25, 0.75 * 5 + 4 / 3)]
)
def test_final_errors_are_the_curves_limits(ratio, expected):
    assert np.isclose(theory.final_error(ratio, 5.0), expected)
    assert np.isclose(theory.regression_curve(np.array([1e9]), ratio, 5.0)[0][0], expected, rtol=1e-6)


def test_at_equal_numbers_the_error_grows_as_the_square_root_of_time():
    test, _ = theory.regression_curve(np.array([1e2, 1e3, 1e4]), 1.0, 0.0)
    np.testing.assert_allclose((test - 1) / np.sqrt([1e2, 1e3, 1e4]), [0.612, 0.645, 0.656], atol=2e-3)


def test_the_best_time_to_stop_is_the_catalogues():
    times = [theory.best_stopping(0.5, snr)[0] for snr in (1.0, 5.0, 50.0)]
    np.testing.assert_allclose(times, [0.69, 2.7, 14], rtol=0.02)


def test_ridge_is_the_average_over_draws():
    draw, errors = np.random.default_rng(1), []
    for _ in range(40):
        x = draw.normal(size=(200, 100)) / np.sqrt(200)
        w = draw.normal(size=200) * np.sqrt(5)
        y = x.T @ w + draw.normal(size=100)
        solution = np.linalg.solve(x @ x.T + np.eye(200) / 5, x @ y)
        errors.append(1 + ((w - solution) ** 2).mean())
    assert np.isclose(np.mean(errors), theory.best_ridge_error(0.5, 5.0), rtol=0.02)


def deep_linear(**change):
    task = arm.tasks.Correlations(jnp.eye(3), jnp.diag(jnp.array([2.0, 1.0, 0.5])))
    parts = {"task": task, "model": DeepLinear(initialisation=Decoupled(task.input_output_correlation)),
             "rule": GradientFlow(6.0, tolerance=1e-9)}  # fmt: skip
    probes = [arm.probes.Losses(), arm.probes.ModeStrength(task.input_output_correlation)]
    return arm.Experiment(**{**parts, **change}, probes=probes, precision="float64")


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("imbalance", [1.0, 1.7])
def test_deep_linear_theory_is_what_is_measured(depth, imbalance):
    target = jnp.diag(jnp.array([2.0, 1.0, 0.5]))
    experiment = deep_linear(model=DeepLinear(depth=depth, initialisation=Decoupled(target, 0.05, imbalance)))
    found = arm.compare(arm.simulate(experiment, seeds=2), arm.predict(experiment))
    assert found.relative["mode_strength"] < 1e-5 and found.relative["train_loss"] < 1e-5
    assert not found.unexplained


def test_theory_follows_descent_in_small_steps_and_rates_by_depth():
    target = jnp.diag(jnp.array([2.0, 1.0, 0.5]))
    model = DeepLinear(depth=3, initialisation=Decoupled(target, 0.05), rate_by_depth=True)
    experiment = deep_linear(model=model, rule=Descent(SGD(1e-3), steps=6000))
    found = arm.compare(arm.simulate(experiment), arm.predict(experiment))
    assert found.relative["mode_strength"] < 3e-3


def test_theory_follows_summed_losses_and_scaled_inputs():
    task = arm.tasks.Correlations(2.0 * jnp.eye(3), jnp.diag(jnp.array([2.0, 1.0, 0.5])))
    experiment = deep_linear(task=task, rule=GradientFlow(4.0, tolerance=1e-9))
    found = arm.compare(arm.simulate(experiment), arm.predict(experiment))
    assert found.relative["mode_strength"] < 1e-5 and found.relative["train_loss"] < 1e-5


def test_theory_answers_sweeps_cell_by_cell():
    sweep = arm.Sweep(deep_linear(), {"strength": [1e-3, 1e-2], "depth": [2, 3]})
    found = arm.compare(arm.simulate(sweep), arm.predict(sweep))
    assert found.difference.mode_strength.sizes["depth"] == 2 and found.relative["mode_strength"] < 1e-4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": arm.tasks.Digits(100)}, "needs a task known by its correlations; this is Digits"),
        ({"model": MLP()}, "needs a deep linear network; this is MLP"),
        ({"model": DeepLinear()}, "needs decoupled initial weights; this is Gaussian"),
        ({"task": arm.tasks.Correlations(jnp.diag(jnp.array([1.0, 2.0, 10.0])), jnp.diag(jnp.array([2.0, 1.0, 0.5])))},
         "needs white inputs; the covariance's condition number is 10 (allowed 1.01)"),
        ({"rule": Descent(SGD(0.5), steps=10)}, "needs small steps; learning rate times largest curvature is 2 (allowed 0.1)"),
        ({"rule": Descent(Adam(1e-4), steps=10)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": Descent(SGD(1e-4), steps=10, feed=MiniBatch(2))}, "needs full batches; this is MiniBatch"),
        ({"rule": GradientFlow(loss=Loss("cross_entropy"))}, "needs the squared error; the loss is cross_entropy"),
        ({"model": DeepLinear(initialisation=Decoupled(jnp.ones((3, 3)) + jnp.eye(3)))}, "the largest coupling between modes"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(deep_linear(**change))
    assert not len(said) and any(says in reason for reason in refusals(said)["deep linear modes"])


def regression(**change):
    task = arm.tasks.LinearTeacher(**{"dimension": 200, "samples": 100, "noise": 1.0, **change})
    model = DeepLinear(depth=1, initialisation=Gaussian(0.0))
    return arm.Experiment(task, model, LinearFlow(100.0, Loss(reduction="sum")), [arm.probes.RegressionErrors()],
                          precision="float64")  # fmt: skip


def test_regression_theory_is_the_average_measured():
    experiment = regression(signal=2.0)
    found = arm.compare(arm.simulate(experiment, seeds=40), arm.predict(experiment))
    # Each draw of 100 samples scatters by about 15 %, the mean of 40 by 2.5 %.
    assert found.relative["generalisation_error"] < 0.08 and found.relative["training_error"] < 0.08


def test_regression_theory_refuses_few_inputs_and_coloured_ones():
    few = refusals(arm.predict(regression(dimension=20)))["high-dimensional regression"]
    assert few == ["needs many inputs; there are 20 (at least 100)"]
    coloured = arm.predict(regression(spectrum=(1.0, 3.0) * 100))
    assert "condition number is 3" in refusals(coloured)["high-dimensional regression"][0]


def test_an_unknown_theory_gets_the_nearest_name():
    with pytest.raises(arm.ArmillaryError, match="nearest: deep linear modes"):
        arm.predict(deep_linear(), theory="deep linear mode")
