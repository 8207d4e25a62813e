"""Training in function space against the linear equations themselves, fits against leaving samples out, and `predict`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import armillary as arm
from armillary.errors import InvalidValue
from armillary.models import MLP
from armillary.prediction import refusals
from armillary.tasks.given import GivenSamples
from armillary.theory.kernels import (
    Activation,
    Dense,
    Kernel,
    kernel_modes,
    largest_stable_rate,
    learning_curve,
    predicted_error,
    relaxation,
    ridge_regression,
    softmax_training,
    trained_ensemble,
)  # fmt: skip

ANGLES = np.array([-2.2, -0.6, 0.5, 2.0])
X = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
Y = X.prod(axis=1)
KERNEL = Kernel(Dense(2.0, 0.1), Activation("relu"), Dense(2.0, 0.1), Activation("relu"), Dense(2.0, 0.1))


def test_the_catalogues_ensemble():
    said = trained_ensemble(KERNEL, X, Y, np.eye(2), [0.5, 1.0, np.inf])
    assert np.allclose(said.eigenvalues, [6.6079, 3.1710, 3.0716, 1.5495], atol=1e-4)
    means = [[0.001099, -0.103715], [0.009953, -0.125095], [0.022691, -0.130070]]
    assert np.allclose(said.test_mean, means, atol=1e-6)
    assert np.allclose(
        said.test_variance, [[0.070762, 0.119431], [0.053598, 0.089412], [0.051400, 0.085550]], atol=1e-6
    )
    last = trained_ensemble(KERNEL, X, Y, np.eye(2), [np.inf], trained="readout")
    assert np.allclose(last.test_mean, [[0.028800, -0.111321]], atol=1e-6)
    assert np.allclose(last.test_variance, [[0.048069, 0.079123]], atol=1e-6)


def test_a_trained_readout_ends_in_the_posterior():
    tests = np.random.default_rng(0).normal(size=(5, 2))
    said = trained_ensemble(KERNEL, X, Y, tests, [np.inf], trained="readout", covariance=True)
    gram, cross, own = KERNEL.nngp(X), KERNEL.nngp(tests, X), KERNEL.nngp(tests)
    assert np.allclose(said.test_mean[0], cross @ np.linalg.solve(gram, Y))
    assert np.allclose(said.test_covariance[0], own - cross @ np.linalg.solve(gram, cross.T))


def test_flow_against_direct_integration():
    """Means and variances: outputs of 4000 drawn starts, integrated with the kernel's linear equation."""
    tests, time = np.random.default_rng(0).normal(size=(2, 2)), 0.7
    said = trained_ensemble(KERNEL, X, Y, tests, [time], covariance=True)
    everything = np.concatenate([X, tests])
    nngp, ntk = KERNEL(everything)
    slope = lambda t, f: -(ntk[:, :4] @ (f.reshape(6, -1)[:4] - Y[:, None])).ravel()
    rows = solve_ivp(slope, (0, time), np.eye(6).ravel(), rtol=1e-10, atol=1e-12).y[:, -1].reshape(6, 6)
    fixed = solve_ivp(lambda t, f: -ntk[:, :4] @ (f[:4] - Y), (0, time), np.zeros(6), rtol=1e-10, atol=1e-12).y[:, -1]
    moved = rows - fixed[:, None]  # the propagator of initial outputs
    assert np.allclose(said.test_mean[0], fixed[4:], atol=1e-8)
    assert np.allclose(said.test_covariance[0], (moved @ nngp @ moved.T)[4:, 4:], atol=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_descent_and_momentum_against_their_own_steps(momentum):
    rate, residual, before = 0.05, -Y.copy(), -Y.copy()
    gram, rows = KERNEL.ntk(X), []
    for _ in range(12):
        rows.append(residual)
        step = residual - rate * gram @ residual + momentum * (residual - before)
        residual, before = step, residual
    rule = "momentum" if momentum else "descent"
    said = trained_ensemble(KERNEL, X, Y, X, range(12), rule=rule, learning_rate=rate, momentum=momentum)
    assert np.allclose(said.train_mean - Y, rows) and np.allclose(said.test_mean, said.train_mean)


def test_relaxation_of_modes_that_the_kernel_does_not_see():
    for rule, expected in (("flow", 3.0), ("descent", 3.0)):
        assert np.isclose(relaxation(np.array([0.0]), [3.0], rule).gain[0, 0], expected)
    heavy = relaxation(np.array([0.0, 1e-7]), [5.0], "momentum", 1.0, 0.5).gain[0]
    assert np.isclose(heavy[0], heavy[1], rtol=1e-5)
    assert largest_stable_rate(np.array([4.0]), 0.5) == 0.75


def test_cross_entropy_against_direct_integration():
    gram, labels = KERNEL.ntk(X), np.array([0, 1, 2, 1])
    said = softmax_training(gram, labels, gram[:1], [0.0, 0.5, 2.0])

    def slope(t, f):
        f = f.reshape(4, 3)
        p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
        return (gram @ (np.eye(3)[labels] - p)).ravel()

    direct = solve_ivp(slope, (0, 2.0), np.zeros(12), t_eval=[0.0, 0.5, 2.0], rtol=1e-10, atol=1e-12).y.T.reshape(
        3, 4, 3
    )
    assert np.allclose(said.train_outputs, direct, atol=1e-6) and np.allclose(
        said.test_outputs[:, 0], direct[:, 0], atol=1e-6
    )
    p = np.exp(direct) / np.exp(direct).sum(-1, keepdims=True)
    assert np.allclose(said.train_loss, -np.log(p[:, np.arange(4), labels]).sum(1), atol=1e-5)


def test_leaving_out_is_fitting_without():
    x = np.random.default_rng(0).normal(size=(12, 3))
    gram, y = KERNEL3.ntk(x), x[:, 0]
    for ridge in (0.0, 0.3):
        fit = ridge_regression(gram, y, ridge)
        others = np.delete(np.arange(12), 5)
        alone = ridge_regression(gram[np.ix_(others, others)], y[others], ridge)
        assert np.isclose(fit.left_out[5, 0], y[5] - gram[5, others] @ alone.dual[:, 0])
        assert np.allclose(y - gram @ fit.dual[:, 0], fit.residuals[:, 0])


KERNEL3 = Kernel(Dense(2.0, 0.1), Activation("relu"), Dense(2.0, 0.1))


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_learning_curves_are_those_of_fits(ridge):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 6))
    y = np.sign(x[:, 0] * x[:, 1])
    gram, numbers = KERNEL3.ntk(x), (16, 64, 200)
    said = learning_curve(gram, x, y, numbers, ridge=ridge, noise=0.2)
    for n, error in zip(numbers, said.test_error.values, strict=True):
        found = []
        for _ in range(20):
            order, noisy = rng.permutation(1000), y + 0.2 * rng.normal(size=1000)
            mine, rest = order[:n], order[n:]
            fit = ridge_regression(gram[np.ix_(mine, mine)], noisy[mine], ridge)
            found.append(np.mean((gram[np.ix_(rest, mine)] @ fit.dual[:, 0] - noisy[rest]) ** 2))
        assert abs(np.mean(found) - error) < 4 * np.std(found) / np.sqrt(20) + 0.03 * error


