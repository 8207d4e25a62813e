"""Recurrent stacks: states and Jacobians in plain NumPy, paths counted one by one, radii, stabilisation, refusals."""

import itertools
from math import comb

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.local_stability import RadiusDescent, Rescale, Stabilised, spectral_radius, step_radii
from armillary.models.recurrent import OneStep, Recurrent
from armillary.prediction import refusals
from armillary.probes.recurrent import GradientNorm, StepRadii, StepSensitivity
from armillary.rules import Adam, Descent, Loss
from armillary.rules.local_stability import LocalStability
from armillary.tasks.sequences import DigitSequences, FilteredNoise
from armillary.theory.path_counts import (
    critical_depth_radius,
    endless_gradient,
    largest_delay,
    mean_square_path_sum,
    path_count,
    path_sum,
    state_path_count,
    total_gradient,
)

NAME = "paths through time and depth"
RADII = eqx.filter_jit(step_radii)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def stepped(network, sequence, cell):
    """The network's output, state by state."""
    layers = [network.first]
    if network.rest is not None:
        count = network.rest.time_weight.shape[0]
        layers += [jax.tree.map(lambda a, i=i: a[i] if eqx.is_array(a) else a, network.rest) for i in range(count)]
    h = [np.zeros(layer.time_weight.shape[-1]) for layer in layers]
    for x in np.asarray(sequence, float):
        for i, layer in enumerate(layers):
            r, d = np.asarray(layer.time_weight, float), np.asarray(layer.depth_weight, float)
            b = 0.0 if layer.bias is None else np.asarray(layer.bias, float)
            if cell == "gru":
                drive, heard = d @ x + b, r @ h[i]
                z, gate = sigmoid(drive[0] + heard[0]), sigmoid(drive[1] + heard[1])
                h[i] = (1 - z) * np.tanh(drive[2] + gate * heard[2]) + z * h[i]
            else:
                phi = {"tanh": np.tanh, "relu": lambda v: np.maximum(v, 0), "linear": lambda v: v}[cell]
                h[i] = phi(r @ h[i] + d @ x + b)
            x = h[i]
    return np.asarray(network.read_out.weight, float) @ h[-1]


@pytest.mark.parametrize("cell", ["tanh", "relu", "linear", "gru"])
@pytest.mark.parametrize("depth", [3])
def test_networks_are_stepped_through_time_and_depth(cell, depth):
    network = Recurrent(cell, depth, 5)(jax.random.key(0), 2, 3)
    if cell != "linear":  # biases that count
        bias = lambda n: (n.first.bias, n.rest.bias)
        network = eqx.tree_at(bias, network, tuple(b + 0.1 for b in bias(network)))
    x = jax.random.normal(jax.random.key(1), (6, 2))
    out = network(x) - (0.0 if network.read_out.bias is None else network.read_out.bias)
    np.testing.assert_allclose(out, stepped(network, x, cell), rtol=1e-4, atol=1e-5)


@given(layers=st.integers(1, 4), delay=st.integers(0, 5))
def test_paths_are_counted_one_by_one(layers, delay):
    """Moves up (u) and on (t) in any order, the first of them up."""
    words = set(itertools.permutations("u" * (layers - 1) + "t" * delay)) if layers + delay < 9 else None
    if words is not None:
        assert path_count(layers, delay) == len(words)
    assert state_path_count(layers, delay) == comb(layers + delay, delay)


@pytest.mark.parametrize(("time", "depth"), [(1.0, 1.0), (0.5, 0.5), (0.7, 0.3)])
def test_the_scalar_net_has_the_paths_derivatives(time, depth):
    with jax.enable_x64(True):
        network = Recurrent("linear", 4, 1, "constant", time, depth)(jax.random.key(0), 1, 1)
        found = np.asarray(jax.grad(lambda x: network(x)[0])(jnp.ones((12, 1))))[::-1, 0]
    np.testing.assert_allclose(found, path_sum(4, np.arange(12), time, depth), rtol=1e-13)
    assert np.isclose(found.sum(), total_gradient(4, 12, time, depth))


