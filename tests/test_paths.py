"""Dropped units, paths between networks, alignment and ensembles: against plain NumPy, closed forms, bad input."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armillary as arm
from armillary.models import MLP, DeepLinear
from armillary.models.ensemble import Ensemble
from armillary.models.layers import dense_layers, dropped, hidden_widths, with_layers
from armillary.path_builders import aligned, bent_path, dropout_path, permuted
from armillary.paths import barrier, loss_along, network_at
from armillary.probes.dropout import DropoutStability
from armillary.probes.paths import PathLoss
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss, MiniBatch
from armillary.rules.independent import Independently
from armillary.tasks import Digits, LinearTeacher, Samples
from armillary.theory.dropout import bound_shape, bound_slope, loss_rise, sampled_variance

KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (30, 5))
WRONG: Any = "curved"
FLOW: Any = GradientFlow(1.0)
PAIR = Samples(X, jnp.sin(X[:, :2]))


def mlp(seed, depth=2, width=6, **options):
    return MLP(width, depth, "tanh", bias_variance=0.5, **options)(jax.random.key(seed), 5, 2)


def users(seed):
    return eqx.nn.MLP(5, 2, width_size=6, depth=2, activation=jnp.tanh, key=jax.random.key(seed))


def test_dropping_is_the_plain_one_and_leaves_biases():
    network = mlp(0, 3)
    masks = [np.arange(6) < 2, np.arange(6) % 2 == 0]
    (w1, b1), (w2, b2), (w3, b3) = [(np.asarray(w), np.asarray(b)) for w, b in dense_layers(network)]
    expected = [
        w3[:, ::2] @ np.tanh(w2[::2, :2] @ np.tanh(w1[:2] @ x + b1[:2]) * 3 + b2[::2]) * 2 + b3 for x in np.asarray(X)
    ]
    np.testing.assert_allclose(jax.vmap(dropped(network, masks))(X), expected, rtol=1e-4, atol=1e-5)
    whole = dropped(network, [None, np.ones(6, bool)])
    assert eqx.tree_equal(whole, network)


@pytest.mark.parametrize("make", [lambda s: mlp(s, 4, parametrisation="mup"), users,
                                  lambda s: mlp(s, 2, 5, parametrisation="mean_field")])  # fmt: skip
def test_the_dropout_path_rises_no_higher_than_its_dropped_ends(make):
    a, b = make(1), make(2)
    widths = hidden_widths(a)
    corners = dropout_path(a, b)
    assert len(corners) - 1 == 7 + 8 * (len(widths) - 1)
    assert eqx.tree_equal(corners[0], a) and eqx.tree_equal(corners[-1], b)
    masks = [np.arange(n) < n // 2 for n in widths]
    stages = [[None] * i + masks[i:] for i in range(len(widths))]
    highest = max(float(Loss()(n, PAIR)) for end in (a, b) for n in (end, *(dropped(end, s) for s in stages)))
    along = loss_along(Loss(), corners, PAIR, points=6).loss
    assert float(along.max()) <= highest * (1 + 1e-5)
    # Constant wherever only units move that the output does not see; the segments in between change outputs.
    first = 1 + 4 * (len(widths) - 1)
    for start in (first, first + 2, first + 3, first + 4):
        part = along.sel(path=slice(start, start + 1)).values
        np.testing.assert_allclose(part, part[0], rtol=1e-4)


def test_the_path_through_chosen_units_has_the_corners_of_its_seven_segments():
    a, b = mlp(1), mlp(2)
    kept = np.array([0, 1, 0, 0, 1, 0], bool)
    corners = dropout_path(a, b, kept=kept)
    functions = [np.asarray(jax.vmap(n)(X)) for n in corners]
    ends = [np.asarray(jax.vmap(dropped(n, kept))(X)) for n in (a, b)]
    for index, end in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 1)):
        np.testing.assert_allclose(functions[index], ends[end], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(corners[2].layers[0].weight[:3:2], b.layers[0].weight[1:5:3], rtol=1e-6)
    np.testing.assert_allclose(corners[6].layers[0].weight, b.layers[0].weight, rtol=1e-6)


@pytest.mark.parametrize("curve", ["polygon", "bezier"])
def test_a_bend_goes_round_a_wall(curve):
    # The loss is high at the origin, half-way between two minima on a circle.
    class Point(eqx.Module):
        at: jax.Array

    loss = lambda network, samples: (jnp.sum(network.at**2) - 1.0) ** 2
    a, b = Point(jnp.array([1.0, 0.05])), Point(jnp.array([-1.0, 0.0]))
    straight = loss_along(loss, [a, b], PAIR)
    corners = bent_path(loss, a, b, PAIR, curve=curve, optimiser=Adam(0.02), steps=400)
    bent = loss_along(loss, corners, PAIR)
    assert barrier(straight.loss.values) > 0.9 and barrier(bent.loss.values) < 0.4
    expected = loss_along(loss, bent_path(loss, a, b, PAIR, steps=0), PAIR)  # untrained: the straight line
    np.testing.assert_allclose(expected.loss[::2], straight.loss, atol=1e-6)


def test_units_in_another_order_are_found_again():
    network = mlp(0, 3)
    draw = np.random.default_rng(0)
    orders = [draw.permutation(6) for _ in range(2)]
    turned = with_layers(network, permuted(dense_layers(network), orders))
    np.testing.assert_allclose(jax.vmap(turned)(X), jax.vmap(network)(X), atol=1e-5)
    near = jax.tree.map(lambda w: w + 0.01 if eqx.is_inexact_array(w) else w, turned)
    back = aligned(near, network)
    assert all(np.allclose(one.weight, other.weight + 0.01, atol=1e-6)
               for one, other in zip(back.layers, network.layers, strict=True))  # fmt: skip


def test_alignment_of_one_layer_is_the_nearest_of_all_orders():
    a, b = mlp(3, 2, 5), mlp(4, 2, 5)
    bare = lambda n: jax.tree.leaves(dense_layers(n))
    distance = lambda n: sum(float(jnp.sum((u - v) ** 2)) for u, v in zip(bare(n), bare(a), strict=True))
    every = [with_layers(b, permuted(dense_layers(b), [np.array(o)])) for o in itertools.permutations(range(5))]
    found = aligned(b, a)
    np.testing.assert_allclose(jax.vmap(found)(X), jax.vmap(b)(X), atol=1e-5)
    assert np.isclose(distance(found), min(distance(n) for n in every), rtol=1e-5)


def test_the_variance_of_a_sample_is_that_of_all_samples():
    numbers = np.random.default_rng(1).normal(size=7)
    for m in (1, 3, 7):
        sums = [7 / m * sum(some) for some in itertools.combinations(numbers, m)]
        assert np.isclose(np.mean(sums), numbers.sum()) and np.isclose(
            np.var(sums), numbers.var(ddof=1) * sampled_variance(7, m), atol=1e-12
        )
    assert np.isclose(loss_rise(7, 3, 7 * numbers.std(ddof=1)), sampled_variance(7, 3) * numbers.var(ddof=1) / 2)
    steps = np.array([50.0, 50.01])
    assert np.isclose(
        np.diff(np.log(bound_shape(steps)))[0] / np.diff(np.log(steps))[0], bound_slope(50.005), rtol=1e-3
    )


@pytest.mark.parametrize("parametrisation", ["standard", "mup"])
def test_the_expected_rise_is_the_mean_over_all_sets(parametrisation):
    network = mlp(5, 2, 6, parametrisation=parametrisation)
    seen = arm.probe(network, [DropoutStability((0.5, 2, 9), draws=3)], data=PAIR)
    for index, m in enumerate((3, 2)):
        masks = [np.isin(np.arange(6), some) for some in itertools.combinations(range(6), m)]
        rises = np.array([Loss()(dropped(network, mask), PAIR) for mask in masks]) - float(Loss()(network, PAIR))
        assert np.isclose(seen.sampled_rise[index], rises.mean(), rtol=1e-3)
        assert all(np.isclose(rises, rise, rtol=1e-3, atol=1e-5).any() for rise in seen.dropout_rise[index].values)
    assert np.isnan(seen.dropout_rise[2]).all() and np.isnan(seen.sampled_rise[2])


@pytest.mark.parametrize(("kind", "targets"), [("logistic", jnp.sign(X[:, :2])), ("cross_entropy", jnp.arange(30) % 2)])
def test_where_one_of_many_is_dropped_the_second_order_is_the_mean_rise(kind, targets):
    network = MLP(16, 2, "tanh", "mup")(jax.random.key(7), 5, 2)
    data, loss = Samples(X, targets), Loss(kind)
    seen = arm.probe(network, [DropoutStability((15,), draws=3)], data=data, loss=loss)
    rise = lambda i: loss(dropped(network, jnp.arange(16) != i), data) - loss(network, data)
    rises = jax.jit(jax.vmap(rise))(jnp.arange(16))
    assert np.isclose(rises.mean(), seen.sampled_rise[0], rtol=0.05)
    assert seen.dropout_accuracy.shape == (1, 3) and 0 <= float(seen.whole_accuracy) <= 1


def test_members_learn_alone_and_their_paths_are_seen():
    task = LinearTeacher(5, samples=20, outputs=2)
    probes = [
        PathLoss("straight", 5),
        PathLoss("dropout", 3),
        PathLoss("bent", 3, 20),
        DropoutStability((0.5,), 2),
        _Weights(),
    ]
    each = Descent(SGD(0.1), steps=40, feed=MiniBatch(5))
    ran = arm.Experiment(task, Ensemble(MLP(6, 3, "tanh")), Independently(each), probes, arm.Evenly(3))
    seen = arm.simulate(ran, seeds=2)
    assert seen.dropout_rise.sizes == {"seed": 2, "time": 3, "member": 2, "left": 1, "draw": 2}
    assert seen.sizes["dropout_path"] == 31 and seen.sizes["bent_path"] == 5
    np.testing.assert_allclose(seen.straight_path_loss.isel(straight_path=[0, -1]), seen.dropout_path_loss.isel(dropout_path=[0, -1]), rtol=1e-5)  # fmt: skip
    assert (seen.dropout_loss.isel(time=-1) < seen.dropout_loss.isel(time=0)).all()
    # With the whole data each member is where plain descent brings it from the same start.
    full = arm.Experiment(
        task, Ensemble(MLP(6, 3, "tanh")), Independently(Descent(SGD(0.1), steps=10)), [_Weights()], arm.Evenly(2)
    )
    process: Any = full.draw(jax.random.key(3))
    for index, member in enumerate(process.initial.members):
        alone = Descent(SGD(0.1), steps=10).process(task, process.data, member, ())
        state, whole = alone.init(KEYS[1]), process.init(KEYS[2])
        one_step, all_step = eqx.filter_jit(alone.step), eqx.filter_jit(process.step)
        for _ in range(3):
            state, whole = one_step(state, KEYS[1]), all_step(whole, KEYS[2])
        for one, other in zip(state.network.layers, whole.network.layers, strict=True):
            np.testing.assert_allclose(one.weight, other.weight[index], rtol=1e-5)
    mean = sum(jax.vmap(m)(X) for m in process.initial.members) / 2
    np.testing.assert_allclose(jax.vmap(process.initial)(X), mean, atol=1e-6)


def test_a_swept_rate_is_each_members_own():
    ran = arm.Experiment(
        LinearTeacher(5, samples=20, outputs=2),
        Ensemble(MLP(4, 2), 3),
        Independently(Descent(SGD(0.1), steps=5)),
        [_Weights()],
        arm.Evenly(2),
    )
    seen = arm.simulate(arm.Sweep(ran, {"learning_rate": [0.0, 0.1]}), seeds=1).first.isel(seed=0)
    moved = np.abs(seen.isel(time=1) - seen.isel(time=0)).max(["member", "unit", "input"])
    assert moved[0] == 0 and moved[1] > 1e-4


class _Weights(arm.probes.Probe):
    def __call__(self, now):
        return {"first": arm.Quantity(now.network.stack.layers[0].weight, ("member", "unit", "input"))}


def test_networks_at_corners_are_the_corners():
    corners = dropout_path(mlp(1), mlp(2))
    assert all(eqx.tree_equal(network_at(corners, i), corner, rtol=1e-6) for i, corner in enumerate(corners))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dropped(DeepLinear(depth=2, width=3)(KEYS[0], 5, 2), np.ones(3, bool)),
         "a LinearChain with other weights has no hidden units to drop or align; give a chain of two or more Dense or eqx.nn.Linear layers"),
        (lambda: dropped(eqx.nn.Linear(2, 2, key=KEYS[0]), np.ones(3, bool)),
         "a Linear with 1 dense layers has no hidden units to drop or align; give a chain of two or more Dense or eqx.nn.Linear layers"),
        (lambda: dropped([eqx.nn.Linear(2, 3, key=KEYS[0]), eqx.nn.Linear(2, 2, key=KEYS[0])], np.ones(3, bool)),
         "a list with layers that do not fit has no hidden units to drop or align; give a chain of two or more Dense or eqx.nn.Linear layers"),
        (lambda: dropped(mlp(0, 3), np.ones(6, bool)), "there are 1 sets of kept units for 2 hidden layers; give one for each"),
        (lambda: dropped(mlp(0), np.ones(5, bool)), "a set of kept units has shape (5,), but the layer has 6 units; give a mask"),
        (lambda: dropped(mlp(0), np.zeros(6, bool)), "the number of units kept is 0, but must be at least 1"),
        (lambda: dropout_path(mlp(0), mlp(1), kept=np.arange(6) < 4),
         "the number of units kept is 4, but must be at least 1 and at most 3 (half of its layer, so that there is room for the other network's)"),
        (lambda: dropout_path(mlp(0), mlp(1, 2, 8)), "the networks of a path differ in their architecture; give networks of the same shapes"),
        (lambda: bent_path(Loss(), mlp(0), mlp(1), PAIR, curve=WRONG), "unknown curve 'curved' (all: bezier, polygon)"),
        (lambda: bent_path(Loss(), mlp(0), mlp(1), PAIR, steps=-1), "the number of steps is -1, but must be at least 0"),
        (lambda: aligned(mlp(0), mlp(1), sweeps=0), "the number of sweeps is 0, but must be at least 1"),
        (lambda: jax.jit(lambda n: aligned(n, mlp(1)).layers[0].weight)(eqx.filter(mlp(0), eqx.is_array)),
         "units are aligned one network at a time, not inside a compiled program; call it outside"),
        (lambda: PathLoss(WRONG), "unknown way 'curved' (all: bent, dropout, straight)"),
        (lambda: PathLoss("bent", 1), "the number of points on a segment is 1, but must be at least 2"),
        (lambda: arm.probe(mlp(0), [PathLoss()], data=PAIR), "PathLoss needs two networks; give an Ensemble and the rule Independently"),
        (lambda: DropoutStability((2.5,)), "the units left are 2.5, but must be whole, or a share below 1"),
        (lambda: DropoutStability((0,)), "the units left is 0, but must be above 0"),
        (lambda: DropoutStability(draws=0), "the number of draws is 0, but must be at least 1"),
        (lambda: arm.probe(eqx.nn.Linear(5, 2, key=KEYS[0]), [DropoutStability()], data=PAIR),
         "DropoutStability: a Linear with 1 dense layers has no hidden units to drop or align; give a chain of two or more Dense or eqx.nn.Linear layers"),
        (lambda: Ensemble(MLP(4), 0), "the number of networks is 0, but must be at least 1"),
        (lambda: Independently(FLOW), "independent members learn by Descent, not by GradientFlow"),
        (lambda: arm.Experiment(Digits(20), MLP(4), Independently()).draw(KEYS[0]), "Independently needs an Ensemble of networks, not a MLPNetwork"),
        (lambda: sampled_variance(4, 5), "the share of units left is 1.25, but must be at least 0 and at most 1"),
        (lambda: bound_shape(1), "the number of units left is 1, but must be at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
