"""Ridge regression on random features and tangents: deterministic equivalents against spectra and plain NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

import armillary as arm
from armillary.models import activations
from armillary.models.activations import Centred
from armillary.models.ensemble import Ensemble
from armillary.models.features import FeaturesKernel, RandomFeatures
from armillary.models.tangent_kernel import FiniteWidth, LinearKernel
from armillary.prediction import refusals
from armillary.probes.smoother import EnsembleErrors, SmootherErrors
from armillary.rules import Descent
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.tasks.covariate_noise import CovariateNoise
from armillary.theory.deterministic_equivalents import (
    Beside,
    FeatureKernel,
    Spectrum,
    effective_ridge,
    feature_errors,
    linear_errors,
)
from armillary.theory.linear_regression import best_ridge_error
from armillary.theory.random_features import (
    ActivationConstants,
    activation_constants,
    random_feature_errors,
    two_layer_errors,
    two_layer_kernel,
)
from armillary.theory.random_matrix import MarchenkoPastur

NAME = "two-layer features and tangents in high dimension"


def entry(constants, samples, width, ridge, noise, scale, *, centred=True):
    """Excess error by blocks over the first layer's singular values (inputs are the unit of size), in plain NumPy."""
    from scipy.optimize import brentq

    psi, c = 1 / width, constants
    a, rho = scale * c.linear, ridge + scale * (c.slope - c.linear)
    x, w = MarchenkoPastur(psi).quadrature(3000)  # its nodes' mass is min(1, psi) of the width
    w = w * width
    rest = c.variance - c.linear
    blocks = np.empty((len(x), 2, 2))
    blocks[:, 0, 0], blocks[:, 1, 1] = a + c.linear * x, rest * psi
    blocks[:, 0, 1] = blocks[:, 1, 0] = np.sqrt(x) * np.sqrt(c.linear * rest * psi)
    inputs, noises = max(0.0, 1 - width), max(0.0, width - 1)

    def spectrum(k):
        shrunk = k * np.linalg.inv(blocks + k * np.eye(2))
        one, other = k / (a + k), k / (rest * psi + k)
        kept = np.eye(2) - shrunk
        t1 = w @ np.trace(kept, axis1=1, axis2=2) + inputs * (1 - one) + noises * (1 - other)
        t2 = w @ np.trace(kept @ kept, axis1=1, axis2=2) + inputs * (1 - one) ** 2 + noises * (1 - other) ** 2
        features = blocks - np.array([[a, 0.0], [0.0, 0.0]])
        v0 = w @ np.trace(shrunk @ shrunk @ features, axis1=1, axis2=2) + noises * other**2 * rest * psi
        return t1, t2, w @ (shrunk @ shrunk)[:, 0, 0] + inputs * one**2, v0

    k = np.exp(brentq(lambda log: samples - spectrum(np.exp(log))[0] - rho * np.exp(-log), -9, 10))
    _, t2, bias, v0 = spectrum(k)
    return (bias + noise**2 + (0 if centred else scale * v0)) / (1 - t2 / samples) - noise**2


@given(
    samples=st.floats(0.5, 5), width=st.floats(0.2, 8), ridge=st.floats(1e-3, 1), scale=st.floats(0.0, 2), noise=st.floats(0, 1)
)  # fmt: skip
def test_the_scalar_fixed_point_is_the_average_over_the_first_layers_spectrum(samples, width, ridge, scale, noise):
    constants = activation_constants("tanh")
    for centred in (True, False):
        expected = entry(constants, samples, width, ridge, noise, scale, centred=centred)
        found = two_layer_errors(
            constants, samples, 1.0, width, ridge, noise, first_layer=scale, finite=False, initial=not centred
        )
        assert np.isclose(found.excess, expected, rtol=2e-3, atol=1e-4)


def test_activation_constants_are_known_ones():
    np.testing.assert_allclose(activation_constants("erf"), [0, 0.464559, 0.424413, 0.569410], atol=1e-6)
    relu = activation_constants("relu")
    np.testing.assert_allclose(relu, [1 / np.sqrt(2 * np.pi), 0.5 - 0.5 / np.pi, 0.25, 0.5], atol=1e-9)
    np.testing.assert_allclose(activation_constants(Centred("relu")), [0, *relu[1:]], atol=1e-7)
    # sin: E sin² = (1 - e^(-2 s²))/2 and (s E cos)² = s² e^(-s²).
    wide = activation_constants("sin", 1.5)
    np.testing.assert_allclose(wide[1:3], [(1 - np.exp(-4.5)) / 2, 2.25 * np.exp(-2.25)], rtol=1e-9)


