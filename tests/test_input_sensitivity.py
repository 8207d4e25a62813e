"""Sensitivity to the input: gradients of kernels, probes against dense algebra, the closed form, refusals."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import roots_jacobi

import armillary as arm
from armillary.models import MLP
from armillary.models.features import FeaturesKernel, RandomFeatures
from armillary.models.tangent_kernel import FiniteWidth, LinearKernel, TangentKernel
from armillary.prediction import refusals
from armillary.probes.sensitivity import InputSensitivity, LabelSensitivity
from armillary.rules import Descent
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.tasks import Digits, LinearTeacher
from armillary.tasks.classification import GaussianClasses
from armillary.tasks.on_sphere import OnSphere
from armillary.theory.input_sensitivity import SphereKernel, kernel_sensitivity, sphere_kernel, universal_bound
from armillary.theory.kernels import kernel as kernel_of
from armillary.theory.kernels.machine import InfiniteWidth

NAME = "input sensitivity of kernels in high dimension"


def inputs(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])


def by_differences(kernel, z, x, step=1e-5):
    rows = np.eye(len(z)) * step
    k = eqx.filter_jit(kernel)
    return np.asarray(k(jnp.asarray(z + rows), jnp.asarray(x)) - k(jnp.asarray(z - rows), jnp.asarray(x))) / (2 * step)


@pytest.mark.parametrize(
    "model",
    [FiniteWidth(70.0, 0.7, 0.4, "tanh"), FiniteWidth(30.0, 1.0, 0.0, "quadratic", "gaussian"),
     InfiniteWidth(FiniteWidth(1.0, 0.7, 0.4, "cos")), InfiniteWidth(MLP(9, 3, "erf", "ntk")), InfiniteWidth(MLP(9, 2, "tanh", "ntk"), "nngp"),
     RandomFeatures(20, "tanh"), TangentKernel(), LinearKernel()],
    ids=lambda m: type(getattr(m, "model", m)).__name__,
)  # fmt: skip
def test_gradients_of_kernels_are_those_of_finite_differences(model):
    with jax.enable_x64(True):
        z, x = inputs(0, 6), 1.3 * inputs(1, 5, 6)
        kernel = model(jax.random.key(0), 6, 1) if isinstance(model, arm.models.Model) else model
        kernel = FeaturesKernel(kernel) if hasattr(kernel, "features") else kernel
        seen = eqx.filter_jit(lambda k, z, x: k.gradients(z, x))(kernel, jnp.asarray(z), jnp.asarray(x))
        np.testing.assert_allclose(seen, by_differences(kernel, z, x), atol=3e-9)


def test_the_interaction_matrix_of_tangents_is_the_dense_one():
    """With all tangents written out: x phi'(w.x) of each neuron, in plain NumPy."""
    with jax.enable_x64(True):
        kernel = FiniteWidth(12.0, 1.0, 0.0, "tanh")(jax.random.key(3), 4, 1)
        w = np.asarray(jax.random.normal(jax.random.fold_in(kernel.key, 0), (64, 4)))[:12]
        z, x = inputs(2, 4), inputs(3, 5, 4)
        slope = lambda h: 1 - np.tanh(h) ** 2
        features = np.stack([np.outer(slope(w @ a), a).ravel() for a in x]) / np.sqrt(12)
        own = np.stack(
            [np.outer(slope(w @ z), e) + np.outer(-2 * np.tanh(w @ z) * slope(w @ z) * (w @ e), z) for e in np.eye(4)]
        )
        expected = own.reshape(4, -1) @ features.T / np.sqrt(12)
        np.testing.assert_allclose(kernel.gradients(jnp.asarray(z), jnp.asarray(x)), expected, atol=1e-12)
        np.testing.assert_allclose(kernel(jnp.asarray(x), jnp.asarray(x)), features @ features.T, atol=1e-12)


