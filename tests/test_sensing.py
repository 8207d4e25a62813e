"""Matrix sensing: recursions against plain NumPy descent, measurements, conservation, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.factorised import AsymmetricFactors, AsymmetricProduct, SymmetricFactors, rebalanced
from armillary.prediction import refusals
from armillary.probes.matrix_recovery import FactorBalance, MatrixRecovery, MatrixSpectrum, PrincipalCosines, Surplus
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.matrix_sensing import (
    asymmetric_decay,
    direction,
    rebalanced_decay,
    signal_decay,
    surplus_eigenvalue,
    surplus_error,
    typical_start,
)

NAME = "matrix sensing, symmetric factors"


def descended(x, matrix, rate, steps):
    """X after descent on |X Xᵀ - M|²/4, in plain NumPy, and the squared errors on the way."""
    errors = []
    for step in range(steps + 1):
        wrong = x @ x.T - matrix
        errors.append(np.sum(wrong**2))
        x = x if step == steps else x - rate * wrong @ x
    return x, np.array(errors)


@given(rate=st.floats(0.01, 0.2), signal=st.floats(0.0, 1.5), start=st.floats(1e-3, 0.3))
def test_directions_follow_descent_where_matrices_commute(rate, signal, start):
    end, _ = descended(np.array([[np.sqrt(start)]]), np.array([[signal]]), rate, 50)
    assert np.isclose(direction(50, rate, signal, start)[-1], end[0, 0] ** 2, rtol=1e-9)


def test_a_surplus_eigenvalue_falls_as_one_over_time():
    z = direction(20_000, 0.1, 0.0, 0.02)
    assert np.isclose(z[-1], surplus_eigenvalue(20_000, 0.1, 0.02), rtol=1e-3)
    assert np.isclose(z[-1] ** 2, surplus_error(20_000, 0.1, 1), rtol=0.05)


def test_without_surplus_the_slowest_error_couples_signal_and_rest():
    draw = np.random.default_rng(0)
    frame = np.linalg.qr(draw.normal(size=(10, 2)))[0]
    matrix = frame * [1.0, 0.6] @ frame.T
    _, errors = descended(0.3 * draw.normal(size=(10, 2)), matrix, 0.1, 300)
    assert np.isclose(np.log(errors[150] / errors[250]) / 100, signal_decay(0.1, 0.6), rtol=1e-3)


def test_two_factors_shrink_their_surplus_at_the_left_ones_smallest_eigenvalue():
    draw = np.random.default_rng(1)
    matrix = np.diag([1.0, *[0.0] * 5])
    f, g, errors = 0.5 * draw.normal(size=(6, 2)), 0.1 * draw.normal(size=(6, 2)), []
    for _ in range(2000):
        wrong = f @ g.T - matrix
        errors.append(np.sum(wrong**2))
        f, g = f - 0.05 * wrong @ g, g - 0.05 * wrong.T @ f
    smallest = np.linalg.eigvalsh(f.T @ f)[0]
    above = int(np.argmax(np.array(errors) < 1e-20)) or 1999
    rate = np.log(errors[above // 2] / errors[above - 1]) / (above - 1 - above // 2)
    assert np.isclose(rate, min(asymmetric_decay(0.05, smallest), rebalanced_decay(0.05, 1.0, 1.0)), rtol=0.05)


def test_rebalancing_keeps_the_matrix_and_sets_the_rate():
    network = AsymmetricFactors(3, scale=0.2)(jax.random.key(0), 6, 1)
    even = rebalanced(network, 0.8, 3)
    np.testing.assert_allclose(even.matrix, network.matrix, atol=1e-6)
    np.testing.assert_allclose(even.left.T @ even.left, 0.64 * np.eye(3), atol=1e-5)
    assert (rebalanced(network, 1.0, 2).left[:, 2] == 0).all()


def experiment(task=None, model=None, rule=None, probes=None, observe=None):
    return arm.Experiment(
        task or MatrixSensing(8, (1.0, 0.7)), model or SymmetricFactors(3, scale=0.1),
        rule or Descent(SGD(0.1), steps=300), probes or [arm.probes.Losses(), MatrixRecovery(), Surplus()],
        observe or arm.Evenly(4), precision="float64")  # fmt: skip


class _Factors(arm.probes.Probe):
    def __call__(self, now):
        return {"factor": arm.Quantity(now.network.factor, ("input", "unit")),
                "teacher": arm.Quantity(now.data.teacher, ("input", "column"))}  # fmt: skip


def test_the_simulated_descent_is_the_plain_one():
    seen = arm.simulate(experiment(probes=[MatrixRecovery(), MatrixSpectrum(), Surplus(), _Factors()]), seeds=2).isel(
        seed=1
    )
    matrix = seen.teacher.isel(time=0).values
    end, errors = descended(seen.factor.isel(time=0).values, matrix, 0.1, 300)
    np.testing.assert_allclose(seen.squared_error, errors[::100], rtol=1e-8)
    z = end @ end.T
    np.testing.assert_allclose(seen.matrix_singular_values[-1], np.linalg.eigvalsh(z)[::-1][:3], atol=1e-10)
    frame = np.linalg.eigh(matrix)[1][:, -2:]
    rest = np.eye(8) - frame @ frame.T
    assert np.isclose(seen.surplus_error[-1], np.sum((rest @ z @ rest) ** 2), rtol=1e-8)
    assert np.isclose(seen.surplus_values[-1, 0], np.linalg.norm(rest @ z @ rest, 2), rtol=1e-8)


def test_measurements_are_of_the_matrix_and_many_are_like_all():
    task = MatrixSensing(4, (1.0, 0.5), measurements=50_000, symmetric=False)
    data = task.draw(jax.random.key(0))
    expected = np.einsum("mij,ij->m", np.asarray(data.train.inputs, float), np.asarray(data.teacher, float))
    np.testing.assert_allclose(data.train.targets[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.svd(data.teacher, compute_uv=False)[:3], [1.0, 0.5, 0.0], atol=1e-5)
    network = AsymmetricFactors(2)(jax.random.key(1), 4, 1)
    assert np.isclose(Loss()(network, data.train), Loss()(network, data.test), rtol=0.03)


@pytest.mark.parametrize("model", [SymmetricFactors(3), AsymmetricFactors(3)])
def test_rank_one_measurements_are_those_of_outer_products(model):
    data = MatrixSensing(6, (1.0, 0.5), 50, rank_one=True).draw(jax.random.key(0))
    whole = jnp.einsum("mi,mj->mij", data.train.inputs[:, 0], data.train.inputs[:, 1])
    np.testing.assert_allclose(data.train.targets[:, 0], jnp.tensordot(whole, data.teacher, 2), rtol=1e-4, atol=1e-5)
    network = model(jax.random.key(1), 6, 1)
    full = arm.tasks.Samples(whole, data.train.targets)
    pairs, matrices = (eqx.filter_jit(eqx.filter_grad(Loss()))(network, samples) for samples in (data.train, full))
    for one, other in zip(jax.tree.leaves(pairs), jax.tree.leaves(matrices), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_drawing_measurements_takes_no_memory_beside_them():
    task = MatrixSensing(300, (1.0,), 100)
    made = jax.jit(task.draw).lower(jax.random.key(0)).compile().memory_analysis()
    assert made.temp_size_in_bytes < made.output_size_in_bytes


def test_corrupted_measurements_have_the_share_and_size_asked_for():
    clean, dirty = (
        MatrixSensing(3, (1.0,), 20_000, noise=0.1 * on, outliers=0.25 * on, outlier_size=50.0) for on in (0, 1)
    )
    gap = np.asarray(dirty.draw(jax.random.key(2)).train.targets - clean.draw(jax.random.key(2)).train.targets)[:, 0]
    gross = np.abs(gap) > 1.0
    assert np.isclose(gross.mean(), 0.25 * 0.984, atol=0.01)  # a few outliers are small
    assert np.isclose(gap[np.abs(gap) < 0.5].std(), 0.1, atol=0.01) and np.isclose(gap[gross].std(), 50, rtol=0.05)


def test_gradient_flow_conserves_the_imbalance():
    ran = experiment(
        model=AsymmetricFactors(3, scale=0.5), rule=GradientFlow(10.0, tolerance=1e-10), probes=[FactorBalance()]
    )
    seen = arm.simulate(ran, seeds=2)
    np.testing.assert_allclose(
        seen.imbalance, seen.imbalance.isel(time=[0]).values + 0 * seen.imbalance.values, rtol=1e-6
    )
    process = ran.draw(jax.random.key(0))
    f, g = (np.asarray(a, float) for a in (process.initial.left, process.initial.right))
    alone = arm.probe(process.initial, [FactorBalance()])
    assert np.isclose(alone.imbalance, np.linalg.norm(f.T @ f - g.T @ g), rtol=1e-5)
    assert np.isclose(alone.smallest_left, np.linalg.eigvalsh(f.T @ f)[0], rtol=1e-3)


@given(seed=st.integers(0, 50))
def test_rotating_both_sides_changes_no_error(seed):
    draw = np.random.default_rng(seed)
    turn, other = (np.linalg.qr(draw.normal(size=(5, 5)))[0] for _ in range(2))
    f, g, matrix = draw.normal(size=(5, 2)), draw.normal(size=(5, 2)), draw.normal(size=(5, 5))
    seen = []
    for left, right in ((np.eye(5), np.eye(5)), (turn, other)):
        network = AsymmetricProduct(jnp.asarray(left @ f), jnp.asarray(right @ g))
        data = arm.tasks.Data(None, None, jnp.asarray(left @ matrix @ right.T))
        seen.append(arm.probe(network, [MatrixRecovery()], data=data))
    for name in ("squared_error", "overlap"):
        assert np.isclose(seen[0][name], seen[1][name], rtol=1e-4, atol=1e-5)


def test_theory_is_near_what_is_measured_from_typical_starts():
    model = SymmetricFactors(5, scale=0.1)
    ran = experiment(MatrixSensing(60, (1.0, 0.7)), model, Descent(SGD(0.1), steps=3000), [MatrixRecovery(), Surplus()],
                     arm.At((0, 1000, 3000)))  # fmt: skip
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=6).mean("seed")
    assert NAME in said.attrs["theories"]
    np.testing.assert_allclose(seen.squared_error, said.squared_error, rtol=0.1)
    np.testing.assert_allclose(seen.surplus_error[1:], said.surplus_error[1:], rtol=0.1)
    # The spectrum of the start: what is drawn, and its typical values.
    _, surplus = typical_start(60, 5, 2, 0.1)
    rows = np.random.default_rng(0).normal(size=(200, 58, 3)) * 0.1 / np.sqrt(60)
    np.testing.assert_allclose(np.sort(surplus), np.linalg.eigvalsh(rows.mT @ rows).mean(axis=0), rtol=0.06)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": MatrixSensing(8, (1.0, 0.7), 100)}, "needs all measurements; there are 100"),
        ({"task": MatrixSensing(8, (1.0, 0.7), symmetric=False)}, "needs a symmetric matrix; its left and right"),
        ({"task": arm.tasks.Digits(100)}, "needs a sensed matrix; this is Digits"),
        ({"model": AsymmetricFactors(3)}, "needs symmetric factors; this is AsymmetricFactors"),
        ({"model": SymmetricFactors(1, scale=0.1)}, "needs as many columns as the rank; there are 1 for rank 2"),
        ({"model": SymmetricFactors(2, scale=0.5)},
         "needs a small start; the initial matrix over the smallest singular value is 0.804 (allowed 0.1)"),
        ({"rule": Descent(SGD(0.5), steps=5)},
         "needs small steps; learning rate times largest singular value is 0.5 (allowed 0.3)"),
        ({"rule": Descent(Adam(0.01), steps=5)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": GradientFlow(1.0)}, "needs gradient descent; this is GradientFlow"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "squared_error" not in said and any(says in reason for reason in refusals(said)[NAME])


def alone(instrument, network):
    return arm.probe(network, [instrument], data=arm.tasks.Data(None, None, jnp.eye(4)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MatrixSensing(2, (1.0, 0.5, 0.2)), "the number of singular values is 3, but must be at least 1 and at most 2 (the dimension)"),
        (lambda: MatrixSensing(2, (1.0, -0.5)), "a singular value is -0.5, but must be above 0"),
        (lambda: MatrixSensing(2, (1.0,), 0), "the number of measurements is 0, but must be at least 1"),
        (lambda: MatrixSensing(2, (1.0,), noise=0.1), "noise is 0.1, but must be at least 0 and at most 0 (noise is the measurements'; give measurements)"),
        (lambda: MatrixSensing(2, (1.0,), 9, outliers=1.5), "the share of outliers is 1.5, but must be at least 0 and at most 1"),
        (lambda: MatrixSensing(2, (1.0,), 9, rank_one=True), "the dimension is 2, but must be at least 3 (with rank_one, whose pairs of vectors are no matrices)"),
        (lambda: MatrixSensing(4, (1.0,), rank_one=True), "rank_one is a kind of measurements, and there are none; give their number"),
        (lambda: AsymmetricFactors(0), "the width is 0, but must be at least 1"),
        (lambda: alone(FactorBalance(), SymmetricFactors(2)(jax.random.key(0), 4, 1)),
         "FactorBalance needs a product of two factors F Gᵀ, not a SymmetricProduct"),
        (lambda: alone(PrincipalCosines(), AsymmetricFactors(2)(jax.random.key(0), 4, 1)),
         "PrincipalCosines needs a symmetric product W Wᵀ; this network has two factors"),
        (lambda: alone(MatrixRecovery(), AsymmetricFactors(2)(jax.random.key(0), 3, 1)),
         "MatrixRecovery needs a task whose teacher is a matrix like the network's"),
        (lambda: alone(Surplus(), MLP(4)(jax.random.key(0), 4, 1)), "Surplus needs a factorised matrix, not a MLPNetwork"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
