"""Rank and structure of initial connectivity: closed forms against direct integration, laws of weights, trials, stopping at a loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.errors import ArmillaryError, InvalidValue, MissingData, ProbeError
from armillary.models import MLP, DeepLinear
from armillary.models.connectivity import (
    AnyOf,
    CellTypes,
    Dale,
    GivenConnectivity,
    NearestNeighbours,
    PowerLawSpectrum,
    RankCut,
    Shuffled,
    Sparse,
    read_connectivity,
)
from armillary.models.recurrent import Recurrent
from armillary.models.two_layer_linear import OfRank, TwoLayerLinear
from armillary.prediction import refusals
from armillary.probes import Accuracy, DistanceFromInitialisation, KernelDrift, Losses
from armillary.probes.representation import RepresentationDrift
from armillary.probes.weights import StepsTaken
from armillary.rules import SGD, Adam, Descent, GradientFlow
from armillary.rules.to_loss import DescentToLoss
from armillary.tasks import Correlations
from armillary.tasks.trials import DecisionTrials
from armillary.theory.connectivity_rank import (
    integrated_end,
    largest_alignment,
    ranked_course,
    ranked_end,
)

NAME = "linear networks, rank of the start"


def start_of(rank, size, dimension, share, seed=0):
    """W1 with equal singular values and random directions, of which the target (the first input) has the given share."""
    draw = np.random.default_rng(seed)
    rest = np.linalg.qr(np.column_stack([np.eye(dimension)[0], draw.normal(size=(dimension, dimension - 1))]))[0][:, 1:]
    image = np.sqrt(share) * np.eye(dimension)[0] + np.sqrt(1 - share) * rest[:, 0]
    rows = np.column_stack([image, rest[:, 1:rank]]).T
    hidden = np.linalg.qr(draw.normal(size=(rank, rank)))[0]
    return size / np.sqrt(rank) * hidden @ rows


@pytest.mark.parametrize(
    "rank, size, share, strength", [(1, 1.0, 0.2, 1.0), (3, 0.5, 0.4, 2.0), (3, 3.0, 1.0, 1.0), (5, 2.0, 0.7, 0.5)]
)
def test_the_closed_form_is_where_the_flow_ends(rank, size, share, strength):
    target = strength * np.eye(6)[0]
    found = integrated_end(start_of(rank, size, 6, share), target, until=150.0)
    said = ranked_end(rank, size, 6, share, strength)
    np.testing.assert_allclose(found[:3], said[:3], atol=2e-6)
    assert found.loss < 1e-10


def test_the_course_is_that_of_the_whole_network():
    first, target = start_of(3, 1.5, 6, 0.3), np.eye(6)[0]
    for until in (0.5, 2.0, 6.0):
        found, said = integrated_end(first, target, until), ranked_course(np.array([0.0, until]), 3, 1.5, 6, 0.3)
        np.testing.assert_allclose(found, [part[-1] for part in said], rtol=1e-6)
    start = [part[0] for part in said]
    np.testing.assert_allclose(start, [1.0, 0.0, 0.0, 0.5], atol=1e-7)
    np.testing.assert_allclose(
        [part[-1] for part in ranked_course(np.array([0, 300.0]), 3, 1.5, 6, 0.3)],
        ranked_end(3, 1.5, 6, 0.3),
        atol=1e-6,
    )


@given(rank=st.integers(1, 12), size=st.floats(0.1, 30.0))
def test_alignment_is_linear_in_the_share_and_below_its_limit_for_large_starts(rank, size):
    ends = [ranked_end(rank, size, 12, share).kernel_alignment for share in (0.0, 1.0)]
    mean = ranked_end(rank, size, 12).kernel_alignment
    assert np.isclose(mean, ends[0] + rank / 12 * (ends[1] - ends[0]), rtol=1e-12)
    assert np.isclose(ranked_end(rank, 1e4, 12).kernel_alignment, largest_alignment(rank, 12), atol=1e-6)


def test_random_spectra_and_spare_units_can_be_integrated():
    draw = np.random.default_rng(3)
    first = np.zeros((5, 4))
    first[0] = [1.0, 0.0, 0.0, 0.0]
    awake = integrated_end(first, np.array([0.0, 1.0, 0.0, 0.0]), 60.0, last=1e-3 * draw.normal(size=5))
    asleep = integrated_end(first, np.array([0.0, 1.0, 0.0, 0.0]), 60.0)
    assert awake.loss < 1e-8 and np.isclose(asleep.loss, 0.5)  # a target outside the start: nothing to begin with


def experiment(start, probes=None, rule=None, task=None, width=6, observe=None):
    task = task or Correlations(np.eye(5), np.array([[2.0, 0.0, 0.0, 0.0, 0.0]]))
    probes = probes or [KernelDrift(5), DistanceFromInitialisation(), Losses()]
    observe = observe or arm.At((0.0, 0.5, 2.0, 40.0))
    rule = rule or GradientFlow(40.0, tolerance=1e-9)
    return arm.Experiment(task, TwoLayerLinear(width, start), rule, probes, observe, precision="float64")


TARGET = np.array([[1.0, 0.0, 0.0, 0.0, 0.0]])


def test_theory_is_what_is_measured_at_every_time():
    sweep = arm.Sweep(
        experiment(OfRank(TARGET, alignment=0.0)),
        {"rank": [1.0, 3.0, 5.0], "start.size": [0.5, 2.0], "alignment": [0.0, 1.0]},
    )
    measured, theory = arm.simulate(sweep, seeds=2), arm.predict(sweep)
    assert NAME in theory.attrs["theories"]
    for name in ("kernel_alignment", "parameter_distance", "train_loss"):
        np.testing.assert_allclose(
            measured[name].mean("seed"), theory[name].transpose(*measured[name].mean("seed").dims), atol=2e-6
        )


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(start=OfRank(TARGET, alignment=0.0, decay=0.5)), "equal singular values"),
        (dict(start=OfRank(TARGET, alignment=0.0, read_out=1e-3)), "a read-out that starts at 0"),
        (dict(start=OfRank(TARGET)), "a known alignment with the target"),
        (dict(start=OfRank(np.array([[1.0, 1.0, 0.0, 0.0, 0.0]]), alignment=1.0)), "one minus their cosine is 0.293"),
        (dict(task=Correlations(np.diag([1.0, 1.0, 1.0, 1.0, 1.3]), TARGET)), "white inputs"),
        (dict(probes=[KernelDrift(3)]), "KernelDrift looks at 3 of 5"),
        (dict(rule=Descent(SGD(0.5), steps=40), observe=arm.At((0, 40))), "small steps"),
        (dict(rule=DescentToLoss(0.1, SGD(0.01), steps=40), observe=arm.At((0, 40))), "gradient flow or descent"),
    ],
)  # fmt: skip
def test_theory_names_what_is_missed(change, words):
    refused = refusals(arm.predict(experiment(**{"start": OfRank(TARGET, alignment=0.0), **change}), theory=NAME))
    assert any(words in one for one in refused[NAME])


def test_starts_have_the_rank_the_norm_and_the_share_that_was_asked_for():
    draw = eqx.filter_jit(lambda key, m: m(key, 5, 1))
    for rank, aligned in ((1, 0.0), (2, 0.5), (4, 1.0), (5, 0.3)):
        model = TwoLayerLinear(7, OfRank(3 * TARGET, float(rank), 1.7, aligned))
        network = draw(jax.random.key(rank), jax.tree.map(jnp.asarray, model))
        first, last = network.weights
        values = np.linalg.svd(first, compute_uv=False)
        np.testing.assert_allclose(values[:rank], 1.7 / np.sqrt(rank), rtol=1e-5)
        assert (values[rank:] < 1e-6).all() and (last == 0).all() and (first[rank:] == 0).all()
        image = np.linalg.norm(first @ TARGET[0]) ** 2 / values[0] ** 2
        assert np.isclose(image, rank / 5 + aligned * (1 - rank / 5), atol=1e-5)
    decayed = TwoLayerLinear(5, OfRank(TARGET, 5.0, decay=1.0))(jax.random.key(0), 5, 1)
    values = np.linalg.svd(decayed.weights[0], compute_uv=False)
    np.testing.assert_allclose(values / values[0], 1 / np.arange(1, 6), rtol=1e-4)


LAWS = {
    "rank": RankCut(3.0), "full": RankCut(), "power": PowerLawSpectrum(1.5), "types": CellTypes(3), "dale": Dale(),
    "sparse": Sparse(0.2, 0.5), "neighbours": NearestNeighbours(2.0), "chain": NearestNeighbours(0.01, chain=True),
    "given": GivenConnectivity(np.eye(24)), "shuffled": Shuffled(NearestNeighbours(2.0)), "any": AnyOf((RankCut(), Dale()), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_laws_of_connectivity_have_one_norm(law):
    weights = np.asarray(eqx.filter_jit(law)(jax.random.key(0), 24))
    assert np.isfinite(weights).all() and np.isclose(np.linalg.norm(weights), np.sqrt(24), rtol=1e-5)


def test_laws_of_connectivity_are_what_they_are_called(key):
    spectrum = lambda law: np.linalg.svd(law(key, 24), compute_uv=False)
    cut = spectrum(RankCut(3.0))
    whole = np.linalg.svd(RankCut()(key, 24), compute_uv=False)
    np.testing.assert_allclose(cut[:3] / cut[0], whole[:3] / whole[0], rtol=1e-4)
    assert (cut[3:] < 1e-5).all()
    values = spectrum(PowerLawSpectrum(1.5))
    np.testing.assert_allclose(values / values[0], np.arange(1, 25) ** -1.5, rtol=1e-2, atol=1e-6)
    dale = np.asarray(Dale(0.75)(key, 24))
    assert (dale[:, :18] > 0).all() and (dale[:, 18:] < 0).all()
    assert abs(np.mean([Dale(0.75)(jax.random.key(i), 24).sum() for i in range(20)])) < 0.1 * np.abs(dale).sum()
    chain = np.asarray(NearestNeighbours(0.01, chain=True)(key, 24))
    assert np.allclose(chain, np.tril(np.triu(chain, -1), -1)) and (np.diag(chain, -1) != 0).all()
    ring = np.abs(NearestNeighbours(1.0)(key, 24))
    assert ring[0, 23] > ring[0, 12] and np.diag(ring, 1).mean() > 5 * np.diag(ring, 5).mean()
    types = np.asarray(CellTypes(2, share=1.0, means=np.array([[1.0, -2.0], [0.5, 3.0]]))(key, 6))
    np.testing.assert_allclose(types[[0, 0, 5, 5], [0, 5, 0, 5]] / types[0, 0], [1.0, -2.0, 0.5, 3.0], rtol=1e-5)
    law = NearestNeighbours(1.0)
    mixed = np.asarray(Shuffled(law)(key, 24))
    np.testing.assert_allclose(np.sort(mixed.ravel()), np.sort(law(jax.random.split(key)[0], 24).ravel()), rtol=1e-6)
    np.testing.assert_allclose(AnyOf((law, RankCut()), 1.0)(key, 24), RankCut()(key, 24), rtol=1e-5)


def test_sparse_graphs_have_their_density_and_reciprocity(key):
    there = np.asarray(Sparse(0.2, 0.5)(key, 300)) != 0
    a, b = there[np.triu_indices(300, 1)], there.T[np.triu_indices(300, 1)]
    assert np.isclose(there.mean(), 0.2, atol=0.01) and np.isclose(np.corrcoef(a, b)[0, 1], 0.5, atol=0.03)


def test_tables_of_connectivity_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("# to, from\n0, 2, 1\n1, 0, 0\n0, 3, 0\n")
    table = read_connectivity(tmp_path / "a.csv")
    np.testing.assert_array_equal(table, [[0, 2, 1], [1, 0, 0], [0, 3, 0]])
    np.testing.assert_array_equal(read_connectivity(tmp_path / "a.csv", receiving_first=False), table.T)
    weights = GivenConnectivity(table, signs=np.array([1.0, -1.0, 1.0]))(jax.random.key(0), 3)
    np.testing.assert_allclose(weights / weights[1, 0], [[0, -2, 1], [1, 0, 0], [0, -3, 0]])
    (tmp_path / "b.csv").write_text("1 2\n")
    for name in ("b.csv", "none.csv"):
        with pytest.raises(MissingData, match="table"):
            read_connectivity(tmp_path / name)


def test_leaky_recurrent_networks_are_stepped(key):
    network = Recurrent("tanh", 1, 6, connectivity=RankCut(2.0), leak=0.5, biases=False, read_out=0.5)(key, 3, 1)
    w, d, out = (
        np.asarray(m, float) for m in (network.first.time_weight, network.first.depth_weight, network.read_out.weight)
    )
    x, h = jax.random.normal(key, (5, 3)), np.zeros(6)
    for step in np.asarray(x, float):
        h = h / 2 + np.tanh(w @ h + d @ step) / 2
    np.testing.assert_allclose(network(x), out @ h, rtol=1e-5)
    np.testing.assert_allclose(network.representation(x), h, rtol=1e-5)
    assert network.first.bias is None and np.linalg.matrix_rank(w, tol=1e-5) == 2
    fresh = Recurrent("tanh", 1, 6, biases=False)(key, 3, 1)
    np.testing.assert_allclose(network.read_out.weight, 0.5 * fresh.read_out.weight)


def test_trials_ask_what_they_say(key):
    x, y = (np.asarray(a) for a in _of(DecisionTrials("alternative", 200, noise=0.0)))
    assert (np.sign(x[:, :, 0]) == y).all() and 0.3 < np.mean(y > 0) < 0.7
    x, y = (np.asarray(a) for a in _of(DecisionTrials("match", 200, noise=0.0)))
    same = (x[:, :2].sum(1) * x[:, -4:-2].sum(1)).sum(1) > 0
    assert (same == (y[:, 0] > 0)).all() and (x[:, 2:-4] == 0).all() and (x[:, -2:] == 0).all()
    x, y = (np.asarray(a) for a in _of(DecisionTrials("context", 200, noise=0.0)))
    chosen = np.where(x[:, :, 2] > 0, x[:, :, 0], x[:, :, 1])
    assert (np.sign(chosen) == y).all() and (x[:, :, 2] + x[:, :, 3] == 1).all()
    noisy = DecisionTrials("context", 4000, noise=0.7)
    rest = np.asarray(_of(noisy)[0])[:, :, :2]
    assert np.isclose((np.abs(rest.mean(1)) - 1).std(), 0.7 / np.sqrt(12), rtol=0.1)
    one, two = (noisy.draw(jax.random.key(i)) for i in (0, 1))
    np.testing.assert_array_equal(one.test.inputs, two.test.inputs)
    assert not np.allclose(one.train.inputs, two.train.inputs) and noisy.sample(one, key, 3).count == 3
    assert not (np.asarray(one.train.inputs)[:, None] == np.asarray(one.test.inputs)[:10]).all((2, 3)).any()


def _of(task):
    train = task.draw(jax.random.key(5)).train
    return train.inputs, train.targets


def test_descent_to_a_loss_is_descent_until_there_and_then_rests():
    task = arm.tasks.LinearTeacher(4, samples=8)
    probes = [Losses(), StepsTaken(), DistanceFromInitialisation()]
    every = arm.Evenly(61)
    going = arm.simulate(
        arm.Experiment(task, DeepLinear(depth=2), Descent(SGD(0.3), 60), [Losses()], every, "float64"), seeds=3
    )
    rule = DescentToLoss(0.1, SGD(0.3), 60)
    seen = arm.simulate(arm.Experiment(task, DeepLinear(depth=2), rule, probes, every, "float64"), seeds=3)
    for seed in range(3):
        free, held = (run.train_loss.isel(seed=seed).values for run in (going, seen))
        steps = int(seen.steps_taken.isel(seed=seed)[-1])
        assert steps == int(np.argmax(free <= 0.1)) and 0 < steps < 60
        np.testing.assert_allclose(held[: steps + 1], free[: steps + 1], rtol=1e-10)
        assert (held[steps:] == held[steps]).all()
    rare = arm.simulate(arm.Experiment(task, DeepLinear(depth=2), rule, probes, arm.At((0, 7, 60)), "float64"), seeds=3)
    np.testing.assert_array_equal(rare.train_loss[:, -1], seen.train_loss[:, -1])
    np.testing.assert_array_equal(rare.steps_taken[:, -1], seen.steps_taken[:, -1])
    together = arm.simulate(
        arm.Experiment(task, DeepLinear(depth=2), rule, probes, every, "float64"), seeds=3, members="vmap"
    )
    np.testing.assert_array_equal(together.steps_taken, seen.steps_taken)


def test_descent_to_a_loss_that_is_never_reached_goes_on_and_what_diverges_is_told():
    task = arm.tasks.LinearTeacher(4, samples=8)
    run = lambda rule: arm.simulate(arm.Experiment(task, DeepLinear(depth=2), rule, [StepsTaken()], arm.At((0, 50))))
    assert run(DescentToLoss(0.0, Adam(1e-3), 50)).steps_taken[0, -1] == 50
    assert run(DescentToLoss(0.0, SGD(100.0), 50)).diverged_at.notnull().all()


def test_representations_are_what_the_last_layer_sees(key):
    x = jax.random.normal(key, (7, 4))
    turned = lambda network: jax.tree.map(
        lambda w: w + 0.3 * jnp.sin(jnp.arange(w.size)).reshape(w.shape) if eqx.is_inexact_array(w) else w, network
    )
    hidden = {
        "mlp": (MLP(5, 2, "tanh")(key, 4, 2), lambda n: np.tanh(x @ n.layers[0].weight.T + n.layers[0].bias)),
        "chain": (DeepLinear(depth=3, width=5)(key, 4, 2), lambda n: x @ n.weights[0].T @ n.weights[1].T),
        "equinox": (
            eqx.nn.MLP(4, 2, 5, 1, key=key),
            lambda n: np.maximum(x @ n.layers[0].weight.T + n.layers[0].bias, 0),
        ),
    }
    for network, of in hidden.values():
        now = turned(network)
        a, b = (np.asarray(of(n), float) for n in (now, network))
        expected = np.sum((a @ a.T) * (b @ b.T)) / np.linalg.norm(a @ a.T) / np.linalg.norm(b @ b.T)
        seen = arm.probe(now, [RepresentationDrift(on="train")], data=(x, x[:, :2]), initial=network)
        assert np.isclose(seen.representation_alignment, expected, rtol=1e-4)
        rested = arm.probe(network, [RepresentationDrift(on="train")], data=(x, x[:, :2]), initial=network)
        assert np.isclose(rested.representation_alignment, 1.0)
    with pytest.raises(ProbeError, match="test samples"):
        arm.probe(now, [RepresentationDrift()], data=(x, x), initial=network)
    with pytest.raises(ProbeError, match="before training"):
        arm.probe(now, [RepresentationDrift(on="train")], data=(x, x))
    with pytest.raises(ProbeError, match="representation"):
        arm.probe(eqx.nn.Identity(), [RepresentationDrift(on="train")], data=(x, x), initial=eqx.nn.Identity())
    with pytest.raises(ProbeError, match="counts its steps"):
        arm.probe(now, [StepsTaken()])


def test_recurrent_networks_are_trained_to_a_loss_and_looked_at():
    model = Recurrent("tanh", 1, 12, connectivity=RankCut(1.0), leak=0.5, biases=False)
    probes = [KernelDrift(6, on="test"), RepresentationDrift(6), Losses(), Accuracy()]
    task = DecisionTrials("alternative", trials=16, held_out=8)
    seen = arm.simulate(
        arm.Experiment(task, model, DescentToLoss(0.05, SGD(0.02), 200), probes, arm.At((0, 200))), seeds=2
    )
    assert (seen.train_loss[:, -1] <= 0.05).all() and (seen.train_loss[:, -1] > 0.04).all()
    for name in ("kernel_alignment", "representation_alignment"):
        assert np.allclose(seen[name][:, 0], 1.0, atol=1e-5) and (seen[name][:, -1] < 1).all()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: ranked_end(0, 1.0, 12), "the rank is 0, but must be at least 1"),
        (lambda: ranked_end(13, 1.0, 12), "the rank is 13"),
        (lambda: largest_alignment(0.5, 12), "the rank"),
        (lambda: OfRank(TARGET, 0.0), "the rank is 0, but must be at least 1 and at most 5"),
        (lambda: OfRank(np.eye(5)), "one output"),
        (lambda: OfRank(TARGET, alignment=1.5), "the alignment is 1.5"),
        (lambda: TwoLayerLinear(4, OfRank(TARGET))(jax.random.key(0), 5, 1), "every rank fits"),
        (lambda: RankCut(0.0), "the rank is 0"),
        (lambda: RankCut(9.0)(jax.random.key(0), 8), "the number of units"),
        (lambda: CellTypes(share=1.5), "the share of the means is 1.5"),
        (lambda: CellTypes(means=np.ones((2, 3))), "square"),
        (lambda: Sparse(0.0), "the density"),
        (lambda: GivenConnectivity(np.zeros((3, 3))), "not all 0"),
        (lambda: GivenConnectivity(np.eye(3), signs=np.ones(1)), "1 signs for 3 units"),
        (lambda: GivenConnectivity(np.eye(3))(jax.random.key(0), 4), "use that width"),
        (lambda: AnyOf((RankCut(),), 1.0), "which law is 1"),
        (lambda: Recurrent("gru", connectivity=RankCut()), "gated cells"),
        (lambda: Recurrent(leak=0.0), "the leak is 0"),
        (lambda: DecisionTrials("matching"), "unknown decision 'matching'"),
        (lambda: DecisionTrials(length=7), "the length of a trial is 7"),
        (lambda: DescentToLoss(0.1, steps=-1), "the number of steps"),
        (lambda: RepresentationDrift(0), "the number of samples"),
        (lambda: RepresentationDrift(on="held out"), "unknown samples"),
    ],
)
def test_bad_input_gets_one_line(wrong, words, unchecked):
    with pytest.raises(ArmillaryError, match=words) as error:
        wrong()
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value)
    assert isinstance(error.value, InvalidValue | ArmillaryError)
