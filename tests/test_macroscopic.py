"""Macroscopic scales: the network against plain NumPy, layers' kernels, motion of linear models, steps by curvature, refusals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP, Rectified, ScaledOutput
from armillary.models.freezing import Frozen, frozen, thawed
from armillary.models.macroscopic import Macroscopic, relative_scales
from armillary.prediction import refusals
from armillary.probes import DistanceFromInitialisation, EmpiricalTangentKernel, KernelDrift, LearningRate, Losses
from armillary.probes.layer_kernels import LayerKernels
from armillary.probes.weights import spectral_norm
from armillary.rules import SGD, Adam, CurvatureRate, Descent, GradientFlow, Loss
from armillary.rules.curvature_rate import curvature_by_samples, scale_by_curvature
from armillary.tangents import empirical_kernel
from armillary.tasks import GivenSamples, LinearTeacher, Samples
from armillary.theory.kernels import Activation, Dense, Kernel, kernel
from armillary.theory.kernels.by_layer import layer_kernels
from armillary.theory.macroscopic import (
    layer_shares,
    lazy_motion,
    learning_speed,
    macroscopic_motion,
    motion_exponent,
)

NAME = "macroscopic scales, lazy"
WRONG: Any = "layers"
DRAW = np.random.default_rng(0)
POINTS = DRAW.normal(size=(6, 4)) / 2
LABELS = np.sign(POINTS @ DRAW.normal(size=4))


def experiment(model=None, rule=None, task=None, probes=None, observe=None):
    return arm.Experiment(
        task or GivenSamples(POINTS, LABELS), model or ScaledOutput(Macroscopic(256, 3, exponent=0.75), centred=1.0),
        rule or Descent(CurvatureRate(1.0, through="samples"), steps=60),
        probes or [Losses(), DistanceFromInitialisation(), KernelDrift(6), LayerKernels(6)], observe or arm.At((0, 3, 60)),
        precision="float64")  # fmt: skip


@pytest.mark.parametrize("depth", [2, 4])
def test_with_a_homogeneous_activation_it_is_the_plain_network(depth):
    network = Macroscopic(8, depth, exponent=0.3, first=2.0, last=0.5)(jax.random.key(0), 4, 2)
    h = POINTS[0]
    for number, layer in enumerate(network.layers):
        h = np.asarray(layer.weight) @ (np.sqrt(2) * np.maximum(h, 0) if number else h)
    np.testing.assert_allclose(network(jnp.asarray(POINTS[0], jnp.float32)), h, rtol=1e-4)


def test_scales_multiply_to_kappa_and_set_the_weights_sizes():
    model = Macroscopic(400, 3, exponent=0.25, first=3.0, last=0.5)
    assert np.isclose(np.prod(model.scales), 400**0.25) and np.isclose(model.scales[0] / model.scales[1], 3.0)
    network = model(jax.random.key(0), 100, 50)
    seen = [float(jnp.std(layer.weight)) * 20 for layer in network.layers]
    np.testing.assert_allclose(seen, model.scales, rtol=0.02)


def test_any_activation_sees_signals_of_order_one():
    x = jnp.asarray(POINTS[0], jnp.float32)
    out = [Macroscopic(64, 3, "tanh", p, first=4.0)(jax.random.key(0), 4, 1)(x) / 64.0 ** (p - 0.5) for p in (0.0, 0.5)]
    np.testing.assert_allclose(out[0], out[1], rtol=1e-4)


def test_the_ntk_parametrisation_is_the_exponent_one_half_shared_equally():
    points = GivenSamples(np.sqrt(4) * POINTS, LABELS)  # its first layer is divided by the root of the inputs
    ntk = MLP(32, 3, Rectified(1.0, 1.0), "ntk", gain=1.0, bias=False)
    probes, rule = [Losses(), DistanceFromInitialisation()], Descent(CurvatureRate(0.5, through="samples"), steps=40)
    one = arm.simulate(experiment(Macroscopic(32, 3, exponent=0.5), rule, None, probes, arm.At((0, 5, 40))), seeds=2)
    other = arm.simulate(experiment(ntk, rule, points, probes, arm.At((0, 5, 40))), seeds=2)
    np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=1e-6)
    np.testing.assert_allclose(one.distance_from_initialisation, other.distance_from_initialisation, rtol=1e-6)


def test_a_share_of_the_start_is_taken_away_and_nested_numbers_stay_frozen():
    x = jnp.asarray(POINTS[0], jnp.float32)
    whole, half, none = (
        ScaledOutput(Macroscopic(8), 2.0, centred=c)(jax.random.key(0), 4, 1)(x) for c in (1.0, 0.5, False)
    )
    assert np.allclose(whole, 0.0, atol=1e-6) and np.allclose(2 * half, none, rtol=1e-5)
    network = Macroscopic(8)(jax.random.key(0), 4, 1)
    back = thawed(frozen(network))
    assert isinstance(back.scales, Frozen) and not jax.tree.leaves(eqx.filter(frozen(network), eqx.is_inexact_array))
    np.testing.assert_array_equal(back.layers[0].weight, network.layers[0].weight)


@pytest.mark.parametrize("activation", [Rectified(1.0, 1.0), "tanh"])
def test_layer_kernels_of_wide_networks_come_to_their_limits(activation):
    model = Macroscopic(1500, 3, activation, exponent=0.4, first=2.0, last=0.5)
    draws = [empirical_kernel(model(jax.random.key(s), 4, 1), POINTS, by_layer=True) for s in range(3)]
    parts = layer_kernels(kernel(model, 4), POINTS)
    np.testing.assert_allclose(np.mean(draws, axis=0), parts, rtol=0.1, atol=0.03 * parts.max())
    np.testing.assert_allclose(parts.sum(axis=0), kernel(model, 4).ntk(POINTS), rtol=1e-10)


def test_layer_kernels_are_the_arc_cosines_of_their_layers():
    model = Macroscopic(100, 3, exponent=0.5, first=2.0)
    x = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    rho = [np.clip(x @ x.T, -1, 1)]
    slopes = []
    for _ in range(2):
        angle = np.arccos(rho[-1])
        slopes.append(1 - angle / np.pi)
        rho.append((np.sqrt(1 - rho[-1] ** 2) + rho[-1] * (np.pi - angle)) / np.pi)
    expected = [rho[0] * slopes[0] * slopes[1], rho[1] * slopes[1], rho[2]]
    scales = [(10.0 / a) ** 2 for a in model.scales]
    found = layer_kernels(kernel(model, 4), x)
    np.testing.assert_allclose(found, [s * e for s, e in zip(scales, expected, strict=True)], rtol=1e-6)


def test_the_probes_parts_add_up_to_the_kernel_and_are_the_gradients_products():
    network = Macroscopic(8, 3, first=2.0)(jax.random.key(0), 4, 1)
    data = (jnp.asarray(POINTS, jnp.float32), jnp.asarray(LABELS[:, None], jnp.float32))
    seen = arm.probe(network, [LayerKernels(6), EmpiricalTangentKernel(6)], data=data)
    np.testing.assert_allclose(seen.layer_kernels.sum("layer"), seen.tangent_kernel, rtol=1e-4, atol=1e-4)
    slope = jax.vmap(lambda x: eqx.filter_grad(lambda n: n(x)[0])(network).layers[1].weight.ravel())
    gradient = jax.jit(slope)(data[0])
    np.testing.assert_allclose(seen.layer_kernels[1], gradient @ gradient.T, rtol=1e-4, atol=1e-5)
    with pytest.raises(arm.ArmillaryError, match="LayerKernels needs all weights in dense layers or convolutions"):
        arm.probe(
            eqx.nn.Sequential([eqx.nn.Linear(4, 4, key=jax.random.key(0)), eqx.nn.LayerNorm(4)]),
            [LayerKernels(6)],
            data=data,
        )


@pytest.mark.parametrize("shape", [(1, 40), (40, 60)])
def test_the_spectral_norm_is_the_largest_singular_value(shape):
    weight = np.random.default_rng(1).normal(size=shape) * 1e-20
    exact = np.linalg.norm(weight, 2)
    found = float(spectral_norm(jnp.asarray(weight, jnp.float32)))
    assert exact * 0.98 <= found <= exact * 1.0001
    low = np.outer(weight[:, 0], weight[0]) * 1e20  # of rank one: what a step changes
    assert np.isclose(float(spectral_norm(jnp.asarray(low, jnp.float32))), np.linalg.norm(low, 2), rtol=1e-4)
    assert float(spectral_norm(jnp.zeros(shape))) == 0.0


def test_a_network_that_moved_by_rank_one_moved_more_in_the_spectral_norm():
    network = Macroscopic(64, 3)(jax.random.key(0), 4, 1)
    change = jnp.outer(jnp.ones(64), jnp.ones(64)) / 640
    moved = eqx.tree_at(lambda n: n.layers[1].weight, network, network.layers[1].weight + change)
    seen = arm.probe(moved, [DistanceFromInitialisation(spectral=True)], initial=network)
    expected = 0.1 / np.linalg.norm(network.layers[1].weight, 2)
    assert np.isclose(seen.spectral_distance[1], expected, rtol=0.02) and seen.spectral_distance[0] == 0
    assert seen.spectral_distance[1] > 2 * seen.distance_from_initialisation[1]


@pytest.mark.parametrize(("reduction", "outputs"), [("mean", 1), ("sum", 3)])
def test_the_curvature_through_samples_is_that_through_weights(reduction, outputs):
    network = MLP(6, 3, "tanh", "ntk")(jax.random.key(0), 4, outputs)
    samples = Samples(jnp.asarray(POINTS, jnp.float32), jnp.ones((6, outputs)))
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda w, x: eqx.combine(w, network)(x)), (None, 0)))(
        eqx.filter(network, eqx.is_inexact_array), samples.inputs
    )
    flat = np.concatenate([np.asarray(leaf).reshape(6 * outputs, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    exact = np.linalg.norm(flat, 2) ** 2 / (6 if reduction == "mean" else 1)
    assert np.isclose(
        eqx.filter_jit(curvature_by_samples)(network, Loss(reduction=reduction), samples), exact, rtol=1e-4
    )


def test_both_ways_to_the_curvature_take_the_same_steps():
    seen = [
        arm.simulate(experiment(Macroscopic(16, 3, exponent=0.0), Descent(CurvatureRate(0.5, products=20, through=way), steps=30),
                                probes=[Losses(), LearningRate()], observe=arm.At((0, 1, 30))))
        for way in ("weights", "samples")
    ]  # fmt: skip
    np.testing.assert_allclose(seen[0].train_loss, seen[1].train_loss, rtol=1e-3)
    np.testing.assert_allclose(seen[0].learning_rate[..., 1:], seen[1].learning_rate[..., 1:], rtol=1e-3)


@given(seed=st.integers(0, 30), rate=st.floats(0.01, 0.1))
def test_the_motion_is_that_of_a_model_linear_in_its_weights(seed, rate):
    draw = np.random.default_rng(seed)
    features = [draw.normal(size=(4, k)) for k in (3, 5)]
    targets, weights = draw.normal(size=(4, 2)), [np.zeros((k, 2)) for k in (3, 5)]
    top = np.linalg.eigvalsh(sum(f @ f.T for f in features))[-1]
    for _ in range(30):
        wrong = sum(f @ w for f, w in zip(features, weights, strict=True)) - targets
        weights = [w - rate / top * f.T @ wrong for f, w in zip(features, weights, strict=True)]
    parts = np.array([f @ f.T for f in features])
    found = lazy_motion(parts, targets, [0, 30], rule="descent", learning_rate=rate / top)
    np.testing.assert_allclose(found[1], [np.linalg.norm(w) for w in weights], rtol=1e-6)
    assert (found[0] == 0).all()


def test_a_spread_of_starts_adds_its_mean_square():
    draw = np.random.default_rng(2)
    root = draw.normal(size=(2, 3, 3))
    parts, spread = root @ root.mT, 0.3 * np.eye(3)
    starts = np.sqrt(0.3) * draw.normal(size=(4000, 3, 1))
    each = np.array([lazy_motion(parts, 1 - start, [np.inf])[0] for start in starts])
    found = lazy_motion(parts, np.ones((3, 1)), [np.inf], spread=spread)[0]
    np.testing.assert_allclose(np.sqrt((each**2).mean(axis=0)), found, rtol=0.05)


def test_closed_forms_of_speed_shares_and_powers():
    assert np.isclose(learning_speed([2.0, 2.0]), 8.0) and np.isclose(layer_shares([1.0, 2.0]).sum(), 1.0)
    assert np.isclose(layer_shares([1.0, 2.0])[0], 0.8)
    np.testing.assert_allclose(motion_exponent([0.25, 0.75], centred=False, hidden=True), [-0.75, -1.0])
    wide = [
        macroscopic_motion(Macroscopic(m, 3, exponent=0.3), POINTS, LABELS[:, None], centred=1.0).relative
        for m in (100, 10_000)
    ]
    powers = np.log(wide[1] / wide[0]) / np.log(100)
    np.testing.assert_allclose(powers, [-0.3, -0.8, -0.3], atol=1e-8)
    assert np.allclose(relative_scales(2, 4.0, 1.0), [2.0, 0.5])


def test_the_theory_is_near_what_lazy_networks_do():
    ran = experiment(ScaledOutput(Macroscopic(512, 3, exponent=0.9), centred=1.0))
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=3).mean("seed")
    assert NAME in said.attrs["theories"]
    np.testing.assert_allclose(seen.train_loss[:2], said.train_loss[:2], rtol=0.1)
    np.testing.assert_allclose(seen.distance_from_initialisation, said.distance_from_initialisation, rtol=0.15)
    np.testing.assert_allclose(
        seen.layer_kernels[0], said.layer_kernels[0], atol=0.25 * float(said.layer_kernels.max())
    )
    assert float(seen.kernel_drift[-1]) < 0.05


def test_flow_constant_rates_and_factors_on_outputs_are_told_apart():
    wide = Macroscopic(64, 2, exponent=0.75)
    most = float(np.linalg.eigvalsh(kernel(wide, 4).ntk(POINTS))[-1] / 6)
    flow = arm.predict(experiment(wide, GradientFlow(200 / most), observe=arm.At((0.0, 200 / most))))
    steps = arm.predict(experiment(wide, Descent(SGD(1e-2 / most), steps=20_000), observe=arm.At((0, 20_000))))
    np.testing.assert_allclose(flow.distance_from_initialisation, steps.distance_from_initialisation, rtol=1e-3)
    twice = arm.predict(experiment(ScaledOutput(wide, 2.0, centred=True)))
    once = arm.predict(experiment(ScaledOutput(wide, 1.0, centred=True)))
    np.testing.assert_allclose(twice.distance_from_initialisation, once.distance_from_initialisation / 2, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": MLP(64, 3)}, "needs a network given by its macroscopic scales; this is MLP"),
        ({"model": Macroscopic(256, 3, exponent=0.25)},
         "needs a large macroscopic scale; the root mean square target over kappa is 0.25 (allowed 0.1)"),
        ({"model": Macroscopic(5, 3, exponent=2.0)}, "needs a wide network; samples over width is 1.2 (allowed 1)"),
        ({"rule": Descent(Adam(0.01), steps=60)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": Descent(SGD(0.01, momentum=0.9), steps=60)}, "needs plain gradient descent; the optimiser is SGD"),
        ({"rule": Descent(CurvatureRate(3.0), steps=60)},
         "needs a stable learning rate; the learning rate over the largest stable one is 1.5 (allowed 1)"),
        ({"rule": Descent(SGD(0.01), steps=60, loss=Loss("logistic"))}, "needs the squared error; the loss is logistic"),
        ({"task": LinearTeacher(4, samples=6)}, "needs one data set for all seeds; this task draws another for each"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "distance_from_initialisation" not in said and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Macroscopic(0), "the width is 0, but must be at least 1"),
        (lambda: Macroscopic(4, 1), "the depth is 1, but must be at least 2"),
        (lambda: Macroscopic(4, first=0.0), "first is 0, but must be above 0"),
        (lambda: Macroscopic(4, exponent=9.0), "the exponent is 9, but must be at least -4 and at most 4"),
        (lambda: ScaledOutput(Macroscopic(4), centred=1.5), "centred is 1.5, but must be at least 0 and at most 1"),
        (lambda: CurvatureRate(through=WRONG), "unknown way to the curvature (through) 'layers'"),
        (lambda: layer_kernels(Kernel(Activation("relu")), np.eye(2)), "has no dense layer or convolution"),
        (lambda: lazy_motion(np.eye(2)[None], np.ones((3, 1)), [1.0]), "the parts are of 2 samples and the residual of 3"),
        (lambda: curvature_by_samples(None, Loss(), None), "the curvature is found through samples for the squared error"),
        (lambda: scale_by_curvature(through=WRONG), "unknown way to the curvature"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_parts_of_a_kernel_with_biases_add_up():
    deep = Kernel(Dense(2.0, 0.1), Activation("relu"), Dense(2.0, 0.1), Activation("tanh"), Dense(1.0, 0.1))
    np.testing.assert_allclose(layer_kernels(deep, POINTS).sum(axis=0), deep.ntk(POINTS), rtol=1e-6)
