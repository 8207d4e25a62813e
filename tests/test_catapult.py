"""The solvable catapult: descent in plain NumPy, the Hessian by differentiation, the schedule's law, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.two_layer_linear import NullOrthogonal, Prepared, TwoLayerLinear, WidthScaled
from armillary.prediction import refusals
from armillary.probes import Losses
from armillary.probes.curvature import Sharpness
from armillary.rules import SGD, Adam, Descent, GradientFlow, MiniBatch
from armillary.tasks import Correlations
from armillary.theory.catapult import (
    arcsine_density,
    catapult_phase,
    course,
    final_sharpness_bound,
    scheduled_course,
    scheduled_map,
    scheduled_shrinkage,
    sharpness,
)

NAME = "solvable catapult"


def descended(u, v, x, y, rate, steps, constant=None):
    """Outputs and curvatures of f = x v.u, layers moved one by one."""
    seen = []
    for _ in range(steps + 1):
        f, curvature = x * v @ u, x**2 * (u @ u + v @ v)
        seen.append((f, curvature))
        eta = rate if constant is None else constant / curvature
        u, v = u - eta * (f - y) * x * v, v - eta * (f - y) * x * u
    return np.array(seen).T


@given(x=st.floats(0.3, 2.0), y=st.floats(-1.0, 1.0), size=st.floats(0.1, 3.5), seed=st.integers(0, 20))
def test_the_recursion_is_descent_on_the_layers(x, y, size, seed):
    u, v = np.random.default_rng(seed).normal(size=(2, 12)) * 12**-0.25
    f, curvature = x * v @ u, x**2 * (u @ u + v @ v)
    rate = size / curvature
    said = course(f, curvature, rate, x**2, 8, y)
    seen = descended(u, v, x, y, rate, 8)
    np.testing.assert_allclose(said.output, seen[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(said.curvature, seen[1], rtol=1e-8)
    np.testing.assert_allclose(said.loss(y), (seen[0] - y) ** 2 / 2, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("target", [0.0, 2.0, -3.0])
def test_the_sharpness_is_the_hessians(target):
    u, v = np.random.default_rng(0).normal(size=(2, 5))
    loss = lambda w: (1.5 * w[:5] @ w[5:] - target) ** 2 / 2
    with jax.enable_x64(True):
        values = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(jnp.asarray(np.concatenate([u, v]))))
    found = sharpness(1.5 * u @ v, 2.25 * (u @ u + v @ v), 2.25, target)
    assert np.isclose(found, values[-1], rtol=1e-10)


def test_the_form_with_a_width_is_the_same():
    """f = v.u/sqrt n on x = 1, as the paper writes it: the coupling is 1/n."""
    n, eta = 200, 1.4
    u, v = np.random.default_rng(1).normal(size=(2, n))
    f, curvature = u @ v / np.sqrt(n), (u @ u + v @ v) / n
    said = course(f, curvature, eta, 1 / n, 30)
    for step in range(31):
        f = u @ v / np.sqrt(n)
        assert np.isclose(said.output[step], f, rtol=1e-9, atol=1e-12)
        u, v = u - eta * f * v / np.sqrt(n), v - eta * f * u / np.sqrt(n)


def test_phases_are_lazy_catapult_and_divergence():
    sizes = np.array([1.0, 3.0, 4.2])
    seen = course(1.0, 2.0, sizes / 2.0, 1 / 4096, 300)
    loss = seen.loss()
    assert [catapult_phase(s / 2.0, 2.0) for s in sizes] == ["lazy", "catapult", "diverging"]
    assert loss[:, 0].max() == loss[0, 0] and np.isclose(seen.curvature[-1, 0], 2.0, rtol=1e-2)
    assert loss[:, 1].max() > 100 * loss[0, 1] and loss[-1, 1] < 1e-20
    assert seen.curvature[-1, 1] < final_sharpness_bound(1.5)
    assert not np.isfinite(loss[-1, 2])


@pytest.mark.parametrize("constant", [3.0, 3.2, 3.5])
def test_the_schedule_shrinks_the_curvature_by_its_law(constant):
    draw = np.random.default_rng(0)
    z = np.sin(np.pi * draw.uniform(-0.5, 0.5, 20_000))  # the arcsine law
    total = np.zeros_like(z)
    for _ in range(60):
        z, ratio = scheduled_map(z, constant)
        total += np.log(ratio) / 60
    wrong = (total.mean() - np.log(scheduled_shrinkage(constant))) / (total.std() / np.sqrt(len(z)))
    assert abs(wrong) < 4
    counts, edges = np.histogram(z, bins=np.linspace(-0.95, 0.95, 20))
    shares = np.diff(np.arcsin(edges)) / np.pi
    assert np.abs(counts / len(z) - shares).max() < 4 * np.sqrt(shares.max() / len(z))
    middle = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(arcsine_density(middle) * np.diff(edges), shares, rtol=0.05)


def test_scheduled_descent_is_that_of_the_layers_and_stops_in_time():
    u, v = np.random.default_rng(2).normal(size=(2, 64)) * 64**-0.25
    said = scheduled_course(v @ u, u @ u + v @ v, 3.0, 1.0, 12)
    seen = descended(u, v, 1.0, 0.0, None, 12, constant=3.0)
    np.testing.assert_allclose(said.curvature, seen[1], rtol=1e-6)
    np.testing.assert_allclose(said.rate * said.curvature, 3.0)
    late = scheduled_course(0.5, 2.0, np.array([2.5, 3.0, 3.9]), 1 / 512, 5000)
    assert np.isfinite(late.curvature).all() and (late.loss()[-1] < 1e-28).all()
    assert np.isnan(scheduled_shrinkage(1.5)) and np.isnan(scheduled_shrinkage(4.5))


def experiment(task=None, model=None, rule=None):
    return arm.Experiment(
        task or Correlations(jnp.array([[4.0]]), jnp.array([[1.0]])),
        model or TwoLayerLinear(16, Prepared(0.2, 2.0)),
        rule or Descent(SGD(0.35), steps=30),
        [Losses(), Sharpness(tolerance=1e-9), Sharpness(matrix="gauss_newton", tolerance=1e-9)],
        arm.Evenly(31), precision="float64",
    )  # fmt: skip


def test_theory_is_the_run_from_a_prepared_start():
    ran = experiment()
    seen, said = arm.simulate(ran, seeds=2), arm.predict(ran)
    assert NAME in said.attrs["theories"]
    for name in ("train_loss", "sharpness", "gauss_newton_sharpness"):
        gap = np.abs(seen[name] - said[name]).max() / np.abs(said[name]).max()
        assert gap < 1e-6, name


def test_a_random_start_has_the_mean_curvature_and_output():
    model = TwoLayerLinear(400, WidthScaled(0.25))
    ran = experiment(Correlations(jnp.array([[1.0]]), jnp.array([[0.0]])), model, Descent(SGD(0.01), steps=1))
    said = arm.predict(ran).isel(time=0)
    nets = jax.vmap(lambda key: model(key, 1, 1).matrix[0, 0])(jax.random.split(jax.random.key(0), 2000))
    assert np.isclose(np.mean(np.asarray(nets) ** 2) / 2, said.train_loss, rtol=0.12)
    assert np.isclose(float(said.gauss_newton_sharpness), 2 * np.sqrt(400))


def test_a_prepared_start_has_its_output_and_curvature():
    first, last = Prepared(-0.7, 3.0)(jax.random.key(3), 1, 6, 1)
    assert np.isclose((last @ first).item(), -0.7, rtol=1e-5)
    assert np.isclose(float(jnp.sum(first**2) + jnp.sum(last**2)), 3.0, rtol=1e-5)


ONE = Correlations(jnp.array([[1.0]]), jnp.array([[1.0]]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": arm.tasks.Digits(10)}, "needs one sample (Correlations of one input); this is Digits"),
        ({"task": Correlations(jnp.eye(2), jnp.ones((1, 2)))},
         "needs one input and one output; there are 2 inputs and 1 outputs"),
        ({"model": MLP(8)}, "needs two linear layers (TwoLayerLinear); this is MLP"),
        ({"model": TwoLayerLinear(16, NullOrthogonal(np.ones((1, 1))))},
         "needs a prepared or random start; this is NullOrthogonal"),
        ({"task": ONE, "model": TwoLayerLinear(200)},
         "needs a target of 0, if the start is random; its size is 1 (allowed 0)"),
        ({"model": TwoLayerLinear(20)}, "needs many hidden units; there are 20 (at least 100)"),
        ({"rule": Descent(Adam(), steps=2)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": Descent(SGD(0.1, momentum=0.5), steps=2)}, "needs plain gradient descent; the optimiser is SGD"),
        ({"rule": Descent(SGD(0.1), steps=2, feed=MiniBatch(1))}, "needs full batches; this is MiniBatch"),
        ({"rule": Descent(SGD(0.1), steps=2, loss=arm.rules.Loss("hinge"))}, "needs the squared error"),
        ({"rule": GradientFlow(1.0)}, "needs gradient descent; this is GradientFlow"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change), theory=NAME)
    assert not len(said) and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Prepared(2.0, 1.0), "the curvature is 1, but must be at least 4 (twice the output's size)"),
        (lambda: TwoLayerLinear(8, Prepared())(jax.random.key(0), 2, 1),
         "the number of inputs, and of outputs is 2, but must be at least 1 and at most 1"),
        (lambda: course(1.0, 2.0, 0.1, 1.0, -1), "the number of steps is -1, but must be at least 0"),
        (lambda: catapult_phase(-1.0, 1.0), "the learning rate is -1, but must be at least 0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
