"""Grokking from lazy to rich: parts against plain NumPy descent, the recursion, lazy training, refusals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armillary as arm
from armillary.errors import InvalidValue, ProbeError, UnknownName
from armillary.models import MLP
from armillary.models.freezing import Frozen, frozen, thawed
from armillary.models.mean_readout import MeanReadout
from armillary.models.scaled_output import ScaledOutput
from armillary.prediction import refusals
from armillary.probes.error_parts import ErrorParts, WeightMoments
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss, MiniBatch
from armillary.tasks import LinearTeacher
from armillary.tasks.single_index import POWER, QuadraticSingleIndex
from armillary.theory.kernels.linearised import lazy_course, lazy_outputs, linearised_training
from armillary.theory.mean_readout import (
    Target,
    drawn_problem,
    largest_rates,
    moment_descent,
    start_alignment,
    tangent_kernel,
)

NAME = "mean read-out, moment recursion"
TASK = QuadraticSingleIndex(6, samples=20, test_samples=50, problem=0.0)


def experiment(task=TASK, model=None, rule=None, probes=(), observe=None, precision: Any = "float64"):
    model = MeanReadout(None, 1.5, 0.2) if model is None else model
    rule = Descent(SGD(0.8), 200) if rule is None else rule
    observe = arm.At((0, 10, 200)) if observe is None else observe
    return arm.Experiment(task, model, rule, probes, observe, precision)


def descended(weights, x, y, eta, scale, curvature, steps):
    """The paper's weights after descent on mean (f - f_0 - y)² at rate eta N/scale², in plain NumPy."""
    phi = lambda z: z + curvature * z**2 / 2
    start, count = weights, len(weights)
    for _ in range(steps):
        z = x @ weights.T
        wrong = scale / count * (phi(z) - phi(x @ start.T)).sum(axis=1) - y
        slope = 2 / len(x) * scale / count * (wrong[:, None] * (1 + curvature * z)).T @ x
        weights = weights - eta * count / scale**2 * slope
    return weights


@pytest.mark.parametrize("width", [None, 9])
def test_training_is_descent_on_all_weights_and_the_recursion_of_moments(width):
    run = experiment(model=MeanReadout(width, 1.5, 0.2), probes=[WeightMoments(), arm.probes.Losses()])
    seen = arm.simulate(run, seeds=1).isel(seed=0)
    known = drawn_problem(TASK)
    start = seen.mean_weights.values[0], seen.second_moment.values[0]
    course = moment_descent([0, 10, 200], 0.8, 1.5, 0.2, known.target, known.inputs, *start)
    np.testing.assert_allclose(seen.second_moment, course.second, atol=1e-11)
    np.testing.assert_allclose(seen.mean_weights, course.mean, atol=1e-11)
    np.testing.assert_allclose(2 * seen.train_loss, course.train_error, atol=1e-11)
    if width is None:  # any weights with these moments take the same course: here many Gaussian ones made to have them
        draw = np.random.default_rng(0).normal(size=(40, 6))
        draw = np.linalg.qr(draw - draw.mean(axis=0))[0] * 40**0.5
        end = descended(draw, known.inputs, known.targets.ravel(), 0.4, 1.5, 0.2, 200)
        np.testing.assert_allclose(end.T @ end / 40, course.second[-1], atol=1e-11)


def test_the_population_course_is_the_one_that_was_found_before():
    run = experiment(QuadraticSingleIndex(40), MeanReadout(None, 1.0, 0.05), Descent(SGD(10.0), 1000),
                     observe=arm.At((0, 50, 100, 150, 200, 300, 1000)))  # fmt: skip
    known = [0.75, 0.720177, 0.634680, 0.389326, 0.090824, 0.010215, 0.001084]
    said = arm.predict(run)
    np.testing.assert_allclose(said.population_error, known, atol=1e-6)
    measured = arm.simulate(eqx.tree_at(lambda e: e.probes, run, (ErrorParts(),), is_leaf=lambda n: n == ()), seeds=1)
    np.testing.assert_allclose(measured.population_error.isel(seed=0), said.population_error, rtol=1e-9)


def test_parts_add_up_to_the_error_on_test_points_and_the_target_has_the_power_it_says():
    task = QuadraticSingleIndex(5, samples=10, misalignment=0.6, test_samples=100_000)
    data = task.draw(jax.random.key(0))
    network = MeanReadout(7, 2.0, 0.3)(jax.random.key(1), 5, 1)
    network = eqx.tree_at(lambda n: n.moved.weight, network, jax.random.normal(jax.random.key(2), (7, 5)))
    seen = arm.probe(network, [ErrorParts()], data=data)
    wrong = jax.vmap(network)(data.test.inputs) - data.test.targets
    assert np.isclose(seen.population_error, jnp.mean(wrong**2), rtol=0.04)
    assert np.isclose(2 * data.teacher.risk(network), seen.population_error, rtol=1e-5)
    parts = seen.variance_error + seen.misalignment_error + seen.linear_error
    assert np.isclose(parts, seen.population_error, rtol=1e-6)
    assert np.isclose(jnp.mean(data.test.targets**2), POWER, rtol=0.03)
    assert np.isclose(jnp.mean(jnp.sum(data.test.inputs**2, axis=1)), 1, rtol=0.01)