def test_sums_over_delays_are_their_closed_forms():
    assert total_gradient(3, 20, 1.0, 1.0) == 1540 and np.isclose(total_gradient(10, 60, 1.0, 1.0), comb(69, 10))
    for time, depth in ((0.5, 0.5), (0.7, 0.3), (0.6, 0.9)):
        assert np.isclose(total_gradient(6, 400, time, depth), endless_gradient(6, time, depth))
    assert np.isinf(endless_gradient(3, 1.0, 0.5))
    for layers in (1, 3, 10):
        for time in (0.2, 0.5, 0.8):
            terms = path_sum(layers, np.arange(200), time, 1.0)
            assert np.isclose(terms[largest_delay(layers, time)], terms.max())
    random = total_gradient(8, 400, 0.6**2, critical_depth_radius(0.6, random=True) ** 2)
    assert np.isclose(random, 1) and np.isclose(mean_square_path_sum(2, 3, 0.6, 0.8), 4 * 0.6**6 * 0.8**4)


def linear(model, length=8, steps=0):
    task = FilteredNoise((0.0,), (((0.0,) * model.width,),), sequences=2, length=length)
    return arm.Experiment(
        task, model, Descent(steps=steps), [StepSensitivity(1)], arm.At((0, steps) if steps else (0,)), "float64"
    )


def test_random_stacks_have_the_mean_square_and_scale_exactly():
    seen = arm.simulate(linear(Recurrent("linear", 3, 24, radius=0.8, depth_radius=0.6)), seeds=200).isel(time=0)
    said = arm.predict(linear(Recurrent("linear", 3, 24, radius=0.8, depth_radius=0.6))).isel(time=0)
    assert NAME in said.attrs["theories"]
    spread = seen.squared_sensitivity.std("seed") / np.sqrt(200)
    # At finite width a path that uses a matrix again is no longer independent: corrections of order 1/width.
    off = np.abs(seen.squared_sensitivity.mean("seed") - said.squared_sensitivity)
    assert (off < 4 * spread + 0.1 * said.squared_sensitivity).all()
    whole = seen.squared_total_sensitivity
    assert abs(whole.mean() - said.squared_total_sensitivity) < 4 * whole.std() / np.sqrt(200) + 0.1
    ones = arm.simulate(linear(Recurrent("linear", 3, 24)), seeds=200).isel(time=0)
    scaled = ones.squared_sensitivity * 0.6**6 * 0.8 ** (2.0 * (8 - ones.step))
    np.testing.assert_allclose(seen.squared_sensitivity, scaled, rtol=1e-9)


def test_constant_weights_are_predicted_exactly():
    ran = linear(Recurrent("linear", 3, 4, "constant", 0.7, 0.4))
    seen, said = arm.simulate(ran), arm.predict(ran)
    for name in ("squared_sensitivity", "squared_total_sensitivity"):
        np.testing.assert_allclose(seen[name].isel(seed=0), said[name], rtol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d.normal(size=(24, 24)),
        lambda d: d.normal(size=(24, 24)) * (d.random(24) < 0.5)[:, None],
        lambda d: np.abs(d.normal(size=(8, 8))),
        lambda d: np.array([[0.0, 9.0], [-0.01, 0.0]]),
        lambda d: np.triu(d.normal(size=(6, 6))),
    ],
)
def test_the_radius_is_the_largest_eigenvalues(make):
    matrix = make(np.random.default_rng(0))
    found = spectral_radius(jnp.asarray(matrix, jnp.float32))
    assert np.isclose(found, np.abs(np.linalg.eigvals(matrix)).max(), rtol=3e-3)


