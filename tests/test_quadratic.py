"""Quadratic teachers and networks: theory against direct integration, simulation against NumPy, laws, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

import armillary as arm
from armillary.models import MLP
from armillary.models.factorised import SymmetricFactors, SymmetricProduct
from armillary.prediction import refusals
from armillary.probes.matrix_recovery import MatrixRecovery, MatrixSpectrum, PrincipalCosines
from armillary.rules import SGD, Descent, GradientFlow, Loss
from armillary.tasks.quadratic import QuadraticPopulation, QuadraticTeacher
from armillary.theory.jacobi import FreeJacobi
from armillary.theory.quadratic import high_dimensional_flow, orthonormal_flow, riccati_flow, stationary_risk

NAME = "high-dimensional quadratic networks"


def risk(weights, teacher):
    wrong = weights @ weights.T - teacher
    return np.sum(wrong**2) + np.trace(wrong) ** 2 / 2


def integrated(weights, teacher, until, step=0.002):
    """The weights after the flow, by Runge and Kutta's fourth-order method in plain NumPy."""

    def velocity(w):
        wrong = w @ w.T - teacher
        return -(2 * wrong + np.trace(wrong) * np.eye(len(w))) @ w

    for _ in range(round(until / step)):
        one = velocity(weights)
        two = velocity(weights + step / 2 * one)
        three = velocity(weights + step / 2 * two)
        four = velocity(weights + step * three)
        weights = weights + step / 6 * (one + 2 * two + 2 * three + four)
    return weights


def family(draw, inputs, columns):
    return np.linalg.qr(draw.normal(size=(inputs, columns)))[0]


@pytest.mark.parametrize("width", [1, 3, 4, 9])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_the_riccati_solution_is_the_integrated_flow(width, orthonormal):
    draw = np.random.default_rng(width)
    teacher = family(draw, 7, 3) if orthonormal else draw.normal(size=(7, 3)) / np.sqrt(7)
    start, teacher = draw.normal(size=(7, width)) / np.sqrt(7), teacher @ teacher.T
    found = riccati_flow(np.array([0.0, 0.5, 3.0]), start, teacher)
    for said, overlap, until in zip(*found, (0.0, 0.5, 3.0), strict=True):
        end = integrated(start, teacher, until)
        z = end @ end.T
        assert np.isclose(said, risk(end, teacher), rtol=1e-6, atol=1e-12)
        assert np.isclose(overlap, np.sum(z * teacher) / np.linalg.norm(z) / np.linalg.norm(teacher), rtol=1e-6)


