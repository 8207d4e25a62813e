"""Layers' Hessians: Kronecker factors against dense ones, the product formula, and starts of chosen curvature."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armillary as arm
from armillary.clock import At
from armillary.curvature import dense, gauss_newton
from armillary.curvature.layers import batch_product, layer_factors, layer_norms
from armillary.errors import InvalidValue, ProbeError, UnknownName
from armillary.experiment import Experiment, Sweep
from armillary.models import MLP, DeepLinear
from armillary.models.curvature_control import CurvatureControlled, scale_changes, with_curvature
from armillary.models.variance_law import ThinnedNetwork, VarianceLawMLP, weight_variance
from armillary.prediction import refusals
from armillary.probes.layer_curvature import ChainRuleError, LayerCurvature, LayerHessian
from armillary.rules import SGD, Descent, Loss
from armillary.tasks import Digits, LinearTeacher, Samples
from armillary.theory.layer_curvature import activation_shares, equal_width_level, layer_traces

NAME = "layer curvature of random networks"
CLASSES = Loss("cross_entropy")


def drawn(key, model=None, samples=6, inputs=5, outputs=3):
    network = (model or VarianceLawMLP((6, 4), "tanh"))(key, inputs, outputs)
    x = jax.random.normal(jax.random.fold_in(key, 1), (samples, inputs), jnp.float32)
    return network, Samples(x, jnp.arange(samples) % outputs)


@eqx.filter_jit
def norms_of(network, samples, loss):
    return layer_norms(layer_factors(network, samples, loss)).norm


def test_the_chain_rule_gives_the_gauss_newton_block(key):
    network, samples = drawn(key, VarianceLawMLP((4,), "tanh"))

    @jax.jit
    def both():
        factors = layer_factors(network, samples, Loss("cross_entropy", "sum"))[0]
        block = dense(gauss_newton(CLASSES, network, samples, where=lambda n: n.layers[0].weight))
        return jax.vmap(lambda v: batch_product(factors, v))(jnp.eye(len(block))), block

    assert jnp.allclose(*both(), atol=1e-5)


def dense_blocks(network, samples, index):
    """Exact and Gauss-Newton blocks of each sample, [sample, weight, weight], by JAX's own dense derivatives."""
    where = lambda n: n.layers[index].weight
    weight = where(network)

    def one(x, target):
        outputs = lambda flat: eqx.tree_at(where, network, flat.reshape(weight.shape))(x)
        value = lambda f: CLASSES.per_sample(f[None], target[None])[0]
        jacobian = jax.jacobian(outputs)(weight.ravel())
        exact = jax.hessian(lambda flat: value(outputs(flat)))(weight.ravel())
        return exact, jacobian.T @ jax.hessian(value)(outputs(weight.ravel())) @ jacobian

    return [np.asarray(block) for block in jax.jit(jax.vmap(one))(samples.inputs, samples.targets)]