def test_what_vanishes_has_radius_0_and_gradients_are_finite():
    assert spectral_radius(jnp.zeros((3, 3))) == 0 and spectral_radius(jnp.eye(4, k=1)) == 0
    turn = jnp.array([[0.0, 2.0], [-2.0, 0.0]])  # a double modulus
    slope = jax.grad(spectral_radius)(turn)
    assert jnp.isfinite(slope).all() and np.isclose(jnp.sum(slope * turn), 2.0, rtol=1e-3)  # it is homogeneous


def test_radii_are_those_of_dense_jacobians():
    network = Recurrent("tanh", 3, 6, radius=1.5)(jax.random.key(0), 2, 3)
    x = jax.random.normal(jax.random.key(1), (2, 3, 2))
    time, depth = RADII(network, x)
    for layer in range(3):
        across, up = [], []
        for sequence in x:
            cell, before, below = eqx.filter_jit(lambda n, s: n.one_steps(s))(network, sequence)[layer]
            for h, b in zip(before, below, strict=True):
                slope = 1 - np.asarray(cell(h, b)) ** 2
                for into, weight in ((across, cell.time_weight), (up, cell.depth_weight)):
                    if weight.shape[0] == weight.shape[1]:
                        values = np.linalg.eigvals(slope[:, None] * np.asarray(weight))
                        into.append(np.abs(values).max())
        assert np.isclose(time[layer], np.mean(across), rtol=1e-2)
        assert np.isnan(depth[layer]) if not up else np.isclose(depth[layer], np.mean(up), rtol=1e-2)


@pytest.mark.parametrize("rule", [Rescale(), RadiusDescent(Adam(0.02))])
def test_stabilisation_reaches_its_target(rule):
    inputs = DigitSequences(200).sequences.train.inputs
    model = Stabilised(Recurrent("tanh", 2, 10, radius=1.8), inputs, 0.6, rule, steps=60, times=2)
    network = eqx.filter_jit(model)(jax.random.key(0), 4, 10)
    time, depth = RADII(network, inputs[:6])
    assert np.abs(time - 0.6).max() < 0.1 and abs(depth[1] - 0.6) < 0.1
    alone = Stabilised(Recurrent("tanh", 2, 10, radius=1.8), inputs, float("inf"), rule, steps=3, times=2)
    drawn = Recurrent("tanh", 2, 10, radius=1.8)(jax.random.split(jax.random.key(0))[0], 4, 10)
    kept = alone(jax.random.key(0), 4, 10)
    np.testing.assert_allclose(kept.first.time_weight, drawn.first.time_weight, rtol=1e-5, atol=1e-6)


class Own(eqx.Module):
    """A user's network: one layer, two maps of its own."""

    weight: jax.Array

    def one_steps(self, sequence):
        return [OneStep(lambda h, x: jnp.sin(self.weight @ h) + x, 0.1 * sequence, sequence)]


def test_a_users_network_can_be_stabilised_by_the_gradient_rule():
    inputs = jax.random.normal(jax.random.key(0), (20, 4, 6))
    own = Own(2.0 * jax.random.normal(jax.random.key(1), (6, 6)) / np.sqrt(6))
    network = Stabilised(own, inputs, 1.0, RadiusDescent(Adam(0.02)), steps=150)(jax.random.key(2), 6, 1)
    assert abs(step_radii(network, inputs)[0][0] - 1.0) < 0.15 < abs(step_radii(own, inputs)[0][0] - 1.0)


def test_the_rule_is_the_model_watched():
    task = DigitSequences(100)
    ran = arm.Experiment(task, Recurrent("relu", 2, 12, radius=1.4), LocalStability(0.5, 20, times=3),
                         [StepRadii(4)], arm.Evenly(3))  # fmt: skip
    seen = arm.simulate(ran, seeds=2)
    assert np.abs(seen.time_radius.isel(time=-1).mean() - 0.5) < 0.1 < abs(seen.time_radius.isel(time=0).mean() - 0.5)
    assert np.isnan(seen.depth_radius.sel(layer=1)).all()


