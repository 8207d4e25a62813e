"""Parametrisations, the curvature's learning rate and what is probed on the way, against slow second writings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import armillary as arm
from armillary.curvature import dense, gauss_newton
from armillary.models import MLP, learning_rate_scales, scales
from armillary.models.activations import Rectified
from armillary.probes import Losses
from armillary.probes.preactivations import PreactivationChange, Preactivations, preactivations
from armillary.probes.tangent_kernel import EmpiricalTangentKernel
from armillary.probes.weights import LearningRate, UpdateCosine
from armillary.rules import SGD, Adam, Descent, Loss, Optax
from armillary.rules.curvature_rate import CurvatureRate, scale_by_curvature
from armillary.tasks import Digits, FixedDesign, Samples
from armillary.theory import mean_field, rectified

ABS = Rectified(0.0, 1.0)


def of_one_step(name: str, width: int, depth: int, growth: float, adaptive: bool, seeds: int = 200):
    """What a unit step of each layer along the output's gradient changes: its own pre-activations, relatively, and the
    output to first order. Both [layer], typical of networks of absolute values; one input of 16 numbers ±1. Plain NumPy."""
    draw = np.random.default_rng(0)
    sizes = [16, *(round(width * k**growth) for k in range(1, depth)), 1]
    roles = ["input", *["hidden"] * (depth - 2), "output"]
    layers = [scales(r, role, i, o, width=width, depth=depth) for r, role, i, o in
              zip([name] * depth, roles, sizes, sizes[1:], strict=False)]  # fmt: skip
    relative, share = np.zeros((seeds, depth)), np.zeros((seeds, depth))
    for seed in range(seeds):
        inputs, seen, weights = [draw.choice([-1.0, 1.0], 16)], [], []
        for s, i, o in zip(layers, sizes, sizes[1:], strict=False):
            weights.append(s.deviation * draw.normal(size=(o, i)))
            seen.append(s.multiplier * weights[-1] @ inputs[-1])
            inputs.append(np.abs(seen[-1]))
        back = np.ones(1)
        for k in reversed(range(depth)):
            gradient = layers[k].multiplier * np.outer(back, inputs[k])
            update = layers[k].adaptive_rate * np.sign(gradient) if adaptive else layers[k].rate * gradient
            moved = layers[k].multiplier * update @ inputs[k]
            relative[seed, k] = np.linalg.norm(moved) / np.linalg.norm(seen[k])
            share[seed, k] = np.sum(update * gradient)
            back = layers[k].multiplier * weights[k].T @ back * (np.sign(seen[k - 1]) if k else 1.0)
    return np.median(relative, axis=0), np.mean(share, axis=0)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("name", "growth"), [("nup", 0.0), ("nup", 2.0), ("mup_ntk", 0.0), ("depth_mup", 0.0)])
def test_a_steps_changes_depend_on_width_and_depth_as_promised(name, growth, adaptive):
    """nup's four invariances: neither width nor depth enters what a step changes in a layer or, in total, in the output."""
    sizes = [(64, 3), (192, 3), (64, 6)]
    found = {(m, d): of_one_step(name, m if growth == 0 else m // 4, d, growth, adaptive) for m, d in sizes}
    (narrow, s_narrow), (wide, s_wide), (deep, s_deep) = (found[size] for size in sizes)
    by_depth = {"nup": (1.0, 1.0), "mup_ntk": (1.0, 2.0), "depth_mup": (0.5, 1.0)}[name]
    np.testing.assert_allclose(wide[:-1] / narrow[:-1], 1.0, atol=0.15)
    np.testing.assert_allclose(deep[:2] / narrow[:2], by_depth[0], rtol=0.15)
    np.testing.assert_allclose(s_wide.sum() / s_narrow.sum(), 1.0, atol=0.25)
    np.testing.assert_allclose(s_deep.sum() / s_narrow.sum(), by_depth[1], rtol=0.25)
    # Along the layers: k^(-growth/2), and equal shares. Signs of |z| have the mean sqrt(2/pi) of a Gaussian's length.
    k = np.arange(1, 6)
    size = {"nup": 1.0, "mup_ntk": 1.0, "depth_mup": 1 / 6}[name] * np.where(
        (k > 1) & adaptive, np.sqrt(2 / np.pi), 1.0
    )
    np.testing.assert_allclose(deep[:-1], size * k ** (-growth / 2), rtol=0.2)
    if not adaptive:
        np.testing.assert_allclose(s_wide, {"mup_ntk": 1.0}.get(name, 1 / 3), rtol=0.3)


def test_mup_in_either_form_learns_the_same_function():
    """With one input the two forms of muP are the same; with more, the input layer's rate differs by their number."""
    hidden, output = ({f: scales(f, role, 64, 64 if role == "hidden" else 3, width=64) for f in ("mup", "mup_ntk")}
                      for role in ("hidden", "output"))  # fmt: skip
    for found in (hidden, output):
        assert len({round(s.deviation * s.multiplier, 12) for s in found.values()}) == 1
        assert len({round(s.rate * s.multiplier**2, 12) for s in found.values()}) == 1
        assert len({round(s.adaptive_rate * s.multiplier, 12) for s in found.values()}) == 1
    first = [scales(f, "input", 16, 64, width=64) for f in ("mup", "mup_ntk")]
    assert np.isclose(first[0].rate * first[0].multiplier ** 2 / (first[1].rate * first[1].multiplier ** 2), 16)
    seen = []
    for name in ("mup", "mup_ntk"):
        model = MLP(32, 4, "tanh", name, bias=False)
        task = FixedDesign(np.linspace(-1, 1, 7)[:, None])
        seen.append(arm.simulate(arm.Experiment(task, model, Descent(SGD(0.3), 20), [Losses()]), seeds=2).train_loss)
    np.testing.assert_allclose(*seen, rtol=1e-4)
    assert float(seen[0][0, -1]) < 0.9 * float(seen[0][0, 0])


def test_depth_mup_is_mup_at_the_rate_over_the_depth():
    losses = []
    for name, rate in (("depth_mup", 1.0), ("mup_ntk", 0.2)):
        model = MLP(16, 5, ABS, name, bias=False)
        losses.append(
            arm.simulate(arm.Experiment(Digits(32, "onehot"), model, Descent(SGD(rate), 5), [Losses()])).train_loss
        )
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_widths_grow_with_the_layers_number(key):
    assert MLP(3, 5, parametrisation="nup").sizes(7, 2) == (7, 3, 12, 27, 48, 2)
    assert MLP(3, 4, growth=0.5).sizes(7, 2) == (7, 3, 4, 5, 2)
    network = eqx.filter_jit(MLP(3, 10, "tanh", "nup", growth=0.5))(key, 7, 2)
    h = np.ones(7)
    for number, layer in enumerate(network.layers):
        role = "input" if number == 0 else "output" if number == 9 else "hidden"
        said = scales("nup", role, *layer.weight.shape[::-1], width=3, depth=10)
        assert said[1:] == (layer.multiplier, layer.rate, layer.adaptive_rate)
        h = layer.multiplier * np.asarray(layer.weight) @ (np.tanh(h) if number else h) + np.asarray(layer.bias)
    np.testing.assert_allclose(eqx.filter_jit(network)(jnp.ones(7)), h, rtol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.3, -0.8)])
