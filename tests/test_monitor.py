"""The monitor looks when it may, and what it sees is what `probe` sees."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import armillary as arm
from armillary.errors import ArmillaryError
from armillary.models import MLP
from armillary.probes import Losses, PreactivationChange, Sharpness, UpdateCosine
from armillary.rules import SGD, Descent, Loss


def test_a_monitored_loop_sees_what_a_simulation_sees():
    task, model = arm.tasks.LinearTeacher(5, samples=20, outputs=3), MLP(4, 3, "tanh")
    probes = [Sharpness(tolerance=1e-4), Losses(), UpdateCosine()]
    experiment = arm.Experiment(task, model, Descent(SGD(0.1), steps=6), probes, arm.Evenly(7))
    process = experiment.draw(jax.random.key(0))
    network, samples, loss, sgd = process.initial, process.data.train, Loss(), optax.sgd(0.1)
    state = sgd.init(eqx.filter(network, eqx.is_inexact_array))
    monitor = arm.Monitor(probes, process.data, budget=1.0)
    monitor._started -= 1e6  # a long run: every look is affordable
    seen_by_hand = []
    for step in range(7):
        assert monitor(step, network)
        seen_by_hand.append(float(loss(network, samples)))
        updates, state = sgd.update(eqx.filter_grad(loss)(network, samples), state)
        network = eqx.apply_updates(network, updates)
    seen = monitor.trajectory
    np.testing.assert_allclose(seen.train_loss, seen_by_hand, rtol=1e-6)
    assert seen.time.values.tolist() == list(range(7)) and seen.time.attrs["units"] == "steps"
    assert np.isfinite(seen.global_update_cosine[2:]).all() and seen.sharpness.attrs["units"] == "1/rate"
    assert float(seen.sharpness_products[1:].mean()) < float(seen.sharpness_products[0])
    again = arm.probe(network, [Sharpness(tolerance=1e-4)], data=process.data)
    assert set(again.data_vars) <= set(seen.data_vars)


def test_changes_are_seen_in_a_loop_and_at_hand_as_in_a_simulation():
    task, model = arm.tasks.LinearTeacher(5, samples=20, outputs=3), MLP(4, 3, "tanh")
    probes = [UpdateCosine(), PreactivationChange()]
    experiment = arm.Experiment(task, model, Descent(SGD(0.1), steps=4), probes, arm.Evenly(5))
    simulated = arm.simulate(experiment).isel(seed=0, drop=True)
    with_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)  # the member's own draw
    process, loss = experiment.draw(with_key), Loss()
    monitor = arm.Monitor(probes, process.data, budget=1.0)
    monitor._started -= 1e6  # a long run: every look is affordable
    networks = [process.initial]
    for step in range(5):
        assert monitor(step, networks[-1])
        gradient = eqx.filter_grad(loss)(networks[-1], process.data.train)
        networks.append(eqx.apply_updates(networks[-1], jax.tree.map(lambda g: -0.1 * g, gradient)))
    compared = {"initial": networks[0], "previous": networks[3]}
    at_hand = arm.probe(networks[4], probes, data=process.data, **compared)
    for name in at_hand.data_vars:
        np.testing.assert_allclose(monitor.trajectory[name], simulated[name], rtol=2e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(at_hand[name], simulated[name][4], rtol=2e-3, atol=1e-5, err_msg=name)


def test_looks_take_no_more_than_their_share():
    network = MLP(16, 3)(jax.random.key(0), 8, 2)
    data = (jnp.ones((50, 8)), jnp.zeros((50, 2)))
    arm.Monitor([Sharpness()], data)(0, network)  # compiled before: the first look is then like the others
    monitor, begun = arm.Monitor([Sharpness()], data, budget=0.2), time.perf_counter()
    looks = 0
    for step in range(400):
        looks += monitor(step, network)
        time.sleep(0.002)
    seen, whole = monitor.trajectory, time.perf_counter() - begun
    assert 1 < looks == seen.sizes["time"] < 400
    spent, last = float(seen.look_seconds.sum()), float(seen.look_seconds.max())
    assert spent <= 0.2 * whole + last


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: arm.Monitor([Sharpness()], budget=0.0), "budget is 0"),
        (lambda: arm.Monitor([], budget=0.1), "at least one"),
        (lambda: arm.Monitor([Losses()]).trajectory, "nothing has been looked at"),
        (lambda: twice(), "increase"),
        (lambda: arm.Monitor([Losses()])(0, MLP(4)(jax.random.key(0), 2, 1)), "needs data"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(call, said):
    with pytest.raises(ArmillaryError, match=said):
        call()


def twice():
    monitor, network = arm.Monitor([arm.probes.WeightNorm()]), MLP(4)(jax.random.key(0), 2, 1)
    monitor(1, network)
    monitor(1, network)
