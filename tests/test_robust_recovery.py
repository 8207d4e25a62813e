"""Robust matrix recovery: the sub-gradient method against plain NumPy, its expectation, schedules and losses, refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.factorised import AsymmetricFactors, SymmetricFactors
from armillary.prediction import refusals
from armillary.probes.matrix_recovery import MatrixRecovery
from armillary.probes.robust_recovery import SignalResidual, SignRIP, TeacherLoss
from armillary.rules import SGD, Adam, Descent, GradientFlow, LinearFlow, Loss, MiniBatch
from armillary.rules.schedules import Cosine, Geometric, WarmUp
from armillary.tasks import Samples
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.robust_recovery import (
    expected_descent,
    expected_flow,
    geometric_steps,
    learning_time,
    orthonormal_start,
    statistical_error,
)

NAME = "robust matrix recovery"
ABSOLUTE = Loss("absolute_error")
ANYTHING: Any = str
"""A name that the type checker lets through."""


def experiment(task=None, model=None, rule=None, probes=None, observe=None):
    return arm.Experiment(
        task or MatrixSensing(6, (1.0, 0.7), 400, outliers=0.1),
        model or SymmetricFactors(6, scale=1e-2, orthonormal=True),
        rule or Descent(SGD(0.2, schedule=Geometric(0.99)), steps=60, loss=ABSOLUTE),
        probes or [MatrixRecovery(), SignalResidual()], observe or arm.Evenly(4), precision="float64")  # fmt: skip


class _Everything(arm.probes.Probe):
    def __call__(self, now):
        return {"factor": arm.Quantity(now.network.factor, ("input", "unit")),
                "teacher": arm.Quantity(now.data.teacher, ("input", "column")),
                "measurement": arm.Quantity(now.data.train.inputs, ("sample", "input", "column")),
                "target": arm.Quantity(now.data.train.targets, ("sample", "output"))}  # fmt: skip


def test_the_simulated_sub_gradient_method_is_the_plain_one():
    probes = [MatrixRecovery(), SignalResidual(), SignRIP(rank=4, sampled=5), TeacherLoss(), _Everything()]
    seen = arm.simulate(experiment(probes=probes), seeds=2).isel(seed=1)
    a, y, matrix = (seen[name].isel(time=0).values for name in ("measurement", "target", "teacher"))
    y, u, errors = y[:, 0], seen.factor.isel(time=0).values, []
    for step in range(60):
        errors.append(np.sum((u @ u.T - matrix) ** 2))
        q = np.einsum("m,mij->ij", np.sign(np.einsum("mij,ij->m", a, u @ u.T) - y), a) / len(y)
        u = u - 0.2 * 0.99**step * 0.5 * (q + q.T) @ u
    np.testing.assert_allclose(seen.factor.isel(time=-1), u, atol=1e-9)
    np.testing.assert_allclose(seen.squared_error[:-1], np.array(errors)[::20], rtol=1e-8)
    v = np.linalg.eigh(matrix)[1][:, -2:]
    signal, beside = v.T @ u, u - v @ v.T @ u
    carried = beside @ np.linalg.pinv(signal) @ signal
    dense = [np.linalg.svd(signal)[1][1], np.linalg.norm(beside - carried, 2), np.linalg.norm(carried, 2)]
    np.testing.assert_allclose([seen[n].values[-1] for n in ("signal", "residual", "leak")], dense, rtol=1e-6)
    error = u @ u.T - matrix
    size = np.linalg.norm(error)
    misfit = np.einsum("mij,ij->m", a, matrix) - y
    q = np.einsum("m,mij->ij", np.sign(np.einsum("mij,ij->m", a, error) + misfit), a) / len(y)
    phi = np.sqrt(2 / np.pi) * (0.9 + 0.1 * size / np.hypot(size, 10))
    away = np.linalg.svd((q + q.T) / 2 / phi - error / size)[1][:4]
    assert np.isclose(seen.sign_deviation[-1], np.linalg.norm(away), rtol=1e-8)
    excess = np.abs(np.einsum("mij,ij->m", a, u @ u.T) - y).mean() - np.abs(misfit).mean()
    assert np.isclose(seen.excess_train_loss[-1], excess, rtol=1e-8)
    assert (seen.sign_rip > 0).all() and np.ptp(seen.sign_rip.values) == 0


@given(error=st.floats(0.01, 3.0), noise=st.floats(0.0, 1.0), outliers=st.floats(0.0, 0.5), size=st.floats(0.1, 20.0))
def test_the_sub_gradients_strength_is_its_average_over_corruptions(error, noise, outliers, size):
    task = MatrixSensing(3, (1.0,), 5, noise=noise, outliers=outliers, outlier_size=size)
    mean = 0.0
    for share, deviation in ((1 - outliers, noise), (outliers, np.hypot(noise, size))):
        z = np.linspace(-10, 10, 20_001)
        law = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        mean += share * np.trapezoid(law * np.exp(-((z * deviation / error) ** 2) / 2), z)
    assert np.isclose(task.sign_strength(jnp.array(error)), np.sqrt(2 / np.pi) * mean, rtol=1e-3)


def test_small_steps_follow_the_flow_and_both_take_the_predicted_time():
    signal, strength = [1.0, 0.7, 0.0], lambda _: 0.7
    start = [1e-8] * 3
    total = learning_time(signal[:2], 1e-8, 0.7)
    rates = np.full(20_000, 0.9 * total / 20_000)
    course = expected_descent(rates, signal, start, strength)
    at = np.linspace(0, 0.9 * total, 11)
    np.testing.assert_allclose(course[::2000], expected_flow(at, signal, start, strength), rtol=0.02)
    # Both directions are learned when their logarithms say so, up to an additive constant of order one.
    late = expected_flow(np.linspace(0, 1.02 * total, 400), signal, start, strength)
    times = []
    for initial in (1e-8, 1e-16):
        grid = np.linspace(0, 1.02 * learning_time(signal[:2], initial, 0.7), 2000)
        run = expected_flow(grid, signal, [initial] * 3, strength)
        times.append(grid[np.argmax(run[:, 1] > 0.35)])
    slope = (times[1] - times[0]) / np.log(1e8)
    said = (np.hypot(1, 0.7) + 1 - 0.7) / (2 * 0.7)
    assert np.isclose(slope, said, rtol=0.01) and late[0, 0] < 1e-7
    assert np.isclose((learning_time(signal[:2], 1e-16, 0.7) - total) / np.log(1e8), said)


def test_the_expectation_is_near_what_many_measurements_do():
    ran = experiment(MatrixSensing(6, (1.0, 0.7), 6000, outliers=0.1), observe=arm.Evenly(7),
                     rule=Descent(SGD(0.1, schedule=Geometric(0.995)), steps=120, loss=ABSOLUTE))  # fmt: skip
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=4).mean("seed")
    assert NAME in said.attrs["theories"]
    np.testing.assert_allclose(np.sqrt(seen.squared_error), np.sqrt(said.squared_error), atol=0.08)
    np.testing.assert_allclose(np.log(seen.signal), np.log(said.signal), atol=0.3)
    assert (np.abs(np.log(seen.residual / said.residual)) < 1.0).all()


def test_orthonormal_columns_start_as_stated():
    signal, surplus = orthonormal_start(8, 5, 2, 0.3)
    draw, first = np.random.default_rng(0), []
    for _ in range(400):
        u = 0.3 * np.linalg.qr(draw.normal(size=(8, 5)))[0]
        first.append(np.sum(u[0] ** 2))
        rows = np.linalg.svd(u[:2])[2]
        np.testing.assert_allclose(np.linalg.svd(u @ rows[2:].T)[1] ** 2, surplus, rtol=1e-9)
    assert np.isclose(np.mean(first), signal[0], rtol=0.04)
    np.testing.assert_allclose(np.concatenate(orthonormal_start(4, 4, 2, 1.0)), 1.0)


def test_the_statistical_error_is_that_of_the_medians_variance():
    # One free number, unit measurements' squares: the median of Gaussian noise has variance (pi/2) noise²/m.
    draw = np.random.default_rng(1)
    medians = np.median(draw.normal(size=(20_000, 101)), axis=1)
    assert np.isclose(statistical_error(1.0, 1, 1, 101), medians.std(), rtol=0.03)


def test_schedules_are_what_they_say_and_can_be_swept():
    steps = np.arange(8)
    np.testing.assert_allclose(Geometric(0.7)(steps), 0.7**steps, rtol=1e-5)
    np.testing.assert_allclose(Cosine(4.0, 0.1)(steps)[::2], [1.0, 0.55, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(WarmUp(2.0, Geometric(0.5))(steps)[:5], [0.5, 1.0, 0.5, 0.25, 0.125], rtol=1e-5)
    assert float(geometric_steps(sum(0.3 * 0.9**t for t in range(7)), 0.3, 0.9)) == pytest.approx(7)
    task = arm.tasks.Correlations(jnp.eye(1), jnp.eye(1))
    base = arm.Experiment(task, arm.models.DeepLinear(depth=1), Descent(SGD(0.1, schedule=Geometric(0.9)), steps=5),
                          [arm.probes.Losses()], arm.Evenly(6), precision="float64")  # fmt: skip
    seen = arm.simulate(arm.Sweep(base, {"ratio": [0.5, 1.0]})).isel(seed=0)
    for ratio in (0.5, 1.0):
        left = np.cumprod([1.0, *[1 - 0.1 * ratio**t for t in range(5)]]) ** 2
        np.testing.assert_allclose(
            seen.train_loss.sel(ratio=ratio) / seen.train_loss.sel(ratio=ratio)[0], left, rtol=1e-6
        )
    assert not SGD(schedule=Geometric()).plain and SGD().plain
    said = arm.predict(base)
    assert any("momentum, decay or a schedule" in reason for reasons in refusals(said).values() for reason in reasons)


def test_losses_of_signs_are_their_formulas_and_never_underflow():
    f, y = jnp.array([[0.3], [-2.0], [30.0]]), jnp.array([[1.0], [1.0], [-1.0]])
    samples, identity = Samples(f, y), lambda x: x
    margin = np.asarray(f * y, float)[:, 0]
    for kind, each in (("logistic", np.log1p(np.exp(-margin))), ("exponential", np.exp(-margin))):
        assert np.isclose(Loss(kind)(identity, samples), each.mean(), rtol=1e-5)
        assert np.isclose(Loss(kind, "log_mean")(identity, samples), np.log(each.mean()), rtol=1e-5)
        late = Samples(y * jnp.array([[500.0], [501.0], [502.0]]), y)
        logarithm = Loss(kind, "log_mean")
        lost = lambda x, loss=logarithm: loss(identity, Samples(x, y))
        want = -500 + np.log((1 + np.exp(-1) + np.exp(-2)) / 3)
        assert np.isclose(lost(late.inputs), want, rtol=1e-6)
        pull = jax.grad(lost)(late.inputs)
        np.testing.assert_allclose(jnp.sum(-pull * y), 1.0, rtol=1e-5)
    assert np.isclose(ABSOLUTE(identity, samples), np.abs(f - y).mean())
    assert np.isclose(Loss(reduction="log_mean")(identity, samples), np.log(Loss()(identity, samples)))
    smooth = [
        float(Loss("logistic", "log_mean")(identity, Samples(jnp.array([[z]]), jnp.ones((1, 1)))))
        for z in (14.999, 15.001)
    ]
    assert abs(smooth[0] - smooth[1] - 0.002) < 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": MatrixSensing(6, (1.0, 0.7), 60)},
         "needs many measurements; free numbers of the matrix over measurements is 0.183 (allowed 0.15)"),
        ({"task": MatrixSensing(6, (1.0, 0.7), 400, rank_one=True)},
         "needs measurement matrices of independent entries; they are of rank one"),
        ({"task": MatrixSensing(6, (1.0, 0.7))}, "needs measurements; training is on their population"),
        ({"task": MatrixSensing(6, (1.0,), 400, symmetric=False)}, "needs a symmetric matrix; its left"),
        ({"task": arm.tasks.Digits(100)}, "needs a sensed matrix; this is Digits"),
        ({"model": AsymmetricFactors(3)}, "needs symmetric factors; this is AsymmetricFactors"),
        ({"model": SymmetricFactors(6, scale=0.01)}, "needs orthonormal initial columns; they are independent Gaussian ones"),
        ({"model": SymmetricFactors(1, scale=0.01, orthonormal=True)}, "needs as many columns as the rank; there are 1 for rank 2"),
        ({"model": SymmetricFactors(6, scale=0.3, orthonormal=True)},
         "needs a small start; squared scale over the smallest singular value is 0.129 (allowed 0.1)"),
        ({"rule": Descent(SGD(0.1), steps=5)}, "needs the mean absolute error; the loss is the mean of squared_error"),
        ({"rule": Descent(Adam(0.1), steps=5, loss=ABSOLUTE)}, "needs the sub-gradient method; the optimiser is Adam"),
        ({"rule": Descent(SGD(0.1), steps=5, loss=ABSOLUTE, feed=MiniBatch(8))}, "needs full batches; this is MiniBatch"),
        ({"rule": GradientFlow(1.0)}, "needs descent; this is GradientFlow"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "signal" not in said and any(says in reason for reason in refusals(said)[NAME])


def test_the_squared_errors_theory_refuses_the_absolute_one():
    said = arm.predict(experiment())
    assert "needs the squared error; the loss is absolute_error" in refusals(said)["matrix sensing, symmetric factors"]


def alone(instrument, network):
    return arm.probe(network, [instrument], data=arm.tasks.Data(None, None, jnp.eye(4)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Geometric(1.5), "the ratio of successive steps is 1.5, but must be above 0 and at most 1"),
        (lambda: Cosine(0.0), "the schedule's steps is 0, but must be at least 1"),
        (lambda: SGD(0.1, schedule=0.99), "the schedule is a float, but must be None or a function of the step, as Geometric(0.99)"),
        (lambda: SGD(0.1, schedule=Geometric), "the schedule is a Geometric, but must be None or a function of the step, as Geometric(0.99)"),
        (lambda: Loss("absolute"), "unknown loss 'absolute'; nearest: absolute_error (all: absolute_error, cross_entropy, exponential, hinge, logistic, squared_error)"),
        (lambda: Loss(reduction=ANYTHING("log")), "unknown reduction 'log'; nearest: log_mean (all: log_mean, mean, sum)"),
        (lambda: LinearFlow(loss=Loss(reduction="log_mean")), "LinearFlow is exact for the squared error, not its logarithm; use GradientFlow"),
        (lambda: ABSOLUTE(None, MatrixSensing(2, (1.0,)).draw(jax.random.key(0)).train),
         "the population's risk is known for the squared error, not for absolute_error"),
        (lambda: SignRIP(rank=0), "the rank of the errors is 0, but must be at least 1"),
        (lambda: alone(SignalResidual(), AsymmetricFactors(2)(jax.random.key(0), 4, 1)),
         "SignalResidual needs a symmetric product U Uᵀ, not a AsymmetricProduct"),
        (lambda: alone(SignalResidual(), SymmetricFactors(2)(jax.random.key(0), 3, 1)),
         "SignalResidual needs a task whose teacher is a matrix like the network's"),
        (lambda: alone(SignRIP(), SymmetricFactors(2)(jax.random.key(0), 4, 1)),
         "SignRIP needs a MatrixSensing task with measurements; use it in a simulation of one"),
        (lambda: arm.simulate(experiment(MatrixSensing(6, (1.0,), 40, rank_one=True), probes=[SignRIP()])),
         "SignRIP needs whole measurement matrices, and this task's are of rank one"),
        (lambda: alone(TeacherLoss(), SymmetricFactors(2)(jax.random.key(0), 4, 1)),
         "TeacherLoss needs measurements, and this task trains on its whole population"),
        (lambda: alone(TeacherLoss(), MLP(4)(jax.random.key(0), 4, 1)), "TeacherLoss needs a factorised matrix, not a MLPNetwork"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
