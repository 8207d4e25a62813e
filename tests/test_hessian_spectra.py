"""Spectra of small networks: clusters, shuffled data, what is read off a spectrum, symmetries, rank bounds, paths."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import armillary as arm
from armillary import curvature
from armillary.curvature import spectrum
from armillary.curvature.symmetry import live_units, rescaling_directions, rescaling_signs
from armillary.models import MLP, Committee
from armillary.paths import barrier, loss_along, losses_at, network_at
from armillary.prediction import refusals
from armillary.probes.clusters import ClusterCurvature
from armillary.probes.curvature import DenseSpectrum
from armillary.probes.eigenvectors import EigenvectorLoss
from armillary.probes.paths import SegmentLoss
from armillary.probes.symmetry import RescalingSymmetry
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.stages import Stage, Stages
from armillary.tasks import Data, Digits, LinearTeacher, Samples
from armillary.tasks.clusters import GaussianClusters, nearest_centre
from armillary.tasks.sensing import MatrixSensing
from armillary.tasks.shuffled import ShuffledLabels, ShuffledPixels
from armillary.theory.hessian_rank import cluster_outliers, gram_spectrum, parameter_count, rank_bound


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def jacobian(network, inputs) -> np.ndarray:
    """Outputs' gradients, float[sample, output, parameter], by JAX's own Jacobian of the flat weights."""
    flat, tree = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
    rest = eqx.filter(network, eqx.is_inexact_array, inverse=True)
    return np.asarray(jax.jit(jax.jacobian(lambda v: jax.vmap(eqx.combine(tree(v), rest))(inputs)))(flat))


def dense(network, samples, loss=None) -> np.ndarray:
    flat, tree = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
    rest = eqx.filter(network, eqx.is_inexact_array, inverse=True)
    return np.asarray(jax.jit(jax.hessian(lambda v: (loss or Loss())(eqx.combine(tree(v), rest), samples)))(flat))


def test_clusters_lie_where_they_should():
    data = GaussianClusters(4, 6, samples=4000, radius=2.0, noise=0.3, classes=2).draw(jax.random.key(0))
    np.testing.assert_allclose(data.teacher @ data.teacher.T, 4 * np.eye(4), atol=1e-5)
    x, y = np.asarray(data.train.inputs), np.asarray(data.train.targets)
    for cluster in range(4):
        mine = x[cluster::4]
        np.testing.assert_allclose(mine.mean(axis=0), data.teacher[cluster], atol=0.05)
        np.testing.assert_allclose(mine.std(axis=0), 0.3, atol=0.03)
        np.testing.assert_array_equal(y[cluster::4], np.tile(np.eye(2)[cluster % 2], (1000, 1)))
    assert (np.asarray(nearest_centre(data.train.inputs, data.teacher)) == np.arange(4000) % 4).all()


def test_targets_of_clusters_are_encoded_as_asked():
    key = jax.random.key(1)
    cases: Any = (("sign", [[1.0], [-1.0], [1.0]], 1), ("class", [0, 1, 2], 3))
    for targets, expected, outputs in cases:
        task = GaussianClusters(3, 5, samples=3, targets=targets)
        assert np.asarray(task.draw(key).train.targets).tolist() == expected and task.outputs == outputs
    task = GaussianClusters(3, 5, samples=6)
    fresh = task.sample(task.draw(key), jax.random.key(2), 9)
    assert fresh.inputs.shape == (9, 5) and fresh.targets.shape == (9, 3)


@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 20))
@settings(max_examples=4)
def test_shuffled_labels_keep_inputs_and_counts(share, seed):
    task = LinearTeacher(3, samples=40, outputs=1, noise=0.5)
    key = jax.random.key(seed)
    plain, data = (t.draw(k) for t, k in ((task, jax.random.split(key, 3)[0]), (ShuffledLabels(task, share), key)))
    np.testing.assert_array_equal(plain.train.inputs, data.train.inputs)
    np.testing.assert_array_equal(np.sort(plain.train.targets[:, 0]), np.sort(data.train.targets[:, 0]))
    moved = int((plain.train.targets != data.train.targets).sum())
    assert moved <= round(share * 40) and (share < 0.5 or moved > 0.3 * share * 40)


def test_shuffled_pixels_are_independent_and_keep_their_values():
    plain, data = (t.draw(jax.random.key(0)).train for t in (Digits(1000), ShuffledPixels(Digits(1000))))
    np.testing.assert_allclose(np.sort(plain.inputs, axis=0), np.sort(data.inputs, axis=0), atol=1e-6)
    np.testing.assert_array_equal(plain.targets, data.targets)
    busy = np.asarray(plain.inputs).std(axis=0) > 0.5
    before, after = (np.corrcoef(np.asarray(p.inputs)[:, busy].T) - np.eye(busy.sum()) for p in (plain, data))
    assert np.abs(after).max() < 0.15 < np.abs(before).max()


def test_pooled_digits_are_means_of_squares():
    fine, coarse = (Digits(100, standardise=False, pooled=p).draw(jax.random.key(0)).train.inputs for p in (1, 2))
    means = np.asarray(fine).reshape(100, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(100, 16)
    np.testing.assert_allclose(coarse, means, atol=1e-6)
    assert Digits(100, pooled=4).inputs == 4


@given(count=st.sampled_from([1, 4, 12]), seed=st.integers(0, 30))
@settings(max_examples=4)
def test_the_gap_counts_planted_outliers(count, seed):
    draw = np.random.default_rng(seed)
    values = np.concatenate(
        [draw.uniform(1, 2, count), draw.uniform(0.01, 0.02, 72 - count), -draw.uniform(0, 0.01, 40)]
    )
    values = jnp.asarray(np.sort(values)[::-1].copy())
    assert int(spectrum.gap_count(values)) == count
    assert float(spectrum.gap_after(values, count)) == pytest.approx(float(values[count - 1] / values[count]), rel=1e-4)
    assert int(spectrum.count_above_bulk(values)) == (count if count <= 5 else 0)
    many = spectrum.gap_count(jnp.stack([values, values]))
    assert np.asarray(many).tolist() == [count, count]


def test_fractions_and_masses_are_what_numpy_counts():
    values = np.sort(np.random.default_rng(0).normal(size=200))[::-1]
    at = jnp.asarray(values.copy())
    assert np.isclose(spectrum.zero_fraction(at, 0.1), (np.abs(values) <= 0.1 * np.abs(values).max()).mean())
    assert np.isclose(spectrum.zero_fraction(at, 0.3, relative=False), (np.abs(values) < 0.3).mean())
    assert np.isclose(spectrum.negative_mass(at), -values[values < 0].sum() / np.abs(values).sum(), rtol=1e-5)
    zero = jnp.zeros(5)
    assert spectrum.zero_fraction(zero) == 1 and spectrum.negative_mass(zero) == 0 and spectrum.gap_count(zero) == 1


def test_the_spectrum_probe_says_what_the_functions_say(double):
    data = GaussianClusters(2, 4, samples=20).draw(jax.random.key(0))
    network = MLP(3, 2, "tanh")(jax.random.key(1), 4, 2)
    seen = arm.probe(network, [DenseSpectrum(among=10, zero=0.01)], data=data)
    exact = np.linalg.eigvalsh(dense(network, data.train))[::-1]
    np.testing.assert_allclose(seen.hessian_spectrum, exact, atol=1e-12)
    values = jnp.asarray(exact.copy())
    assert int(seen.hessian_outliers) == int(spectrum.gap_count(values, 10))
    assert np.isclose(seen.hessian_zero_fraction, spectrum.zero_fraction(values, 0.01))
    assert np.isclose(seen.hessian_negative_mass, spectrum.negative_mass(values))


@pytest.mark.parametrize("kind", ["squared_error", "cross_entropy"])
def test_the_gram_matrix_has_the_gauss_newton_spectrum(kind, double):
    targets = "onehot" if kind == "squared_error" else "class"
    samples = GaussianClusters(3, 4, samples=5, targets=targets).draw(jax.random.key(0)).train
    network = MLP(4, 2, "tanh")(jax.random.key(1), 4, 3)
    bends = None
    if kind == "cross_entropy":
        p = np.asarray(jax.nn.softmax(jax.vmap(network)(samples.inputs)))
        bends = np.stack([np.diag(q) - np.outer(q, q) for q in p])
    gram = gram_spectrum(jacobian(network, samples.inputs), bends)
    whole = np.linalg.eigvalsh(curvature.dense(curvature.gauss_newton(Loss(kind), network, samples)))[::-1]
    np.testing.assert_allclose(gram, whole[:15], atol=1e-12)
    assert np.abs(whole[rank_bound(5, 3, len(whole)) :]).max() < 1e-12
    assert kind == "squared_error" or np.abs(gram[10:]).max() < 1e-12  # a softmax takes one direction a sample


def test_the_clusters_part_is_below_the_gauss_newton_matrix_and_all_of_it_without_spread(double):
    network = MLP(5, 2, "tanh")(jax.random.key(1), 4, 2)
    for noise in (0.0, 0.3):
        data = GaussianClusters(3, 4, samples=30, noise=noise, classes=2).draw(jax.random.key(0))
        seen = arm.probe(network, [ClusterCurvature(), DenseSpectrum(matrix="gauss_newton")], data=data)
        part, whole = seen.cluster_eigenvalues.values, seen.gauss_newton_spectrum.values[:6]
        means = np.stack([jacobian(network, data.train.inputs)[c::3].mean(axis=0) for c in range(3)]).reshape(6, -1)
        np.testing.assert_allclose(part, np.linalg.eigvalsh(means @ means.T / 3)[::-1], atol=1e-12)
        assert (part <= whole + 1e-12).all()
        assert noise or np.allclose(part, whole, atol=1e-12)


@pytest.mark.parametrize(("kind", "depth"), [("squared_error", 3), ("cross_entropy", 2)])
def test_rescaling_a_unit_changes_nothing_and_bends_by_its_gradient(kind, depth, double):
    targets = "onehot" if kind == "squared_error" else "class"
    samples = GaussianClusters(2, 4, samples=25, targets=targets).draw(jax.random.key(0)).train
    network = MLP(3, depth, "relu")(jax.random.key(3), 4, 2)
    network = jax.tree.map(lambda a: a + 0.1 if eqx.is_inexact_array(a) else a, network)  # biases that are not 0
    loss = Loss(kind)
    flat, tree = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
    rest = eqx.filter(network, eqx.is_inexact_array, inverse=True)
    value = jax.jit(lambda v: loss(eqx.combine(tree(v), rest), samples))
    signs, rows = np.asarray(rescaling_signs(network)), np.asarray(rescaling_directions(network))
    assert rows.shape == (3 * (depth - 1), flat.size)
    for sign in signs:
        assert np.isclose(value(flat * np.exp(0.3 * sign)), value(flat), rtol=1e-12)
    gradient, matrix = np.asarray(jax.jit(jax.grad(value))(flat)), dense(network, samples, loss)
    np.testing.assert_allclose(rows @ matrix, -signs * gradient, atol=1e-12)
    seen = arm.probe(network, [RescalingSymmetry()], data=samples, loss=loss)
    sizes = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(seen.rescaling_curvature, np.linalg.norm(rows @ matrix, axis=1) / sizes, atol=1e-12)
    np.testing.assert_allclose(seen.rescaling_gradient, seen.rescaling_curvature, atol=1e-12)
    assert seen.rescaling_mismatch.max() < 1e-12


def test_dead_units_are_not_live():
    network = MLP(3, 2)(jax.random.key(0), 2, 1)
    dead = eqx.tree_at(lambda n: n.layers[0].bias, network, jnp.array([0.0, -100.0, 0.0]))
    inputs = jnp.array([[1.0, 0.5], [-1.0, -0.5], [0.3, -2.0], [-0.3, 2.0]])
    assert np.asarray(live_units(dead, inputs)).tolist() == [True, False, True]


def test_a_step_along_an_eigenvector_changes_the_loss_by_its_curvature(double):
    data = GaussianClusters(2, 4, samples=20).draw(jax.random.key(0))
    network = MLP(8, 2, "tanh")(jax.random.key(1), 4, 2)
    seen = arm.probe(network, [EigenvectorLoss(epsilon=1e-3, zero=0.01)], data=data)
    values, vectors = np.linalg.eigh(dense(network, data.train))
    flat, tree = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
    rest = eqx.filter(network, eqx.is_inexact_array, inverse=True)
    value = jax.jit(lambda v: Loss()(eqx.combine(tree(v), rest), data.train))
    step = 1e-3 * np.linalg.norm(flat)
    top = (value(flat + step * vectors[:, -1]) + value(flat - step * vectors[:, -1])) / 2 - value(flat)
    np.testing.assert_allclose(seen.eigenvector_loss_change[0], top, rtol=1e-6)
    np.testing.assert_allclose(seen.eigenvector_curvature, values[::-1], atol=1e-12)
    half = seen.eigenvector_curvature * seen.step_size**2 / 2
    np.testing.assert_allclose(seen.eigenvector_loss_change, half, atol=1e-4 * float(half.max()))
    assert abs(float(seen.null_loss_change)) < 0.02 * top


def test_paths_pass_their_corners_and_mix_between():
    a, b, c = (MLP(3, 2, "tanh")(jax.random.key(seed), 2, 1) for seed in range(3))
    samples = Samples(jnp.ones((4, 2)), jnp.zeros((4, 1)))
    seen = loss_along(Loss(), [a, b, c], samples, points=5)
    assert seen.path.values.tolist() == np.linspace(0, 2, 9).tolist() and seen.loss.dims == ("path",)
    for index, network in ((0, a), (4, b), (8, c)):
        np.testing.assert_allclose(seen.loss[index], Loss()(network, samples), rtol=1e-6)
    mixed = jax.tree.map(lambda x, y: 0.25 * x + 0.75 * y if eqx.is_inexact_array(x) else x, b, c)
    np.testing.assert_allclose(seen.loss[7], Loss()(mixed, samples), rtol=1e-6)
    np.testing.assert_allclose(losses_at(Loss(), (b, c), samples, np.array([0.75]))[0], seen.loss[7], rtol=1e-6)
    assert float(barrier(seen.loss.values)) == pytest.approx(
        max(0.0, float(seen.loss.max() - max(seen.loss[0], seen.loss[-1])))
    )


def test_the_segment_of_a_later_stage_begins_where_it_began():
    def stage(rate):
        rule = Descent(SGD(rate), steps=20)
        return arm.Experiment(LinearTeacher(3, samples=12), MLP(3, 2, "tanh"), rule, [SegmentLoss(5), arm.probes.Losses()], arm.Evenly(3))  # fmt: skip

    keep = lambda old, state, new, key: (lambda p: (p, p.init(key)))(
        eqx.tree_at(lambda p: (p.initial, p.data), new, (state.network, old.data))
    )
    seen = arm.simulate(Stages([stage(0.1), Stage(stage(0.01), enter=keep)]), seeds=2)
    np.testing.assert_allclose(seen.segment_loss.isel(time=-1, path=0), seen.train_loss.sel(time=20), rtol=1e-5)
    np.testing.assert_allclose(seen.segment_loss.isel(time=-1, path=-1), seen.train_loss.isel(time=-1), rtol=1e-5)
    np.testing.assert_allclose(seen.segment_barrier, barrier(seen.segment_loss.values), rtol=1e-5)


def experiment(task=None, model=None, rule=None):
    return arm.Experiment(
        task or GaussianClusters(2, 6, samples=80), model or MLP(10, 2, "tanh"),
        rule or Descent(SGD(0.1), steps=1500), [DenseSpectrum()], arm.At((0, 1500)), precision="float64")  # fmt: skip


def test_the_count_of_outliers_is_predicted_and_seen():
    ran = experiment()
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=2)
    assert np.isnan(said.hessian_outliers[0]) and said.hessian_outliers[-1] == 4
    assert (seen.hessian_outliers.isel(time=-1) == 4).all()
    assert cluster_outliers(4, 3) == 12 and cluster_outliers(4, 3, softmax=True) == 8
    network = MLP(7, 3)(jax.random.key(0), 5, 2)
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
    assert parameter_count(MLP(7, 3), 5, 2) == size


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": LinearTeacher(3, samples=12)}, "needs Gaussian clusters; this is LinearTeacher"),
        ({"task": GaussianClusters(2, 6, radius=1.5)}, "needs tight clusters; noise over radius is 0.333 (allowed 0.25)"),
        ({"task": GaussianClusters(7, 12)}, "clusters times outputs is 49 (allowed 39)"),
        ({"task": GaussianClusters(3, 6), "model": MLP(1, 2)}, "needs more weights than outliers; clusters times outputs over weights is 0.692 (allowed 0.5)"),
        ({"model": Committee(4)}, "needs an MLP; this is Committee"),
        ({"task": GaussianClusters(2, 6, samples=4)}, "needs several samples in each cluster; clusters over samples is 0.5 (allowed 0.2)"),
        ({"rule": Descent(SGD(0.05), steps=1500)}, "needs training for learning rate times steps of 100; it is 75"),
        ({"rule": Descent(Adam(0.1), steps=1500)}, "needs gradient descent; this is Adam"),
        ({"rule": GradientFlow(200.0)}, "needs descent; this is GradientFlow"),
        ({"rule": Descent(SGD(0.1), 1500, Loss("cross_entropy"))}, "needs the squared error; the loss is cross_entropy"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    reasons = refusals(arm.predict(experiment(**change))).get("cluster outliers", [])
    assert any(says in reason for reason in reasons), reasons


def small(outputs=1):
    return MLP(2, 2)(jax.random.key(0), 2, outputs)


WRONG: Any = "signs"
PAIR = (jnp.ones((3, 2)), jnp.zeros((3, 1)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GaussianClusters(5, 3), "the number of clusters is 5, but must be at least 1 and at most 3 (the dimension)"),
        (lambda: GaussianClusters(3, classes=4), "the number of classes is 4, but must be at least 1 and at most 3 (the number of clusters)"),
        (lambda: GaussianClusters(noise=-1.0), "the noise is -1, but must be at least 0"),
        (lambda: GaussianClusters(targets=WRONG), "unknown targets 'signs'; nearest: sign, class (all: class, onehot, sign)"),
        (lambda: ShuffledLabels(3), "the shuffled task is a int, but must be an armillary.tasks.Task"),
        (lambda: ShuffledLabels(Digits(9), 2.0), "the share of shuffled labels is 2, but must be at least 0 and at most 1"),
        (lambda: ShuffledPixels(MatrixSensing(4, (1.0,))).draw(jax.random.key(0)),
         "ShuffledPixels needs samples, and MatrixSensing trains on its whole population"),
        (lambda: Digits(9, pooled=3), "pooled is 3, but must be 1, 2 or 4 (the side of the squares of an 8 x 8 image)"),
        (lambda: spectrum.gap_after(jnp.ones(3), 3), "the count is 3, but must be at least 1 and at most 2 (the number of eigenvalues less 1)"),
        (lambda: loss_along(Loss(), [small()], PAIR), "the number of networks on the path is 1, but must be at least 2"),
        (lambda: network_at([small(), small(2)], 0.5), "the networks of a path differ in their architecture; give networks of the same shapes"),
        (lambda: loss_along(Loss(), [small()] * 2, PAIR, points=1), "the number of points on a segment is 1, but must be at least 2"),
        (lambda: rescaling_directions(MLP(2, 2, "tanh")(jax.random.key(0), 2, 1)),
         "rescaling needs a homogeneous activation (relu, leaky_relu, abs, linear), and this network's is tanh"),
        (lambda: arm.probe(eqx.nn.Linear(2, 1, key=jax.random.key(0)), [RescalingSymmetry()], data=PAIR), "RescalingSymmetry: rescaling needs an MLP, not a Linear"),
        (lambda: arm.probe(MLP(2, 1)(jax.random.key(0), 2, 1), [RescalingSymmetry()], data=PAIR), "RescalingSymmetry: rescaling needs hidden units, and this network has none"),
        (lambda: arm.probe(small(), [SegmentLoss()], data=PAIR), "SegmentLoss needs the network before training; pass initial=..."),
        (lambda: arm.probe(small(), [ClusterCurvature()], data=PAIR), "ClusterCurvature needs a task whose teacher is the clusters' centres, as GaussianClusters"),
        (lambda: arm.probe(small(), [ClusterCurvature()], data=Data(Samples(*PAIR), None, jnp.eye(2)), loss=Loss("logistic")),
         "ClusterCurvature needs the squared error, whose curvature in the outputs is 1"),
        (lambda: EigenvectorLoss(epsilon=0.0), "epsilon is 0, but must be above 0"),
        (lambda: DenseSpectrum(among=0), "the number of eigenvalues looked at (among) is 0, but must be at least 1"),
        (lambda: rank_bound(0, 1, 5), "the number of samples is 0, but must be at least 1"),
        (lambda: cluster_outliers(2, 1, softmax=True), "the number of outputs is 1, but must be at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def test_curvatures_of_a_loss_must_be_positive():
    with pytest.raises(np.linalg.LinAlgError, match="not symmetric positive"):
        gram_spectrum(np.ones((1, 2, 3)), -np.eye(2)[None])
