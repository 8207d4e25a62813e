"""Leaky ReLU committees: descent against plain NumPy, the max-margin direction, the first step's rank, refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP
from armillary.models.committee import Committee, CommitteeNetwork
from armillary.prediction import refusals
from armillary.probes.margins import BoundaryLinearity, DataOverlap, Margins
from armillary.probes.spectra import StableRank
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss, MiniBatch
from armillary.tasks import Samples
from armillary.tasks.classification import GaussianClasses, RandomLift
from armillary.tasks.sensing import MatrixSensing
from armillary.theory.max_margin import (
    first_step_gradient,
    first_step_stable_rank,
    margin_direction,
    random_stable_rank,
)

NAME = "one-step collapse of leaky ReLU weights"
LOGISTIC = Loss("logistic")
ANYTHING: Any = str
"""A name that the type checker lets through."""


def experiment(task=None, model=None, rule=None, probes=None, observe=None, precision: Any = "float64"):
    return arm.Experiment(
        task or GaussianClasses(200, 10), model or Committee(12, slope=0.3, scale=1e-3),
        rule or Descent(SGD(0.5), steps=20, loss=LOGISTIC), probes or [StableRank()],
        observe or arm.At((0, 1, 20)), precision=precision)  # fmt: skip


class _Everything(arm.probes.Probe):
    def __call__(self, now):
        return {"weight": arm.Quantity(now.network.weights, ("unit", "input")),
                "second": arm.Quantity(now.network.second_layer, "unit"),
                "sample_input": arm.Quantity(now.data.train.inputs, ("sample", "given")),
                "sample_label": arm.Quantity(now.data.train.targets[:, 0], "sample")}  # fmt: skip


@pytest.mark.parametrize("framed", [False, True])
def test_descent_is_the_plain_one(framed):
    probes = [StableRank(), Margins(), DataOverlap(), _Everything()]
    seen = arm.simulate(experiment(GaussianClasses(200, 10, framed=framed), probes=probes))
    run = seen.isel(seed=0)
    x, y, a = run.sample_input.values[0], run.sample_label.values[0], run.second.values[0]
    x = np.pad(x, ((0, 0), (0, 200 - x.shape[1])))
    w = run.weight.values[0]
    tiny = w + 0.5 * first_step_gradient(x, y, w, a, 0.3)
    for _ in range(20):
        slope = np.where(w @ x.T > 0, 1.0, 0.3)
        margin = y * (a @ (slope * (w @ x.T)))
        w = w + 0.5 / 10 * (a[:, None] * slope * (y / (1 + np.exp(margin)))) @ x
    np.testing.assert_allclose(run.weight.values[-1], w, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(run.weight.values[1], tiny, rtol=0.1, atol=5e-4)  # outputs are small at the start
    s = np.linalg.svd(w)[1]
    assert np.isclose(run.stable_rank.values[-1, 0], (s**2).sum() / s[0] ** 2)
    np.testing.assert_allclose(run.singular_ratio.values[-1, 0], s[:4] / s[0], rtol=1e-6)
    slope = np.where(w @ x.T > 0, 1.0, 0.3)
    margin = y * (a @ (slope * (w @ x.T)))
    assert np.isclose(run.least_margin.values[-1], margin.min() / np.linalg.norm(w))
    assert np.isclose(run.margin_spread.values[-1], margin.min() / margin.max())
    gram = x @ x.T
    most = np.abs(gram - np.diag(np.diag(gram))).max()
    assert np.isclose(run.overlap_ratio.values[0], 10 * most / np.diag(gram).min())


def test_a_frame_has_the_law_of_whole_inputs():
    whole, framed = (GaussianClasses(40, 6, "mean", shift=2.0, framed=f) for f in (False, True))
    lengths, means = [], []
    for task in (whole, framed):
        data = [task.draw(jax.random.key(k)).train for k in range(300)]
        gram = np.stack([np.asarray(d.inputs @ d.inputs.T) for d in data])
        label = np.stack([np.asarray(d.targets[:, 0]) for d in data])
        lengths.append(np.einsum("kii->k", gram).mean() / 6)
        means.append((gram * label[:, None] * label[..., None])[:, 0, 1].mean())
    np.testing.assert_allclose(lengths, 44.0, rtol=0.02)
    np.testing.assert_allclose(means, 4.0, atol=1.2)
    assert whole.draw(jax.random.key(0)).train.inputs.shape == (6, 40)
    same = whole.draw(jax.random.key(0)).train.inputs, framed.draw(jax.random.key(0)).train.inputs
    np.testing.assert_allclose(same[0] @ same[0].T, same[1] @ same[1].T, rtol=1e-4, atol=1e-4)


def test_labels_are_random_or_the_teachers():
    data = GaussianClasses(5, 4000, "teacher").draw(jax.random.key(0)).train
    assert (jnp.sign(data.inputs[:, 0]) == data.targets[:, 0]).all()
    data = GaussianClasses(5, 4000).draw(jax.random.key(0)).train
    assert np.abs(np.asarray(data.inputs.T @ data.targets / 4000)).max() < 0.08 and abs(data.targets.mean()) < 0.08


@settings(max_examples=12)
@given(plus=st.integers(1, 4), minus=st.integers(1, 4), slope=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_the_max_margin_solution_is_stationary_and_has_equal_margins(plus, minus, slope, seed):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(5, 2000)).astype(np.float32), np.sign(draw.normal(size=5)).astype(np.float32)
    signs = np.array([1] * plus + [-1] * minus)
    size = len(signs) ** -0.5
    found = margin_direction(jnp.asarray(x), jnp.asarray(y), slope, jnp.asarray(signs), size)
    assert found.holds.all() and (found.multipliers > 0).all()
    w = jnp.where(signs[:, None] > 0, found.positive, found.negative)
    network = CommitteeNetwork(w, jnp.asarray(signs), slope, None, float(size), "leaky_relu")
    margins = jax.vmap(network)(jnp.asarray(x))[:, 0] * y
    np.testing.assert_allclose(margins, 1.0, rtol=1e-3)
    # Weights are the multipliers' sum of the margins' gradients, by automatic differentiation.
    pull = jax.grad(lambda v: jnp.sum(found.multipliers * y * jax.vmap(
        CommitteeNetwork(v, jnp.asarray(signs), slope, None, float(size), "leaky_relu"))(jnp.asarray(x))[:, 0]))(w)  # fmt: skip
    np.testing.assert_allclose(pull, w, atol=1e-4 * float(jnp.abs(w).max()))


def test_growing_steps_end_in_the_max_margin_direction():
    rule = Descent(SGD(0.05), steps=1000, loss=Loss("exponential", "log_mean"))
    seen = arm.simulate(experiment(GaussianClasses(400, 5, framed=True), Committee(8, slope=0.5, scale=1e-4), rule,
                                   [StableRank(), Margins(), BoundaryLinearity(), _Everything()], arm.At((0, 1000))))  # fmt: skip
    run = seen.isel(seed=0, time=-1)
    x, y, a = run.sample_input.values, run.sample_label.values, run.second.values
    found = margin_direction(jnp.asarray(x), jnp.asarray(y), 0.5, jnp.asarray(np.sign(a).astype(int)), 8**-0.5)
    said = np.where(a[:, None] > 0, np.asarray(found.positive), np.asarray(found.negative))
    w = run.weight.values
    cosine = np.sum(w[:, : x.shape[1]] * said) / np.linalg.norm(w) / np.linalg.norm(said)
    assert cosine > 0.9999 and run.margin_spread > 0.99 and run.singular_ratio[0, 2] < 0.01
    assert run.boundary_agreement > 0.999 > seen.boundary_agreement.values[0, 0]


def test_the_boundary_is_judged_as_on_whole_inputs():
    network = Committee(6, slope=0.2, scale=1.0)(jax.random.key(3), 30, 1)
    x = np.random.default_rng(0).normal(size=(40_000, 30))
    w, a = np.asarray(network.weights, float), np.asarray(network.second_layer, float)
    z = x @ w.T
    dense = np.mean(np.sign(np.where(z > 0, z, 0.2 * z) @ a) == np.sign(z @ a))
    found = arm.probe(network, [BoundaryLinearity(40_000)])
    assert np.isclose(found.boundary_agreement, dense, atol=0.01)


@pytest.mark.parametrize("scale", [1e-5, 3e-3, 1e-2, 3e-2, 0.3])
def test_the_first_steps_stable_rank_is_as_derived(scale):
    n, d, m, g, draw, ranks = 40, 1200, 60, 0.2, np.random.default_rng(0), []
    for _ in range(5):
        x, y = draw.normal(size=(n, d)), np.sign(draw.normal(size=n))
        a, w = np.sign(draw.normal(size=m)) / np.sqrt(m), scale * draw.normal(size=(m, d))
        w = w + 1.0 * first_step_gradient(x, y, w, a, g)
        s = np.linalg.svd(w, compute_uv=False)
        ranks.append((s**2).sum() / s[0] ** 2)
    assert np.isclose(np.mean(ranks), first_step_stable_rank(n, d, m, g, 1 / (2 * n), scale), rtol=0.05)
    s = np.linalg.svd(draw.normal(size=(m, d)), compute_uv=False)
    assert np.isclose((s**2).sum() / s[0] ** 2, random_stable_rank(m, d), rtol=0.05)


def test_theory_is_near_the_measured_first_step():
    task, model = GaussianClasses(1000, 20, framed=True), Committee(30, slope=0.2)
    rule = Descent(SGD(0.5), steps=1, loss=Loss("exponential", "log_mean"))
    base = experiment(task, model, rule, observe=arm.At((0, 1)), precision="float32")
    sweep = arm.Sweep(base, {"model.scale": [1e-4, 2e-3]})
    said, seen = arm.predict(sweep), arm.simulate(sweep, seeds=4).mean("seed")
    np.testing.assert_allclose(seen.stable_rank, said.stable_rank, rtol=0.08)
    for loss, rate in ((LOGISTIC, 1.0), (Loss("logistic", "sum"), 0.05), (Loss("logistic", "log_mean"), np.log(2))):
        same = experiment(
            task, Committee(30, slope=0.2, scale=2e-3), Descent(SGD(rate), steps=1, loss=loss), observe=arm.At((0, 1))
        )
        assert np.isclose(arm.predict(same).stable_rank[1, 0], said.stable_rank[1, 1, 0], rtol=1e-3)
    large = experiment(task, Committee(30, slope=0.2, scale=0.1), Descent(SGD(20.0), steps=1, loss=LOGISTIC),
                       observe=arm.At((0, 1)), precision="float32")  # fmt: skip
    assert np.isclose(
        arm.simulate(large, seeds=6).stable_rank.mean("seed")[1, 0], arm.predict(large).stable_rank[1, 0], rtol=0.15
    )


def test_the_smoothed_activation_bends_as_stated():
    network = Committee(2, slope=0.3, smoothing=0.5)(jax.random.key(0), 3, 1)
    z = np.linspace(-20, 20, 4001)
    phi = np.asarray(network.phi(jnp.asarray(z)), float)
    np.testing.assert_allclose(phi, 0.3 * z + 0.35 * (z + np.sqrt(z**2 + 0.25) - 0.5), atol=1e-5)
    slope = jax.vmap(jax.grad(network.phi))(jnp.asarray(z))
    assert slope.min() >= 0.3 and slope.max() <= 1.0 and np.isclose(float(network.phi(jnp.zeros(()))), 0.0)
    assert np.isclose(jax.grad(jax.grad(network.phi))(0.0), 0.7 / (2 * 0.5), rtol=1e-5)


def test_only_the_first_layer_is_trained_and_signs_are_as_asked():
    seen: Any = experiment(model=Committee(7, "erf", scale=0.1, signs="balanced")).draw(jax.random.key(0))
    network = seen.initial
    assert np.sign(network.second_layer).sum() == 1 and network.slope is None
    gradient = jax.grad(
        lambda w: LOGISTIC(CommitteeNetwork(w, network.signs, None, None, network.size, "erf"), seen.data.train)
    )
    assert np.isfinite(gradient(network.weights)).all()
    moved = arm.simulate(experiment(probes=[_Everything()]), seeds=1).second.isel(seed=0).values
    assert (moved[0] == moved[-1]).all() and np.isclose(np.abs(moved[0]), 12**-0.5).all()
    assert (Committee(3, signs="equal", size=1.0)(jax.random.key(0), 2, 1).second_layer == 1).all()


def test_lifted_inputs_have_the_gaussian_kernel():
    task = RandomLift(GaussianClasses(6, 5), features=10_000, frequency=1.5, norm=2.0)
    seen = task.draw(jax.random.key(1))
    key = jax.random.split(jax.random.key(1), 3)[0]
    raw = np.asarray(GaussianClasses(6, 5).draw(key).train.inputs, float)
    apart = ((raw[:, None] - raw[None]) ** 2).sum(axis=-1)
    gram = np.asarray(seen.train.inputs @ seen.train.inputs.T, float)
    np.testing.assert_allclose(gram, 4 * np.exp(-(1.5**2) * apart / 12), atol=0.16)
    assert seen.test.inputs.shape == (1000, 10_000)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": GaussianClasses(90, 10)},
         "needs nearly orthogonal inputs; samples over dimensions is 0.111 (allowed 0.1)"),
        ({"task": GaussianClasses(200, 10, "mean")}, "needs random labels; they are by mean"),
        ({"task": arm.tasks.Digits(100, "parity")}, "needs Gaussian classes; this is Digits"),
        ({"model": MLP(8)}, "needs a committee; this is MLP"),
        ({"model": Committee(8, "erf")}, "needs a leaky ReLU; the activation is erf, or smoothed"),
        ({"model": Committee(8, smoothing=0.1)}, "needs a leaky ReLU; the activation is leaky_relu, or smoothed"),
        ({"rule": Descent(SGD(0.1), steps=20)}, "needs the logistic or exponential loss; it is squared_error"),
        ({"rule": Descent(Adam(0.1), steps=20, loss=LOGISTIC)}, "needs plain gradient descent; the optimiser is Adam"),
        ({"rule": Descent(SGD(0.1), steps=20, loss=LOGISTIC, feed=MiniBatch(2))}, "needs full batches; this is MiniBatch"),
        ({"rule": GradientFlow(20.0, LOGISTIC)}, "needs descent; this is GradientFlow"),
        ({"rule": Descent(SGD(0.1), steps=20, loss=Loss("exponential")), "model": Committee(8, slope=0.0, scale=0.02)},
         "needs small initial outputs; their deviation is 0.2 (allowed 0.1)"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "stable_rank" not in said and any(says in reason for reason in refusals(said)[NAME])


def drawn(model):
    return model(jax.random.key(0), 4, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Committee(0), "the width is 0, but must be at least 1"),
        (lambda: Committee(slope=1.5), "the slope is 1.5, but must be at least 0 and at most 1"),
        (lambda: Committee(smoothing=0.0), "the smoothing is 0, but must be above 0"),
        (lambda: Committee(signs=ANYTHING("mixed")), "unknown signs 'mixed' (all: balanced, equal, random)"),
        (lambda: Committee()(jax.random.key(0), 3, 2), "the number of outputs is 2, but must be at least 1 and at most 1 (a committee has one)"),
        (lambda: GaussianClasses(10, 10, framed=True),
         "the number of samples is 10, but must be at least 1 and at most 9 (the dimension less 1, for a frame)"),
        (lambda: GaussianClasses(10, 10, ANYTHING("means")), "unknown labels 'means'; nearest: mean (all: mean, random, teacher)"),
        (lambda: RandomLift(3), "the lifted task is a int, but must be an armillary.tasks.Task"),
        (lambda: RandomLift(MatrixSensing(2, (1.0,), 5)).draw(jax.random.key(0)),
         "RandomLift needs samples of vectors, which MatrixSensing does not give"),
        (lambda: arm.probe(drawn(MLP(4)), [BoundaryLinearity()]), "BoundaryLinearity needs a Committee's network, not a MLPNetwork"),
        (lambda: arm.probe(drawn(Committee(4)), [Margins()], data=(jnp.ones((3, 4)), jnp.ones((3, 2)))),
         "Margins needs training samples of one output, with targets ±1"),
        (lambda: arm.probe(drawn(Committee(4)), [DataOverlap()], data=Samples(jnp.ones((3, 2, 2)), jnp.ones((3, 1)))),
         "DataOverlap needs training samples of vectors"),
        (lambda: StableRank(0), "the number of singular values (count) is 0, but must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
