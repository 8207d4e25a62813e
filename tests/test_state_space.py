"""State-space layers: sequences, models, probes and theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import armillary as arm
from armillary.models import MLP, Decoupled, Gaussian
from armillary.models.state_space import EqualEntries, StateSpace, StateSpaceStack, filtered
from armillary.prediction import refusals
from armillary.probes import Losses, ModeStrength
from armillary.probes.state_space import StateSpaceFactors, StateSpaceStatistics, StateSpaceWeights
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss, MiniBatch
from armillary.tasks.sequences import DigitRows, FilteredNoise
from armillary.theory import state_space as law
from armillary.theory.state_space_training import problem_data

WEIGHTS, MODES, STACK = "state-space weights", "state-space modes", "state-space stack"
EYE = ((1.5, 0.0), (0.0, 0.5))


def plain(inputs, poles, rows, columns, periodic):
    """The layer in plain NumPy: many repetitions of the input stand for its steady state."""
    state, out = np.zeros(len(poles)), []
    for u in np.concatenate([inputs] * (60 if periodic else 1)):
        state = poles * state + rows @ u
        out.append(columns @ state)
    return np.array(out[-len(inputs) :])


@pytest.mark.parametrize(("seed", "periodic", "tied"), [(0, False, False), (1, True, False), (2, True, True)])
def test_a_layer_is_the_recurrence_written_out(seed, periodic, tied):
    draw = np.random.default_rng(seed)
    poles = tuple(draw.uniform(-0.9, 0.9, 2).tolist())
    with jax.enable_x64(True):
        model = StateSpace(poles, Gaussian(), copies=2, capacity=3, tied=tied, periodic=periodic)
        layer = model(jax.random.key(seed), 2, 3)
        inputs = draw.normal(size=(11, 2))
        rows, columns = (np.asarray(w) for w in layer.weights)
        expected = plain(inputs, np.repeat(poles, 3), rows, columns, periodic)
        np.testing.assert_allclose(eqx.filter_jit(layer)(jnp.asarray(inputs)), expected, atol=1e-10)
        np.testing.assert_allclose(layer.matrix, columns @ rows, atol=1e-12)
    assert (columns[:, [2, 5]] == 0).all()  # the third copy of each pole is not there
    assert tied == bool(np.allclose(columns[:, 0], columns[:, 1]))


def test_layers_in_series_filter_one_after_another():
    with jax.enable_x64(True):
        model = StateSpaceStack((StateSpace((0.5,), Gaussian(), copies=3), StateSpace((-0.4,), Gaussian())), width=2)
        network = model(jax.random.key(0), 1, 2)
        u = np.random.default_rng(0).normal(size=(9, 1))
        first, last = network.layers
        between = plain(u, np.full(3, 0.5), *map(np.asarray, first.weights), periodic=True)
        out = plain(between, np.array([-0.4]), *map(np.asarray, last.weights), periodic=True)
        np.testing.assert_allclose(eqx.filter_jit(network)(jnp.asarray(u)), out, atol=1e-10)
        np.testing.assert_allclose(
            eqx.filter_jit(type(network).responses)(network, jnp.asarray(u))[:, 0] @ network.matrix.T, out, atol=1e-10
        )


def test_periodic_input_is_shifted_with_its_output():
    u = jax.random.normal(jax.random.key(0), (16, 3))
    poles = jnp.array([0.9, -0.3, 0.0])
    np.testing.assert_allclose(
        filtered(jnp.roll(u, 5, axis=0), poles, periodic=True),
        jnp.roll(filtered(u, poles, periodic=True), 5, axis=0), atol=1e-5)  # fmt: skip


def test_spectra_have_the_slope_and_the_power_asked_for():
    for slope in (-2.0, 0.0, 1.0):
        u = problem_data(FilteredNoise(sequences=4000, length=64, slope=slope, problem=1.0))[0][:, :, 0]
        power = (np.abs(np.fft.rfft(u, axis=1)) ** 2).mean(axis=0) / 64
        assert np.isclose(np.mean(np.square(u)), 1.0, rtol=0.03)
        assert np.isclose(np.polyfit(np.log(np.arange(1, 32)), np.log(power[1:32]), 1)[0], slope, atol=0.05)
    odd, _ = problem_data(FilteredNoise(sequences=2000, length=33, slope=1.0, problem=1.0))
    assert np.isclose(np.mean(np.square(odd)), 1.0, rtol=0.03)


def test_targets_are_the_teachers_responses_in_a_row_or_side_by_side():
    for cascade, weights in ((True, (1.2,)), (False, (1.0, -0.7))):
        task = FilteredNoise((0.3, 0.6), weights, cascade=cascade, sequences=3, length=12, problem=1.0)
        one = lambda u, a: plain(u, np.array([a]), np.eye(1), np.eye(1), True)
        for u, y in zip(*problem_data(task), strict=True):
            beside = weights[0] * one(u, 0.3) + weights[-1] * one(u, 0.6)
            np.testing.assert_allclose(y, 1.2 * one(one(u, 0.3), 0.6) if cascade else beside, atol=1e-10)
    draw = jax.jit(lambda key: (task.draw(key), task.sample(task.draw(key), key, 7)))
    (again, fresh), (other, _) = (draw(jax.random.key(k)) for k in (3, 4))
    np.testing.assert_array_equal(again.train.inputs, other.train.inputs)  # numbered: no key matters
    assert fresh.targets.shape == (7, 12, 1)


def test_the_loss_averages_over_sequences_and_times_and_adds_channels():
    network = StateSpace((0.0,), EqualEntries(0.0, 1.0))(jax.random.key(0), 1, 2)
    samples = arm.tasks.Samples(jnp.ones((3, 5, 1)), 2.0 * jnp.ones((3, 5, 2)))
    assert Loss()(network, samples) == 4.0


def drawn(**changes):
    task = FilteredNoise((0.3, 0.9), (1.0, -0.7), sequences=4, length=30, problem=0.0, **changes)
    return problem_data(task)


def test_statistics_are_the_same_in_time_and_in_frequency():
    inputs, targets = drawn(slope=-1.0)
    poles = np.array([0.3, -0.5, 0.95])
    time, frequency = (
        law.statistics(inputs, targets, poles),
        law.spectral_statistics(inputs[..., 0], targets[..., 0], poles),
    )
    for one, other in zip(time, frequency, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    # Of a state that starts at 0 they are not: the transform counts what the end of the sequence leaves.
    zero = law.statistics(inputs, targets, poles, periodic=False)
    assert abs(zero.response[2, 2] / time.response[2, 2] - 1) > 0.01


def test_the_probe_sees_the_theorys_statistics():
    inputs, targets = drawn()
    for model in (StateSpace((0.3, 0.8), periodic=False), StateSpaceStack((StateSpace((0.3,)), StateSpace((0.8,))))):
        stack = isinstance(model, StateSpaceStack)
        network = model(jax.random.key(0), 1, 1)
        seen = arm.probe(network, [StateSpaceStatistics()], data=(jnp.asarray(inputs), jnp.asarray(targets)))
        found = law.statistics(inputs, targets, np.array([0.3, 0.8]), periodic=stack, cascade=stack)
        np.testing.assert_allclose(seen.target_covariance, found.target, rtol=1e-4)
        np.testing.assert_allclose(seen.response_covariance, found.response, rtol=1e-4)
        assert np.isclose(seen.filtered_power, np.diagonal(found.response).mean(), rtol=1e-4)
        np.testing.assert_allclose(seen.poles, [0.3, 0.8], rtol=1e-6)


def test_probes_read_the_weights():
    layer = StateSpace((0.3, 0.8), EqualEntries(0.5, 2.0), copies=3, dilution=0.5)(jax.random.key(0), 1, 1)
    seen = arm.probe(layer, [StateSpaceWeights(), StateSpaceFactors()])
    np.testing.assert_allclose(seen.pole_weight, [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(seen.total_weight, 2.0, rtol=1e-6)
    np.testing.assert_allclose(seen.state_imbalance, np.full(6, (4 - 0.25) / 3), rtol=1e-6)
    np.testing.assert_allclose(seen.read_out[0], np.full(6, 2 / np.sqrt(3)), rtol=1e-6)
    stack = StateSpaceStack((StateSpace((0.3,), EqualEntries(0.5, 2.0)),) * 3)(jax.random.key(0), 1, 1)
    seen = arm.probe(stack, [StateSpaceWeights()])
    assert "pole_weight" not in seen and np.isclose(seen.total_weight, 1)


def factors(time, copies, b, c, sigma, eta, tied):
    """B and C of each state by direct integration; tied copies share one of each."""
    n = 1 if tied else copies

    def velocity(_, x):
        rows, columns = x[:n], x[n:]
        wrong = (sigma - eta * (rows * columns).sum() * (copies if tied else 1)) * (copies if tied else 1)
        return np.concatenate([columns * wrong, rows * wrong])

    end = solve_ivp(velocity, (0, time[-1]), [b] * n + [c] * n, "DOP853", time, rtol=1e-11, atol=1e-13).y
    return (end[:n] * end[n:]).sum(axis=0) * (copies if tied else 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("copies", "b", "c"), [(1, 0.05, 0.05), (4, 0.1, 0.1), (1, 0.0, 1.0), (1, 0.05, 0.5), (8, 0.0, 0.3)]
)
def test_copies_follow_their_closed_form(copies, b, c, tied):
    time = np.linspace(0, 1.5, 31)
    found = law.copies_weight(time, 3.0, 2.0, copies, b, c, tied=tied)
    np.testing.assert_allclose(found, factors(time, copies, b, c, 3.0, 2.0, tied), atol=1e-8)
    half = law.copies_time(0.75, 3.0, 2.0, copies, b, c, tied=tied)
    assert np.isclose(law.copies_weight(half, 3.0, 2.0, copies, b, c, tied=tied), 0.75, rtol=1e-9)


def test_a_target_of_the_other_sign_needs_an_imbalance():
    time = np.array([0.0, 20.0])
    stuck = law.copies_weight(time, -3.0, 2.0, 1, 0.1, 0.1)
    assert 0 <= stuck[-1] < 1e-8
    assert np.isclose(law.copies_weight(time, -3.0, 2.0, 1, 0.1, 0.2)[-1], -1.5)


def test_weights_and_factors_flow_alike():
    inputs, targets = drawn()
    poles, time = np.array([0.3, 0.6, 0.9]), np.linspace(0, 4, 9)
    found = law.statistics(inputs, targets, poles)
    draw = np.random.default_rng(0)
    b, c = draw.normal(size=(3, 1)), draw.normal(size=(1, 3))
    rows, columns = law.factor_flow(time, b, c, found)
    w = law.weight_flow(time, b[:, 0] * c[0], c[0] ** 2 - b[:, 0] ** 2, found.target[0], found.response)
    np.testing.assert_allclose(law.end_to_end_weights(rows, columns)[:, 0], w, atol=1e-7)
    wrong = targets - (law.responses(inputs, poles)[..., 0] * w[-1]).sum(axis=2, keepdims=True)
    assert np.isclose(law.quadratic_loss(w[:, None], found)[-1], 0.5 * (wrong**2).mean(), rtol=1e-8)


def run(task=None, model=None, rule=None, probes=None):
    return arm.Experiment(
        task or FilteredNoise((0.8,), (1.5,), sequences=4, length=32, problem=0.0),
        model or StateSpace((0.8,)), rule or GradientFlow(1.0, tolerance=1e-9), probes or [StateSpaceWeights(), Losses()], arm.Evenly(6), "float64")  # fmt: skip


THREE = FilteredNoise((0.3, 0.6, 0.9), (1.0, -0.7, 0.5), sequences=4, length=32, problem=0.0)
SERIES = FilteredNoise((0.5, 0.3), (1.0,), cascade=True, sequences=4, length=32, problem=0.0)
CHANNELS = FilteredNoise((0.8,), (EYE,), sequences=4, length=32, whitened=2.0)


def two(b=0.5, c=0.5, **changes):
    return StateSpaceStack((StateSpace((0.5,), EqualEntries(b, c), **changes), StateSpace((0.3,), EqualEntries(b, c))))


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        (WEIGHTS, run(model=StateSpace((0.8,), EqualEntries(0.1, 0.3), copies=3, capacity=4, periodic=False))),
        (WEIGHTS, run(THREE, StateSpace((0.3, 0.6, 0.9), EqualEntries(0.1, 0.3), copies=2, tied=True))),
        (MODES, run(CHANNELS, StateSpace((0.8,), Decoupled(np.array(EYE), 0.01), copies=4), probes=[Losses(), ModeStrength(np.array(EYE))])),
        (MODES, run(CHANNELS, StateSpace((0.8,), Decoupled(np.array(EYE), 0.01, 2.0), copies=4), probes=[Losses(), ModeStrength(np.array(EYE))])),
        (STACK, run(SERIES, two())),
        (STACK, run(SERIES, two(0.3, 0.6))),
    ],
)  # fmt: skip
def test_training_is_what_theory_says(name, experiment):
    said = arm.predict(experiment)
    assert name in said.attrs["theories"]
    compared = arm.compare(arm.simulate(experiment), said)
    assert len(compared.relative) >= 2
    assert all(wrong < 1e-6 for what, wrong in compared.largest.items() if what != "off_diagonal"), compared
    assert compared.largest.get("off_diagonal", 0.0) < 1e-7


def test_several_channels_flow_by_their_statistics():
    model = StateSpace((0.2, 0.8), Gaussian(0.3), copies=2, periodic=False)
    task = FilteredNoise((0.8,), (((1.0, 0.3), (0.0, 0.5), (-0.4, 0.2)),), sequences=5, length=20, problem=2.0)
    seen = arm.simulate(run(task, model, probes=[Losses(), StateSpaceFactors()])).isel(seed=0)
    found = law.statistics(*problem_data(task), np.array([0.2, 0.2, 0.8, 0.8]), periodic=False)
    b, c = law.factor_flow(seen.time.values, seen.read_in[0].values, seen.read_out[0].values, found)
    np.testing.assert_allclose(seen.read_in, b, atol=1e-6)
    np.testing.assert_allclose(seen.train_loss, law.quadratic_loss(law.end_to_end_weights(b, c), found), rtol=1e-6)


def test_the_leading_mode_alone_is_exact_behind_white_input():
    found = law.Statistics(2.0 * np.array(EYE), 2.0 * np.eye(2), 1.0)
    level = np.sqrt(0.01)
    mode = law.leading_mode(found, level * np.eye(2), level * np.eye(2))
    flow = law.factor_flow(
        np.array([0.0, mode.half_time]), level * np.eye(2), level * np.eye(2), law.of_copies(found, 2)
    )
    assert np.isclose(mode.left @ flow[1][1] @ flow[0][1] @ mode.right, mode.limit / 2, rtol=1e-6)
    assert np.isclose(mode.limit, 1.5)


def test_fixed_poles_never_move_and_trained_ones_at_their_rate():
    task = FilteredNoise((0.3, 0.6), (1.0, 0.5), sequences=3, length=16, problem=0.0)
    begin = EqualEntries(0.5, 0.7)
    for optimiser in (SGD(0.01), Adam(0.01, weight_decay=0.1)):
        fixed = arm.simulate(run(task, StateSpace((0.3, 0.5), begin), Descent(optimiser, 5), [StateSpaceStatistics()]))
        assert (fixed.poles == fixed.poles.isel(time=0)).all()
    trained = StateSpace((0.3, 0.5), begin, pole_rate=0.1)
    poles = arm.simulate(run(task, trained, Descent(SGD(0.01), 1), [StateSpaceStatistics()])).poles.isel(seed=0)

    def loss(poles):
        inputs, targets = problem_data(task)
        out = [plain(u, np.array(poles), np.full((2, 1), 0.5), np.full((1, 2), 0.7), True) for u in inputs]
        return 0.5 * np.mean((np.array(out) - targets) ** 2)

    slopes = [(loss((0.3 + h, 0.5 + g)) - loss((0.3 - h, 0.5 - g))) / 2e-5 for h, g in ((1e-5, 0.0), (0.0, 1e-5))]
    np.testing.assert_allclose((poles[-1] - poles[0]).values, -0.1 * 0.01 * np.array(slopes), rtol=1e-6)


def test_digits_become_rows_with_their_class():
    data = DigitRows(100).draw(jax.random.key(0))
    assert data.train.inputs.shape == (100, 8, 8) and data.test.count == 1697
    digits = arm.tasks.Digits(100).clean.train
    np.testing.assert_array_equal(data.train.inputs.reshape(100, 64), digits.inputs)
    np.testing.assert_array_equal(data.train.targets[:, 3].argmax(axis=1), digits.targets)
    np.testing.assert_allclose(data.train.targets.sum(axis=2), 0.0, atol=1e-6)


MISSES = [
    (WEIGHTS, run(arm.tasks.Digits(50)), "needs filtered noise; this is Digits"),
    (WEIGHTS, run(SERIES, two()), "needs a state-space layer; this is StateSpaceStack"),
    (WEIGHTS, run(FilteredNoise((0.8,), (1.5,))), "needs one numbered problem; problem is None: each seed draws its own data"),
    (WEIGHTS, run(CHANNELS), "needs one input and one output; there are 2 and 2"),
    (WEIGHTS, run(model=StateSpace((0.8,), pole_rate=0.1)), "needs fixed poles; they are trained at 0.1 of the learning rate"),
    (WEIGHTS, run(model=StateSpace((0.8,), Gaussian(0.1))), "needs initial weights that are all equal; this is Gaussian"),
    (WEIGHTS, run(rule=Descent(SGD(0.1), 10)), "needs small steps; learning rate times largest curvature is"),
    (WEIGHTS, run(rule=Descent(Adam(0.001), 10)), "needs plain gradient descent; the optimiser is Adam"),
    (WEIGHTS, run(rule=Descent(SGD(0.001), 10, feed=MiniBatch(2))), "needs full batches; this is MiniBatch"),
    (MODES, run(CHANNELS, StateSpace((0.7,), Decoupled(np.array(EYE), 0.01), copies=4)), "needs one pole, the teacher's; the largest distance of two poles is 0.1"),
    (MODES, run(CHANNELS, StateSpace((0.8,), Decoupled(np.array(EYE), 0.01), copies=4, periodic=False)), "needs the teacher's initial state; one of the two is periodic"),
    (MODES, run(FilteredNoise((0.8,), (EYE,)), StateSpace((0.8,), Decoupled(np.array(EYE), 0.01), copies=4)), "needs a whitened filtered input; whitened is None"),
    (MODES, run(CHANNELS, StateSpace((0.8,), Decoupled(np.array([[1.0, 0.4], [0.0, 0.5]]), 0.01), copies=4)), "needs initial modes along the teacher's; the largest coupling between modes is"),
    (MODES, run(CHANNELS, StateSpace((0.8,), Gaussian(0.01), copies=4)), "needs decoupled initial weights; this is Gaussian"),
    (MODES, run(CHANNELS, StateSpace((0.8,), Decoupled(np.array(EYE), 0.01), copies=4, pole_rate=0.5)), "needs fixed poles; they are trained at 0.5"),
    (STACK, run(SERIES, two(pole_rate=0.2)), "needs fixed poles; they are trained at 0.2 of the learning rate"),
    (STACK, run(SERIES, two(copies=2)), "needs one state in each layer; one of them has 2"),
    (STACK, run(SERIES, two(periodic=False)), "needs one kind of initial state; some layers are periodic and some are not"),
    (STACK, run(SERIES, StateSpaceStack((StateSpace((0.5,)), StateSpace((0.3,))), width=2)), "needs one channel between layers; there are 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "experiment", "says"), MISSES)
def test_a_near_miss_is_refused_with_its_reason(name, experiment, says):
    said = arm.predict(experiment, theory=name)
    assert not len(said) and any(says in reason for reason in refusals(said)[name])


def layer(inputs=1):
    return StateSpace((0.5,))(jax.random.key(0), inputs, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StateSpace((0.5, 1.0)), "a pole is 1, but must lie strictly between -1 and 1, or states grow"),
        (lambda: StateSpace(()), "the number of poles is 0, but must be at least 1"),
        (lambda: StateSpace((0.5,), copies=5, capacity=4), "the number of copies is 5, but must be at least 1 and at most 4 (the capacity)"),
        (lambda: StateSpace((0.5,), pole_rate=-0.1), "the poles' rate is -0.1, but must be at least 0"),
        (lambda: StateSpaceStack(()), "the number of layers is 0, but must be at least 1"),
        (lambda: EqualEntries()(jax.random.key(0), (1, 2, 2, 1)), "EqualEntries draws two layers, not 3"),
        (lambda: FilteredNoise((1.5,)), "a pole is 1.5, but must lie strictly between -1 and 1, or states grow"),
        (lambda: FilteredNoise((0.5, 0.2), (1.0,)), "the teacher's weights have shape (1,), but must be 2 numbers or 2 matrices"),
        (lambda: FilteredNoise(length=1), "the length of a sequence is 1, but must be at least 2"),
        (lambda: FilteredNoise((0.5, 0.2), (1.0, 1.0), whitened=1.0), "the input can be whitened behind one filter, not behind 2; use cascade or one pole"),
        (lambda: FilteredNoise(whitened=0.0), "the filtered input's variance is 0, but must be above 0"),
        (lambda: law.copies_time(2.0, 3.0, 2.0, 1, 0.1, 0.1), "the weight is 2, but must be at least 0.01, the start, and below 1.5"),
        (lambda: law.factor_flow(np.ones(2), np.ones((2, 1)), np.ones((1, 2)), law.Statistics(np.ones((1, 1)), np.ones((1, 1)), 1.0)),
         "sigma is (1, 1), but must be (1, 2): outputs, states times inputs"),
        (lambda: arm.probe(MLP(4)(jax.random.key(0), 1, 1), [StateSpaceWeights()]), "StateSpaceWeights needs a state-space layer or a stack of them, not a MLPNetwork"),
        (lambda: arm.probe(layer(inputs=2), [StateSpaceWeights()]), "StateSpaceWeights needs one input and one output, not 2 and 1"),
        (lambda: arm.probe(two()(jax.random.key(0), 1, 1), [StateSpaceFactors()]), "StateSpaceFactors needs a state-space layer, not a StateSpaceChain"),
        (lambda: arm.probe(layer(), [StateSpaceStatistics()]), "StateSpaceStatistics needs data; pass data=(inputs, targets)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make()
    assert str(caught.value) == says
