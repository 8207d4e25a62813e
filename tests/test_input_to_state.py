"""Disturbed gradient flow of two linear layers: closure, gain and equilibria against plain NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import armillary as arm
from armillary.models import MLP, Decoupled, DeepLinear, Gaussian, LinearChain
from armillary.prediction import refusals
from armillary.probes.conserved import ConservedQuantities, SaddleCoordinates, Stationarity
from armillary.rules import GradientFlow, Loss
from armillary.rules.disturbed_flow import Constant, DisturbedFlow, Opposing, Sinusoidal, Trapping
from armillary.tasks import Correlations
from armillary.theory.input_to_state import critical_amplitude, equilibria, error_bound, saddle_flow

PROBES = [arm.probes.Losses(), SaddleCoordinates(), ConservedQuantities()]


def weights_flow(k1, k2, target, until, push):
    """(k1, k2) after `until` under a disturbance push(time, velocity), written plainly."""
    width = len(k1)

    def velocity(t, k):
        error = target - k[:width] @ k[width:]
        free = error * np.concatenate([k[width:], k[:width]])
        return free + push(t, free)

    return solve_ivp(velocity, (0, until), np.concatenate([k1, k2]), rtol=1e-9, atol=1e-12).y[:, -1]


def opposing(amplitude):
    return lambda t, free: -free * min(1.0, amplitude / max(np.linalg.norm(free), 1e-300))


def trapping(amplitude, sign=1.0):
    def push(t, free):
        first, last = np.split(free, 2)
        growth = (first + sign * last) / 2
        return opposing(amplitude)(t, np.concatenate([growth, sign * growth]))

    return push


@given(p=st.floats(0.05, 2.0), q=st.floats(0.0, 2.0), u=st.floats(0.0, 1.0), growth=st.booleans())
def test_the_closure_is_the_flow_of_the_weights(p, q, u, growth):
    rng = np.random.default_rng(0)
    one, two = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    k1, k2 = (p * one + q * two) / np.sqrt(2), (p * one - q * two) / np.sqrt(2)
    end = weights_flow(k1, k2, 2.0, 3.0, trapping(u) if growth else opposing(u))
    said = saddle_flow(np.array([0.0, 3.0]), 2.0, p, q, u, "growth" if growth else "all")
    found = [np.linalg.norm(end[:3] + s * end[3:]) / np.sqrt(2) for s in (1, -1)]
    np.testing.assert_allclose([norm[-1] for norm in said], found, rtol=1e-4, atol=1e-5)


@given(target=st.floats(0.2, 5.0), share=st.floats(0.01, 0.99))
def test_the_bound_solves_its_equation_and_tends_to_the_gain(target, share):
    amplitude = share * critical_amplitude(target)
    bound = error_bound(amplitude, target)
    assert np.isclose(bound * np.sqrt(2 * (target - bound)), amplitude, rtol=1e-9) and bound <= 2 * target / 3
    assert bound >= error_bound(amplitude, target, linear=True)
    assert np.isclose(error_bound(1e-6, target), error_bound(1e-6, target, linear=True), rtol=1e-4)
    assert error_bound(1.01 * critical_amplitude(target), target) == float("inf")


@given(seed=st.integers(0, 200), u=st.floats(0.02, 0.9), swing=st.floats(0.0, 3.0), width=st.integers(1, 4))
def test_no_disturbance_leads_out_of_the_bound(seed, u, swing, width):
    """From the good region (e < 2 s/3) the error ends within the exact bound, whatever direction is pushed."""
    rng = np.random.default_rng(seed)
    k1 = rng.normal(size=width)
    k1 *= np.sqrt(1.5) / np.linalg.norm(k1)
    direction = rng.normal(size=2 * width)
    direction /= np.linalg.norm(direction)
    end = weights_flow(k1, k1, 2.0, 12.0, lambda t, free: u * np.cos(swing * t) * direction)
    assert abs(2.0 - end[:width] @ end[width:]) <= error_bound(u, 2.0) * 1.001


def scalar(rule, model=None, target=2.0):
    model = DeepLinear(width=2, initialisation=Gaussian(0.7, per_entry=True)) if model is None else model
    return arm.Experiment(
        Correlations(jnp.eye(1), jnp.full((1, 1), target)), model, rule, PROBES, arm.Evenly(11), "float64"
    )


@pytest.mark.parametrize("target", [2.0, -2.0])
@pytest.mark.parametrize("kind", [Opposing, Trapping])
def test_simulated_adversaries_do_what_a_plain_loop_does(kind, target):
    sign = np.sign(target)
    disturbance = Trapping(sign) if kind is Trapping else Opposing()
    experiment = scalar(DisturbedFlow(2.0, 0.3, disturbance, tolerance=1e-9), target=target)
    seen = arm.simulate(experiment).isel(seed=0, time=-1)
    start = experiment_start(experiment)
    push = trapping(0.3, sign) if kind is Trapping else opposing(0.3)
    end = weights_flow(*start, target, 2.0, push)
    assert np.isclose(seen.target_error, (target - end[:2] @ end[2:]) * sign, atol=1e-6)
    assert np.isclose(seen.weight_size, np.linalg.norm(end), atol=1e-6)


def experiment_start(experiment):
    """The initial weights of the first member, read off a run of no length."""

    class Weights(arm.probes.Probe):
        def __call__(self, now):
            first, last = now.network.weights
            return {"k": arm.Quantity(jnp.stack([first[:, 0], last[0]]), ("layer", "unit"))}

    begin = arm.Experiment(experiment.task, experiment.model, GradientFlow(0.0), [Weights()], arm.At((0.0,)), "float64")
    return arm.simulate(begin).k.values[0, 0]


def test_a_push_has_its_amplitude_and_its_wave():
    """With a target that the weights are at rest on, the first moments of a run are the disturbance alone."""
    for disturbance, wave in ((Constant(), 1.0), (Sinusoidal(2.0), np.sin(2.0 * 1e-3) / 2e-3)):
        rule = DisturbedFlow(1e-3, 0.5, disturbance, tolerance=1e-10)
        model = DeepLinear(width=2, initialisation=Decoupled(jnp.ones((1, 1)), 2.0))
        probes = [arm.probes.DistanceFromInitialisation()]
        task = Correlations(jnp.eye(1), jnp.full((1, 1), 2.0))
        seen = arm.simulate(arm.Experiment(task, model, rule, probes, arm.Evenly(2), "float64"), seeds=3)
        moved = seen.parameter_distance.isel(time=-1).values * 2.0  # the start has |k1|² + |k2|² = 4
        np.testing.assert_allclose(moved, 0.5 * 1e-3 * wave, rtol=5e-3)


@pytest.mark.parametrize("kind", [Constant(), Sinusoidal(), Opposing(), Trapping()])
def test_no_amplitude_is_plain_gradient_flow(kind):
    plain = arm.simulate(scalar(GradientFlow(2.0, tolerance=1e-9)))
    same = arm.simulate(scalar(DisturbedFlow(2.0, 0.0, kind, tolerance=1e-9)))
    np.testing.assert_allclose(same.train_loss, plain.train_loss, atol=1e-9)


def test_undisturbed_flow_conserves_and_disturbed_flow_does_not():
    free, pushed = (arm.simulate(scalar(DisturbedFlow(5.0, u, tolerance=1e-10)), seeds=3) for u in (0.0, 0.5))
    assert free.balance_drift.max() < 1e-8 and pushed.balance_drift.isel(time=-1).min() > 1e-3
    np.testing.assert_allclose(
        free.norm_product, free.norm_product.isel(time=[0]).values + 0 * free.norm_product, atol=1e-8
    )


@given(seed=st.integers(0, 1000))
def test_the_distance_to_the_minimisers_is_the_smallest_one(seed):
    rng = np.random.default_rng(seed)
    k1, k2 = rng.normal(size=(2, 2)) * 1.5
    network = LinearChain((jnp.asarray(k1)[None, :, None], jnp.asarray(k2)[None, None, :]))
    seen = arm.probe(network, [SaddleCoordinates()], data=(jnp.ones((1, 1)), jnp.full((1, 1), 2.0)))
    a, b = float(seen.growing_norm), float(seen.decaying_norm)
    other = np.linspace(0, 10, 200_001)
    assert np.isclose(seen.distance_to_minimisers, np.hypot(a - np.sqrt(4 + other**2), b - other).min(), atol=2e-4)
    assert np.isclose(seen.target_error, 2.0 - k1 @ k2, atol=1e-5)


def test_the_distance_is_right_on_the_saddles_stable_manifold():
    network = LinearChain((jnp.ones((1, 1, 1)), -jnp.ones((1, 1, 1))))  # p = 0, q = sqrt(2): b' = b/2
    seen = arm.probe(network, [SaddleCoordinates()], data=(jnp.ones((1, 1)), jnp.full((1, 1), 2.0)))
    assert np.isclose(seen.distance_to_minimisers, np.sqrt(4 + 0.5 + 0.5), atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs", "width"), [(2, 2, 3), (3, 2, 2), (2, 3, 1)])
def test_enumerated_equilibria_have_no_gradient_and_these_hessians(inputs, outputs, width):
    strengths = (2.0, 1.0)
    target = np.zeros((outputs, inputs))
    np.fill_diagonal(target, strengths)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, width)))[0]
    for one in equilibria(strengths, width, inputs=inputs, outputs=outputs):
        w1, w2 = np.zeros((width, inputs)), np.zeros((outputs, width))
        for slot, i in enumerate(one.kept):
            w1[slot, i] = w2[i, slot] = np.sqrt(strengths[i])
        with jax.enable_x64(True):
            network = LinearChain((jnp.asarray(turn @ w1)[None], jnp.asarray(w2 @ turn.T)[None]))
            x = np.sqrt(inputs) * np.eye(inputs)
            seen = arm.probe(
                network, [Stationarity(), arm.probes.Losses()], data=(jnp.asarray(x), jnp.asarray(x @ target.T))
            )
        assert float(seen.gradient_norm.values) < 1e-12 and np.isclose(seen.train_loss.values, one.loss)
        np.testing.assert_allclose(seen.hessian_eigenvalues.values, one.eigenvalues, atol=1e-10)
        rank = min(width, 2)
        assert one.is_strict_saddle == (one.kept != tuple(range(rank)))


def aligned(**change):
    start = Decoupled(jnp.ones((1, 1)), 0.02, 1.5)
    parts = {
        "model": DeepLinear(width=3, initialisation=start),
        "rule": DisturbedFlow(6.0, 0.05, Opposing(), tolerance=1e-9),
    }
    parts = {"task": Correlations(jnp.eye(1), jnp.full((1, 1), 2.0)), **parts, **change}
    return arm.Experiment(**parts, probes=PROBES, precision="float64")


@pytest.mark.parametrize("kind", [Opposing(), Trapping()])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_predict_follows_adversaries_from_either_side(kind, side):
    model = DeepLinear(width=3, initialisation=Decoupled(jnp.full((1, 1), side), 0.02, 1.5))
    experiment = aligned(model=model, rule=DisturbedFlow(6.0, 0.05, kind, tolerance=1e-9))
    found = arm.compare(arm.simulate(experiment), arm.predict(experiment))
    assert found.relative["train_loss"] < 1e-5 and found.relative["weight_size"] < 1e-5


def test_predict_answers_sweeps_over_the_amplitude():
    sweep = arm.Sweep(aligned(), {"amplitude": [0.0, 0.05, 0.5]})
    found = arm.compare(arm.simulate(sweep), arm.predict(sweep))
    assert found.difference.train_loss.sizes["amplitude"] == 3 and found.relative["train_loss"] < 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rule": GradientFlow()}, "needs gradient flow with a disturbance; this is GradientFlow"),
        ({"rule": DisturbedFlow(5.0, 0.1)}, "the amplitude of Constant is 0.1 (allowed 0)"),
        ({"rule": DisturbedFlow(5.0, 0.1, Trapping(-1.0))}, "needs an adversary of the target's sign"),
        ({"rule": DisturbedFlow(5.0, 0.1, Opposing(), Loss("hinge"))}, "needs the squared error; the loss is hinge"),
        ({"model": MLP()}, "needs a deep linear network; this is MLP"),
        ({"model": DeepLinear(depth=3, initialisation=Decoupled(jnp.ones((1, 1))))}, "needs two layers"),
        ({"model": DeepLinear()}, "needs decoupled initial weights; this is Gaussian"),
        ({"task": Correlations(1.5 * jnp.eye(1), jnp.ones((1, 1)))}, "the variance's distance from 1 is 0.5 (allowed 1e-06)"),
        ({"task": Correlations(jnp.eye(2), jnp.eye(2))}, "the larger of their numbers is 2 (allowed 1)"),
    ],
)  # fmt: skip
def test_a_near_miss_is_refused_with_its_amount(change, says):
    said = arm.predict(aligned(**change), theory="disturbed scalar flow")
    assert not len(said) and any(says in reason for reason in refusals(said)["disturbed scalar flow"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: DisturbedFlow(amplitude=-0.1), "amplitude is -0.1, but must be at least 0"),
        (lambda: DisturbedFlow(disturbance="noise"), "the disturbance is a str, but must be a Constant"),
        (lambda: DisturbedFlow(until=-1.0), "until is -1"),
        (lambda: Sinusoidal(-1.0), "frequency is -1"),
        (lambda: Trapping(0.5), "the target's sign is 0.5, but must be at least 1"),
        (lambda: arm.simulate(arm.Experiment(arm.tasks.Digits(20), MLP(4), DisturbedFlow(disturbance=Trapping()))),
         "Trapping needs two linear layers with one input and one output, not this MLPNetwork"),
        (lambda: arm.simulate(scalar(DisturbedFlow(1.0), DeepLinear(depth=3))), "needs two weight matrices"),
        (lambda: equilibria((1.0,), 0), "a width of at least 1"),
        (lambda: error_bound(-1.0, 1.0), "amplitude is -1"),
        (lambda: critical_amplitude(0.0), "the target's size is 0, but must be above 0"),
        (lambda: arm.probe(DeepLinear()(jax.random.key(0), 2, 2), [SaddleCoordinates()]), "this network has 2 and 2"),
        (lambda: arm.probe(DeepLinear()(jax.random.key(0), 2, 2), [ConservedQuantities()]), "needs the network before"),
        (lambda: arm.probe(DeepLinear(width=40)(jax.random.key(0), 20, 2), [Stationarity()], data=(jnp.ones((1, 20)), jnp.ones((1, 2)))),
         "takes at most 500 weights, and this network has 880"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(wrong, says, unchecked):
    with pytest.raises(arm.ArmillaryError) as caught:
        wrong()
    assert says in str(caught.value) and "\n" not in str(caught.value)