def test_a_centred_activation_has_no_mean_also_inside_a_program():
    z = jax.random.normal(jax.random.key(0), (400_000,))
    for name in ("relu", "softplus", "tanh"):
        assert abs(float(jax.jit(lambda x, name=name: jnp.mean(Centred(name)(x)))(z))) < 4e-3


@given(ratio=st.floats(0.3, 4), penalty=st.floats(0.01, 3), noise=st.floats(0.1, 2))
def test_without_features_it_is_linear_regression(ratio, penalty, noise):
    spectrum = Spectrum(np.array([2.0, 0.5]), np.array([40.0, 60.0]))
    kernel = FeatureKernel(spectrum)
    found = feature_errors(kernel, np.array([0.3, 0.7]), 100 * ratio, penalty, noise)
    assert np.isclose(found.ridge, effective_ridge(spectrum, 100 * ratio, penalty), rtol=1e-8)
    signal = np.array([0.3, 0.7]) / spectrum.values
    bias, variance = linear_errors(spectrum, signal, 0.0, 100 * ratio, noise, penalty)
    np.testing.assert_allclose([found.excess, found.noise], [bias + variance, variance], rtol=1e-8)
    assert abs(found.features) + abs(found.features_samples) + abs(found.noise_features) < 1e-12
    # The best penalty for white inputs, from the Marchenko-Pastur integral.
    white = feature_errors(FeatureKernel(Spectrum(np.ones(1), np.ones(1))), [1.0], ratio, noise**2, noise)
    assert np.isclose(white.excess + noise**2, best_ridge_error(ratio, 1 / noise**2, 1.0) * noise**2, rtol=1e-3)


def test_infinite_width_is_its_closed_form():
    constants, phi, noise, ridge = activation_constants("erf"), 0.5, 0.2, 1e-6
    a = 2 * constants.linear
    r = ridge + constants.slope - constants.linear + constants.variance - constants.linear
    k = max(np.roots([1, a - phi * a - phi * r, -phi * r * a]).real)
    expected = ((k / (a + k)) ** 2 + noise) / (1 - phi * (a / (a + k)) ** 2) - noise
    for width in (1e8, np.inf):
        found = two_layer_errors(constants, 2.0, 1.0, width, ridge, noise**0.5)
        assert np.isclose(found.excess, expected, rtol=1e-6) and np.isclose(found.ensemble, expected, rtol=1e-6)


def drawn(draw, dimension, samples, width, ridge, noise, *, tests=400, spectrum=None):
    """Predictions of two networks' random features at test points, targets there, in plain NumPy."""
    scale = np.ones(dimension) if spectrum is None else np.sqrt(spectrum)
    x = draw.normal(size=(samples + tests, dimension))
    teacher = draw.normal(size=dimension)
    target = x @ (teacher / np.linalg.norm(teacher))
    y = target[:samples] + noise * draw.normal(size=samples)
    said, residual = [], 0.0
    for _ in range(2):
        h = (x * scale) @ draw.normal(size=(dimension, width))
        phi = (erf(h / np.sqrt(dimension)) if spectrum is None else h) / np.sqrt(width)
        here, there = phi[:samples], phi[samples:]
        weights = np.linalg.solve(here @ here.T + ridge * np.eye(samples), y)
        said.append(there @ here.T @ weights)
        residual = np.mean((here @ here.T @ weights - y) ** 2)
    missed = np.stack(said) - target[samples:]
    return (missed[0] ** 2).mean(), (missed.mean(axis=0) ** 2).mean(), residual


@pytest.mark.parametrize(("samples", "width"), [(300, 60), (300, 300), (100, 600)])
def test_random_features_and_their_ensembles_err_as_said(samples, width):
    draw = np.random.default_rng(width)
    seen = np.mean([drawn(draw, 200, samples, width, 0.01, 0.5) for _ in range(20)], axis=0)
    said = random_feature_errors(activation_constants("erf"), samples / 200, width / 200, 0.01, 0.5)
    np.testing.assert_allclose(seen, [said.excess, said.of_ensemble(2), said.training], rtol=0.06)