@pytest.mark.parametrize(
    "model", [FiniteWidth(1.0, 0.3, 0.8, "softplus"), FiniteWidth(1.0, 1.0, 0.5, "relu"), MLP(7, 3, "relu", "ntk")]
)
def test_infinite_width_is_the_limits_kernel(model):
    x, y = inputs(0, 4, 5), inputs(1, 3, 5)
    with jax.enable_x64(True):
        kernel = InfiniteWidth(model)(jax.random.key(0), 5, 1)
        seen = eqx.filter_jit(kernel)(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(seen, kernel_of(model, 5).ntk(x, y), rtol=1e-10)
        if isinstance(model, FiniteWidth):
            drawn = FiniteWidth(3e4, model.first_layer, model.read_out, model.activation)(jax.random.key(0), 5, 1)
            np.testing.assert_allclose(eqx.filter_jit(drawn)(jnp.asarray(x), jnp.asarray(y)), seen, atol=0.03)


def test_infinite_networks_swept_and_fitted_as_models():
    ran = experiment(InfiniteWidth(MLP(8, 2, "erf", "ntk")), OnSphere(GaussianClasses(10, 6, test_samples=3)))
    seen = arm.simulate(arm.Sweep(ran, {"model.scale": [0.5, 1.0]}), seeds=1).label_sensitivity
    again = arm.simulate(
        arm.Sweep(experiment(InfiniteWidth(MLP(8, 2, "erf", "ntk", scale=0.5)), ran.task), {"model.scale": [0.5]}),
        seeds=1,
    )
    assert np.isclose(seen.isel(scale=0).item(), again.label_sensitivity.item()) and seen[0].item() != seen[1].item()


def experiment(model=None, task=None, rule=None, probes=None):
    return arm.Experiment(
        task or OnSphere(GaussianClasses(100, 80, test_samples=4)), model or InfiniteWidth(FiniteWidth(1.0, 0.0, 1.0, "sin")),
        rule or Solved(KernelRidge(definite=True)), probes or [LabelSensitivity(4)], arm.At((0,)), precision="float64",
    )  # fmt: skip


@pytest.mark.parametrize("layers", [(0.7, 0.4)])
def test_the_mean_over_labels_is_that_of_labels_drawn(layers):
    with jax.enable_x64(True):
        x, z = jnp.asarray(inputs(0, 20, 15)), jnp.asarray(inputs(1, 3, 15))
        kernel = FiniteWidth(60.0, layers[0], layers[1], "cos")(jax.random.key(0), 15, 1)
        y = np.random.default_rng(2).choice([-1.0, 1.0], size=(20, 4000))
        data = arm.tasks.Data(arm.tasks.Samples(x, jnp.asarray(y)), arm.tasks.Samples(z, jnp.zeros((3, 4000))))
        fitted: Any = KernelRidge().fit(GaussianClasses(15, 20), data, kernel, jax.random.key(0))
        seen = arm.probe(fitted, [LabelSensitivity(parts=True), InputSensitivity()], data=data)
        assert np.isclose(seen.label_sensitivity, seen.input_sensitivity / np.sqrt(4000), rtol=0.01)
        # Dense algebra, and the bounds by the kernel's extreme eigenvalues.
        gram = np.asarray(kernel(x, x))
        values = np.linalg.eigvalsh(gram)
        matrices = [by_differences(kernel, np.asarray(p), np.asarray(x)) for p in z]
        sizes = np.linalg.norm(z, axis=1)
        whole = [s * np.linalg.norm(i @ np.linalg.inv(gram)) for s, i in zip(sizes, matrices, strict=True)]
        assert np.isclose(seen.label_sensitivity, np.sqrt(np.mean(np.square(whole))), rtol=1e-6)
        norm = np.sqrt(np.mean([(s * np.linalg.norm(i)) ** 2 for s, i in zip(sizes, matrices, strict=True)]))
        assert np.isclose(seen.interaction_norm, norm, rtol=1e-6)
        np.testing.assert_allclose(
            [seen.kernel_smallest, seen.kernel_middle, seen.kernel_largest], [values[0], np.median(values), values[-1]]
        )
        assert (
            seen.interaction_norm / seen.kernel_largest
            <= seen.label_sensitivity
            <= seen.interaction_norm / seen.kernel_smallest
        )


def test_any_network_has_an_input_sensitivity():
    network = MLP(7, 2, "tanh")(jax.random.key(0), 5, 2)
    x = jnp.asarray(inputs(0, 4, 5), jnp.float32)
    first, second = (np.asarray(layer.weight, float) for layer in network.layers)
    jacobians = [second * (1 - np.tanh(first @ np.asarray(p, float)) ** 2) @ first for p in x[:3]]
    sizes = [np.linalg.norm(j) for j in jacobians]
    seen = arm.probe(network, [InputSensitivity(3, on="train")], data=(x, jnp.zeros((4, 2))))
    assert np.isclose(seen.input_gradient, np.sqrt(np.mean(np.square(sizes))), rtol=1e-5)
    both = np.array(sizes) * np.linalg.norm(x[:3], axis=1)
    assert np.isclose(seen.input_sensitivity, np.sqrt(np.mean(both**2)), rtol=1e-5)
    image = arm.probe(
        lambda x: jnp.sum(x**2)[None], [InputSensitivity(on="train")], data=(jnp.ones((2, 3, 3)), jnp.zeros((2, 1)))
    )
    assert np.isclose(image.input_sensitivity, 18.0)


@pytest.mark.parametrize("phi", ["tanh", "cos", "softplus"])
def test_the_kernel_on_the_sphere_is_that_of_gaussian_means(phi):
    """By Gauss-Hermite quadrature: coefficients of the activation are the kernel's derivatives at cosine 0."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    function = {"tanh": np.tanh, "cos": np.cos, "softplus": lambda h: np.logaddexp(h, 0)}[phi]
    c = [weights @ (function(nodes) * h) for h in (1, nodes, nodes**2 - 1)]
    whole = weights @ function(nodes) ** 2
    seen = sphere_kernel(FiniteWidth(1.0, 0.0, 1.0, phi), 30)
    np.testing.assert_allclose(seen, [c[1] ** 2, c[2] ** 2, whole - c[0] ** 2 - c[1] ** 2], atol=1e-6)
    scaled = sphere_kernel(FiniteWidth(1.0, 0.0, 1.0, "cos"), 30, radius=2.0)  # exp(-4) cosh(4 c)
    np.testing.assert_allclose(scaled, [0.0, 16 * np.exp(-4), np.exp(-4) * (np.cosh(4) - 1)], rtol=1e-9)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_closed_form_is_the_trace_over_a_large_matrix(ratio):
    d, samples = 500, round(500 * ratio)
    x = np.random.default_rng(0).normal(size=(samples, d)) / np.sqrt(d)
    values = np.linalg.eigvalsh(x @ x.T)
    kernel = SphereKernel(0.4, 0.3, 0.2)
    linear = samples * np.mean(kernel.linear**2 * values / (kernel.linear * values + 0.25) ** 2)
    degree = kernel.curvature**2 / d * np.sum((kernel.linear * values + 0.25) ** -2.0)
    assert np.isclose(kernel_sensitivity(kernel, samples, d, penalty=0.05) ** 2, linear + degree, rtol=0.01)
    # The integral by Gauss-Jacobi quadrature, whose weight has the root edges of the law.
    low, high = (np.sqrt(ratio) - 1) ** 2, (np.sqrt(ratio) + 1) ** 2
    u, w = roots_jacobi(400, 0.5, 0.5)
    node = (low + high) / 2 + (high - low) / 2 * u
    weight = w * ((high - low) / 2) ** 2 / (2 * np.pi * node)
    expected = d * kernel.linear**2 * (weight @ (node / (kernel.linear * node + 0.2) ** 2))
    assert np.isclose(kernel_sensitivity(SphereKernel(0.4, 0.0, 0.2), samples, d) ** 2, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("phi", "layers", "samples"),
    [("sin", (0.0, 1.0), 150), ("sin", (1.0, 0.0), 300), ("tanh", (0.5, 0.5), 100)],
)
def test_infinite_networks_are_as_sensitive_as_said(phi, layers, samples):
    ran = experiment(
        InfiniteWidth(FiniteWidth(1.0, layers[0], layers[1], phi)),
        OnSphere(GaussianClasses(150, samples, test_samples=4), radius=1.2),
    )
    said, seen = arm.predict(ran), arm.simulate(ran, seeds=3).label_sensitivity.mean().item()
    assert NAME in said.attrs["theories"] and np.isclose(seen, said.label_sensitivity.item(), rtol=0.05)


def test_the_bound_falls_with_the_parameters():
    np.testing.assert_allclose(universal_bound(80, 200, np.array([16_000.0, 160_000.0])), [1.0, 0.1**0.5])


def test_inputs_go_on_the_sphere_and_classes_are_chosen():
    data = OnSphere(GaussianClasses(30, 7, test_samples=5), radius=3.0).draw(jax.random.key(0))
    plain = GaussianClasses(30, 7, test_samples=5).draw(jax.random.key(0))
    lengths = np.linalg.norm(plain.test.inputs, axis=1, keepdims=True)
    np.testing.assert_allclose(data.test.inputs, 3 * plain.test.inputs / lengths, rtol=1e-5)
    np.testing.assert_array_equal(data.train.targets, plain.train.targets)
    for reshuffle in (False, True):
        two = Digits(200, "parity", standardise=False, classes=(0, 1), reshuffle=reshuffle).draw(jax.random.key(0))
        assert two.test.count == 160 and set(np.unique(two.train.targets)) == {-1.0, 1.0}
    whole, some = Digits(200).draw(jax.random.key(0)), Digits(20, classes=(3,)).draw(jax.random.key(0))
    assert whole.test.count == 1597 and set(np.unique(some.test.targets)) == {3}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": GaussianClasses(100, 80)}, "needs inputs on a sphere (OnSphere); this is GaussianClasses"),
        ({"task": OnSphere(LinearTeacher(100, 80))}, "needs uniform inputs with random labels (GaussianClasses); this is LinearTeacher"),
        ({"task": OnSphere(GaussianClasses(100, 80, "mean"))}, "needs random labels and whole inputs; labels are by mean"),
        ({"task": OnSphere(GaussianClasses(60, 40))}, "needs many inputs; there are 60 (at least 80)"),
        ({"task": OnSphere(GaussianClasses(100, 1000))}, "needs samples in proportion to inputs; samples over inputs^(3/2) is 1 (allowed 0.5)"),
        ({"model": FiniteWidth(100.0)}, "needs an infinitely wide network (InfiniteWidth); this is FiniteWidth"),
        ({"rule": Descent(steps=1)}, "needs a learner that is solved; this is Descent"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_reason(change, says):
    said = arm.predict(experiment(**change))
    assert "label_sensitivity" not in said and any(says in reason for reason in refusals(said)[NAME])


def mlp():
    return MLP(4)(jax.random.key(0), 4, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OnSphere(Digits(9), 0.0), "the radius is 0, but must be above 0"),
        (lambda: OnSphere(3), "the task is a int, but must be an armillary.tasks.Task"),
        (lambda: Digits(300, classes=(0,)), "the number of samples is 300, but must be at least 1 and at most 177 (one of the 178 is left to test)"),
        (lambda: Digits(9, classes=(0, 12)), "classes are (0, 12), but must be one or more of the digits 0 to 9"),
        (lambda: InfiniteWidth(FiniteWidth(), cast(Any, "mean")), "unknown kind of kernel 'mean' (all: nngp, ntk)"),
        (lambda: InfiniteWidth(LinearKernel())(jax.random.key(0), 3, 1).layers, None),
        (lambda: LabelSensitivity(0), "the number of samples is 0, but must be at least 1"),
        (lambda: InputSensitivity(on=cast(Any, "all")), "unknown part of the data 'all' (all: test, train)"),
        (lambda: arm.probe(mlp(), [InputSensitivity()], data=(jnp.ones((2, 4)), jnp.ones((2, 1)))), "InputSensitivity needs test samples; give them, or look on the other ones"),
        (lambda: arm.probe(mlp(), [LabelSensitivity(on="train")], data=(jnp.ones((2, 4)), jnp.ones((2, 1)))), "LabelSensitivity needs a fitted kernel (KernelRidge), not a MLPNetwork"),
        (lambda: kernel_sensitivity(SphereKernel(1.0, 0.0, 0.1), 0, 5), "the number of samples is 0, but must be above 0"),
        (lambda: universal_bound(5, 5, 0), "the number of parameters is 0, but must be above 0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert says is None or str(caught.value) == says