@given(teachers=st.integers(1, 5), width=st.integers(1, 6), scale=st.floats(0.3, 1.5), seed=st.integers(0, 99))
def test_the_scalar_equations_are_the_riccati_equation_between_orthonormal_families(teachers, width, scale, seed):
    draw = np.random.default_rng(seed)
    start, taught = family(draw, 8, width), family(draw, 8, teachers)
    shared = np.linalg.svd(start.T @ taught, compute_uv=False) ** 2
    cosines = np.concatenate([shared, np.zeros(width - len(shared))])
    time = np.array([0.0, 0.3, 2.0, 50.0])
    scalar = orthonormal_flow(time, cosines, np.ones(width), max(teachers - width, 0), scale)
    full = riccati_flow(time, scale * start, taught @ taught.T)
    np.testing.assert_allclose(scalar.risk, full.risk, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(scalar.overlap, full.overlap, rtol=1e-6)


def test_flows_end_at_the_stationary_risk_or_as_one_over_time_squared():
    time = np.array([0.0, 100.0, 1000.0])
    for width in (1, 3, 4, 6):
        draw = np.random.default_rng(width)
        start, taught = family(draw, 9, width), family(draw, 9, 4)
        found = riccati_flow(time, start, taught @ taught.T).risk
        if width <= 4:
            assert np.isclose(found[-1], stationary_risk(4, width), atol=1e-9)
        else:
            assert np.isclose(found[1] / found[2], 100, rtol=0.05)


@pytest.mark.parametrize(("first", "second"), [(0.3, 0.2), (0.2, 0.3), (0.4, 0.4), (0.7, 0.6), (0.5, 0.5)])
def test_the_jacobi_law_has_its_mass_and_mean(first, second):
    law = FreeJacobi(first, second)
    nodes, weights = law.quadrature(4000)
    assert np.isclose(weights.sum() + law.atom_at_zero + law.atom_at_one, first, atol=1e-3)
    assert np.isclose(weights @ nodes + law.atom_at_one, first * second, atol=1e-3)  # E tr(QᵀPQ)/d
    low, high = law.edges
    if first != second and first + second != 1:
        assert np.isclose(quad(law.density, low, high)[0], weights.sum(), rtol=1e-5)


def test_the_jacobi_law_is_that_of_random_subspaces():
    draw = np.random.default_rng(0)
    cosines = np.linalg.svd(family(draw, 400, 120).T @ family(draw, 400, 80), compute_uv=False) ** 2
    nodes, weights = FreeJacobi(0.3, 0.2).quadrature()
    for power in (1, 2, 3):
        assert np.isclose((cosines**power).sum() / 400, weights @ nodes**power, rtol=0.05)  # one draw


def experiment(rule=None, task=None, model=None, probes=None):
    return arm.Experiment(
        task or QuadraticTeacher(8, 3), model or SymmetricFactors(4), rule or GradientFlow(2.0, tolerance=1e-9),
        probes or [arm.probes.Losses(), MatrixRecovery(), _Weights()], arm.Evenly(5), precision="float64")  # fmt: skip


class _Weights(arm.probes.Probe):
    def __call__(self, now):
        return {"weights": arm.Quantity(now.network.factor, ("input", "unit")),
                "teacher": arm.Quantity(now.data.teacher, ("input", "column"))}  # fmt: skip


def test_the_simulated_flow_is_the_integrated_one():
    seen = arm.simulate(experiment(), seeds=2).isel(seed=1)
    teacher = seen.teacher.isel(time=0).values
    end = integrated(seen.weights.isel(time=0).values, teacher, 2.0)
    np.testing.assert_allclose(seen.weights.isel(time=-1), end, atol=1e-6)
    assert np.isclose(seen.train_loss[-1], risk(end, teacher), rtol=1e-5)
    assert np.isclose(seen.squared_error[-1], np.sum((end @ end.T - teacher) ** 2), rtol=1e-5)


def test_descent_on_samples_is_a_plain_loop():
    task = QuadraticTeacher(4, 2, orthonormal=False, samples=30)
    descent = Descent(SGD(0.01), steps=4)
    ran = experiment(descent, task, SymmetricFactors(3))
    process = ran.draw(jax.random.key(3))
    x, y = (np.asarray(a, float) for a in (process.data.train.inputs, process.data.train.targets))
    w = np.asarray(process.initial.factor, float)
    state = process.init(jax.random.key(0))
    for _ in range(4):
        state = process.step(state, jax.random.key(0))
        residual = ((x @ w) ** 2).sum(axis=1) - y[:, 0]
        w = w - 0.01 * 0.5 * 2 * (x.T * residual) @ x @ w / len(x)  # the network's own rate is a half
    np.testing.assert_allclose(state.network.factor, w, rtol=1e-4, atol=1e-6)


def test_the_population_risk_is_the_mean_over_many_samples():
    task = QuadraticTeacher(4, 2, samples=200_000)
    data = task.draw(jax.random.key(0))
    network = SymmetricFactors(3)(jax.random.key(1), 4, 1)
    assert np.isclose(Loss()(network, data.train), Loss()(network, data.test), rtol=0.03)


@given(seed=st.integers(0, 99))
def test_rotating_inputs_changes_nothing(seed):
    draw = np.random.default_rng(seed)
    turn, start, taught = family(draw, 6, 6), draw.normal(size=(6, 3)), family(draw, 6, 2)
    time = np.array([0.0, 1.0])
    one, other = (riccati_flow(time, r @ start, r @ taught @ taught.T @ r.T).risk for r in (np.eye(6), turn))
    np.testing.assert_allclose(one, other, rtol=1e-7)
    still, turned = (QuadraticPopulation(jnp.asarray(r @ taught @ taught.T @ r.T)).risk(SymmetricProduct(jnp.asarray(r @ start)))
                     for r in (np.eye(6), turn))  # fmt: skip
    assert np.isclose(still, turned, rtol=1e-4)


def test_units_beyond_the_width_stay_zero_and_the_teachers_are_a_number():
    ran = experiment(model=SymmetricFactors(2, capacity=5))
    seen = arm.simulate(arm.Sweep(ran, {"model.width": [2, 5], "teachers": [1, 3]}), seeds=1)
    assert (seen.weights.sel(width=2).isel(unit=slice(2, None)) == 0).all()
    np.testing.assert_allclose(
        np.trace(seen.teacher.isel(seed=0, time=0), axis1=-2, axis2=-1), [[1, 3], [1, 3]], atol=1e-9
    )


def test_theory_follows_the_limit_and_measured_cosines():
    ran = arm.Experiment(QuadraticTeacher(100, 20), SymmetricFactors(30, orthonormal=True), GradientFlow(3.0),
                         [arm.probes.Losses(), MatrixRecovery(), PrincipalCosines(), MatrixSpectrum()], arm.Evenly(4),
                         precision="float64")  # fmt: skip
    said, seen = arm.predict(ran), arm.simulate(ran)
    assert NAME in said.attrs["theories"]
    assert arm.compare(seen, said).relative["overlap"] < 0.02
    begin = seen.isel(seed=0, time=0)
    cosines = begin.squared_cosine.values
    assert cosines.shape == (30,) and np.allclose(cosines[20:], 0, atol=1e-12)
    own = orthonormal_flow(seen.time.values, np.where(cosines < 1e-12, 0, cosines), np.ones(30), 0.0)
    np.testing.assert_allclose(seen.train_loss[0], own.risk, rtol=1e-4)
    np.testing.assert_allclose(begin.matrix_singular_values, 1.0, rtol=1e-9)


def test_theory_follows_descent_in_small_steps():
    ran = arm.Experiment(QuadraticTeacher(100, 4), SymmetricFactors(6, scale=0.5, orthonormal=True), Descent(SGD(2e-3), steps=1000),
                         [arm.probes.Losses()], arm.Evenly(5), precision="float64")  # fmt: skip
    said, seen = arm.predict(ran).train_loss, arm.simulate(ran, seeds=4).train_loss.mean("seed")
    np.testing.assert_allclose(seen, said, atol=0.03 * float(said[0]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": QuadraticTeacher(90, 20)}, "needs many inputs; there are 90 (at least 100)"),
        ({"task": QuadraticTeacher(100, 20, samples=50)}, "needs the population's risk; there are 50 samples"),
        ({"task": QuadraticTeacher(100, 20, orthonormal=False)}, "needs orthonormal teachers"),
        ({"task": arm.tasks.Digits(100)}, "needs a quadratic teacher; this is Digits"),
        ({"model": SymmetricFactors(30)}, "needs orthonormal initial units; theirs are independent Gaussian entries"),
        ({"model": MLP()}, "needs a quadratic network (SymmetricFactors); this is MLP"),
        (
            {"rule": Descent(SGD(0.1), steps=5)},
            "needs small steps; learning rate times largest curvature is 6.4 (allowed 0.1)",
        ),
    ],
)
def test_a_near_miss_is_refused_with_its_reason(change, says):
    parts = {"task": QuadraticTeacher(100, 20), "model": SymmetricFactors(30, orthonormal=True)}
    said = arm.predict(experiment(**{**parts, **change}))
    assert not len(said) and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: QuadraticTeacher(4, 5), "the number of teachers is 5, but must be at least 1 and at most 4 (the dimension)"),
        (lambda: QuadraticTeacher(0, 1), "the number of inputs (dimension) is 0, but must be at least 1"),
        (lambda: QuadraticTeacher(4, 2, samples=0), "the number of samples is 0, but must be at least 1"),
        (lambda: SymmetricFactors(4, capacity=3), "the width is 4, but must be at least 1 and at most 3 (the capacity)"),
        (lambda: SymmetricFactors(2.5), "the width is 2.5, but must be a whole number"),
        (
            lambda: SymmetricFactors(5, orthonormal=True)(jax.random.key(0), 4, 1),
            "the width is 5, but must be at least 1 and at most 4 (orthonormal columns, at most the inputs)",
        ),
        (
            lambda: arm.simulate(arm.Sweep(experiment(), {"model.width": [2, 3]})),
            "the width is swept in one program, which needs a capacity: give capacity=the largest width",
        ),
        (
            lambda: arm.simulate(experiment(model=MLP(4), probes=[arm.probes.Losses()])),
            "the population's risk is known for a factorised matrix (SymmetricFactors, AsymmetricFactors), not for a "
            "MLPNetwork; give the task samples",
        ),
        (
            lambda: arm.simulate(experiment(model=MLP(4), task=QuadraticTeacher(8, 3, samples=9), probes=[MatrixRecovery()])),
            "MatrixRecovery needs a factorised matrix, not a MLPNetwork",
        ),
        (lambda: FreeJacobi(1.2, 0.5).quadrature(), "the first subspace's share is 1.2, but must be above 0 and at most 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def test_the_limit_is_what_the_entry_was_checked_with():
    """Values of an independent prototype, by another integrator."""
    found = high_dimensional_flow(np.array([0.1, 0.5, 1.0, 2.0, 3.0, 5.0]), 60, 40, 200)
    np.testing.assert_allclose(found.risk / 40, [1.127, 0.614, 0.207, 0.0144, 0.00366, 0.00110], rtol=5e-3)