def test_probes_match_dense_blocks(key):
    network, samples = drawn(key, VarianceLawMLP((4,), "tanh"))
    probes = [LayerHessian((0,), tolerance=1e-4), ChainRuleError(), LayerCurvature(batch=True)]
    seen = arm.probes.probe(network, probes, data=samples, loss=CLASSES)
    norms = lambda blocks: np.abs(np.linalg.eigvalsh(blocks)).max(axis=-1)
    for index in range(2):
        exact, rule = dense_blocks(network, samples, index)
        assert np.isclose(seen.layer_curvature_norm[index], norms(rule).mean(), rtol=1e-4)
        assert np.isclose(seen.layer_curvature_trace[index], np.trace(rule, axis1=1, axis2=2).mean(), rtol=1e-4)
        assert np.isclose(seen.layer_curvature_batch[index], norms(rule.mean(axis=0)), rtol=1e-3)
        if index == 0:
            assert np.isclose(seen.layer_gauss_newton_norm[0], norms(rule.mean(axis=0)), rtol=1e-3)
            assert np.isclose(seen.layer_hessian_norm[0], norms(exact.mean(axis=0)), rtol=1e-3)
        errors = np.linalg.norm(rule - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
        assert np.isclose(seen.chain_rule_error[index], np.median(errors), rtol=1e-3, atol=1e-5)
        assert np.isclose(seen.chain_rule_ratio[index], norms(rule.mean(axis=0)) / norms(exact.mean(axis=0)), rtol=1e-3)
    assert abs(seen.chain_rule_ratio[1] - 1) < 1e-3  # outputs are linear in the last layer's weights
    assert (seen.layer_curvature_batch <= 1.001 * seen.layer_curvature_norm).all()


def test_the_rule_is_exact_for_relu(key):
    network, samples = drawn(key, VarianceLawMLP((4,)))
    seen = arm.probes.probe(network, [ChainRuleError()], data=samples, loss=CLASSES)
    assert seen.chain_rule_error.max() < 1e-5
    assert np.allclose(seen.chain_rule_ratio, 1.0, atol=1e-5)


def test_deep_and_foreign_networks_are_seen(key):
    deep, samples = drawn(key, MLP(4, 10, parametrisation="ntk"))
    assert len(deep.layers) > 9
    shallow = ThinnedNetwork(deep.layers, (jnp.ones(4, bool),) * 9, "relu")
    both = [norms_of(n, samples, CLASSES) for n in (deep, shallow)]
    assert both[0].shape == (10,) and jnp.allclose(*both, rtol=1e-5)
    other = eqx.nn.MLP(5, 3, 4, 2, key=key)
    assert arm.probes.probe(other, [LayerCurvature()], data=samples, loss=CLASSES).layer_curvature_norm.shape == (3,)


def relu_traces(sizes, variances, keep, draws, rng):
    """Mean traces over random networks with dropout masks, in plain NumPy, at |x|² = n_0."""
    total = np.zeros(len(variances))
    for _ in range(draws):
        z, signals, slopes, weights = np.ones(sizes[0]), [], [], []
        for i, o, c in zip(sizes, sizes[1:], variances, strict=False):
            signals.append(z @ z)
            weights.append(rng.normal(size=(o, i)) * np.sqrt(c))
            u = weights[-1] @ z
            slopes.append((u > 0) * (rng.random(o) < keep))
            z = u * slopes[-1]
        back = np.eye(sizes[-1])
        for k in reversed(range(len(weights))):
            total[k] += signals[k] * np.sum(back**2)
            back = back @ weights[k] * (slopes[k - 1] if k else 1.0)
    return total / draws


@pytest.mark.parametrize("balance, keep", [(0.0, 1.0), (0.5, 0.6), (1.0, 0.8)])
def test_the_product_formula_is_the_mean_of_plain_networks(balance, keep):
    sizes = [8, 24, 12, 4]
    variances = [1.3 * weight_variance(i, o, balance, 2.0) for i, o in itertools.pairwise(sizes)]
    seen = relu_traces(sizes, variances, keep, 4000, np.random.default_rng(0))
    assert np.allclose(seen, layer_traces(sizes, variances, 8.0, keep=keep), rtol=0.06)


def test_equal_widths_have_one_level():
    traces = layer_traces([64] * 10 + [10], [2 * 0.8**2 / 64] * 10, 64.0)
    assert np.allclose(traces, 640 * equal_width_level(0.8, 10))
    glorot = layer_traces([64, 256, 64, 256, 64, 10], [4 / 320] * 4 + [4 / 74], 64.0)
    assert (
        np.allclose(glorot[:4], glorot[0])
        and np.isclose(glorot[0], 1133.6, rtol=1e-3)
        and np.isclose(glorot[4], 262, rtol=2e-3)
    )


def test_shares_are_gaussian_means():
    from scipy.integrate import quad

    density = lambda u: np.exp(-(u**2) / 1.0) / np.sqrt(np.pi)  # variance 1/2
    forward, backward = activation_shares("tanh", 0.5)
    assert np.isclose(forward, 2 * quad(lambda u: np.tanh(u) ** 2 * density(u), -9, 9)[0], rtol=1e-6)
    assert np.isclose(backward, quad(lambda u: np.cosh(u) ** -4 * density(u), -9, 9)[0], rtol=1e-6)
    assert np.allclose(activation_shares("relu", 3.0), 0.5)


def experiment(model, **other):
    parts = {"task": Digits(16, "onehot", pooled=2), "rule": Descent(SGD(), 0), "probes": [LayerCurvature()], **other}
    return Experiment(parts["task"], model, parts["rule"], parts["probes"], At(parts.get("at", (0.0,))))


def test_theory_meets_simulation_with_dropout_and_laws():
    sweep = Sweep(experiment(VarianceLawMLP((32, 16), keep=0.7)), {"balance": [0.0, 1.0]})
    seen, said = (
        one.layer_curvature_trace.isel(time=0) for one in (arm.simulate(sweep, seeds=400), arm.predict(sweep))
    )
    assert np.allclose(seen.mean("seed"), said.transpose("balance", "layer"), rtol=0.15)
    models = (VarianceLawMLP((32, 16), keep=0.7, compensated=True), VarianceLawMLP((32, 16)))
    assert np.allclose(*(arm.predict(experiment(model)).layer_curvature_trace for model in models))
    same = [arm.predict(experiment(m)).layer_curvature_trace for m in (MLP(16, 3, gain=2.0), VarianceLawMLP((16, 16)))]
    assert np.allclose(*same)


@pytest.mark.parametrize(
    "model, other, words",
    [
        (VarianceLawMLP((8,), "tanh"), {}, "it is tanh"),
        (MLP(8, bias_variance=0.1), {}, "their variance is 0.1"),
        (MLP(8, parametrisation="ntk"), {}, "it is ntk"),
        (MLP(8, orthogonal=True), {}, "they are orthogonal"),
        (DeepLinear(), {}, "this is DeepLinear"),
        (MLP(8), {"rule": Descent(SGD(), 0, CLASSES)}, "the loss is cross_entropy"),
        (MLP(8), {"probes": []}, "it is not there"),
        (MLP(8), {"rule": Descent(SGD(), 5), "at": (0.0, 5.0)}, "is 5 (allowed 0)"),
        (MLP(8), {"task": LinearTeacher(4, 2)}, "those of LinearTeacher are drawn"),
    ],
)
def test_near_misses_are_refused(model, other, words):
    assert any(words in str(check) for check in refusals(arm.predict(experiment(model, **other)))[NAME])


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("loss", [Loss(), CLASSES])
def test_starts_get_the_curvature_asked_for(key, per_layer, loss):
    network, samples = drawn(key, VarianceLawMLP((12, 6, 9), scale=0.4))
    samples = samples if loss.kind == "cross_entropy" else Samples(samples.inputs, jax.nn.one_hot(samples.targets, 3))
    found = norms_of(with_curvature(network, samples, loss, 2.0, per_layer=per_layer), samples, loss)
    assert jnp.isclose(jnp.exp(jnp.mean(jnp.log(found))), 2.0, rtol=1e-3)
    assert not per_layer or jnp.allclose(found, 2.0, rtol=1e-3)


def test_controlled_models_forget_the_scale_they_were_drawn_with(key):
    _, samples = drawn(key)
    model = lambda scale: VarianceLawMLP((8, 8), scale=scale)
    draw = lambda scale: CurvatureControlled(model(scale), samples.inputs, samples.targets, CLASSES)(key, 5, 3)
    weight = lambda scale: draw(scale).layers[0].weight
    assert jnp.allclose(weight(0.3), weight(1.5), rtol=1e-3)
    assert jnp.allclose(scale_changes(jnp.array([4.0, 4.0]), per_layer=True), scale_changes(jnp.array([4.0, 4.0])))


def test_masks_are_kept_and_drop_signals(key):
    network = VarianceLawMLP((2000,), keep=0.3)(key, 4, 2)
    assert isinstance(network, ThinnedNetwork) and abs(network.kept[0].mean() - 0.3) < 0.04
    dead = eqx.tree_at(lambda n: n.kept, network, (jnp.zeros(2000, bool),))
    assert jnp.all(dead(jnp.ones(4)) == 0)


class Twice(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x):
        return self.layer(self.layer(x))


class Unused(eqx.Module):
    layer: eqx.nn.Linear
    other: eqx.nn.Linear

    def __call__(self, x):
        return self.layer(x)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_gets_one_line(key):
    network, samples = drawn(key)
    line = eqx.nn.Linear(5, 5, key=key)
    for wrong, words in (
        (Twice(line), "used twice"),
        (Unused(line, line), "only 1 of 2"),
        (eqx.nn.Lambda(jnp.tanh), "no linear layers"),
    ):
        with pytest.raises(ProbeError, match=words):
            arm.probes.probe(wrong, [LayerCurvature()], data=samples, loss=CLASSES)
    with pytest.raises(ProbeError, match="there are 3, from 0"):
        arm.probes.probe(network, [LayerHessian(layers=(3,))], data=samples, loss=CLASSES)
    with pytest.raises(ProbeError, match="at most 10 weights"):
        arm.probes.probe(network, [ChainRuleError(limit=10)], data=samples, loss=CLASSES)
    with pytest.raises(InvalidValue, match="two or more"):
        with_curvature(line, samples, CLASSES)
    with pytest.raises(InvalidValue, match="loss of single samples"):
        layer_factors(network, samples, jnp.sum)
    with pytest.raises(InvalidValue, match="2 variances for 3 layers"):
        layer_traces([2, 2, 2, 2], [1.0, 1.0], 1.0)
    with pytest.raises(InvalidValue, match="balance is 2"):
        VarianceLawMLP((4,), balance=2.0)
    with pytest.raises(InvalidValue, match="set keep"):
        VarianceLawMLP((4,), compensated=True)
    with pytest.raises(UnknownName, match="nearest"):
        VarianceLawMLP((4,), "rellu")
    with pytest.raises(InvalidValue, match="target norm is 0"):
        CurvatureControlled(MLP(4), samples.inputs, samples.targets, CLASSES, target=0.0)