def test_rectifiers_keep_signals_and_gradients(a, b):
    z = np.random.default_rng(0).normal(size=400_000)
    phi = Rectified(a, b)
    assert np.isclose(np.mean(np.asarray(phi(jnp.asarray(z))) ** 2), 1.0, atol=0.01)
    assert np.isclose(np.mean(np.asarray(jax.vmap(jax.grad(phi))(jnp.asarray(z))) ** 2), 1.0, atol=0.01)
    assert np.isclose(mean_field.chi(phi, 1.0, 1.0), 1.0)
    assert rectified.share(a, b) == pytest.approx(b**2 / (a**2 + b**2))


def test_a_wide_networks_kernel_lengths_and_cosines_are_theorys():
    task = FixedDesign(np.eye(2, 16) * 4.0)
    model = MLP(256, 4, Rectified(1.0, 1.0), "ntk", bias=False)
    run = arm.Experiment(task, model, Descent(steps=0), [EmpiricalTangentKernel(2), Preactivations()], arm.At((0.0,)))
    seen = arm.simulate(run, seeds=16).isel(time=0)
    off = seen.tangent_kernel.isel(sample=0, other=1)
    assert abs(off.mean() - rectified.tangent_kernel(0.0, 4, 0.5)) < 3 * off.std() / 4
    np.testing.assert_allclose(
        seen.preactivation_cosine.mean("seed")[:3], rectified.correlations(0.0, 2, 0.5), atol=0.05
    )
    # Biases of a variance: the length map of mean field.
    model = MLP(256, 4, "tanh", "ntk", gain=1.5, bias_variance=0.3)
    seen = arm.simulate(arm.Experiment(task, model, Descent(steps=0), [Preactivations()], arm.At((0.0,))), seeds=16)
    length, expected = 1.0 * 1.5 + 0.3, []
    for _ in range(3):
        expected.append(length)
        length = mean_field.length_map("tanh", length, 1.5, 0.3)
    np.testing.assert_allclose(seen.preactivation_size.mean("seed")[0, :3], expected, rtol=0.05)


