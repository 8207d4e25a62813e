"""Diagonal linear networks: dual solver, mirror flow and penalties against plain NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize

import armillary as arm
from armillary.models import MLP, DeepLinear
from armillary.models.diagonal import DiagonalLinear, DiagonalNetwork
from armillary.prediction import refusals
from armillary.probes.diagonal import Coefficients, KernelDistance, SolutionNorms
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.tasks.sparse import SparseRegression
from armillary.theory.implicit_bias import (
    inverse_link,
    largest_curvature,
    least_penalty,
    link,
    minimum_l1,
    minimum_l2,
    mirror_flow,
    penalty,
    problem_data,
)

SUM = Loss(reduction="sum")
PROBES = [arm.probes.Losses(), SolutionNorms(), Coefficients()]


def problem(samples=4, dimension=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, dimension))
    return x, x[:, 0] - 0.5 * x[:, 1]


def weights_flow(x, y, scale, depth, until):
    """u^D - v^D after direct integration of the gradient flow of both."""
    d = x.shape[1]

    def velocity(_, w):
        u, v = w[:d], w[d:]
        pull = x.T @ (x @ (u**depth - v**depth) - y)
        return depth * np.concatenate([-(u ** (depth - 1)) * pull, v ** (depth - 1) * pull])

    end = solve_ivp(velocity, (0, until), np.full(2 * d, scale), "LSODA", rtol=1e-9, atol=1e-12).y[:, -1]
    return end[:d] ** depth - end[d:] ** depth


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("scale", [0.2, 0.6])
def test_the_mirror_flow_is_the_flow_of_the_weights_and_ends_at_the_penaltys_minimum(depth, scale):
    x, y = problem()
    for until in (0.1, 1.0):
        found = weights_flow(x, y, scale, depth, until)
        np.testing.assert_allclose(mirror_flow(np.array([0.0, until]), x, y, scale, depth)[-1], found, atol=1e-5)
    end = mirror_flow(np.array([0.0, 1e5]), x, y, scale, depth)[-1]
    np.testing.assert_allclose(least_penalty(x, y, scale, depth), end, atol=1e-5)


@given(seed=st.integers(0, 200), log_scale=st.floats(-1.5, 0.5), depth=st.sampled_from([2, 3, 5]))
def test_the_solution_satisfies_the_optimality_condition(seed, log_scale, depth):
    x, y = problem(seed=seed)
    scale = 10**log_scale
    b = least_penalty(x, y, scale, depth)
    np.testing.assert_allclose(x @ b, y, atol=1e-8)
    z = inverse_link(b / scale**depth, depth)
    inside = x.T @ np.linalg.lstsq(x.T, z, rcond=None)[0]
    np.testing.assert_allclose(z, inside, atol=1e-5)  # the penalty's gradient lies in the span of the inputs


@given(seed=st.integers(0, 30), depth=st.sampled_from([2, 3]))
def test_no_other_interpolator_has_a_smaller_penalty(seed, depth):
    x, y = problem(seed=seed)
    b = least_penalty(x, y, 0.5, depth)
    null = np.linalg.svd(x)[2][len(y) :].T
    cost = lambda shift: penalty((b + null @ shift) / 0.5**depth, depth).sum()
    found = minimize(cost, np.zeros(null.shape[1]), method="BFGS")
    assert found.fun >= cost(np.zeros(null.shape[1])) - 1e-6 and np.abs(found.x).max() < 1e-2


@given(b=st.floats(-50.0, 50.0), depth=st.integers(2, 6))
def test_the_penalty_is_the_integral_of_the_inverse_link(b, depth):
    assert np.isclose(penalty(b, depth), quad(lambda s: inverse_link(s, depth), 0, b)[0], rtol=1e-5, atol=1e-7)
    assert np.isclose(link(inverse_link(b, depth), depth), b, rtol=1e-7, atol=1e-9)


def test_the_penalty_at_depth_two_is_the_papers():
    z = np.linspace(-20, 20, 41)
    np.testing.assert_allclose(penalty(z), 2 - np.sqrt(4 + z**2) + z * np.arcsinh(z / 2), atol=1e-10)


@given(seed=st.integers(0, 100))
def test_large_and_small_scales_reach_both_norms(seed):
    x, y = problem(seed=seed)
    np.testing.assert_allclose(least_penalty(x, y, 30.0), minimum_l2(x, y), atol=1e-4)
    least = np.abs(minimum_l1(x, y)).sum()
    assert least - 1e-9 <= np.abs(least_penalty(x, y, 1e-5)).sum() <= 1.05 * least
    assert least <= np.abs(minimum_l2(x, y)).sum() + 1e-9


@given(seed=st.integers(0, 50), factor=st.floats(0.1, 10.0), depth=st.sampled_from([2, 3, 4]))
def test_only_the_targets_size_over_scale_to_the_depth_matters(seed, factor, depth):
    x, y = problem(seed=seed)
    larger = least_penalty(x, factor * y, factor ** (1 / depth) * 0.3, depth)
    np.testing.assert_allclose(larger, factor * least_penalty(x, y, 0.3, depth), atol=1e-7 * factor)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_curvature_is_the_hessians(depth):
    x, y = problem()
    b = least_penalty(x, y, 0.4, depth)
    z = inverse_link(b / 0.4**depth, depth)
    u, v = (0.4 * (np.exp(s * z / 2) if depth == 2 else (1 - s * z) ** (-1 / (depth - 2))) for s in (1, -1))
    np.testing.assert_allclose(u**depth - v**depth, b, atol=1e-10)
    loss = lambda w: 0.5 * jnp.sum((x @ (w[0] ** depth - w[1] ** depth) - y) ** 2)
    with jax.enable_x64(True):
        hessian = np.asarray(jax.jit(jax.hessian(loss))(jnp.asarray(np.stack([u, v])))).reshape(16, 16)
    assert np.isclose(largest_curvature(x, b, 0.4, depth), np.linalg.eigvalsh(hessian)[-1], rtol=1e-6)


def experiment(**change):
    parts = {"task": SparseRegression(20, 10, 2, problem=3.0), "model": DiagonalLinear(0.3),
             "rule": GradientFlow(2.0, SUM, 1e-8), "observe": arm.Evenly(5)}  # fmt: skip
    return arm.Experiment(**{**parts, **change}, probes=PROBES, precision="float64")


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_predict_follows_the_simulated_flow(depth, reduction):
    run = experiment(model=DiagonalLinear(0.3, depth), rule=GradientFlow(2.0, Loss(reduction=reduction), 1e-8))
    found = arm.compare(arm.simulate(run, seeds=2), arm.predict(run))
    assert max(found.relative[n] for n in ("coefficients", "l1_norm", "l2_norm", "population_error")) < 1e-4
    assert found.relative["train_loss"] < 1e-4 and found.relative["distance_to_min_l2"] < 1e-4


def test_predict_follows_descent_and_sweeps_over_scale_and_problem():
    run = experiment(rule=Descent(SGD(2e-4), steps=2000, loss=SUM))
    assert arm.compare(arm.simulate(run), arm.predict(run)).relative["coefficients"] < 0.02
    sweep = arm.Sweep(experiment(), {"scale": [0.1, 1.0], "problem": [0.0, 5.0]})
    found = arm.compare(arm.simulate(sweep), arm.predict(sweep))
    assert found.difference.l1_norm.sizes["problem"] == 2 and found.relative["coefficients"] < 1e-4


def test_descent_is_what_a_plain_loop_does():
    run = experiment(rule=Descent(SGD(1e-3), steps=50, loss=SUM), observe=arm.Evenly(2))
    seen = arm.simulate(run).coefficients.values[0, -1]
    x, y, _ = problem_data(run.task)
    u = v = np.full(20, 0.3)
    for _ in range(50):
        pull = x.T @ (x @ (u**2 - v**2) - y)
        u, v = u - 1e-3 * 2 * u * pull, v + 1e-3 * 2 * v * pull
    np.testing.assert_allclose(seen, u**2 - v**2, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": arm.tasks.LinearTeacher(8, 4)}, "needs a sparse regression; this is LinearTeacher"),
        ({"model": DeepLinear(depth=1)}, "needs a diagonal linear network; this is DeepLinear"),
        ({"task": SparseRegression(20, 10, 2)}, "needs one numbered problem; problem is None"),
        ({"task": SparseRegression(20, 20, 2, problem=0.0)}, "there are 20 samples and 20 inputs"),
        (
            {"rule": Descent(SGD(0.05), steps=5, loss=SUM)},
            "needs small steps; learning rate times largest curvature is",
        ),
        ({"rule": Descent(Adam(1e-4), steps=5, loss=SUM)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": GradientFlow(loss=Loss("hinge"))}, "needs the squared error; the loss is hinge"),
    ],
)
def test_a_near_miss_is_refused_with_its_amount(change, says):
    said = arm.predict(experiment(**change), theory="diagonal mirror flow")
    assert not len(said) and any(says in reason for reason in refusals(said)["diagonal mirror flow"])


def test_too_large_a_step_is_refused_by_how_much():
    run = experiment(rule=Descent(SGD(0.05), steps=5, loss=SUM))
    x, y, _ = problem_data(run.task)
    start, end = (largest_curvature(x, b, 0.3, 2) for b in (np.zeros(20), least_penalty(x, y, 0.3)))
    (reason,) = refusals(arm.predict(run))["diagonal mirror flow"]
    assert f"is {0.05 * max(start, end):.3g} (allowed 0.1)" in reason


def test_the_task_is_sparse_of_norm_one_and_numbered_problems_are_shared():
    task = SparseRegression(30, 12, 4, noise=0.5)
    one, two = (task.draw(jax.random.key(k)) for k in (0, 1))
    assert np.isclose(np.linalg.norm(one.teacher), 1.0) and int((one.teacher != 0).sum()) == 4
    assert not np.allclose(one.train.inputs, two.train.inputs)
    noise = one.train.targets - one.train.inputs @ one.teacher.T
    assert 0.2 < float(noise.std()) < 0.9
    shared = [SparseRegression(30, 12, 4, problem=p).draw(jax.random.key(k)) for p, k in ((2.0, 0), (2.0, 1), (3.0, 0))]
    np.testing.assert_array_equal(shared[0].train.inputs, shared[1].train.inputs)
    assert not np.allclose(shared[0].train.inputs, shared[2].train.inputs)
    assert task.sample(one, jax.random.key(5), 7).inputs.shape == (7, 30)


def test_norms_equal_dense_computations():
    x, y = problem()
    network = DiagonalNetwork(jnp.arange(1.0, 9.0) / 8, jnp.full(8, 0.5), 3)
    b = np.array(network.u) ** 3 - np.array(network.v) ** 3
    seen = arm.probe(network, [SolutionNorms(), Coefficients()], data=(jnp.asarray(x), jnp.asarray(y)[:, None]))
    assert np.isclose(seen.l1_norm, np.abs(b).sum()) and np.isclose(seen.l2_norm, np.linalg.norm(b), rtol=1e-5)
    assert np.isclose(seen.distance_to_min_l2, np.linalg.norm(b - minimum_l2(x, y)), rtol=1e-4)
    np.testing.assert_allclose(seen.coefficients, b, rtol=1e-5)
    np.testing.assert_allclose(network(jnp.asarray(x[0])), [x[0] @ b], rtol=1e-4)


def test_the_kernel_distance_is_that_of_closed_kernels():
    x, _ = problem()
    start = DiagonalLinear(0.5)(jax.random.key(0), 8, 1)
    moved = DiagonalNetwork(jnp.linspace(0.1, 1, 8), jnp.full(8, 0.5), 2)
    kernels = [x * np.asarray(4 * (n.u**2 + n.v**2)) @ x.T for n in (start, moved)]
    seen = arm.probe(moved, [KernelDistance(4)], data=(jnp.asarray(x), jnp.ones((4, 1))), initial=start)
    norm = np.linalg.norm
    assert np.isclose(seen.kernel_distance, norm(kernels[1] - kernels[0]) / norm(kernels[0]), rtol=1e-4)
    assert np.isclose(
        seen.kernel_alignment, (kernels[0] * kernels[1]).sum() / norm(kernels[0]) / norm(kernels[1]), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: SparseRegression(10, 5, 11), "sparsity is 11, but must be at least 1 and at most 10 (the dimension)"),
        (lambda: SparseRegression(10, 0), "the number of samples is 0"),
        (lambda: SparseRegression(10, 5, noise=-1.0), "noise is -1"),
        (lambda: SparseRegression(10, 5, problem=-1.0), "problem is -1"),
        (lambda: DiagonalLinear(0.0), "the initial scale is 0, but must be above 0"),
        (lambda: DiagonalLinear(1.0, 1), "depth is 1, but must be at least 2"),
        (lambda: DiagonalLinear()(jax.random.key(0), 4, 2), "has one output, but the task has 2"),
        (lambda: least_penalty(np.ones((2, 3)), np.ones(2), 1.0), "the 2 rows of the inputs are dependent"),
        (lambda: least_penalty(np.ones((2, 3)), np.ones(3), 1.0), "inputs are (2, 3) and targets (3,)"),
        (lambda: least_penalty(*problem(), scale=1e-30, depth=4), "is too small for double precision; use a larger scale"),
        (lambda: minimum_l1(np.ones((2, 3)), np.array([1.0, 2.0])), "no linear map fits these 2 samples"),
        (lambda: arm.probe(DeepLinear()(jax.random.key(0), 3, 2), [SolutionNorms()], data=(jnp.ones((4, 3)), jnp.ones((4, 2)))),
         "SolutionNorms needs one output, and this network has 2"),
        (lambda: arm.probe(MLP(2)(jax.random.key(0), 3, 1), [KernelDistance()]), "needs the network before training"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(wrong, says, unchecked):
    with pytest.raises(arm.ArmillaryError) as caught:
        wrong()
    assert says in str(caught.value) and "\n" not in str(caught.value)