def test_sensitivities_and_gradients_are_dense_ones():
    task = DigitSequences(40)
    network = Recurrent("gru", 2, 6)(jax.random.key(0), 4, 10)
    train = task.sequences.train
    seen = arm.probe(network, [StepSensitivity(3), GradientNorm(5)], data=task.sequences, loss=Loss("cross_entropy"))
    jacobian = jax.jit(jax.jacfwd(network))
    whole = np.stack([np.asarray(jacobian(x)) for x in train.inputs[:3]])
    np.testing.assert_allclose(seen.squared_sensitivity, (whole**2).sum(axis=(1, 3)).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        seen.squared_total_sensitivity, (whole.sum(axis=2) ** 2).sum(axis=(1, 2)).mean(), rtol=1e-4
    )
    gradient = eqx.filter_jit(eqx.filter_grad(Loss("cross_entropy")))(network, train[:5])
    squared = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
    assert np.isclose(seen.gradient_norm, np.sqrt(squared), rtol=1e-4)


def test_digits_are_cut_row_by_row():
    data = DigitSequences(30, pixels=8).draw(jax.random.key(0))
    images = arm.tasks.Digits(30).clean
    np.testing.assert_array_equal(data.train.inputs.reshape(30, 64), images.train.inputs)
    np.testing.assert_array_equal(data.test.targets, images.test.targets)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": MLP(4)}, "needs a recurrent stack (Recurrent); this is MLP"),
        ({"model": Recurrent("tanh", 2, 12)}, "needs linear cells; they are tanh"),
        ({"model": Recurrent("linear", 2, 12, "positive")}, "needs Gaussian or constant weights; they are positive"),
        ({"model": Recurrent("linear", 2, 4)},
         "needs units for each step; the sequence's length over the width is 2 (allowed 1.5)"),
        ({"task": arm.tasks.Digits(10)}, "needs sequences of known length; Digits has no length"),
        ({"rule": Descent(steps=5), "observe": arm.At((0, 5))},
         "needs weights at the start; the training time is 5 (allowed 0)"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    base = linear(Recurrent("linear", 2, 12))
    parts = {"task": base.task, "model": base.model, "rule": base.rule, "observe": base.observe, **change}
    said = arm.predict(arm.Experiment(**parts), theory=NAME)
    assert not len(said) and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Recurrent("lstm"), "unknown cell 'lstm'"),
        (lambda: Recurrent("tanh", depth=0), "depth is 0, but must be at least 1"),
        (lambda: Recurrent("tanh", radius=-1.0), "the radius is -1, but must be at least 0"),
        (lambda: DigitSequences(10, pixels=5), "5 pixels a step do not divide an image of 64"),
        (lambda: LocalStability(0.0), "the target radius is 0, but must be above 0"),
        (lambda: Rescale(2.0), "the limit of a factor is 2, but must be above 0 and at most 1"),
        (lambda: Stabilised(MLP(4), jnp.ones((3, 4, 2)), 0.5)(jax.random.key(0), 2, 1), "a MLPNetwork has no"),
        (lambda: Stabilised(Own(jnp.eye(2)), jnp.ones((3, 4, 2)), 0.5)(jax.random.key(0), 2, 1),
         "a Own has no method rescaled(time, depth); use RadiusDescent"),
        (lambda: arm.probe(MLP(4)(jax.random.key(0), 2, 1), [StepRadii()], data=(jnp.ones((3, 4, 2)), jnp.ones(3))),
         "StepRadii needs a network with one-step maps, not a MLPNetwork"),
        (lambda: arm.probe(MLP(4)(jax.random.key(0), 2, 1), [StepSensitivity()], data=(jnp.ones((3, 2)), jnp.ones(3))),
         "StepSensitivity needs sequences [sample, time, input]; inputs have 2 axes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