def test_the_network_is_its_form_and_its_kernel_the_formula():
    network = MeanReadout(7, 2.0, 0.3)(jax.random.key(1), 5, 1)
    network = eqx.tree_at(lambda n: n.moved.weight, network, jax.random.normal(jax.random.key(2), (7, 5)))
    x = np.asarray(jax.random.normal(jax.random.key(3), (4, 5)))
    a, q = network.form
    np.testing.assert_allclose(jax.vmap(network)(x)[:, 0], x @ a + np.sum((x @ q) * x, axis=1), rtol=2e-4, atol=1e-4)
    moments = np.asarray(network.mean), np.asarray(network.second)
    said = tangent_kernel(0.3, x, x, *moments)
    jacobian = jax.vmap(lambda x: eqx.filter_grad(lambda n: n(x)[0])(network))(x).moved.weight.reshape(4, -1)
    np.testing.assert_allclose(jacobian @ jacobian.T, said, rtol=1e-4, atol=1e-4)


def test_alignment_at_the_start_is_the_probe_s():
    with jax.enable_x64(True):
        data = TASK.draw(jax.random.key(0))
        network = MeanReadout(None, 1.0, 0.2)(jax.random.key(0), 6, 1)
        ons: Any = (("train", data.train), ("test", data.test))
        for on, part in ons:
            seen = arm.probe(network, [arm.probes.KernelTargetAlignment(30, on=on)], data=data).centred_alignment.item()
            x, y = np.asarray(part.inputs)[:30], np.asarray(part.targets)[:30]
            assert np.isclose(seen, start_alignment(0.2, x, y), rtol=1e-9)


def test_kernel_probes_refuse_what_has_no_test_samples():
    network = MLP(3)(jax.random.key(0), 2, 1)
    with pytest.raises(ProbeError, match="looks at test samples"):
        arm.probe(network, [arm.probes.KernelTargetAlignment(2, on="test")], data=(jnp.ones((3, 2)), jnp.ones((3, 1))))


def test_kernel_probes_refuse_other_samples(unchecked):
    with pytest.raises(UnknownName, match="unknown samples"):
        arm.probes.KernelTargetAlignment(2, on="tests")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("momentum", [None, 0.5])
def test_the_lazy_course_is_training_at_a_large_scale(reduction, momentum):
    rate = 0.5 if reduction == "mean" else 0.5 / 20
    rule = Descent(SGD(rate, momentum), 200, Loss(reduction=reduction))
    run = experiment(model=MeanReadout(None, 1e6, 0.2), rule=rule, probes=[arm.probes.Losses()])
    seen, said = arm.simulate(run, seeds=1).isel(seed=0), lazy_course(run)
    np.testing.assert_allclose(seen.train_loss, said.train_loss, rtol=1e-4)
    np.testing.assert_allclose(seen.test_loss, said.test_loss, rtol=1e-4)


def test_the_lazy_course_of_a_flow_ends_at_kernel_regression():
    run = experiment(rule=GradientFlow(1e9), observe=arm.At((0.0, 1e9)))
    said, known = lazy_course(run), drawn_problem(TASK)
    fit = tangent_kernel(0.2, known.test_inputs, known.inputs) @ np.linalg.solve(
        tangent_kernel(0.2, known.inputs, known.inputs), known.targets
    )
    error = np.mean((fit - known.test_targets) ** 2) / 2
    assert np.isclose(said.end_test_loss, error, rtol=1e-6)
    assert np.isclose(said.test_loss[-1], error, rtol=1e-5)
    assert said.end_train_loss < 1e-15


def test_linearised_training_of_several_outputs_is_a_linear_map_s():
    network = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    draw = np.random.default_rng(0)
    x, y, tests = draw.normal(size=(5, 3)), draw.normal(size=(5, 2)), draw.normal(size=(4, 3))
    said = linearised_training(network, x, y, tests, [30], rule="descent", learning_rate=0.05)
    w, b = np.asarray(network.weight, float), np.asarray(network.bias, float)
    for _ in range(30):
        wrong = x @ w.T + b - y
        w, b = w - 0.05 * wrong.T @ x, b - 0.05 * wrong.sum(axis=0)
    np.testing.assert_allclose(said.test_outputs[0], tests @ w.T + b, atol=1e-5)


