"""Hierarchical data against the tree walked item by item, and against the closed form of its modes."""

import itertools

import equinox as eqx
import jax
import numpy as np
import pytest

import armillary as arm
from armillary.measures import crossing_time
from armillary.tasks import hierarchical

TREES = pytest.mark.parametrize(("levels", "branching"), [(1, 2), (1, 5), (2, 3), (3, 2), (3, 3), (5, 2)])


def items_of(levels, branching):
    """Each item as its path from the root: which branch it takes at every level."""
    return list(itertools.product(range(branching), repeat=levels))


def averages(levels, branching, level):
    """The matrix that replaces every item's value by the mean over the items below the same node of `level`."""
    items = items_of(levels, branching)
    together = np.array([[a[:level] == b[:level] for b in items] for a in items])
    return together / together.sum(axis=1, keepdims=True)


@TREES
def test_each_item_has_the_properties_of_its_ancestors(levels, branching, key):
    data = hierarchical(levels, branching).draw(key).train
    items = items_of(levels, branching)
    nodes = [path for level in range(levels + 1) for path in itertools.product(range(branching), repeat=level)]
    owned = [[item[: len(node)] == node for node in nodes] for item in items]
    shown = np.argmax(data.inputs, axis=1)  # which item a sample is
    assert sorted(shown) == list(range(len(items)))
    np.testing.assert_allclose(data.targets, np.array(owned, dtype=float)[shown], atol=1e-6)


@TREES
def test_items_are_one_hot_and_white(levels, branching, key):
    task = hierarchical(levels, branching)
    data = task.draw(key).train
    assert task.inputs == data.count == branching**levels
    assert ((data.inputs != 0).sum(axis=1) == 1).all()
    np.testing.assert_allclose(data.inputs.T @ data.inputs / data.count, np.eye(data.count), atol=1e-5)


@TREES
def test_items_are_as_alike_as_they_have_common_ancestors(levels, branching):
    cross = np.array(hierarchical(levels, branching).input_output_correlation, dtype=float)
    items = items_of(levels, branching)
    common = [[sum(a[:level] == b[:level] for level in range(levels + 1)) for b in items] for a in items]
    np.testing.assert_allclose(len(items) * cross.T @ cross, common, atol=1e-5)


@TREES
def test_strengths_and_numbers_of_modes_are_the_trees_levels(levels, branching):
    """n s² is 1 + b + ... + b^(levels - k) for the b^k - b^(k-1) distinctions at level k, and for the mean at k = 0."""
    strengths = np.linalg.svd(np.array(hierarchical(levels, branching).input_output_correlation), compute_uv=False)
    number = [1, *(branching**k - branching ** (k - 1) for k in range(1, levels + 1))]
    squared = [(branching ** (levels - k + 1) - 1) / (branching - 1) for k in range(levels + 1)]
    expected = np.sqrt(np.repeat(squared, number) / branching**levels)
    assert (np.diff(squared) < 0).all()  # the broadest distinction is the strongest
    np.testing.assert_allclose(strengths, expected, rtol=1e-5)


@TREES
def test_a_levels_modes_distinguish_the_branches_of_one_node(levels, branching):
    """They are the same for all items of a branch and sum to 0 over a node's branches, whatever basis SVD picks."""
    _, _, modes = np.linalg.svd(np.array(hierarchical(levels, branching).input_output_correlation, dtype=float))
    for level in range(levels + 1):
        coarser = averages(levels, branching, level - 1) if level else 0.0
        mine = modes[branching ** (level - 1) if level else 0 : branching**level]
        np.testing.assert_allclose(mine.T @ mine, averages(levels, branching, level) - coarser, atol=1e-5)


def test_broad_distinctions_are_learned_first():
    task = hierarchical(levels=3, branching=2)
    start = arm.models.Decoupled(task.input_output_correlation, strength=1e-3)
    model = arm.models.DeepLinear(depth=2, initialisation=start)
    probes = [arm.probes.ModeStrength(task.input_output_correlation)]
    experiment = arm.Experiment(task, model, arm.rules.GradientFlow(15.0), probes, arm.Evenly(301))
    learned = arm.simulate(experiment).mode_strength.isel(seed=0)
    strengths = np.sqrt(np.array([15, 7, 3, 3, 1, 1, 1, 1]) / 8)
    half = np.log(strengths / 1e-3 - 1) / (2 * strengths)  # of s / (1 + (s / u0 - 1) exp(-2 s t))
    assert (np.diff(half) >= 0).all()
    share = learned.transpose("time", "mode") / strengths
    np.testing.assert_allclose(crossing_time(share, 0.5), half, rtol=1e-3)


@pytest.mark.parametrize(("levels", "branching", "says"), [(0, 2, "the number of levels is 0, but must be at least 1"),
                                                           (2, 1, "branching is 1, but must be at least 2")])  # fmt: skip
def test_a_tree_has_levels_and_branches(levels, branching, says):
    with pytest.raises(arm.ArmillaryError, match=says):
        hierarchical(levels, branching)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    ours = arm.tasks.Digits(samples=1000, standardise=False).clean
    order = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_array_equal(ours.train.inputs, images[order[:1000]].astype(np.float32) / 16)
    np.testing.assert_array_equal(ours.test.targets, labels[order[1000:]])


@pytest.mark.parametrize(
    "task",
    [
        arm.tasks.LinearTeacher(5, samples=7, noise=0.3, test_samples=4),
        arm.tasks.FactorModel(dimension=6, factors=2),
        arm.tasks.DirichletClasses(samples=9, test_samples=5),
        arm.tasks.Digits(50, label_noise=0.2),
    ],
    ids=lambda task: type(task).__name__,
)
def test_data_drawn_alone_are_those_of_a_program(task, key):
    alone, within = task.draw(key=key), eqx.filter_jit(lambda key: task.draw(key))(key)
    assert jax.tree.structure(alone) == jax.tree.structure(within)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(within), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [lambda x: x[x > 0.5], lambda x: np.full(2, float(x[0] > 0.5))])
def test_a_task_that_cannot_be_traced_is_drawn_all_the_same(chosen, key):
    class Coins(arm.tasks.Task):
        inputs = outputs = 1

        def draw(self, key):
            heads = jax.numpy.asarray(chosen(jax.random.uniform(key, 9)))[:, None]
            return arm.tasks.Data(arm.tasks.Samples(heads, heads))

    drawn = Coins().draw(key).train
    np.testing.assert_array_equal(drawn.inputs[:, 0], chosen(jax.random.uniform(key, 9)))
