"""The flow carries what is not one network, one loss, one optimiser: processes of many kinds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armillary as arm
from armillary.models import DeepLinear, Gaussian, LinearChain
from armillary.process import Process
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.stages import Stage, Stages


def test_two_stages_hand_the_network_over():
    first = arm.Experiment(arm.tasks.LinearTeacher(4, samples=30), DeepLinear(depth=1), Descent(SGD(0.5), steps=20),
                           [arm.probes.WeightNorm(), arm.probes.Losses()], arm.Evenly(21))  # fmt: skip
    second = arm.Experiment(arm.tasks.LinearTeacher(4, samples=30), DeepLinear(depth=1), Descent(SGD(0.5), steps=10),
                            first.probes, arm.Evenly(11))  # fmt: skip
    both = arm.simulate(Stages([first, second]), seeds=2)
    alone = arm.simulate(first, seeds=2)
    assert both.time.values.tolist() == list(range(31)) and both.stage.values.tolist() == [1] * 21 + [2] * 10
    np.testing.assert_array_equal(both.train_loss.sel(time=slice(0, 20)), alone.train_loss)
    before, after = (both.weight_norm.sel(time=t, layer=1) for t in (20, 21))
    assert (np.abs(after - before) < 0.5 * before).all()  # it went on from there, and did not start anew
    jump = both.train_loss.sel(time=21) / both.train_loss.sel(time=20)
    assert (jump > 5).all()  # another teacher


class Listening(Process):
    """Descent on a quadratic whose rate is 1 / curvature, measured every `every` steps."""

    every: int = eqx.field(static=True, default=5)

    def init(self, key):
        return {"x": jnp.ones(3), "rate": jnp.asarray(1e-3), "step": jnp.asarray(0)}

    def step(self, state, key):
        loss = lambda x: jnp.sum(jnp.array([1.0, 2.0, 4.0]) * x**2) / 2
        listen = lambda _: 1.0 / jnp.linalg.eigvalsh(jax.hessian(loss)(state["x"]))[-1]
        rate = arm.rules.where_due(state["step"] % self.every == self.every - 1, listen, state["rate"])
        x = state["x"] - rate * jax.grad(loss)(state["x"])
        return {"x": x, "rate": rate, "step": state["step"] + 1}

    def observe(self, state, time):
        return {"rate": arm.Quantity(state["rate"]), "size": arm.Quantity(jnp.linalg.norm(state["x"]))}


def test_a_rule_listens_to_a_probe_every_few_steps():
    seen = arm.simulate(Listening(), times=range(21))
    assert np.allclose(seen.rate.sel(time=[0, 4], seed=0), 1e-3) and np.allclose(
        seen.rate.sel(time=[5, 20], seed=0), 0.25
    )
    assert seen["size"].sel(time=20, seed=0) < 0.05 < seen["size"].sel(time=4, seed=0)


class MinMax(Process):
    """Gradient descent-ascent on x y + (x² - y²)/10: one player each."""

    def init(self, key):
        return jax.random.normal(key, (2,))

    def step(self, state, key):
        x, y = state
        return jnp.stack([x - 0.1 * (y + 0.2 * x), y + 0.1 * (x - 0.2 * y)])

    def observe(self, state, time):
        return {"distance": arm.Quantity(jnp.linalg.norm(state))}


def test_two_players_spiral_into_the_saddle():
    seen = arm.simulate(MinMax(), times=[0, 10, 400], seeds=4).distance
    assert (seen.sel(time=400) < 0.05 * seen.sel(time=0)).all()


class WithBatchNorm(Process):
    """A network whose batch-norm statistics are state beside its weights."""

    def init(self, key):
        keys = jax.random.split(key, 2)
        norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, axis_name="batch", mode="batch")
        return (eqx.nn.Linear(3, 4, key=keys[0]), norm, eqx.nn.Linear(4, 1, key=keys[1])), state

    def step(self, state, key):
        networks, memory = state
        x = 3.0 + jax.random.normal(key, (32, 3))

        def loss(networks):
            first, norm, last = networks

            def one(x, memory):
                hidden, memory = norm(first(x), memory)
                return last(jax.nn.relu(hidden)), memory

            out, after = jax.vmap(one, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, memory)
            return jnp.mean((out[:, 0] - x.sum(axis=1)) ** 2), after

        (_, memory), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(networks)
        return eqx.apply_updates(networks, jax.tree.map(lambda g: -0.01 * g, gradient)), memory

    def observe(self, state, time):
        statistics = [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(state[1]) if eqx.is_inexact_array(leaf)]
        return {"statistics": arm.Quantity(sum(statistics, jnp.zeros(())))}


def test_state_inside_the_model_is_carried():
    seen = arm.simulate(WithBatchNorm(), times=[0, 1, 50], seeds=2).statistics
    assert seen.notnull().all() and (seen.sel(time=50) != seen.sel(time=1)).all()


class Repelling(Process):
    """Particles in a bowl that push each other away: an ensemble whose members interact."""

    push: float = 0.05

    def init(self, key):
        return 0.01 * jax.random.normal(key, (5, 2))

    def step(self, state, key):
        apart = state[:, None] - state[None]
        distance2 = jnp.sum(apart**2, axis=-1, keepdims=True) + 1e-3
        return state - 0.1 * state + self.push * jnp.sum(apart / distance2, axis=1)

    def observe(self, state, time):
        return {"spread": arm.Quantity(jnp.std(state))}


def test_members_of_an_ensemble_interact():
    pushed = arm.simulate(Repelling(), times=[0, 200]).spread.sel(time=200, seed=0)
    alone = arm.simulate(Repelling(push=0.0), times=[0, 200]).spread.sel(time=200, seed=0)
    assert pushed > 0.3 and alone < 1e-6


class Remembering(Process):
    """Counts how often each sample was seen, and prefers those seen least: memory keyed by the index."""

    def init(self, key):
        return jnp.zeros(12)

    def step(self, state, key):
        order = jnp.argsort(state + 0.5 * jax.random.uniform(key, state.shape))
        return state.at[order[:4]].add(1.0)

    def observe(self, state, time):
        return {"count": arm.Quantity(state, "sample")}


def test_memory_is_keyed_by_the_samples_index():
    count = arm.simulate(Remembering(), times=[0, 9], seeds=3)["count"].sel(time=9)
    assert (count == 3).all()


def widen(old, state, new, key):
    """Two hidden units more: fresh incoming weights, outgoing ones at zero, so that the function stays."""
    first, last = state.network.stacks  # [layer, output, input], of one layer each
    fresh = 0.1 * jax.random.normal(key, (1, 2, first.shape[2]))
    silent = jnp.zeros((1, last.shape[1], 2))
    wider = LinearChain((jnp.concatenate([first, fresh], axis=1), jnp.concatenate([last, silent], axis=2)))
    new = eqx.tree_at(lambda p: p.initial, new, wider)
    return new, new.init(key)


def test_a_network_grows_in_the_middle():
    task = arm.tasks.Correlations(jnp.eye(4), jnp.eye(4))
    rule = Descent(SGD(0.3), steps=200)
    parts = {"probes": [arm.probes.Losses(), arm.probes.SingularValues()], "observe": arm.Evenly(5)}
    narrow = arm.Experiment(task, DeepLinear(width=2, initialisation=Gaussian(0.3)), rule, **parts)
    wide = arm.Experiment(task, DeepLinear(width=4), rule, **parts)
    grown = arm.simulate(Stages([narrow, Stage(wide, enter=widen)]), seeds=2)
    loss = grown.train_loss
    assert grown.time.values[-1] == 400 and grown.sizes["rank"] == 4
    assert grown.singular_values.sel(rank=3, time=200).isnull().all()  # two units have two singular values
    assert np.allclose(loss.sel(time=200), 1.0, atol=0.05)  # two of four modes, each worth ½
    assert (loss.sel(time=400) < 0.05).all()


def test_a_learned_learner_has_a_gradient_through_its_unrolled_run():
    class Meta(Process):
        def init(self, key):
            return jnp.asarray(-3.0)

        def step(self, state, key):
            def outer(log_rate):
                x = jnp.array([1.0, 1.0])
                for _ in range(5):
                    x = x - jnp.exp(log_rate) * jnp.array([1.0, 0.5]) * x
                return jnp.sum(x**2)

            return state - 0.1 * jax.grad(outer)(state)

        def observe(self, state, time):
            return {"rate": arm.Quantity(jnp.exp(state))}

    rate = arm.simulate(Meta(), times=[0, 500]).rate.sel(seed=0)
    assert rate.sel(time=500) > 0.7 > rate.sel(time=0)


def test_a_process_needs_times_that_increase():
    with pytest.raises(arm.ArmillaryError, match="pass times="):
        arm.simulate(MinMax())
    with pytest.raises(arm.ArmillaryError, match="must increase from 0"):
        arm.simulate(MinMax(), times=[3, 1])


def test_a_flow_that_explodes_is_marked():
    explode = Loss(lambda outputs, targets: -jnp.exp(jnp.sum(outputs**2, axis=-1)))
    task = arm.tasks.LinearTeacher(3, samples=4)
    rule = GradientFlow(50.0, explode, max_steps=200)
    seen = arm.simulate(arm.Experiment(task, DeepLinear(depth=1), rule, [arm.probes.WeightNorm()]), seeds=2)
    assert seen.diverged_at.notnull().all() and seen.parameter_norm.isel(time=-1).isnull().all()


def test_momentum_state_is_carried_between_calls():
    task = arm.tasks.LinearTeacher(3, samples=10)
    rule = Descent(Adam(0.05), steps=30)
    parts = (task, DeepLinear(depth=1), rule, [arm.probes.Losses()])
    once = arm.simulate(arm.Experiment(*parts, arm.At((0, 30)))).train_loss
    often = arm.simulate(arm.Experiment(*parts, arm.Evenly(31))).train_loss
    np.testing.assert_array_equal(once.sel(time=30), often.sel(time=30))
