"""Linear dynamics in high dimension and scaling laws: closed forms, plain NumPy training, fits, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary.models.deep_linear import DeepLinear
from armillary.models.initialisation import Gaussian, Orthogonal
from armillary.models.projection import ProjectedNetwork, RandomProjection
from armillary.prediction import refusals
from armillary.probes import ExcessRisk, Losses, RegressionErrors
from armillary.probes.modes import UnlearnedModes
from armillary.rules import SGD, Adam, Descent, GradientFlow, LinearFlow, Loss, MiniBatch, Online
from armillary.tasks.eigenfeatures import Eigenfeatures
from armillary.theory.deterministic_equivalents import FeatureKernel, Spectrum, effective_ridge, feature_errors
from armillary.theory.kernels.regression import kernel_modes
from armillary.theory.linear_dynamics import LinearDynamics, talbot
from armillary.theory.linear_regression import regression_curve
from armillary.theory.power_laws import fit_modes, log_bins, power_law_modes
from armillary.theory.projected_regression import online_errors
from armillary.theory.scaling_laws import exponents_of, scaling_law

NAME = "linear dynamics in high dimension"


def modes(count=300, b=1.2, a=1.8):
    k = np.arange(1.0, count + 1)
    return Spectrum(k**-b, np.ones(count)), k**-a


def test_endless_width_and_data_relax_mode_by_mode():
    spectrum, power = modes()
    times = np.array([0.0, 0.3, 10.0, 1e3, 1e6, np.inf])
    course = LinearDynamics(spectrum, power).flow(times)
    with np.errstate(invalid="ignore"):
        left = np.exp(-np.outer(times, spectrum.values))
    np.testing.assert_allclose(course.test, left**2 @ power, atol=1e-6)
    np.testing.assert_allclose(course.unlearned, left, atol=1e-6)
    course = LinearDynamics(spectrum, power).descent([0, 1, 7, 900, 5000], 0.4)
    left = (1 - 0.4 * spectrum.values) ** np.array([[0], [1], [7], [900], [5000]])
    np.testing.assert_allclose(course.test, left**2 @ power, atol=1e-6)
    np.testing.assert_allclose(course.unlearned, left, atol=1e-6)


def test_momentum_is_its_two_term_recursion():
    spectrum, power = modes(40)
    course = LinearDynamics(spectrum, power).descent(np.arange(31.0), 0.7, 0.6)
    before = now = np.ones(40)
    for step in range(31):
        np.testing.assert_allclose(course.test[step], power @ now**2, atol=1e-6)
        before, now = now, now - 0.7 * spectrum.values * now + 0.6 * (now - before)


@pytest.mark.parametrize(("width", "samples"), [(50.0, 90.0), (90.0, 50.0), (70.0, np.inf), (np.inf, 70.0)])
def test_long_flow_ends_in_the_ridgeless_limit(width, samples):
    spectrum, power = modes()
    dynamics = LinearDynamics(spectrum, power, width, samples, 0.3 if np.isfinite(samples) else 0.0)
    late, end = dynamics.flow([1e9]), dynamics.flow([np.inf])
    for one, other in zip(late, end, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    if np.isinf(samples):
        kappa = effective_ridge(spectrum, width)
        assert np.isclose(end.test[0], power @ (kappa / (kappa + spectrum.values)))


def test_the_projections_and_samples_of_the_entry():
    spectrum, power = modes()
    found = [LinearDynamics(spectrum, power, width=n).end()[0] for n in (10, 40, 100)]
    np.testing.assert_allclose(found, [0.698367, 0.240320, 0.088149], atol=1e-6)
    found = [LinearDynamics(spectrum, power, samples=n).end()[0] for n in (10, 40, 100)]
    np.testing.assert_allclose(found, [0.482797, 0.142976, 0.050822], atol=3e-6)  # the entry rounds
    k = np.arange(1.0, 401)
    noisy = LinearDynamics(Spectrum(k**-1.5, np.ones(400)), k**-2, 1000, 100, 0.1**0.5).flow([1.0, 100.0, 1e4])
    np.testing.assert_allclose(noisy.test, [0.59716, 0.06426, 0.12772], atol=1e-5)


def test_as_many_projections_as_samples_diverge_in_the_end():
    assert LinearDynamics(*modes(), width=40, samples=40).end()[0] == np.inf
    assert np.isfinite(LinearDynamics(*modes(), width=40, samples=40).flow([1e4]).test[0])


@given(width=st.floats(25, 200), samples=st.floats(25, 200), s=st.floats(1e-5, 1.0), noise=st.floats(0.0, 1.0))
def test_a_real_frequency_is_ridge_regression(width, samples, s, noise):
    spectrum, power = modes(100)
    dynamics = LinearDynamics(spectrum, power, width, samples, noise)
    kernel = FeatureKernel(spectrum, width)
    ridge = kernel.ridge(samples, s * samples)
    kappa = dynamics.kappa([s])[0, 0]
    assert abs(kappa.imag) < 1e-12 and np.isclose(kappa.real, ridge / kernel.share(ridge), rtol=1e-8)
    known = feature_errors(kernel, power, samples, s * samples, noise)
    pairs = dynamics.transforms([s], [1.0])
    assert np.isclose(pairs.test[0, 0].real, known.excess, rtol=1e-7)
    assert np.isclose(pairs.train[0, 0].real, known.training, rtol=1e-7)


def test_kappa_solves_its_equation_on_the_branch_of_large_frequencies():
    dynamics = LinearDynamics(*modes(), 30, 70)
    s = talbot()[0][:, None] / np.geomspace(0.1, 1e6, 15)
    kappa = dynamics.kappa(s)[0]
    g = (dynamics.spectrum.values / (dynamics.spectrum.values + kappa[..., None])).sum(-1)
    np.testing.assert_allclose(kappa * (1 - g / 70) * (1 - g / 30), s, rtol=1e-6, atol=1e-12)
    assert (kappa.real[s.real > 0] > 0).all()


def test_white_inputs_follow_the_marchenko_pastur_law():
    times = np.array([0.5, 5.0, 50.0])
    ours = LinearDynamics(Spectrum(np.array([1 / 200]), np.array([200.0])), np.array([4.0]), np.inf, 100, 1.0)
    test, train = regression_curve(times, 0.5, 4.0, 1.0)
    course = ours.flow(100 * times)  # the mean loss's time
    np.testing.assert_allclose(course.test + 1, test, rtol=1e-5)
    np.testing.assert_allclose(course.train, train, rtol=1e-5)
    assert np.isclose(ours.spectral_edge, (1 + 2**0.5) ** 2 / 200)


def plain(width, samples, steps, rate, momentum=0.0, draws=40, count=100, noise=0.2):
    """Test and training error of descent in plain NumPy, means over draws."""
    spectrum, power = modes(count)
    draw, w_true = np.random.default_rng(0), np.sqrt(power / spectrum.values)
    found, tops = [], []
    for _ in range(draws):
        x = draw.normal(size=(samples, count)) * np.sqrt(spectrum.values)
        a = draw.normal(size=(width, count)) / np.sqrt(width)
        y, features = x @ w_true + noise * draw.normal(size=samples), x @ a.T
        tops.append(np.linalg.norm(features, 2) ** 2 / samples)
        w, before, errors = np.zeros(width), np.zeros(width), []
        for _ in range(steps + 1):
            off = a.T @ w - w_true
            errors.append(((off**2) @ spectrum.values, np.mean((features @ w - y) ** 2)))
            gradient = features.T @ (features @ w - y) / samples
            w, before = w - rate * gradient + momentum * (w - before), w
        found.append(errors)
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(draws), float(np.mean(tops))


@pytest.mark.parametrize(("width", "samples", "momentum"), [(40, 60, 0.0), (90, 50, 0.5)])
def test_finite_width_and_data_against_plain_descent(width, samples, momentum):
    mean, error, top = plain(width, samples, 150, 0.3, momentum)
    dynamics = LinearDynamics(*modes(100), width, samples, 0.2)
    at = [1, 5, 30, 150]
    course = dynamics.descent(at, 0.3, momentum)
    for column, said in enumerate((course.test, course.train)):
        assert np.abs((mean[at, column] - said) / error[at, column]).max() < 4
        np.testing.assert_allclose(mean[at, column], said, rtol=0.1)
    assert 1.0 < top < dynamics.spectral_edge


def test_descent_by_contour_equals_descent_by_fourier_transform():
    dynamics = LinearDynamics(*modes(100), 40, 60, 0.2)
    near, far = dynamics.descent([100, 700], 0.3), dynamics.descent([100, 700, 3000], 0.3)
    for one, other in zip(near[:3], far[:3], strict=True):
        np.testing.assert_allclose(one, other[:2], atol=1e-6)
    assert np.isclose(far.test[2], dynamics.flow([900.0]).test[0], rtol=1e-2)


def test_one_pass_errors_are_the_mean_of_plain_runs():
    spectrum, power = modes(30)
    said = online_errors(spectrum, power, 0.3, 4, 40, 0.5)
    draw, left = np.random.default_rng(0), np.tile(np.sqrt(power / spectrum.values), (3000, 1))
    for _ in range(40):
        x = draw.normal(size=(3000, 4, 30)) * np.sqrt(spectrum.values)
        wrong = np.einsum("nbk,nk->nb", x, left) + 0.5 * draw.normal(size=(3000, 4))
        left = left - 0.3 * np.einsum("nbk,nb->nk", x, wrong) / 4
    seen = left**2 @ spectrum.values
    assert abs(seen.mean() - said[-1]) < 4 * seen.std() / np.sqrt(3000)


def experiment(task=None, model=None, rule=None, probes=None, observe=None):
    k = np.arange(1.0, 81)
    return arm.Experiment(
        task or Eigenfeatures(k**-1.5, 1 / k, 40, 0.2), model or RandomProjection(30), rule or LinearFlow(100.0),
        probes or [Losses(), ExcessRisk(), UnlearnedModes()], observe or arm.At((0.0, 1.0, 10.0, 100.0)), precision="float64",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rule": LinearFlow(4000.0, Loss(reduction="sum")), "observe": arm.At((0.0, 0.1, 2.0))},
        {"rule": Descent(SGD(0.3, 0.4), 100)},
        {"task": Eigenfeatures(np.arange(80, 0, -1.0) ** -1.5, np.arange(80, 0, -1.0) ** -1)},
    ],
)
def test_predictions_are_the_means_of_simulations(change):
    ran = experiment(**change)
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=60)
    assert NAME in said.attrs["theories"]
    for name in ("train_loss", "test_loss", "excess_risk", "unlearned"):
        mean, error = seen[name].mean("seed"), seen[name].std("seed", ddof=1) / np.sqrt(60)
        scale = np.abs(said[name]).max().item()
        assert (np.abs(mean - said[name].values) < 4.5 * error + 0.02 * scale + 1e-9).all()


def test_one_pass_descent_is_predicted():
    ran = experiment(model=RandomProjection(), rule=Descent(SGD(0.2), 50, feed=Online(5)), observe=arm.At((0, 5, 50)),
                     probes=[ExcessRisk(), UnlearnedModes()])  # fmt: skip
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=100)
    np.testing.assert_allclose(seen.excess_risk.mean("seed"), said.excess_risk, rtol=0.12)
    np.testing.assert_allclose(seen.unlearned.mean("seed")[:, :3], said.unlearned[:, :3], atol=0.05)


def test_coloured_inputs_of_a_linear_teacher_are_predicted():
    task = arm.tasks.LinearTeacher(60, 40, noise=0.5, spectrum=tuple((1 / np.arange(1.0, 61)).tolist()))
    model = DeepLinear(1, initialisation=Gaussian(0.5, per_entry=True))
    ran = experiment(task, model, LinearFlow(100.0, Loss(reduction="sum")), [RegressionErrors()])
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=60)
    for name in ("generalisation_error", "training_error"):
        np.testing.assert_allclose(seen[name].mean("seed"), said[name], rtol=0.08)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": arm.tasks.Digits(100)}, "needs a linear target of Gaussian inputs (Eigenfeatures, LinearTeacher); this is Digits"),
        ({"model": arm.models.MLP(4)}, "this is MLP"),
        ({"model": DeepLinear(2)}, "needs a single layer; the depth is 2 (allowed 1)"),
        ({"model": DeepLinear(1, initialisation=Orthogonal())}, "needs independent Gaussian initial weights; this is Orthogonal"),
        ({"model": DeepLinear(1)}, "needs weights that start at 0; they are random; use RandomProjection()"),
        ({"model": RandomProjection(10)}, "needs many projections; there are 10 (at least 20)"),
        ({"task": Eigenfeatures(np.ones(80), np.ones(80), 19)}, "needs many samples; there are 19 (at least 20)"),
        ({"rule": Descent(Adam(0.01), 100)}, "the optimiser is Adam"),
        ({"rule": Descent(SGD(3.0), 100)}, "needs a stable learning rate; the learning rate over the largest stable one is 2."),
        ({"rule": Descent(SGD(0.1, 0.5), 2000)}, "there are 2000 steps (at most 1000)"),
        ({"rule": Descent(SGD(0.1), 100, feed=MiniBatch(5))}, "needs full batches, or fresh samples at every step; this is MiniBatch"),
        ({"rule": Descent(SGD(0.1), 100, feed=Online(5))}, "needs all inputs where samples are fresh; the width is 30; take None"),
        ({"rule": GradientFlow(100.0, Loss("absolute_error"))}, "needs the squared error; the loss is absolute_error"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change), theory=NAME)
    assert not len(said) and any(says in reason for reason in refusals(said)[NAME])


def test_the_task_draws_what_it_says():
    values = np.array([2.0, 0.5, 0.1])
    data = Eigenfeatures(values, [1.0, -0.5, 0.2], 200_000, 0.3).draw(jax.random.key(0))
    x, y = np.asarray(data.train.inputs), np.asarray(data.train.targets)[:, 0]
    np.testing.assert_allclose(x.T @ x / len(x), np.diag(values), atol=0.02)
    assert np.isclose(y.var(), 1 + 0.25 + 0.04 + 0.09, rtol=0.02)
    every = Eigenfeatures(values, [1.0, -0.5, 0.2]).draw(jax.random.key(0)).train
    np.testing.assert_allclose(every.inputs.T @ every.inputs / every.count, np.diag(values), atol=1e-6)


def test_projections_equal_dense_computation():
    network = RandomProjection(7)(jax.random.key(0), 5, 1)
    assert isinstance(network, ProjectedNetwork)
    network = eqx.tree_at(lambda n: n.readout, network, jnp.arange(7.0)[None])
    x = jnp.arange(5.0)
    np.testing.assert_allclose(network(x), network.readout @ (network.projection @ x), rtol=1e-5)
    np.testing.assert_allclose(network.features(x), network.projection @ x, rtol=1e-5)
    large = RandomProjection(20_000)(jax.random.key(1), 3, 1)
    assert isinstance(large, ProjectedNetwork)
    rows = jax.vmap(large.features)(jnp.eye(3))
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=0.05)
    gradient = eqx.filter_grad(lambda n: n(x)[0])(network)
    assert not np.any(gradient.projection) and np.any(gradient.readout)
    data = Eigenfeatures([1.0, 0.5, 0.4, 0.2, 0.1], [1.0, 1.0, 1.0, 1.0, 0.0]).draw(jax.random.key(0))
    seen = arm.probe(network, [UnlearnedModes()], data=data).unlearned
    w = (network.readout @ network.projection)[0]
    np.testing.assert_allclose(seen[:4], 1 - w[:4] * np.sqrt([1.0, 0.5, 0.4, 0.2]), rtol=1e-4)
    assert np.isnan(seen[4])


def test_bins_of_modes_add_up():
    k = np.arange(1.0, 3001)
    spectrum, power = power_law_modes(1.3, 1.7, modes=3000)
    assert spectrum.counts.sum() == 3000
    assert np.isclose(spectrum.values @ spectrum.counts, np.sum(k**-1.3), rtol=1e-3)
    assert np.isclose(power.sum(), np.sum(k**-1.7), rtol=1e-3)
    starts, counts = log_bins(500, 8, 7)
    assert starts[0] == 7 and (starts + counts)[-1] == 501 and (counts > 0).all()
    exact = LinearDynamics(Spectrum(k**-1.3, np.ones(3000)), k**-1.7, 40, 60).flow([10.0, 1e4]).test
    np.testing.assert_allclose(LinearDynamics(spectrum, power, 40, 60).flow([10.0, 1e4]).test, exact, rtol=2e-3)


def test_intervals_of_noisy_power_laws_cover_the_truth():
    k, draw = np.arange(1.0, 2001), np.random.default_rng(0)
    fits = [fit_modes(k**-1.5 * draw.normal(size=2000) ** 2, 5, 1000) for _ in range(100)]
    inside = np.mean([fit.exponent.low < 1.5 < fit.exponent.high for fit in fits])
    assert 0.85 <= inside <= 1.0
    assert abs(np.mean([fit.exponent.value for fit in fits]) - 1.5) < 0.03
    exact = fit_modes(3 * k**-1.2, 5, 1000)
    assert np.isclose(exact.exponent.value, 1.2) and np.isclose(exact.factor, 3, rtol=1e-6) and exact.residual < 1e-9


@pytest.mark.parametrize(("a", "b"), [(1.5, 1.25), (2.0, 1.5), (4.5, 1.25)])
def test_exponents_are_slopes_of_the_theory(a, b):
    said = exponents_of(b, a)
    at = lambda **resource: LinearDynamics(*power_law_modes(b, a), **resource).end()[0]
    assert np.isclose(-np.log10(at(width=2000.0) / at(width=200.0)), said[1], atol=0.06)
    assert np.isclose(-np.log10(at(samples=2000.0) / at(samples=200.0)), said[2], atol=0.06)
    errors = LinearDynamics(*power_law_modes(b, a)).flow([1e3, 1e4]).test
    assert np.isclose(-np.log10(errors[1] / errors[0]), said[0], atol=0.01)


def test_the_law_of_exact_modes_splits_compute_as_it_should():
    k = np.arange(1.0, 4001)
    law = scaling_law(k**-1.25, k**-0.75)
    best = law.frontier([1e3, 1e4, 1e5])
    np.testing.assert_allclose(best.test_error, [0.675, 0.411, 0.248], atol=2e-3)
    np.testing.assert_allclose(best.width * best.time, [1e3, 1e4, 1e5], rtol=1e-9)
    assert np.isclose(np.log10(best.width[2] / best.width[1]), law.exponents.best_width.value, atol=0.02)
    for width in (0.7, 1.4):  # no other split is better
        other = law.losses([best.time.values[1] / width], [best.width.values[1] * width]).test_error.item()
        assert other >= best.test_error.values[1] * (1 - 1e-4)
    assert law.refusals == [] and refusals(best) == {}
    shuffled = np.random.default_rng(0).permutation(4000)
    again = scaling_law((k**-1.25)[shuffled], np.stack([k**-0.75, 0 * k], axis=1)[shuffled])
    assert np.isclose(again.exponents.time.value, law.exponents.time.value)


def test_modes_of_samples_give_the_law_and_the_losses():
    data = Eigenfeatures(np.arange(1.0, 301) ** -1.5, np.arange(1.0, 301) ** -1, 600).draw(jax.random.key(0)).train
    x = np.asarray(data.inputs, float)
    found = kernel_modes(x @ x.T, np.asarray(data.targets))
    law = scaling_law(found.eigenvalues, np.sqrt(found.power), fit_range=(3, 120), modes=300)
    assert law.spectrum.exponent.low - 0.1 < 1.5 < law.spectrum.exponent.high + 0.1
    assert law.target.exponent.low < 2.0 < law.target.exponent.high and "error: time^-" in str(law)
    exact = LinearDynamics(*modes(300, 1.5, 2.0), 40, 60).flow([10.0, 1e3]).test
    np.testing.assert_allclose(law.losses([10.0, 1e3], [40.0], [60.0]).test_error[0, 0], exact, rtol=0.1)


@pytest.mark.parametrize(
    ("b", "a", "count", "says"),
    [
        (0.8, 1.5, 2000, "needs a spectrum that falls faster than 1/mode; its exponent is 0.800"),
        (1.5, 0.7, 2000, "needs a target that falls faster than 1/mode; its exponent is 0.700"),
        (1.5, 1.5, 300, "needs 1.5 decades of modes; 5 to 75 are 1.2; measure more, or widen the fit_range"),
    ],
)
def test_a_law_says_what_fails(b, a, count, says):
    k = np.arange(1.0, count + 1)
    law = scaling_law(k**-b, k ** (-a / 2))
    assert any(reason.startswith(says) for reason in law.refusals) and says in str(law)


def test_a_bent_spectrum_and_far_requests_are_named():
    k = np.arange(1.0, 2001)
    bent = scaling_law(k**-1.2 * np.exp(-k / 100), k**-0.75).refusals
    assert any("needs a power-law spectrum; the residual of the spectrum's logarithm" in reason for reason in bent)
    law = scaling_law(k**-1.25, k**-0.75)
    assert refusals(law.losses([100.0], [50.0])) == {}
    far = refusals(law.losses([1e9], [5e4]))["scaling law"]
    assert far == ["needs widths, samples or times that measured modes decide; the last mode that counts over the last "
                   "measured is 100 (allowed 1)"]  # fmt: skip
    noisy = scaling_law(
        k[:300] ** -1.25, k[:300] ** -0.75 * np.random.default_rng(0).normal(size=300), fit_range=(4, 40)
    )
    assert any("needs a known exponent of the target" in reason for reason in noisy.refusals)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Eigenfeatures([1.0, 0.0], [1.0, 1.0]), "an eigenvalue is 0, but must be above 0"),
        (lambda: Eigenfeatures([1.0], [1.0, 1.0]), "eigenvalues are (1,) and target coefficients (2,), but must be one of each for every mode"),
        (lambda: Eigenfeatures([1.0], [1.0], 0), "the number of samples is 0, but must be at least 1"),
        (lambda: RandomProjection(0), "the width is 0, but must be at least 1"),
        (lambda: LinearDynamics(*modes(5), noise=-1.0), "noise is -1, but must be at least 0"),
        (lambda: LinearDynamics(modes(5)[0], np.ones(4)), "5 eigenvalues, 5 counts and 4 powers do not fit; give one of each for every group of modes"),
        (lambda: LinearDynamics(*modes(5)).flow([-1.0]), "a time is -1, but must be at least 0"),
        (lambda: LinearDynamics(*modes(5)).descent([1.5], 0.1), "steps of descent must be whole numbers; use flow for other times"),
        (lambda: LinearDynamics(*modes(5)).descent([2], 2.5), "the learning rate is 2.5, but must be above 0 and at most 2 (the largest stable one)"),
        (lambda: LinearDynamics(*modes(5)).descent([2000], 1.5), "there are 2000 steps, but at most 1000 can be had with momentum or a learning rate above 1 (one over the spectrum's edge); lower it, or use flow"),
        (lambda: fit_modes(np.ones(50), 5, 60), "the last mode to be fitted is 60, but must be at least 6 and at most 50 (the number of modes)"),
        (lambda: fit_modes(np.ones(50), 5, 6), "modes 5 to 6 are too few for a power law, or all 0; give a wider range"),
        (lambda: scaling_law(np.ones(5), np.ones(4)), "eigenvalues are (5,) and target coefficients (4,), but must be [mode] and [mode] or [mode, output]"),
        (lambda: scaling_law(np.r_[np.ones(50), np.zeros(50)], np.ones(100), fit_range=(5, 80)), "eigenvalue 80 is 0; end the fit_range at 50 or before"),
        (lambda: scaling_law(np.arange(1.0, 101) ** -1.5, np.arange(1.0, 101) ** -1).frontier([0.5]), "compute is 0.5, but must be above 1"),
        (lambda: power_law_modes(-1.0, 1.5), "the spectrum's exponent is -1, but must be above 0"),
        (lambda: online_errors(*modes(5), 0.1, 0, 3), "the batch size is 0, but must be at least 1"),
        (lambda: arm.probe(arm.models.MLP(4)(jax.random.key(0), 4, 1), [UnlearnedModes()], data=(jnp.ones((3, 4)), jnp.ones((3, 1)))),
         "UnlearnedModes needs a Gaussian population of one output; use Eigenfeatures"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