def test_the_kernel_is_the_jacobians(key):
    network = MLP(5, 3, "tanh", "mup")(key, 4, 2)
    samples = Samples(jax.random.normal(key, (3, 4)), jnp.zeros((3, 2)))
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    jacobian = jax.jit(jax.jacobian(lambda weights: jax.vmap(eqx.combine(weights, rest))(samples.inputs)))(trained)
    for own, rates in ((False, None), (True, learning_rate_scales(network, adaptive=False))):
        rates = jax.tree.map(lambda _: 1.0, trained) if rates is None else rates
        dense_one = sum(
            rate * np.einsum("ioab,joab->ij", *[np.asarray(leaf).reshape(3, 2, -1, 1)] * 2) / 2
            for leaf, rate in zip(jax.tree.leaves(jacobian), jax.tree.leaves(rates), strict=True)
        )
        found = arm.probe(network, [EmpiricalTangentKernel(own_metric=own)], data=samples).tangent_kernel
        np.testing.assert_allclose(found, dense_one, rtol=1e-4)


class _Weights(arm.probes.Probe):
    def __call__(self, now):
        return {
            f"weight_{i}": arm.Quantity(w, (f"out_{i}", f"in_{i}"))
            for i, w in enumerate(arm.models.matrices(now.network))
        }


