"""Convergence and bias of linear networks: theory against direct integration, probes against dense computation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import armillary as arm
from armillary.models import DeepLinear, Gaussian, LinearChain
from armillary.models.normalised_chain import NormalisedLinear
from armillary.models.two_layer_linear import NullOrthogonal, Opposed, TwoLayerLinear, WidthScaled
from armillary.once import once
from armillary.prediction import refusals
from armillary.probes import FrozenSubspace
from armillary.probes import linear_networks as seen
from armillary.process import Snapshot
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.tasks import Correlations, Data, LinearTeacher, Samples
from armillary.tasks.regression import FixedDesign, conditioned_design
from armillary.theory import linear_convergence as law

SUM = Loss(reduction="sum")
TWO_LAYER_PROBES = [seen.ExcessLoss(), seen.ImbalanceSpectrum(), seen.MinimumNorm(), FrozenSubspace()]
DESIGN = np.random.default_rng(0).normal(size=(3, 7)) / np.sqrt(7)


def chain(**change):
    task = FixedDesign(conditioned_design(6, 6), outputs=3)
    parts = {"task": task, "model": NormalisedLinear(5, 24, rate_by_depth=True), "rule": Descent(SGD(1.5), 40, SUM)}
    probes = [seen.ExcessLoss(), seen.SubproductSpectrum(), seen.GramOperator()]
    return arm.Experiment(**{**parts, **change}, probes=probes, observe=arm.Evenly(5), precision="float64")


def opposed(**change):
    target = jnp.eye(1, 3) * 1.5
    parts = {"task": Correlations(jnp.eye(3), target), "model": TwoLayerLinear(8, Opposed(target, 0.5, 0.3)),
             "rule": GradientFlow(8.0, tolerance=1e-10)}  # fmt: skip
    return arm.Experiment(**{**parts, **change}, probes=TWO_LAYER_PROBES, observe=arm.Evenly(9), precision="float64")


def wide(**change):
    parts = {
        "task": LinearTeacher(7, 3, signal=0.0, noise=1.0),
        "model": TwoLayerLinear(200),
        "rule": GradientFlow(10.0, SUM),
    }
    return arm.Experiment(**{**parts, **change}, probes=TWO_LAYER_PROBES, precision="float64")


def look(probe, now):
    return probe(now)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def drawn(experiment):
    """The network and data of seed 0 of a run; in its precision if that is in force."""
    process = experiment.draw(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0))
    return process.initial, process.data


def test_descent_on_the_normalised_chain_is_descent_on_the_papers_weights(double):
    experiment = chain(model=NormalisedLinear(4, 9), rule=Descent(SGD(0.05), 6, SUM))
    network, data = drawn(experiment)
    process = experiment.rule.process(experiment.task, data, network, ())
    state, step = process.init(jax.random.key(0)), eqx.filter_jit(lambda s: process.step(s, jax.random.key(0)))
    for _ in range(6):
        state = step(state)
    weights = [3.0 * np.array(w) for w in network.weights]  # sqrt(width)
    x, y = np.array(data.train.inputs).T, np.array(data.train.targets).T
    scale = 1 / np.sqrt(9.0**3 * 3)
    for _ in range(6):
        below = [x]
        for w in weights:
            below.append(w @ below[-1])
        above, gradients = scale * (scale * below[-1] - y), []
        for w, h in zip(weights[::-1], below[-2::-1], strict=True):
            gradients.insert(0, above @ h.T)
            above = w.T @ above
        weights = [w - 0.05 * g for w, g in zip(weights, gradients, strict=True)]
    for ours, theirs in zip(state.network.weights, weights, strict=True):
        np.testing.assert_allclose(3.0 * np.array(ours), theirs, rtol=1e-9, atol=1e-12)


def test_normalised_outputs_have_their_inputs_size_on_average():
    for orthogonal in (True, False):
        model = NormalisedLinear(3, 8, orthogonal=orthogonal)
        draw = jax.jit(jax.vmap(lambda k, m=model: m(k, 4, 2)(jnp.ones(4))))
        outputs = draw(jax.random.split(jax.random.key(0), 3000))
        assert np.isclose((outputs**2).sum(-1).mean(), 4.0, rtol=0.08)


@pytest.mark.parametrize("depth", [2, 3, 12])
def test_partial_products_are_the_dense_ones(depth, double):
    network, _ = drawn(chain(model=NormalisedLinear(depth, 7, orthogonal=False)))
    w = [np.array(a) for a in network.weights]
    lower, upper = seen.partial_products(network.stacks)
    spectrum = seen.SubproductSpectrum()(Snapshot(network, None, None, SUM))
    dense = [np.linalg.multi_dot([np.eye(7), *w[k::-1]]) for k in range(depth - 1)]
    np.testing.assert_allclose(lower, dense, atol=1e-12)
    dense = [np.linalg.multi_dot([*w[:k:-1], np.eye(7)]) for k in range(depth - 1)]
    np.testing.assert_allclose(upper, dense, atol=1e-12)
    whole = np.linalg.svd(np.array(network.chain.matrix), compute_uv=False)
    np.testing.assert_allclose(spectrum["product_singular_values"].values, whole, rtol=1e-9)


def test_the_gram_operator_is_that_of_the_networks_jacobian(double):
    network, data = drawn(chain(model=NormalisedLinear(4, 7, orthogonal=False, rate_by_depth=True)))
    outputs = lambda stacks: (network.gain * data.train.inputs @ LinearChain(stacks).matrix.T).ravel()
    jacobian = jax.jit(jax.jacobian(outputs))(network.stacks)
    flat = np.concatenate([np.array(j).reshape(18, -1) for j in jax.tree.leaves(jacobian)], axis=1)
    found = seen.GramOperator()(Snapshot(network, None, data, SUM))
    values = np.linalg.eigvalsh(flat @ flat.T) / (7 * 4)
    np.testing.assert_allclose(found["gram_smallest"].values, values[0], rtol=1e-8)
    np.testing.assert_allclose(found["gram_largest"].values, values[-1], rtol=1e-8)


def test_orthogonal_weights_start_with_the_wide_limits_gram_operator():
    measured = arm.simulate(chain(), seeds=2).isel(time=0)
    np.testing.assert_allclose(measured.gram_smallest, 1 / 3, rtol=1e-5)  # depth/outputs, times rate 1/depth
    np.testing.assert_allclose(measured.lower_singular_values, 1.0, rtol=1e-9)


def test_the_contraction_bound_holds_and_tends_to_the_wide_limit():
    experiment = chain(model=NormalisedLinear(5, 400, rate_by_depth=True))
    measured, said = arm.simulate(experiment, seeds=3), arm.predict(experiment)
    assert (measured.relative_excess_loss[:, 1:] <= said.relative_excess_loss_bound[1:]).all()
    rate = np.log(measured.relative_excess_loss.isel(time=1)) / np.log(said.relative_excess_loss_wide.isel(time=1))
    np.testing.assert_allclose(rate, 1.0, atol=0.15)  # fluctuates as 1/sqrt(width)
    assert (said.relative_excess_loss_wide <= said.relative_excess_loss_bound).all()


def test_the_bound_slows_down_with_the_condition_number():
    design = conditioned_design(6, 6, condition=1.5)
    said = arm.predict(chain(task=FixedDesign(design, outputs=3), model=NormalisedLinear(5, 64, rate_by_depth=True)))
    assert np.isclose(said.relative_excess_loss_bound[1], (1 - 1 / 6) ** 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": NormalisedLinear(5, 24, orthogonal=False)}, "needs orthogonal initial weights; they are Gaussian"),
        ({"rule": Descent(SGD(1.8), 40, SUM)}, "the learning rate over outputs/(2 depth |X|²) is 1.2 (allowed 1)"),
        ({"model": NormalisedLinear(5, 9, rate_by_depth=True)}, "needs a wide network; the width is 9 (at least 10, at any depth)"),
        ({"rule": Descent(Adam(1e-3), 40, SUM)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": GradientFlow(1.0, SUM)}, "needs descent; this is GradientFlow"),
        ({"task": LinearTeacher(6, 6, outputs=3)}, "needs regression on given inputs; this is LinearTeacher"),
    ],
)  # fmt: skip
def test_the_contraction_refuses_near_misses(change, says):
    assert any(says in reason for reason in refusals(arm.predict(chain(**change)))["orthogonal contraction"])


@given(width=st.integers(2, 40), layers=st.integers(1, 30))
@settings(max_examples=20)
def test_a_signals_walk_has_the_moments_of_chi_squares(width, layers):
    draws = np.random.default_rng(width).chisquare(width, size=(20_000, layers)) / width
    walk = np.log(draws).sum(axis=1)
    mean, variance = law.log_norm_law(layers, width)
    assert abs(walk.mean() - mean) < 6 * np.sqrt(variance / 20_000)
    assert np.isclose(walk.var(), variance, rtol=0.15)


def test_the_walk_is_what_untrained_chains_do_and_not_trained_ones():
    still = chain(model=NormalisedLinear(12, 8, orthogonal=False), rule=Descent(steps=0))
    still = arm.Experiment(still.task, still.model, still.rule, [seen.SignalNorm()], precision="float64")
    mean = arm.simulate(still, seeds=400).log_squared_norm.mean("seed")
    np.testing.assert_allclose(mean, arm.predict(still).log_squared_norm, atol=0.45)  # 5 standard errors at the end
    said = refusals(arm.predict(chain()))["signal walk"]
    assert said == ["needs an untrained network; the length of training is 40 (allowed 0)"]


@given(
    target=st.floats(0.3, 2.0), product=st.floats(-1.0, 1.0), imbalance=st.floats(0.05, 2.0), time=st.floats(0.1, 3.0)
)
@settings(max_examples=25)
def test_the_opposed_mode_solves_the_scalar_closure(target, product, imbalance, time):
    velocity = lambda t, u: np.sqrt(imbalance**2 + 4 * u**2) * (target - u)
    found = solve_ivp(velocity, (0, time), [product], rtol=1e-10, atol=1e-12).y[0, -1]
    assert np.isclose(law.opposed_mode(np.array([time]), target, product, imbalance)[0], found, rtol=1e-5, atol=1e-8)


def test_a_balanced_opposed_mode_ends_in_the_saddle():
    found = solve_ivp(lambda t, u: -2 * u * (1.5 - u), (0, 2), [-0.7], rtol=1e-10, atol=1e-13).y[0, -1]
    assert np.isclose(law.opposed_mode(np.array([2.0]), 1.5, -0.7, 0.0)[0], found, rtol=1e-7)
    with pytest.raises(arm.ArmillaryError, match=r"the initial product is 0\.5, but must be at most 0"):
        law.opposed_mode(np.array([1.0]), 1.0, 0.5, 0.0)


@pytest.mark.parametrize("imbalance", [0.0, 0.2, 1.0])
def test_opposed_layers_follow_their_theory_and_keep_their_bound(imbalance):
    target = jnp.eye(1, 3) * 1.5
    experiment = opposed(model=TwoLayerLinear(8, Opposed(target, 0.5, imbalance)))
    measured, said = arm.simulate(experiment, seeds=2), arm.predict(experiment)
    np.testing.assert_allclose(
        measured.relative_excess_loss, np.broadcast_to(said.relative_excess_loss, (2, 9)), atol=1e-6
    )
    np.testing.assert_allclose(measured.convergence_constant, imbalance, atol=1e-8)
    assert (measured.relative_excess_loss <= said.relative_excess_loss_bound * (1 + 1e-6) + 1e-16).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": Correlations(jnp.diag(jnp.array([1.0, 1.0, 2.0])), jnp.eye(1, 3))},
         "needs white inputs of unit variance; the covariance's largest distance from 1 is 1 (allowed 1e-06)"),
        ({"task": Correlations(jnp.eye(3), jnp.array([[1.0, 1.0, 0.0]]))}, "needs a start against the task's own target; 1 - their cosine is 0.293 (allowed 1e-06)"),
        ({"model": TwoLayerLinear(8, WidthScaled())}, "needs opposed initial weights; this is WidthScaled"),
        ({"rule": GradientFlow(1.0, SUM)}, "needs a mean over samples; the loss is a sum"),
        ({"rule": Descent(SGD(0.1), 10)}, "needs small steps; learning rate times largest curvature is 0.35 (allowed 0.1)"),
    ],
)  # fmt: skip
def test_the_opposed_flow_refuses_near_misses(change, says):
    assert says in refusals(arm.predict(opposed(**change)))["opposed two-layer flow"]


def plain_flow(u, v, x, y, until):
    """U [input, hidden] and V [output, hidden] after the flow of ½|Y - X U Vᵀ|², integrated by SciPy."""

    def velocity(t, flat):
        a, b = flat[: u.size].reshape(u.shape), flat[u.size :].reshape(v.shape)
        error = y - x @ a @ b.T
        return np.concatenate([(x.T @ error @ b).ravel(), (error.T @ x @ a).ravel()])

    start = np.concatenate([u.ravel(), v.ravel()])
    end = solve_ivp(velocity, (0, until), start, "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    return end[: u.size].reshape(u.shape), end[u.size :].reshape(v.shape)


@pytest.mark.parametrize("scale", [0.2, 0.8])
def test_two_layers_under_flow_are_what_scipy_integrates(scale):
    model = DeepLinear(depth=2, width=6, initialisation=Gaussian(scale, per_entry=True))
    task = FixedDesign(DESIGN, outputs=2, signal=0.0, noise=1.0)
    experiment = wide(task=task, model=model, rule=GradientFlow(3.0, SUM, tolerance=1e-11))
    measured = arm.simulate(experiment, seeds=1).isel(seed=0)
    with jax.enable_x64(True):
        network, data = drawn(experiment)
    x, y = np.array(data.train.inputs, float), np.array(data.train.targets, float)
    u, v = np.array(network.weights[0], float).T, np.array(network.weights[1], float)
    end_u, end_v = plain_flow(u, v, x, y, 3.0)
    distance = np.linalg.norm(end_u @ end_v.T - np.linalg.pinv(x) @ y)
    assert np.isclose(measured.distance_to_minimum_norm[-1], distance, rtol=1e-6)
    error = lambda a, b: 0.5 * np.linalg.norm(y - x @ a @ b.T) ** 2  # the optimum is 0
    assert np.isclose(measured.relative_excess_loss[-1], error(end_u, end_v) / error(u, v), rtol=1e-5)
    span = np.linalg.svd(x, full_matrices=False)[2]
    imbalance = lambda a, b: (span @ a).T @ (span @ a) - b.T @ b
    values = np.linalg.eigvalsh(imbalance(u, v))[::-1]
    constant = max(values[2], 0) + max(-values[-2], 0)
    assert np.isclose(measured.convergence_constant[0], constant, atol=1e-9)
    np.testing.assert_allclose(imbalance(end_u, end_v), imbalance(u, v), atol=1e-8)
    assert measured.imbalance_drift.max() < 1e-8 and measured.frozen_displacement.max() < 1e-12
    np.testing.assert_allclose(measured.null_space_part, measured.frozen_bias, atol=1e-10)


@given(seed=st.integers(0, 10_000), hidden=st.integers(1, 6), outputs=st.integers(1, 3), rank=st.integers(1, 4))
@settings(max_examples=20)
def test_the_imbalance_and_its_drift_are_the_dense_matrixs(seed, hidden, outputs, rank):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rank, 5))
    now, before = ((draw.normal(size=(hidden, 5)), draw.normal(size=(outputs, hidden))) for _ in range(2))
    with jax.enable_x64(True):
        networks = [LinearChain((jnp.array(w1)[None], jnp.array(w2)[None])) for w1, w2 in (now, before)]
        data = Data(Samples(jnp.array(x), jnp.zeros((rank, outputs))))
        found = once(look, seen.ImbalanceSpectrum(), Snapshot(networks[0], networks[1], data, SUM))
    span = np.linalg.svd(x, full_matrices=False)[2]
    matrices = [(w1 @ span.T) @ (w1 @ span.T).T - w2.T @ w2 for w1, w2 in (now, before)]
    padded = np.concatenate([np.linalg.eigvalsh(matrices[0]), np.zeros(20)])
    positive, negative = np.sort(padded)[::-1][rank - 1], np.sort(-padded)[::-1][outputs - 1]
    assert np.isclose(found["convergence_constant"].values, max(positive, 0) + max(negative, 0), atol=1e-9)
    assert np.isclose(found["imbalance_drift"].values, np.linalg.norm(matrices[0] - matrices[1]), rtol=1e-9)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 1.0), outputs=st.integers(1, 2))
@settings(max_examples=8)
def test_the_imbalance_is_conserved_and_its_bound_holds_in_plain_numpy(seed, scale, outputs):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(3, 5)) / np.sqrt(5), draw.normal(size=(3, outputs))
    u, v = scale * draw.normal(size=(5, 8)), scale * draw.normal(size=(outputs, 8))
    end_u, end_v = plain_flow(u, v, x, y, 2.0)
    _, s, span = np.linalg.svd(x, full_matrices=False)
    imbalance = lambda a, b: (span @ a).T @ (span @ a) - b.T @ b
    np.testing.assert_allclose(imbalance(end_u, end_v), imbalance(u, v), atol=1e-8)
    values = np.linalg.eigvalsh(imbalance(u, v))[::-1]
    constant = max(values[2], 0) + max(-values[-outputs], 0)
    loss = lambda a, b: 0.5 * np.linalg.norm(y - x @ a @ b.T) ** 2
    assert loss(end_u, end_v) <= np.exp(-2 * constant * s[-1] ** 2 * 2.0) * loss(u, v) * (1 + 1e-6) + 1e-18


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_frozen_weights_orthogonal_to_the_others_leave_no_bias(size):
    task = FixedDesign(DESIGN, signal=0.0, noise=1.0)
    experiment = wide(
        task=task, model=TwoLayerLinear(20, NullOrthogonal(DESIGN, size)), rule=GradientFlow(100.0, SUM, 1e-9)
    )
    measured = arm.simulate(experiment, seeds=2)
    assert measured.null_space_part.max() < 1e-10
    assert measured.distance_to_minimum_norm.isel(time=-1).max() < 1e-7


def test_wide_random_networks_have_the_limits_bias_and_constant():
    experiment = wide(model=TwoLayerLinear(400))
    measured, said = arm.simulate(experiment, seeds=40), arm.predict(experiment)
    rms = np.sqrt((measured.null_space_part**2).mean("seed"))
    np.testing.assert_allclose(rms, said.null_space_part, rtol=0.2)
    np.testing.assert_allclose(measured.convergence_constant.mean(), said.convergence_constant[0], rtol=0.15)


def test_the_wide_bias_falls_with_the_papers_exponent():
    values = np.ones((1, 3))
    for exponent, slope in ((0.5, -0.5), (0.375, -0.25), (0.25, 0.0)):
        parts = [law.wide_null_part(np.array([9.0]), w, exponent, values, 4, 0.0, 1.0)[0] for w in (10**8, 10**9)]
        assert np.isclose(np.log10(parts[1] / parts[0]), slope, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": TwoLayerLinear(25)}, "needs a wide network; (rank + outputs)/width is 0.16 (allowed 0.1)"),
        ({"task": LinearTeacher(7, 9)}, "needs fewer samples than inputs; there are 9 for 7 inputs"),
        ({"model": TwoLayerLinear(200, WidthScaled(0.7))}, "needs an exponent from 1/4 to 1/2; it is 0.7"),
        ({"model": DeepLinear()}, "needs two linear layers; this is DeepLinear"),
    ],
)  # fmt: skip
def test_the_wide_flow_refuses_near_misses(change, says):
    assert says in refusals(arm.predict(wide(**change)))["wide two-layer flow"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NormalisedLinear(1, 5), "depth is 1, but must be at least 2"),
        (lambda: NormalisedLinear(3, 4)(jax.random.key(0), 6, 2), "the width is 4, but orthogonal weights need at least 6"),
        (lambda: FixedDesign(np.zeros((2, 2))), "the design is (2, 2), but must be a matrix"),
        (lambda: FixedDesign(np.eye(2), noise=-1.0), "noise is -1, but must be at least 0"),
        (lambda: conditioned_design(3, 3, 0.5), "the condition number is 0.5, but must be at least 1"),
        (lambda: Opposed(np.eye(2)), "the target is (2, 2), but must have one output: (1, inputs)"),
        (lambda: Opposed(np.eye(1, 3), imbalance=1.5), "imbalance is 1.5, but must be at least 0 and at most 1"),
        (lambda: TwoLayerLinear(3, Opposed(np.eye(1, 3)))(jax.random.key(0), 3, 1), "the width is 3, but must be above 3"),
        (lambda: TwoLayerLinear(4, NullOrthogonal(DESIGN))(jax.random.key(0), 7, 1), "the width is 4, but must be above 4"),
        (lambda: arm.probe(DeepLinear(depth=1)(jax.random.key(0), 3, 2), [seen.SubproductSpectrum()]), "needs a linear chain of two or more layers"),
        (lambda: arm.probe(DeepLinear(depth=3)(jax.random.key(0), 3, 2), [seen.ImbalanceSpectrum()]), "this network has 3"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert says in str(caught.value) and "\n" not in str(caught.value)