def test_features_of_a_power_law_spectrum_err_as_said():
    values, draw = np.arange(1.0, 201) ** -1.5, np.random.default_rng(0)
    seen = np.mean([drawn(draw, 200, 100, 50, 0.02, 0.3, spectrum=values) for _ in range(120)], axis=0)
    kernel = FeatureKernel(Spectrum(values, np.ones(200)), features=50)
    said = feature_errors(kernel, np.full(200, 1 / 200), 100, 0.02, 0.3)
    np.testing.assert_allclose(seen, [said.excess, said.of_ensemble(2), said.training], rtol=0.05)
    # One scalar equation of samples and features alike: kappa (1 - g/samples)(1 - g/features) = penalty/samples.
    tau = kernel.share(said.ridge)
    kappa = said.ridge / tau
    g = np.sum(values / (values + kappa))
    assert np.isclose(kappa * (1 - g / 100) * (1 - g / 50), 0.02 / 100, rtol=1e-8) and np.isclose(tau, 1 - g / 50)


def test_variances_are_those_of_drawing_features_or_samples_alone():
    draw, dimension, samples, width = np.random.default_rng(3), 100, 150, 80
    teacher, tests = np.full(dimension, 0.1), draw.normal(size=(1000, dimension))
    layers = draw.normal(size=(12, dimension, width)) / np.sqrt(dimension)
    inputs = draw.normal(size=(12, samples, dimension))
    missed = np.empty((12, 12, 1000))
    for i, w in enumerate(layers):
        for j, x in enumerate(inputs):
            here, there = (erf(z @ w) / np.sqrt(width) for z in (x, tests))
            weights = np.linalg.solve(here @ here.T + 0.05 * np.eye(samples), x @ teacher)
            missed[i, j] = there @ here.T @ weights - tests @ teacher
    both, one, other = ((missed.mean(axis=a) ** 2) for a in ((0, 1), 1, 0))
    said = random_feature_errors(activation_constants("erf"), 1.5, 0.8, 0.05)
    # What a mean over 12 leaves of the variances that it should average away.
    bias = said.bias + (said.features + said.samples) / 12 + said.features_samples / 144
    assert np.isclose(both.mean(), bias, rtol=0.05)
    assert np.isclose(one.mean(), said.bias + said.features + (said.samples + said.features_samples) / 12, rtol=0.05)
    assert np.isclose(other.mean(), said.bias + said.samples + (said.features + said.features_samples) / 12, rtol=0.05)


def test_few_parameters_have_the_limit_of_many_and_a_peak_where_they_equal_samples():
    constants = activation_constants("tanh")
    many, limit = (two_layer_errors(constants, 100, 50, 1e5, 1e-3, 0.4, finite=f).excess for f in (True, False))
    assert np.isclose(many, limit, rtol=1e-3)
    errors = [two_layer_errors(constants, 250, 50, n, 1e-6, 0.4, first_layer=0.05).excess for n in range(1, 12)]
    assert 1 + int(np.argmax(errors)) in (5, 6)  # 51 width directions for 250 samples
    rank = two_layer_kernel(constants, 50, 4, 0.05).degrees(1e-14)
    assert np.isclose(rank, 4 * 51, rtol=1e-3)


