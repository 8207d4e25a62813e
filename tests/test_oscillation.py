"""Benign oscillation: the patch task, its network, and the map of one sample."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models.patch_network import PatchModel, PatchNetwork
from armillary.probes.patches import PatchFeatures
from armillary.rules import SGD, Descent
from armillary.tasks.patches import FeaturePatches
from armillary.theory.oscillation import critical_learning_rate, final_weak_share, oscillating_growth


def test_patches_are_what_they_say(key):
    data = FeaturePatches(dimension=400, samples=50, weak_only=0.2, noise=5.0, test_samples=20).draw(key)
    inputs, labels = np.array(data.train.inputs), np.array(data.train.targets)[:, 0]
    np.testing.assert_allclose(inputs[:, 0, 1], labels)
    np.testing.assert_array_equal(np.linalg.norm(inputs[:, 1], axis=1), [0.0] * 10 + [6.0] * 40)
    np.testing.assert_array_equal(inputs[:, 2, :2], 0)
    np.testing.assert_allclose(np.linalg.norm(inputs[:, 2], axis=1).mean(), 5.0, rtol=0.05)
    assert set(labels) == {-1.0, 1.0}
    assert not np.array(data.test.inputs)[:10, 1].any() and np.array(data.test.inputs)[10:, 1].any(axis=1).all()


def test_the_squared_gradient_is_the_gradients(key):
    data = FeaturePatches(dimension=30, samples=4).draw(key)
    network = PatchModel(units=3, scale=0.5)(jax.random.key(1), 30, 1)
    for x in data.train.inputs:
        gradient = eqx.filter_grad(lambda n, x=x: n(x)[0])(network).weights
        np.testing.assert_allclose(network.squared_gradient(x), np.sum(np.array(gradient) ** 2), rtol=1e-5)


@pytest.mark.parametrize("rate", [0.05, 0.16])
def test_one_sample_without_noise_follows_the_map(rate):
    units, strong, weak = 10, 6.0, 1.0
    own = (
        jnp.zeros((units, 5))
        .at[:, :2]
        .set(jax.random.uniform(jax.random.key(0), (units, 2), minval=0.002, maxval=0.01))
    )
    network = PatchNetwork(jnp.stack([own, -own]))  # for each label the units of its own sign are active
    task = FeaturePatches(5, samples=1, weak_only=0.0, noise=0.0, test_samples=2)
    rule = Descent(SGD(rate), steps=60)
    experiment = arm.Experiment(task, network, rule, [PatchFeatures()], arm.Evenly(61), precision="float64")
    seen = arm.simulate(experiment).isel(seed=0)
    s, w = (
        float(np.sum((size * np.array(own, float)[:, axis]) ** 2)) / units for size, axis in ((strong, 0), (weak, 1))
    )
    c = rate / critical_learning_rate(units, strong)
    run = oscillating_growth(c, c * (weak / strong) ** 2, s, w, 60)
    np.testing.assert_allclose(seen.residual, run.residual, atol=1e-6)
    sharpness = 2 * (c * run.strong + c * (weak / strong) ** 2 * run.weak) / rate
    np.testing.assert_allclose(seen.largest_sharpness, sharpness, rtol=1e-5)


@given(st.floats(0.05, 0.95), st.floats(0.01, 0.2))
def test_below_the_threshold_the_weak_part_barely_grows(c, ratio):
    run = oscillating_growth(c, ratio * c, strong=1e-3, weak=1e-6, steps=3000)
    assert run.weak[-1] < 5 * 1e-6 * 1000**ratio
    np.testing.assert_allclose(run.strong[-1], 1, atol=1e-2)
    assert final_weak_share(c, ratio * c) == 0


@given(st.floats(1.1, 1.6), st.floats(0.02, 0.08))
def test_above_it_oscillation_ends_where_the_fixed_point_becomes_stable(c, ratio):
    end = oscillating_growth(c, ratio * c, strong=1e-3, weak=1e-6, steps=60_000)
    stability = c * end.strong[-1] + ratio * c * end.weak[-1]
    np.testing.assert_allclose(end.residual[-1], 0, atol=1e-3)
    assert 0.97 < stability < 1.001
    np.testing.assert_allclose(end.weak[-1], final_weak_share(c, ratio * c), rtol=0.05)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FeaturePatches(dimension=2), "the dimension of a patch is 2"),
        (lambda: FeaturePatches(weak_only=1.5), "weak feature only is 1.5"),
        (lambda: FeaturePatches(noise=-1.0), "noise patch is -1"),
        (lambda: PatchModel(units=0), "units for each sign is 0"),
        (lambda: oscillating_growth(1.0, 0.1, 1e-3, 1e-6, -1), "number of steps is -1"),
    ],
)
def test_bad_input_gets_one_line(make, said):
    with pytest.raises(arm.ArmillaryError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


def test_the_probe_refuses_another_network(key):
    with pytest.raises(arm.ArmillaryError, match="needs a PatchNetwork, not a MLPNetwork"):
        arm.probe(arm.models.MLP(4)(key, 3, 1), [PatchFeatures()])