def test_a_learning_curve_says_where_fits_are_elsewhere():
    """Modes of one-dimensional inputs are not independent: sines are fitted far worse than if they were."""
    x = np.random.default_rng(0).normal(size=(300, 1))
    low = learning_curve(np.exp(-((x - x.T) ** 2)), x, np.sin(3 * x[:, 0]), [4, 16, 64], ridge=1e-3)
    assert "at 16 samples fits have the error" in refusals(low)["kernel regression"][0]
    x = np.random.default_rng(0).normal(size=(400, 8))
    assert not refusals(learning_curve(x @ x.T, x, x[:, 0], [4, 16, 64], ridge=1e-3, noise=0.5))


def test_learning_curves_of_white_inputs_are_the_known_ones():
    """A linear kernel on d white inputs: error 1 - n/d before noise (Hastie et al. 2022)."""
    modes = kernel_modes(np.eye(50) * 50, np.ones(50))
    for n in (10, 25, 40):
        test, train = predicted_error(modes, n)
        assert np.isclose(test, 1 - n / 50) and np.isclose(train, 0)


TASK = GivenSamples(X, Y, np.eye(2), np.zeros(2))
RULE = arm.rules.Descent(arm.rules.SGD(0.5), 20)
WIDE = MLP(512, 3, "relu", "ntk", gain=2.0, bias_scale=0.1**0.5, bias_variance=1.0)