def experiment(model=None, task=None, rule=None, probes=None):
    return arm.Experiment(
        task or CovariateNoise(50, 100, None, 0.0, 0.4, test_samples=300),
        model or FiniteWidth(120.0, 0.5, 1.0, "tanh", "gaussian"),
        rule or Solved(KernelRidge(1e-2, definite=True)),
        probes or [EnsembleErrors(initial=True), SmootherErrors()], precision="float64",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("traced", [jax.vmap, lambda f: jax.jit(jax.vmap(jax.grad(f)))], ids=["vmap", "gradients"])
def test_a_centred_activation_is_centred_when_first_used_in_a_trace(name, traced):
    activations._gaussian_mean.cache_clear()
    traced(Centred(name))(jnp.ones(3))
    assert activations._gaussian_mean(name) == pytest.approx(
        {"relu": 1 / np.sqrt(2 * np.pi), "tanh": 0.0}[name], abs=1e-6
    )


@pytest.mark.parametrize("law", ["signs", "gaussian"])
@pytest.mark.parametrize("phi", ["erf", Centred("relu")])
def test_a_finite_kernel_is_that_of_its_network(phi, law):
    with jax.enable_x64(True):
        kernel = FiniteWidth(70.0, 0.3, 0.5, phi, law)(jax.random.key(1), 6, 1)
        x = jax.random.normal(jax.random.key(2), (5, 6))
        # The same network written out: its neurons are those that the kernel draws.
        keys = [jax.random.fold_in(kernel.key, block) for block in range(2)]
        if law == "gaussian":
            w, a = jnp.split(jnp.concatenate([jax.random.normal(k, (64, 7)) for k in keys])[:70], [6], axis=1)
            a = a[:, 0]
        else:
            w = jnp.concatenate([jax.random.normal(k, (64, 6)) for k in keys])[:70]
            a = jnp.concatenate([jax.random.rademacher(jax.random.fold_in(k, 1), (64,), w.dtype) for k in keys])[:70]
        function = arm.models.activations.activation(phi)
        network = lambda w, a, x: function(w @ x) @ a / jnp.sqrt(70.0)
        first, second = (jax.vmap(jax.grad(network, i), (None, None, 0))(w, a, x) for i in (0, 1))
        expected = 0.3 * jnp.einsum("sij,tij->st", first, first) + 0.5 * second @ second.T
        np.testing.assert_allclose(kernel(x, x), expected, rtol=1e-10, atol=1e-12)
        said = jnp.sqrt(0.3) * jax.vmap(network, (None, None, 0))(w, a, x)
        np.testing.assert_allclose(kernel.outputs(x)[:, 0], said, rtol=1e-10)


def test_the_probe_sees_what_dense_algebra_says():
    ran = experiment(Ensemble(FiniteWidth(40.0, 0.5, 1.0, "tanh", "gaussian"), 3))
    with jax.enable_x64(True):
        process = ran.draw(jax.random.key(0))
        state = eqx.filter_jit(lambda p: p.init(jax.random.key(1)))(process)
        data, noise = process.data, 0.4
        x, z = np.asarray(data.train.inputs), np.asarray(data.test.inputs)
        clean, test = np.asarray(data.teacher.targets), np.asarray(data.test.targets)
        smoothers, alone, started = [], [], []
        parts = eqx.filter_jit(lambda k, x, z: (k(x, x), k(z, x), k.outputs(x), k.outputs(z)))
        for kernel in process.initial.members:
            gram, cross, here, there = map(np.asarray, parts(kernel, jnp.asarray(x), jnp.asarray(z)))
            s = np.linalg.solve(gram + 1e-2 * np.eye(100), cross.T).T
            smoothers.append(s)
            spread = noise**2 * (s**2).sum(axis=1).mean()
            alone.append(((s @ clean - test) ** 2).mean() + spread)
            started.append(((s @ (clean - here) + there - test) ** 2).mean() + spread)
        mean = np.mean(smoothers, axis=0)
        together = ((mean @ clean - test) ** 2).mean() + noise**2 * (mean**2).sum(axis=1).mean()
        now = process.snapshot(state, jnp.zeros(()))
        seen = eqx.filter_jit(lambda now: EnsembleErrors(initial=True)(now))(now)
    expected = {
        "member_risk": np.mean(alone), "ensemble_risk": together, "initial_risk": np.mean(started),
    }  # fmt: skip
    assert {name: float(found.values) for name, found in seen.items()} == pytest.approx(expected, rel=1e-7)
    assert len(state.network.members) == 3


def test_a_definite_fit_is_the_other_one():
    with jax.enable_x64(True):
        process = experiment().draw(jax.random.key(0))
        one, other = (KernelRidge(1e-2, definite=d).fit(experiment().task, process.data, process.initial, jax.random.key(0)).inverse for d in (True, False))  # fmt: skip
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_features_are_fitted_as_their_kernel():
    with jax.enable_x64(True):
        process = experiment(RandomFeatures(80, "erf")).draw(jax.random.key(0))
        fitted = KernelRidge(0.1).fit(experiment().task, process.data, process.initial, jax.random.key(0))
        assert isinstance(fitted.kernel, FeaturesKernel)
        phi = np.asarray(jax.vmap(process.initial.features)(process.data.train.inputs))
        there = np.asarray(jax.vmap(process.initial.features)(process.data.test.inputs))
        weights = np.linalg.solve(phi.T @ phi / 80 + 0.1 * np.eye(80), phi.T @ np.asarray(process.data.train.targets))
        np.testing.assert_allclose(jax.vmap(fitted)(process.data.test.inputs), there @ weights / 80, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [FiniteWidth(300.0, 1.0, 1.0, "erf", "gaussian"), FiniteWidth(300.0, 0.2, 2.0, Centred("relu"), "signs"),
     RandomFeatures(150, "erf"), Ensemble(RandomFeatures(90, "erf"), 4)],
)  # fmt: skip
def test_predicted_errors_are_those_measured(model):
    probes = [EnsembleErrors(initial=True)] if isinstance(model, Ensemble) else None
    ran = experiment(model, CovariateNoise(80, 160, None, 0.0, 0.4, test_samples=400), probes=probes)
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=12).mean("seed")
    assert NAME in said.attrs["theories"]
    common = set(said.data_vars) & set(seen.data_vars)
    assert {"member_risk", "ensemble_risk"} <= common
    assert ("training_error" in common) == (not isinstance(model, Ensemble))
    for (
        name
    ) in common:  # the training error nears its limit slowest: 1.32, 1.26, 1.06, 1.05 times it at 40 to 320 inputs
        allowed = 0.35 if name == "training_error" else 0.12
        assert np.isclose(float(seen[name][0]), float(said[name][0]), rtol=allowed), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": LinearKernel()}, "needs a two-layer network's kernel or random features; this is LinearKernel"),
        ({"model": FiniteWidth(100.0)}, "needs an activation of mean 0; its mean over its deviation is 0.683 (allowed 0.02)"),
        ({"task": CovariateNoise(50, 100, None, 0.1, test_samples=9)}, "needs inputs without noise; the covariates' noise is 0.1 (allowed 0)"),
        ({"task": CovariateNoise(50, 100, 5, 0.0, test_samples=9)}, "needs a signal in all inputs; its rank is 5 of 50 dimensions"),
        ({"task": CovariateNoise(50, 100, None, 0.0, teacher="neuron", test_samples=9)}, "needs a linear teacher; the teacher is a neuron"),
        ({"task": CovariateNoise(20, 100, None, 0.0, test_samples=9)}, "needs many inputs; there are 20 (at least 40)"),
        ({"task": CovariateNoise(50, 60, None, 0.0, test_samples=9)}, "needs many samples; there are 60 (at least 80)"),
        ({"task": arm.tasks.LinearTeacher(50, 100)}, "needs linear targets of Gaussian inputs (CovariateNoise); this is LinearTeacher"),
        ({"rule": Solved(KernelRidge())}, "needs a ridge penalty; it is 0; take a small one, such as 1e-6"),
        ({"rule": Descent(steps=1)}, "needs a learner that is solved; this is Descent"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "ensemble_risk" not in said and any(says in reason for reason in refusals(said)[NAME])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FiniteWidth(9.0, law="normal"), "unknown law of read-out weights 'normal' (all: gaussian, signs)"),
        (lambda: FiniteWidth(9.0, -1.0), "the first layer's weight is -1, but must be at least 0"),
        (lambda: random_feature_errors(activation_constants("erf"), 1.0, 1.0, 0.0), "the penalty is 0, but must be above 0 (a tiny one, such as 1e-9, interpolates)"),
        (lambda: random_feature_errors(activation_constants("erf"), 0.0, 1.0, 0.1), "the number of samples is 0, but must be above 0"),
        (lambda: two_layer_errors(activation_constants("erf"), 10, 5, 0, 0.1), "the width is 0, but must be above 0"),
        (lambda: activation_constants("erf", 0.0), "the scale is 0, but must be above 0"),
        (lambda: arm.probe(arm.models.MLP(4)(jax.random.key(0), 4, 1), [EnsembleErrors()], data=(jnp.ones((2, 4)), jnp.ones((2, 1)))),
         "EnsembleErrors needs fitted kernels (KernelRidge), not a MLPNetwork"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says


def test_a_fixed_kernel_beside_the_features_is_a_function_of_the_ridge():
    """Constant parts as written in `Beside` agree with the same modes put into the spectrum of a kernel without features."""
    constants = ActivationConstants(0.0, 0.3, 0.3, 0.5)
    beside = FeatureKernel(
        Spectrum(np.array([0.0]), np.array([50.0])), np.inf, 0.2, lambda k: Beside(0.3 / 50, degrees=0.1 / k)
    )
    whole = FeatureKernel(Spectrum(np.array([0.3 / 50]), np.array([50.0])), np.inf, 0.3)
    for k in (1e-3, 0.1):
        assert np.isclose(beside.degrees(k), whole.degrees(k), rtol=1e-12)
    assert constants.slope > constants.linear
