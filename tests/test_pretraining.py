"""Unsupervised pretraining: tasks' moments, solvers against scikit-learn and NumPy, excess risks, informativeness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models import MLP, DeepLinear
from armillary.models.encoder import ClusterClassifier, EncoderHead
from armillary.prediction import refusals
from armillary.probes.pretraining import BestHead, ExcessRisk, SubspaceError, TeacherAccuracy, missed
from armillary.rules import SGD, Descent
from armillary.rules.pretraining import (
    ContrastiveLikelihood,
    LeastSquares,
    LogisticRegression,
    MixtureEM,
    PrincipalFactors,
    labelled_clusters,
    principal_loadings,
)
from armillary.rules.solved import Solved
from armillary.tasks.data import Data, Samples
from armillary.tasks.latent import ContrastivePairs, FactorModel, GaussianMixture, LatentTeacher
from armillary.tasks.wishart import chi_squares
from armillary.theory.pretraining import (
    crossing,
    hellinger,
    informativeness,
    least_squares_excess,
    pretrained_excess,
    representation_error,
    residual_variance,
    typical_informativeness,
)

NAME = "factor regression"


def experiment(task=None, solver=None, probes=None, rule=None):
    task = task or FactorModel(20, 2, 2.0, 60.0, 1000.0)
    return arm.Experiment(task, DeepLinear(1), rule or Solved(solver or PrincipalFactors(2)), probes or [ExcessRisk()],
                          precision="float64")  # fmt: skip


@pytest.mark.parametrize("degrees", [1.0, 2.0, 7.0, 5000.0])
def test_chi_squares_have_their_law(degrees):
    from scipy.stats import chi2, kstest

    with jax.enable_x64(True):
        drawn = chi_squares(jax.random.key(0), jnp.full(20_000, degrees))
    assert kstest(np.asarray(drawn), chi2(degrees).cdf).pvalue > 0.01


def test_pseudo_samples_have_the_moments_of_true_ones():
    task = FactorModel(3, 1, 1.5, labelled=6.0, unlabelled=2.0, noise=0.4, outside=0.6)

    def moments(key):
        data = task.draw(key)
        rows = jnp.concatenate([data.train.inputs, data.train.targets], axis=1)
        seen = rows.T @ rows / len(rows)
        optimum, covariance = data.teacher.optimum, data.test.covariance
        labels = covariance @ optimum.T
        left = 0.16 + (1 - 0.36) / (1 + 1.5**2)
        truth = jnp.block([[covariance, labels], [labels.T, optimum @ labels + left]])
        half = jnp.linalg.inv(jnp.linalg.cholesky(truth))
        return half @ seen @ half.T, data.unlabelled.T @ data.unlabelled / 4 - covariance

    seen, off = jax.jit(jax.vmap(moments))(jax.random.split(jax.random.key(0), 10_000))
    np.testing.assert_allclose(np.mean(seen, axis=0), np.eye(4), atol=0.03)
    np.testing.assert_allclose(np.var(seen, axis=0), (1 + np.eye(4)) / 6, rtol=0.1)
    np.testing.assert_allclose(np.mean(off, axis=0), 0, atol=0.1)


def test_the_optimum_is_the_best_map_of_true_samples():
    data = FactorModel(4, 2, 2.0, outside=0.5).draw(jax.random.key(1))
    draw, n = np.random.default_rng(0), 400_000
    directions, optimum = (np.asarray(a, float) for a in (data.teacher.directions, data.teacher.optimum))
    z = draw.normal(size=(n, 2))
    x = 2.0 * z @ directions + draw.normal(size=(n, 4))
    other = optimum[0] - optimum[0] @ directions.T @ directions  # outside the factors
    beta = directions @ optimum[0] / np.linalg.norm(directions @ optimum[0])
    y = np.sqrt(0.75) * z @ beta + x @ other
    np.testing.assert_allclose(np.linalg.lstsq(x, y, rcond=None)[0], optimum[0], atol=0.01)
    assert np.isclose(np.linalg.norm(other), 0.5, atol=1e-5)
    network = EncoderHead(jnp.eye(4), jnp.zeros((1, 4)))
    assert np.isclose(float(data.test.excess(network)), np.mean((x @ optimum[0]) ** 2), rtol=0.02)
    assert np.isclose(float(data.test.risk(network)), float(data.test.excess(network)) / 2)


def test_principal_loadings_maximise_the_likelihood():
    rows = np.random.default_rng(0).normal(size=(300, 5)) * [3.0, 2.0, 1.0, 0.9, 0.5]
    moments = rows.T @ rows / 300
    loadings = np.asarray(principal_loadings(jnp.asarray(moments, jnp.float32), 3), float)

    def likelihood(b):
        covariance = np.eye(5) + b @ b.T
        return -np.linalg.slogdet(covariance)[1] - np.trace(np.linalg.solve(covariance, moments))

    best = likelihood(loadings)
    for seed in range(20):
        assert likelihood(loadings + 0.03 * np.random.default_rng(seed).normal(size=(5, 3))) < best
    assert (np.abs(principal_loadings(0.5 * jnp.eye(4), 2)) == 0).all()  # no variance above the noise's


def test_dead_factors_are_dropped():
    seen = arm.simulate(experiment(FactorModel(20, 2, 0.0, 60.0, 1e7), probes=[ExcessRisk(), SubspaceError()]), seeds=3)
    assert np.isfinite(seen.excess_risk).all() and seen.diverged_at.isnull().all()


def test_ridge_regression_is_scikit_learns():
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(30, 4)), draw.normal(size=(30, 1))
    data = Data(Samples(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)))
    found = LeastSquares(0.2).fit(FactorModel(4, 1), data, None, jax.random.key(0)).matrix
    np.testing.assert_allclose(found[0], Ridge(alpha=0.2 * 30, fit_intercept=False).fit(x, y[:, 0]).coef_, atol=1e-5)


def test_logistic_regression_is_scikit_learns_on_what_counts():
    from sklearn.linear_model import LogisticRegression as Reference

    task = GaussianMixture(5, 4, labelled=40.0, capacity=60, test_samples=10)
    data = task.draw(jax.random.key(0))
    with jax.enable_x64(True):
        found = LogisticRegression(0.05).fit(
            task, jax.tree.map(lambda a: a.astype(float), data), None, jax.random.key(0)
        )
    x, y = np.asarray(data.train.inputs[:40]), np.asarray(data.train.targets[:40, 0])
    reference = Reference(C=1 / (0.05 * 40), tol=1e-8).fit(x, y)
    np.testing.assert_allclose(found.weight, reference.coef_[0], atol=1e-3)
    assert np.isclose(float(found.bias), reference.intercept_[0], atol=1e-3)


def test_expectation_maximisation_finds_the_centres_and_bayes():
    task = GaussianMixture(8, 4, unlabelled=2000, labelled=100.0, radius=6.0)
    ran = arm.Experiment(
        task, DeepLinear(1), Solved(MixtureEM(4, restarts=8)), [arm.probes.Accuracy(), TeacherAccuracy()]
    )
    seen = arm.simulate(ran, seeds=3)
    np.testing.assert_allclose(seen.test_accuracy, seen.teacher_accuracy, atol=0.01)
    data = task.draw(jax.random.key(3))
    network = MixtureEM(4, restarts=8).fit(task, data, None, jax.random.key(0))
    gaps = np.linalg.norm(np.asarray(network.centres)[:, None] - np.asarray(data.teacher.centres), axis=2)
    assert (gaps.min(axis=0) < 0.3).all()


def test_clusters_take_their_majority_and_one_without():
    samples = Samples(
        jnp.array([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]]), jnp.array([-1.0, -1, 1, 1, -1, 0])[:, None]
    )
    network = labelled_clusters(jnp.array([[0.0], [5.0], [9.0]]), samples)
    assert network.labels.tolist() == [-1.0, 1.0, 1.0] and network(jnp.array([1.0])).tolist() == [-1.0]


def test_contrastive_likelihood_is_maximal_and_finds_the_subspace():
    task = ContrastivePairs(6, 2, 3000.0, 4000)
    with jax.enable_x64(True):
        data = task.draw(jax.random.key(0))
        encoder = ContrastiveLikelihood(2).fit(task, data, None, jax.random.key(1)).encoder
        pairs = data.unlabelled

        def loss(a):
            odds = jnp.sum((pairs.left @ a.T) * (pairs.right @ a.T), axis=1)[:3000]
            return jnp.mean(jax.nn.softplus(odds) - pairs.alike[:3000] * odds)

        assert float(jnp.abs(jax.grad(loss)(encoder)).max()) < 1e-4
        assert float(missed(encoder, data.teacher.directions)) < 0.02
    np.testing.assert_allclose(np.linalg.svd(encoder)[1], 1, atol=0.15)


@given(seed=st.integers(0, 50))
def test_subspace_error_sees_spans_alone(seed):
    draw = np.random.default_rng(seed)
    a, b, mix = (
        draw.normal(size=(2, 5)),
        np.linalg.qr(draw.normal(size=(5, 2)))[0].T,
        draw.normal(size=(2, 2)) + 3 * np.eye(2),
    )
    frame = np.linalg.qr(a.T)[0]
    expected = 1 - np.mean(np.linalg.svd(frame.T @ b.T)[1] ** 2)
    for encoder in (a, mix @ a):
        assert np.isclose(missed(jnp.asarray(encoder, jnp.float32), jnp.asarray(b, jnp.float32)), expected, atol=1e-4)
    assert missed(jnp.asarray(np.vstack([b[0], 0 * b[0]]), jnp.float32), jnp.asarray(b, jnp.float32)) == pytest.approx(
        0.5, abs=1e-5
    )


def test_excess_risks_are_those_of_direct_draws():
    """Pretraining and least squares from true samples, in plain NumPy, against the formulas."""
    draw, d, r, n, m, found = np.random.default_rng(0), 20, 2, 60, 1000, []
    w = np.zeros(d)
    w[:r] = 2 / 5 * r**-0.5
    for _ in range(150):
        z, hidden = draw.normal(size=(n, r)), draw.normal(size=(m, r))
        x, u = draw.normal(size=(n, d)), draw.normal(size=(m, d))
        x[:, :r] += 2 * z
        u[:, :r] += 2 * hidden
        y = z @ np.full(r, r**-0.5) + 0.5 * draw.normal(size=n)
        top = np.linalg.eigh(u.T @ u)[1][:, -r:]
        guesses = top @ np.linalg.lstsq(x @ top, y, rcond=None)[0], np.linalg.lstsq(x, y, rcond=None)[0]
        found.append([((g - w) ** 2 * np.where(np.arange(d) < r, 5.0, 1.0)).sum() for g in guesses])
    ran = [arm.predict(experiment(solver=s)) for s in (PrincipalFactors(2), LeastSquares())]
    assert all(NAME in said.attrs["theories"] for said in ran)
    said = [said.excess_risk.item() for said in ran]
    np.testing.assert_allclose(np.mean(found, axis=0), said, rtol=0.15)
    seen = [
        arm.simulate(experiment(solver=s), seeds=60).excess_risk.mean().item()
        for s in (PrincipalFactors(2), LeastSquares())
    ]
    np.testing.assert_allclose(seen, said, rtol=0.2)


def test_swept_sizes_are_the_single_runs():
    swept = arm.simulate(arm.Sweep(experiment(), {"labelled": [30.0, 60.0], "unlabelled": [500.0, 1000.0]}), seeds=2)
    alone = arm.simulate(experiment(), seeds=2)
    np.testing.assert_allclose(swept.excess_risk.sel(labelled=60, unlabelled=1000), alone.excess_risk, rtol=1e-8)


def test_the_best_head_is_the_solved_one():
    task = FactorModel(20, 2, 2.0, 60.0, 1000.0)
    seen = arm.simulate(experiment(task, probes=[ExcessRisk(), BestHead()]), seeds=2)
    np.testing.assert_allclose(seen.best_head_risk, seen.excess_risk, rtol=1e-6)


def test_a_frozen_encoder_is_not_trained():
    network = EncoderHead(jnp.ones((1, 2)), jnp.ones((1, 1)))
    gradient = jax.grad(lambda n: n(jnp.ones(2))[0])(network)
    assert (gradient.encoder == 0).all() and gradient.head.item() == 2
    assert (jax.grad(lambda n: n(jnp.ones(2))[0])(EncoderHead(network.encoder, network.head, False)).encoder == 1).all()


def test_hellinger_distances_are_the_integral():
    from scipy.integrate import quad

    density = lambda x, v: np.exp(-(x**2) / (2 * v)) / np.sqrt(2 * np.pi * v)
    overlap = quad(lambda x: np.sqrt(density(x, 1.0) * density(x, 3.0)), -30, 30)[0]
    assert hellinger(np.eye(1), 3 * np.eye(1)) == pytest.approx(np.sqrt(1 - overlap))


def test_informativeness_forgets_rotations_and_weak_factors():
    draw = np.random.default_rng(0)
    loadings = np.linalg.qr(draw.normal(size=(6, 2)))[0]
    change = loadings + 0.02 * draw.normal(size=(6, 2))
    turn = np.linalg.qr(draw.normal(size=(2, 2)))[0]
    assert informativeness(loadings, change @ turn) == pytest.approx(informativeness(loadings, change), rel=1e-3)
    grid = []
    for angle in np.linspace(0, 2 * np.pi, 2001):
        c, s = np.cos(angle), np.sin(angle)
        for spin in (np.array([[c, -s], [s, c]]), np.array([[c, s], [s, -c]])):
            joint = lambda b: np.block([[np.eye(6) + b @ b.T, b], [b.T, np.eye(2)]])
            grid.append(hellinger(joint(loadings), joint(change @ spin)))
    apart = hellinger(np.eye(6) + loadings @ loadings.T, np.eye(6) + change @ change.T)
    assert informativeness(loadings, change) == pytest.approx(min(grid) / apart, rel=0.01)
    assert typical_informativeness(8, 2, 0.1, 0.01, 3) > 4 * typical_informativeness(8, 2, 1.0, 0.01, 3)


def test_formulas_have_their_limits():
    assert representation_error(1000, 100, [2.0], [1.0]) == pytest.approx(99 / 1000 / 20)
    assert residual_variance(0.5, [2.0, 2.0], [0.6, 0.8]) == pytest.approx(0.45)
    assert least_squares_excess(101, 100, 1.0) == np.inf
    n = float(crossing(300, 100, 5, 2.0, 0.5))
    error = representation_error(300, 100, [2.0] * 5, [5**-0.5] * 5)
    assert pretrained_excess(n, 5, error, 0.45) == pytest.approx(float(least_squares_excess(n, 100, 0.45)))
    assert n == pytest.approx(0.45 * 100 / error, rel=0.1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": FactorModel(100, 2, 2.0, 60.0, 200.0)}, "needs many unlabelled samples; samples times strength² over inputs are 8 (at least 10)"),
        ({"task": FactorModel(20, 2, 2.0, 3.0)}, "needs more labelled samples than factors; there are 3 (more than 3)"),
        ({"task": FactorModel(20, 2, outside=0.1)}, "needs labels that depend on the factors alone; their part outside is 0.1 (allowed 0)"),
        ({"solver": PrincipalFactors(3)}, "needs as many factors as there are; 3 are fitted of 2"),
        ({"solver": LeastSquares(0.1)}, "needs no ridge penalty; the penalty is 0.1 (allowed 0)"),
        ({"task": FactorModel(60, 2, labelled=60.0), "solver": LeastSquares()}, "needs more labelled samples than inputs; there are 60 (more than 61)"),
        ({"task": ContrastivePairs(20, 2)}, "needs a factor model; this is ContrastivePairs"),
        ({"rule": Descent(SGD(0.1))}, "needs a learner that is solved; this is Descent"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "excess_risk" not in said and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FactorModel(3, 3), "the number of factors is 3, but must be at least 1 and at most 2 (the dimension - 1)"),
        (lambda: FactorModel(3, 1, outside=1.5), "outside is 1.5, but must be at least 0 and at most 1"),
        (lambda: ContrastivePairs(3, 1, 20.0, 10), "the number of pairs is 20, but must be at least 1 and at most 10 (the capacity)"),
        (lambda: GaussianMixture(3, 2, labelled=300.0), "the number of labelled samples is 300, but must be at least 1 and at most 200 (the capacity)"),
        (lambda: PrincipalFactors(0), "the number of factors is 0, but must be at least 1"),
        (lambda: LogisticRegression(0.0), "the penalty is 0, but must be above 0"),
        (lambda: MixtureEM(2, restarts=0), "the number of restarts is 0, but must be at least 1"),
        (lambda: arm.simulate(experiment(arm.tasks.LinearTeacher(4, 5))), "PrincipalFactors needs unlabelled data; use FactorModel, ContrastivePairs or GaussianMixture"),
        (lambda: arm.simulate(experiment(solver=ContrastiveLikelihood(2))), "ContrastiveLikelihood needs pairs; use ContrastivePairs"),
        (lambda: arm.simulate(arm.Experiment(GaussianMixture(3, 2, 4), DeepLinear(1), Solved(MixtureEM(2)))),
         "the number of unlabelled samples is 4, but must be at least 6 (restarts times clusters)"),
        (lambda: look(ExcessRisk()), "ExcessRisk needs a Gaussian population; use FactorModel or ContrastivePairs"),
        (lambda: look(SubspaceError()), "SubspaceError needs latent directions; use FactorModel or ContrastivePairs"),
        (lambda: look(BestHead()), "BestHead needs labelled samples and a Gaussian population; use FactorModel"),
        (lambda: look(TeacherAccuracy()), "TeacherAccuracy needs a teacher that is a network, and test samples; use GaussianMixture"),
        (lambda: look(SubspaceError(), ClusterClassifier(None, None), LatentTeacher(jnp.ones((1, 2)), jnp.ones((1, 2)))),
         "this network has no first layer; it must have weight matrices"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def look(instrument, network=None, teacher=None):
    data = Data(Samples(jnp.ones((3, 2)), jnp.ones((3, 1))), None, teacher)
    return arm.probe(network or MLP(3)(jax.random.key(0), 2, 1), [instrument], data=data)