def test_lazy_training_refuses_what_it_does_not_know():
    with pytest.raises(InvalidValue, match="full-batch SGD"):
        lazy_course(experiment(rule=Descent(Adam(), 10), observe=arm.At((0, 10))))
    with pytest.raises(InvalidValue, match="training and test samples"):
        lazy_course(experiment(QuadraticSingleIndex(6, samples=20)))
    with pytest.raises(InvalidValue, match="diverges from"):
        lazy_outputs(np.eye(1), np.eye(1), np.ones((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), [1], rule="descent", learning_rate=3.0)  # fmt: skip
    with pytest.raises(InvalidValue, match="must agree"):
        linearised_training(MLP(3)(jax.random.key(0), 2, 1), np.eye(2), np.eye(2), np.eye(2), [1.0])
    with pytest.raises(InvalidValue, match="one row of targets"):
        linearised_training(MLP(3)(jax.random.key(0), 2, 1), np.eye(2), np.ones(2), np.eye(2), [1.0])


def test_what_is_frozen_is_neither_trained_nor_decayed_and_comes_back():
    tree = {"a": jnp.array([0.1, -2.0]), "n": 3}
    back = thawed(frozen(tree))
    assert np.array_equal(back["a"], tree["a"]) and back["n"] == 3
    model = ScaledOutput(MLP(4), scale=2.5, centred=True)
    rule = Descent(Adam(0.01, weight_decay=10.0), 20)
    process: Any = arm.Experiment(LinearTeacher(3, samples=6), model, rule, observe=arm.At((0,))).draw(
        jax.random.key(0)
    )
    state = process.init(jax.random.key(1))
    state, _ = eqx.filter_jit(process.advance)(state, jax.random.key(2), jnp.int32(0), jnp.int32(5), jnp.int32(-1))
    assert float(state.network.scale.value) == 2.5
    start = thawed(state.network.start)
    assert np.array_equal(start.layers[0].weight, process.initial.inner.layers[0].weight)
    assert not np.allclose(state.network.inner.layers[0].weight, start.layers[0].weight)
    x = jnp.ones(3)
    np.testing.assert_allclose(state.network(x), 2.5 * (state.network.inner(x) - start(x)), rtol=1e-5)


def test_scales_are_swept_in_one_program():
    run = experiment(probes=[ErrorParts()], precision="float32")
    sweep = arm.Sweep(run, {"scale": [1.0, 4.0], "misalignment": [0.0, 1.0], "curvature": [0.1, 0.2]})
    assert len(list(sweep.programs())) == 1
    error = arm.simulate(sweep, seeds=1).population_error.isel(time=-1, seed=0)
    alone = arm.simulate(sweep.at({"scale": 4.0, "misalignment": 1.0, "curvature": 0.1}), seeds=1)
    assert np.isclose(
        error.sel(scale=4.0, misalignment=1.0, curvature=0.1), alone.population_error.isel(time=-1), rtol=1e-4
    )


def test_rates_above_the_largest_diverge_and_below_do_not():
    linear, _ = largest_rates(40, 4000, 1.0, 0.05)
    target = Target(np.ones(40), np.zeros((40, 40)))
    x = np.random.default_rng(0).normal(size=(4000, 40)) / 40**0.5
    end = lambda rate: moment_descent([60], rate, 1e6, 1e-9, target, x).train_error[-1]
    assert end(0.95 * linear) < 1e-4 and end(1.1 * linear) > 1


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"model": MeanReadout(50)}, "the width is 50"),
        ({"task": QuadraticSingleIndex(6, samples=20)}, "each seed draws its own"),
        ({"rule": Descent(SGD(0.8, momentum=0.9), 200)}, "has momentum"),
        ({"rule": Descent(SGD(0.8), 200, Loss(reduction="sum"))}, "the loss is the sum"),
        ({"rule": Descent(SGD(0.8), 200, Loss("absolute_error"))}, "absolute_error"),
        ({"rule": Descent(SGD(0.8), 200, feed=MiniBatch(4))}, "this is MiniBatch"),
        ({"rule": Descent(SGD(0.8), 50_000)}, "number of steps is 5e+04"),
    ],
)
def test_near_misses_are_named(changed, missing):
    assert len(arm.predict(experiment()))
    said = arm.predict(experiment(**changed))
    assert any(missing in one for one in refusals(said)[NAME])


def test_bad_input_is_refused():
    for make, words in (
        (lambda: QuadraticSingleIndex(0), "dimension"),
        (lambda: QuadraticSingleIndex(3, samples=0), "samples"),
        (lambda: QuadraticSingleIndex(3, misalignment=1.5), "misalignment"),
        (lambda: MeanReadout(0), "width"),
        (lambda: MeanReadout(scale=0.0), "scale"),
        (lambda: MeanReadout(curvature=-1.0), "curvature"),
        (lambda: ScaledOutput(MLP(2), scale=0.0), "scale"),
        (lambda: MeanReadout(3)(jax.random.key(0), 2, 2), "outputs"),
        (lambda: moment_descent([3, 2], 0.1, 1.0, 0.1, Target(np.ones(2), np.eye(2))), "increase"),
    ):
        with pytest.raises(InvalidValue, match=words):
            make()
    network = MLP(3)(jax.random.key(0), 6, 1)
    for probe in (ErrorParts(), WeightMoments()):
        with pytest.raises(ProbeError, match="MLPNetwork"):
            arm.probe(network, [probe], data=TASK.draw(jax.random.key(0)))
    with pytest.raises(ProbeError, match="quadratic target"):
        arm.probe(network, [ErrorParts()], data=LinearTeacher(6, samples=4).draw(jax.random.key(0)))
    with pytest.raises(InvalidValue, match="quadratic form"):
        TASK.draw(jax.random.key(0)).teacher.risk(network)
    assert Frozen(1.0).kind == "float32"
