"""Many members of one program, and trees whose arrays are many and alike."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as some

from armillary import Evenly, Experiment, engine, simulate
from armillary.members import MANY, packed, unpacked
from armillary.models import MLP, learning_rate_scales
from armillary.probes import Losses, WeightNorm
from armillary.rules import SGD, Adam, Descent
from armillary.stages import Stages
from armillary.tasks import GivenSamples, LinearTeacher

kinds = some.sampled_from([((2,), "float32"), ((2,), "int32"), ((2, 3), "float32"), ((), "float32"), None])


@given(some.lists(kinds, max_size=40))
def test_what_was_packed_is_unpacked(chosen):
    tree = {
        "all": [i if k is None else jnp.full(k[0], i, k[1]) for i, k in enumerate(chosen)],
        "key": jax.random.key(0),
    }
    pack = packed(tree)
    back = unpacked(pack)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for one, other in zip(back["all"], tree["all"], strict=True):
        assert eqx.is_array(one) == eqx.is_array(other) and np.array_equal(one, other)
        assert not eqx.is_array(one) or one.dtype == other.dtype
    alike = [sum(other == k for other in chosen) for k in set(chosen) if k is not None]
    expected = sum(1 if count >= MANY else count for count in alike)
    assert len([leaf for leaf in jax.tree.leaves(pack) if eqx.is_array(leaf)]) == expected + 1


@pytest.mark.parametrize(
    ("members", "optimiser"), [("map", SGD(0.05, momentum=0.5)), ("vmap", Adam(0.01))], ids=["sgd", "adam"]
)
def test_a_deep_network_learns_as_in_a_loop_written_by_hand(members, optimiser):
    depth = MANY + 3
    task, model = LinearTeacher(3, samples=5), MLP(4, depth, "tanh", "ntk", gain=1.5)
    rule = Descent(optimiser, steps=6)
    experiment = Experiment(task, model, rule, [Losses()], Evenly(3), precision="float64")
    seen = simulate(experiment, seeds=2, members=members).train_loss
    update = optimiser.transformation()

    @eqx.filter_jit
    def step(network, memory, data):
        loss, gradient = eqx.filter_value_and_grad(rule.loss)(network, data)
        change, memory = update.update(gradient, memory)
        rates = learning_rate_scales(network, adaptive=optimiser.adaptive)
        return optax.apply_updates(network, jax.tree.map(lambda u, r: r * u, change, rates)), memory, loss

    for seed in range(2):
        with jax.enable_x64(True):
            process = experiment.draw(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), 0))
            network, losses = process.initial, []
            memory = update.init(eqx.filter(network, eqx.is_inexact_array))
            for _ in range(7):
                network, memory, loss = step(network, memory, process.data.train)
                losses.append(float(loss))
        np.testing.assert_allclose(seen.sel(seed=seed), losses[::3], rtol=1e-9)


def test_a_deep_network_is_handed_over():
    draw = np.random.default_rng(0)
    task, model = GivenSamples(draw.normal(size=(5, 3)), draw.normal(size=5)), MLP(4, MANY + 3, "tanh")
    run = lambda steps: Experiment(task, model, Descent(SGD(0.1), steps=steps), [Losses(), WeightNorm()], Evenly(2))
    two, one = simulate(Stages([run(3), run(4)]), seeds=2), simulate(run(7), seeds=2)
    np.testing.assert_allclose(two.train_loss.isel(time=-1), one.train_loss.isel(time=-1), rtol=1e-5)
    np.testing.assert_allclose(two.weight_norm.isel(time=-1), one.weight_norm.isel(time=-1), rtol=1e-5)


def test_members_are_looked_at_one_by_one_where_there_are_few_looks_or_much_to_see(monkeypatch):
    task, rule = LinearTeacher(4, samples=8), Descent(SGD(0.1), 4)
    experiment = Experiment(task, MLP(3), rule, [Losses(), WeightNorm()], Evenly(5))
    widths, bind, seen = [], engine.observe.bind, []
    monkeypatch.setattr(engine.observe, "bind", lambda *given: widths.append(given[-1]) or bind(*given))
    for few, large, looked in ((1000, np.inf, [1]), (0, np.inf, [1, 4]), (0, 0.0, [1])):
        monkeypatch.setattr(engine, "FEW_LOOKS", few)
        monkeypatch.setattr(engine, "LARGE_LOOK", large)
        seen.append(simulate(experiment, seeds=8, members=4))
        assert widths == looked
        widths.clear()
    for other in seen[1:]:
        for name in seen[0].data_vars:
            np.testing.assert_allclose(other[name], seen[0][name], rtol=1e-5, atol=1e-7)