@pytest.mark.parametrize("model", [MLP(6, 3, "tanh", "mup", bias=False), MLP(6, 10, "tanh", "mup_ntk", bias=False)])
def test_changes_and_cosines_are_those_of_plain_numpy(model):
    task = Digits(9, "onehot")
    probes = [PreactivationChange(), UpdateCosine(own_metric=True), _Weights()]
    run = arm.Experiment(task, model, Descent(SGD(0.2), 3), probes, arm.Evenly(4), "float64")
    seen = arm.simulate(run).isel(seed=0)
    with jax.enable_x64(True):
        process = run.draw(jax.random.key(0))
    layers = process.initial.layers
    weights = [[seen[f"weight_{i}"].values[t] for i in range(len(layers))] for t in range(4)]

    def activity(t):
        x, found = np.asarray(process.data.train.inputs, float), []
        for layer, w in zip(layers, weights[t], strict=True):
            found.append((np.tanh(x) if found else x) @ w.T * layer.multiplier)
            x = found[-1]
        return found

    relative = lambda a, b: [np.linalg.norm(p - q) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(seen.preactivation_change[3], relative(activity(3), activity(2)), rtol=1e-8)
    np.testing.assert_allclose(seen.preactivation_drift[3], relative(activity(3), activity(0)), rtol=1e-8)
    assert np.isnan(seen.preactivation_change[0]).all()
    flat = lambda t, s: np.concatenate([(a - b).ravel() / np.sqrt(layer.rate)
                                        for a, b, layer in zip(weights[t], weights[s], layers, strict=True)])  # fmt: skip
    u, c = flat(3, 2), flat(2, 0)
    assert np.isclose(seen.global_update_cosine[3], u @ c / np.linalg.norm(u) / np.linalg.norm(c), rtol=1e-8)


class _Twice(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x):
        return self.layer(self.layer(x))


class _Looped(eqx.Module):
    layers: eqx.nn.Linear

    def __call__(self, x):
        arrays, rest = eqx.partition(self.layers, eqx.is_array)
        return lax.scan(lambda h, layer: (eqx.combine(layer, rest)(h), None), x, arrays)[0]


def test_layers_of_any_module_are_found_where_they_can_be(key):
    network = eqx.nn.MLP(4, 2, 5, 2, activation=jnp.tanh, key=key)
    x = jax.random.normal(key, (3, 4))
    seen, h = preactivations(network, x), x
    for found, layer in zip(seen, network.layers, strict=True):
        h = jax.vmap(layer)(h)
        np.testing.assert_allclose(found, h, rtol=1e-6)
        h = jnp.tanh(h)
    square = lambda k: eqx.nn.Linear(4, 4, key=k)
    for foreign, says in (
        (_Twice(square(key)), "Preactivations needs layers that are used once; 1 layers were used 2 times"),
        (_Looped(eqx.filter_vmap(square)(jax.random.split(key, 3))), "Preactivations cannot see layers inside a compiled loop"),
        (eqx.nn.LayerNorm(4), "Preactivations needs linear layers (Dense or equinox.nn.Linear); a LayerNorm has none"),
    ):  # fmt: skip
        with pytest.raises(arm.ArmillaryError) as caught:
            arm.probe(foreign, [Preactivations()], data=(x, jnp.zeros((3, 2))))
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_rate_is_the_constant_over_the_dense_curvature():
    task, model = Digits(20, "onehot"), MLP(4, 3, ABS, "nup", growth=1.0, bias=False)
    rule = Descent(CurvatureRate(0.7, products=30), 6)
    run = arm.Experiment(task, model, rule, [LearningRate(), _Weights(), Losses()], arm.Evenly(7), "float64")
    seen = arm.simulate(run).isel(seed=0)
    with jax.enable_x64(True):
        process = run.draw(jax.random.key(0))
        for t in (0, 5):
            weights = [jnp.asarray(seen[f"weight_{i}"].values[t]) for i in range(3)]
            network = eqx.tree_at(lambda n: [layer.weight for layer in n.layers], process.initial, weights)
            matrix = dense(gauss_newton(Loss(), network, process.data.train, own_metric=True))
            largest = np.linalg.eigvalsh(np.asarray(matrix))[-1]
            assert np.isclose(seen.rate_curvature[t + 1], largest, rtol=2e-3)
            assert np.isclose(seen.learning_rate[t + 1], 0.7 / seen.rate_curvature[t + 1], rtol=1e-12)
            gradient = eqx.filter_jit(eqx.filter_grad(Loss()))(network, process.data.train)
            for i, layer in enumerate(network.layers):
                moved = weights[i] - float(seen.learning_rate[t + 1]) * layer.rate * gradient.layers[i].weight
                np.testing.assert_allclose(moved, seen[f"weight_{i}"].values[t + 1], rtol=1e-8, atol=1e-12)
    assert np.isnan(seen.learning_rate[0])


def test_power_iterations_are_plain_ones_warm_started():
    draw = np.random.default_rng(0)
    root = draw.normal(size=(5, 5))
    matrix = root @ root.T
    rule = scale_by_curvature(1.5, products=2, first=4)
    w = jnp.asarray(draw.normal(size=5), jnp.float32)
    state = rule.init(w)
    v = np.asarray(state.direction, float)
    for step in range(4):
        updates, state = rule.update(w, state, w, curvature=lambda u: jnp.asarray(matrix, jnp.float32) @ u)
        for _ in range(4 if step == 0 else 2):
            size = np.linalg.norm(matrix @ v)
            v = matrix @ v / size
        assert np.isclose(state.curvature, size, rtol=1e-4) and size <= np.linalg.eigvalsh(matrix)[-1] * (1 + 1e-9)
        np.testing.assert_allclose(updates, 1.5 / size * w, rtol=1e-4)


def test_a_loop_of_ones_own_may_hand_over_network_loss_and_samples(key):
    network, data = MLP(6, 3, "tanh")(key, 64, 10), Digits(30, "onehot").draw(key).train
    loss, steps = Loss(), optax.chain(scale_by_curvature(1.0), optax.trace(0.5), optax.scale(-1.0))
    state = steps.init(arm.models.parameters(network))

    @eqx.filter_jit
    def step(network, state):
        value, gradient = eqx.filter_value_and_grad(loss)(network, data)
        given = {"network": network, "loss": loss, "samples": data, "value": value}
        updates, state = steps.update(gradient, state, arm.models.parameters(network), **given)
        return eqx.apply_updates(network, updates), state

    before = float(loss(network, data))
    for _ in range(20):
        network, state = step(network, state)
    assert float(loss(network, data)) < before / 2


@pytest.mark.parametrize(("given", "rates"), [
    ({"every": None}, [0.1, 0.1, 0.1, 0.1]), ({"every": 2}, [0.1, 0.1, 0.1 / 3, 0.1 / 3]),
    ({"every": 1, "cap": 0.04}, [0.04, 0.04, 0.1 / 3, 0.025]), ({"every": 1, "stop": 2.5}, [0.1, 0.05, 0.1 / 3, 0.0])])  # fmt: skip
def test_the_rate_is_kept_capped_and_stopped(given, rates):
    rule, w = scale_by_curvature(1.0, **given), jnp.ones(1)
    state, seen = rule.init(w), []
    for t in range(4):
        _, state = rule.update(w, state, w, curvature=lambda v, t=t: 10.0 * (t + 1) * v, value=jnp.asarray(5.0 - t))
        seen.append(float(state.learning_rate))
    np.testing.assert_allclose(seen, rates, rtol=1e-5)


def test_optimisers_that_listen_are_told_what_optax_promises():
    """optax's line search asks for the value, the gradient and the function; plateaus for the value."""
    run = lambda optimiser: arm.Experiment(Digits(30, "onehot"), MLP(6), Descent(optimiser, 15), [Losses()])
    searched = arm.simulate(run(Optax(optax.lbfgs, {}))).train_loss
    assert np.isfinite(searched).all() and float(searched[0, -1]) < 0.2 * float(searched[0, 0])
    plain = arm.simulate(run(SGD(0.1))).train_loss
    injected = Optax(optax.inject_hyperparams(optax.sgd), {"learning_rate": 0.1}, adaptive=False)
    told = arm.simulate(eqx.tree_at(lambda e: e.probes, run(injected), (Losses(), LearningRate())))
    np.testing.assert_allclose(plain, told.train_loss, rtol=1e-5)
    assert np.allclose(told.learning_rate[:, 1:], 0.1)


def test_catapults_go_on_and_the_run_still_converges():
    """A rate of 3/λ that follows the curvature trains; fixed at the start, 5/λ diverges."""
    task, model = Digits(64, "onehot"), MLP(8, 3, ABS, "nup", growth=1.0, bias=False)
    run = lambda rule: arm.simulate(arm.Experiment(task, model, Descent(rule, 60), [Losses(), LearningRate()]), seeds=2)
    fixed, followed = run(CurvatureRate(5.0, every=None)), run(CurvatureRate(3.0))
    assert fixed.diverged_at.notnull().all() and followed.diverged_at.isnull().all()
    kept = (followed.learning_rate * followed.rate_curvature).isel(time=slice(1, None))
    np.testing.assert_allclose(kept, 3.0, rtol=1e-5)
    assert (followed.train_loss.isel(time=-1) < 0.5 * followed.train_loss.isel(time=0)).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MLP(parametrisation="nupp"), "unknown parametrisation 'nupp'; nearest: nup, mup"),
        (lambda: MLP(growth=-1.0), "growth is -1, but must be at least 0 and at most 8"),
        (lambda: MLP(bias=False, bias_variance=0.1), "bias_variance is given, but there are no biases; set bias=True"),
        (lambda: scales("nup", "hidden", 4, 4, depth=0), "depth is 0, but must be at least 1"),
        (lambda: Rectified(0.0, 0.0), "a and b are both 0, but one of them must not be: the activation would be 0"),
        (lambda: CurvatureRate(-1.0), "the constant is -1, but must be at least 0"),
        (lambda: CurvatureRate(every=0), "every is 0, but must be at least 1"),
        (lambda: EmpiricalTangentKernel(0), "the number of samples is 0, but must be at least 1"),
        (lambda: scale_by_curvature().update(jnp.ones(1), scale_by_curvature().init(jnp.ones(1))),
         "scale_by_curvature knows no curvature: pass update(..., curvature=product), or network=, loss= and samples="),
        (lambda: arm.probe(MLP(3)(jax.random.key(0), 2, 1), [LearningRate()]), "LearningRate needs an optimiser that remembers its rate"),
        (lambda: arm.probe(MLP(3)(jax.random.key(0), 2, 1), [PreactivationChange()]), "PreactivationChange needs the last update"),
        (lambda: arm.probe(eqx.nn.Identity(), [EmpiricalTangentKernel()], data=(jnp.ones((1, 2)), jnp.ones((1, 2)))),
         "EmpiricalTangentKernel needs trainable weights; a Identity has none"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_adam_sees_the_adaptive_rates():
    """Signs of gradients, as Adam's first step has them, change features by as much at any width."""
    moved = []
    for width, depth in ((16, 3), (64, 3), (16, 5)):
        model = MLP(width, depth, ABS, "nup", growth=0.0, bias=False)
        run = arm.Experiment(Digits(4, "onehot"), model, Descent(Adam(1e-3), 1), [PreactivationChange()], arm.Evenly(2))
        moved.append(float(arm.simulate(run, seeds=16).preactivation_change.isel(time=1, layer=0).mean()))
    assert max(moved) / min(moved) < 1.3
