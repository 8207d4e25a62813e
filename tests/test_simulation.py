"""`simulate`: the same numbers as plain loops, alone, in sweeps and in blocks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import armillary as arm
from armillary import engine
from armillary.errors import InvalidValue
from armillary.models import MLP, DeepLinear, Gaussian
from armillary.rules import SGD, Adam, Descent, GradientFlow, LinearFlow, Loss, MiniBatch, Online, Optax
from reference import gradient_descent


def linear_experiment(steps=20, depth=2, rate=0.05, **kwargs):
    task = arm.tasks.LinearTeacher(dimension=5, samples=12, outputs=3, noise=0.3)
    probes = [arm.probes.Losses(), arm.probes.WeightNorm()]
    rule = Descent(SGD(rate), steps=steps)
    return arm.Experiment(task, DeepLinear(depth=depth, width=4), rule, probes, arm.Evenly(steps + 1), **kwargs)


def test_full_batch_descent_equals_a_numpy_loop():
    experiment = linear_experiment(precision="float64")
    measured = arm.simulate(experiment, seeds=1)
    with jax.enable_x64(True):
        process = experiment.draw(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0))
        train = process.data.train
        history = gradient_descent(process.initial.weights, np.array(train.inputs), np.array(train.targets), 0.05, 20)
    losses = []
    for weights in history:
        residual = np.array(train.inputs) @ np.linalg.multi_dot(weights[::-1]).T - np.array(train.targets)
        losses.append(0.5 * (residual**2).sum(axis=1).mean())
    np.testing.assert_allclose(measured.train_loss.values[0], losses, rtol=1e-6)
    norms = [[np.linalg.norm(w) for w in weights] for weights in history]
    np.testing.assert_allclose(measured.weight_norm.values[0], norms, rtol=1e-6)


@pytest.mark.parametrize("optimiser", [SGD(0.05, momentum=0.9), Adam(0.01), Optax(optax.lion, {"learning_rate": 1e-3})])
def test_every_optimiser_lowers_the_loss(optimiser):
    experiment = linear_experiment()
    experiment = arm.Experiment(experiment.task, experiment.model, Descent(optimiser, steps=60), experiment.probes)
    loss = arm.simulate(experiment, seeds=3).train_loss
    assert (loss.isel(time=-1) < loss.isel(time=0)).all()


def test_a_member_is_the_same_alone_in_a_sweep_and_in_blocks():
    experiment = linear_experiment()
    sweep = arm.Sweep(experiment, {"learning_rate": [0.01, 0.05], "depth": [2, 3]})
    whole = arm.simulate(sweep, seeds=5, members="map")
    alone = arm.simulate(experiment, seeds=[3], members="map")
    inside = whole.train_loss.sel(learning_rate=0.05, depth=2, seed=3)
    np.testing.assert_array_equal(alone.train_loss.values[0], inside.values)
    wide = arm.simulate(sweep, seeds=5, members="vmap")
    np.testing.assert_allclose(wide.train_loss, whole.train_loss, rtol=2e-6, atol=1e-7)
    blocks = arm.simulate(experiment, seeds=5, members="map", memory=1e6)
    np.testing.assert_array_equal(blocks.train_loss, whole.train_loss.sel(learning_rate=0.05, depth=2))


def test_observation_times_do_not_change_the_numbers():
    experiment = linear_experiment(steps=40)
    often = arm.simulate(experiment)
    parts = (experiment.task, experiment.model, experiment.rule, experiment.probes)
    rarely = arm.simulate(arm.Experiment(*parts, arm.At((0, 7, 40))))
    np.testing.assert_array_equal(rarely.train_loss, often.train_loss.sel(time=[0, 7, 40]))


def test_many_members_go_in_blocks_of_bounded_memory(monkeypatch):
    seen = []
    real = engine.follow
    monkeypatch.setattr(
        engine, "follow", lambda m, *rest, **given: seen.append(m.diverged.size) or real(m, *rest, **given)
    )
    task = arm.tasks.LinearTeacher(dimension=50, samples=100)
    experiment = arm.Experiment(task, DeepLinear(depth=1), Descent(steps=2), [arm.probes.Losses()])
    measured = arm.simulate(experiment, seeds=64, memory=1e6)
    assert len(seen) > 3 and max(seen) * 50 * 100 * 4 * 3 < 2e6
    assert measured.train_loss.notnull().all() and measured.sizes["seed"] == 64


def test_members_that_diverge_are_kept_and_marked():
    sweep = arm.Sweep(linear_experiment(steps=200), {"learning_rate": [0.05, 50.0]})
    measured = arm.simulate(sweep, seeds=3)
    assert measured.diverged_at.sel(learning_rate=0.05).isnull().all()
    step = measured.diverged_at.sel(learning_rate=50.0)
    assert step.notnull().all() and (step > 0).all()
    lost = measured.train_loss.sel(learning_rate=50.0)
    assert lost.where(lost.time >= step.max(), drop=True).isnull().all()
    assert lost.isel(time=0).notnull().all()
    healthy = arm.healthy(measured).train_loss
    assert healthy.sel(learning_rate=50.0).isnull().all() and healthy.sel(learning_rate=0.05).notnull().all()


def test_the_step_of_divergence_is_the_first_that_is_not_finite():
    experiment = linear_experiment(steps=200, rate=50.0)
    step = int(arm.simulate(experiment).diverged_at[0])
    with jax.enable_x64(False):
        process = experiment.draw(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0))
        state = process.init(jax.random.key(1))
        for _ in range(step - 1):
            state = process.step(state, jax.random.key(2))
        assert process.is_healthy(state)
        assert not process.is_healthy(process.step(state, jax.random.key(2)))


def test_float64_is_for_one_experiment_alone():
    single = arm.simulate(linear_experiment())
    double = arm.simulate(linear_experiment(precision="float64"))
    assert single.train_loss.dtype == np.float32 and double.train_loss.dtype == np.float64
    assert jnp.ones(1).dtype == jnp.float32
    assert arm.simulate(linear_experiment(), precision="float64").train_loss.dtype == np.float64


def test_gradient_flow_equals_the_exact_linear_flow():
    task = arm.tasks.LinearTeacher(dimension=6, samples=4, noise=0.5)
    model = DeepLinear(depth=1, initialisation=Gaussian(0.7))
    rules = [GradientFlow(20.0, Loss(reduction="sum"), tolerance=1e-9), LinearFlow(20.0, Loss(reduction="sum"))]
    found = [
        arm.simulate(arm.Experiment(task, model, rule, [arm.probes.RegressionErrors()], precision="float64"), seeds=3)
        for rule in rules
    ]
    np.testing.assert_allclose(found[0].generalisation_error, found[1].generalisation_error, rtol=1e-6)
    np.testing.assert_allclose(found[0].training_error, found[1].training_error, atol=1e-7)


def test_small_steps_tend_to_the_flow():
    task = arm.tasks.LinearTeacher(dimension=6, samples=20, noise=0.5)
    model = DeepLinear(depth=2, width=5)

    def final(rule):
        experiment = arm.Experiment(task, model, rule, [arm.probes.Losses()], precision="float64")
        return arm.simulate(experiment, seeds=2).train_loss.isel(time=-1)

    flow = final(GradientFlow(4.0, tolerance=1e-9))
    errors = [np.abs(final(Descent(SGD(4.0 / n), steps=n)) - flow).max().item() for n in (100, 200)]
    assert errors[1] < 0.6 * errors[0] < 0.05 * flow.max().item()


@pytest.mark.parametrize("feed", [MiniBatch(8), MiniBatch(8, replace=True), Online(8)])
def test_every_feed_learns(feed):
    task = arm.tasks.LinearTeacher(dimension=5, samples=64, noise=0.0)
    rule = Descent(SGD(0.5), steps=300, feed=feed)
    loss = arm.simulate(arm.Experiment(task, DeepLinear(depth=1), rule, [arm.probes.Losses()]), seeds=2).train_loss
    assert (loss.isel(time=-1) < 1e-2 * loss.isel(time=0)).all()


def test_an_epoch_of_mini_batches_sees_every_sample_once(key):
    task = arm.tasks.LinearTeacher(dimension=3, samples=24)
    data = task.draw(key)
    feed = MiniBatch(8)
    memory, seen = feed.init(data, key), []
    for step in range(6):
        samples, memory = feed.next(task, data, memory, jax.random.fold_in(key, step))
        seen.append(np.array(samples.inputs[:, 0]))
    for epoch in (seen[:3], seen[3:]):
        np.testing.assert_allclose(np.sort(np.concatenate(epoch)), np.sort(np.array(data.train.inputs[:, 0])))
    assert not np.allclose(seen[0], seen[3])


def test_online_samples_are_never_seen_twice():
    task = arm.tasks.LinearTeacher(dimension=3, samples=1)

    class Seen(arm.probes.Probe):
        needs_update = True

        def __call__(self, now):
            return {"last_update": arm.Quantity(now.update.weights[0][0], "input")}

    rule = Descent(SGD(0.1), steps=3, feed=Online(2))
    seen = arm.simulate(arm.Experiment(task, DeepLinear(depth=1), rule, [Seen()], arm.Evenly(4))).last_update
    directions = seen.isel(seed=0, time=slice(1, None)).values
    assert np.linalg.matrix_rank(directions) == 3


def test_a_users_own_network_and_function_are_simulated(key):
    task = arm.tasks.Digits(samples=200)
    rule = Descent(Adam(0.01), steps=50, loss=Loss("cross_entropy"))
    make = lambda key: eqx.nn.MLP(64, 10, 16, 1, key=key)
    for model in (make, make(key)):
        measured = arm.simulate(arm.Experiment(task, model, rule, [arm.probes.Accuracy()]), seeds=2)
        assert (measured.train_accuracy.isel(time=-1) > 0.8).all()


def test_swept_parts_make_programs_of_their_own():
    sweep = arm.Sweep(
        linear_experiment(), {"initialisation": [Gaussian(0.1), arm.models.Orthogonal()], "width": [3, 4]}
    )
    measured = arm.simulate(sweep)
    assert measured.initialisation.values.tolist() == ["Gaussian", "Orthogonal"]
    assert measured.train_loss.notnull().all() and measured.sizes["width"] == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda e: arm.simulate(e, seeds=0), "the number of seeds is 0, but must be at least 1"),
        (lambda e: arm.simulate(e, seeds=[1, 1]), "must be one or more different numbers"),
        (lambda e: arm.simulate(e, members="fast"), "must be 'auto', 'map', 'vmap' or a number"),
        (lambda e: arm.simulate(3), "cannot simulate a int"),
        (lambda e: arm.Sweep(e, {"learnin_rate": [1.0]}), "nearest: learning_rate"),
        (lambda e: arm.Sweep(e, {"learning_rate": []}), "has no values"),
        (lambda e: arm.Sweep(e, {"learning_rate": [-1.0]}), "learning_rate is -1, but must be at least 0"),
        (lambda e: arm.tasks.LinearTeacher(3, samples=0), "samples is 0, but must be at least 1"),
        (lambda e: arm.tasks.LinearTeacher(3, samples=2, noise=-1.0), "noise is -1, but must be at least 0"),
        (lambda e: DeepLinear(depth=0), "depth is 0, but must be at least 1"),
        (lambda e: MLP(activation="rellu"), "nearest: relu"),
        (lambda e: arm.Experiment(e.task, e.model, e.rule, precision="half"), "unknown precision"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_bad_input_gets_one_clear_line(make, says):
    with pytest.raises(arm.ArmillaryError) as caught:
        make(linear_experiment())
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"key": -1}, "key is -1, but must be a whole number from 0 to 4294967295"),
        ({"key": 2**32}, "key is 4294967296"),
        ({"seeds": [3, 2**32]}, "a seed is 4294967296"),
    ],
)
def test_keys_and_seeds_that_no_generator_takes(given, words):
    with pytest.raises(InvalidValue, match=words):
        arm.simulate(linear_experiment(), **given)