def test_predict_finds_the_theory_of_wide_networks():
    probes = [arm.probes.Losses(), arm.probes.NetworkOutputs()]
    experiment = arm.Experiment(TASK, WIDE, RULE, probes, arm.Evenly(3))
    said, seen = arm.predict(experiment), arm.simulate(experiment, seeds=64)
    for name in ("train_loss", "test_loss"):
        error = seen[name].std("seed") / 8
        assert np.all(np.abs(seen[name].mean("seed") - said[name]) < 4 * error + 0.05 * said[name])
    error = seen.test_outputs.std("seed") / 8
    assert np.all(np.abs(seen.test_outputs.mean("seed") - said.test_outputs) < 4 * error)


MISSES = [
    (TASK, MLP(512, 3), RULE, "needs the NTK parametrisation"),
    (TASK, MLP(2, 3, parametrisation="ntk"), RULE, "samples over width is 2 (allowed 1)"),
    (TASK, WIDE, arm.rules.Descent(arm.rules.SGD(50.0), 5), "the learning rate over the largest stable one is"),
    (TASK, WIDE, arm.rules.Descent(arm.rules.Adam(), 5), "the optimiser is Adam"),
    (arm.tasks.LinearTeacher(2, 8), WIDE, RULE, "this task draws another for each"),
]


@pytest.mark.parametrize(("task", "model", "rule", "message"), MISSES)
def test_near_misses_name_the_assumption(task, model, rule, message):
    theory = arm.theory.WideNetwork()
    missed = [str(c) for c in theory.checks(arm.Experiment(task, model, rule, [arm.probes.Losses()])) if not c.holds]
    assert any(message in text for text in missed), missed


BAD = [
    (lambda: trained_ensemble(KERNEL, X, Y[:2], X, [1.0]), "give one target for each"),
    (lambda: trained_ensemble(KERNEL, X, Y, X, [1.5], rule="descent", learning_rate=0.01), "whole numbers"),
    (lambda: trained_ensemble(KERNEL, X, Y, X, [1], rule="descent", learning_rate=1.0), "descent diverges from"),
    (lambda: trained_ensemble(KERNEL, X[[0, 0]], [1.0, -1.0], X, [np.inf]), "training never ends there"),
    (lambda: trained_ensemble(KERNEL, X, Y, X, [-1.0]), "the earliest time is -1"),
    (lambda: ridge_regression(np.ones((2, 2)), [1.0, 2.0]), "samples 0 and 1 have correlation 1"),
    (lambda: learning_curve(KERNEL, X, Y, [3]), "resolve the curve up to 2"),
    (lambda: softmax_training(np.eye(2), [0.5, 1.0], np.eye(2), [1.0]), "class numbers"),
    (lambda: GivenSamples(X, Y[:2]), "train_targets (2, 1)"),
    (lambda: GivenSamples(X, np.full(4, np.nan)), "not finite"),
    (lambda: GivenSamples(X, Y, np.eye(3), np.zeros(3)), "test samples have 3 inputs"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(InvalidValue) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_given_samples_are_what_is_trained_on():
    drawn = TASK.draw(jax.random.key(3))
    assert np.allclose(drawn.train.inputs, X) and drawn.test is not None and drawn.test.targets.shape == (2, 1)
    assert jnp.issubdtype(drawn.train.targets.dtype, jnp.floating)
