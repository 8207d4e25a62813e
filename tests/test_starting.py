"""How members are drawn and begin: once a seed as far as their values have no part in it, and the same in any company."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armillary import Evenly, Experiment, Sweep, interpreter, simulate
from armillary.models import MLP, DeepLinear, Orthogonal
from armillary.probes import Losses, WeightNorm
from armillary.process import Process
from armillary.programs import Layout, Program, of_grid
from armillary.rules import SGD, Descent
from armillary.stages import Stage, Stages
from armillary.starting import Start
from armillary.tasks import LinearTeacher


class Walk(Process):
    """Draws a basis and a place, scales the place, and begins at random."""

    scale: jax.Array
    table: jax.Array
    basis: jax.Array | None = None
    place: jax.Array | None = None

    def draw(self, key):
        first, second = jax.random.split(key)
        basis = jnp.linalg.qr(jax.random.normal(first, (3, 3)))[0]
        return Walk(self.scale, self.table, basis, self.scale * jax.random.uniform(second, (3,)))

    def init(self, key):
        return self.place + jax.random.normal(key, (3,))


def begun_by_hand(walk, key, seed):
    own = jax.random.fold_in(jax.random.key(key), seed)
    drawn = walk.draw(jax.random.fold_in(own, 0))
    return drawn, drawn.init(jax.random.fold_in(own, 1)), own


def begun(start, way):
    if way == "in NumPy":
        return start.in_numpy()
    compiled = start.compiled(company=True)
    return compiled.whole(compiled(compiled.leaves))


@pytest.mark.parametrize("way", ["in NumPy", "compiled"])
@pytest.mark.parametrize("swept", [False, True])
def test_members_are_drawn_and_begin_as_by_hand(swept, way):
    walk = Walk(jnp.asarray(2.0), jnp.arange(4.0))
    seeds, which = np.array([3, 5], np.uint32), np.array([0, 1, 1]) if swept else np.array([0, 1])
    scales = np.array([2.0, 1.0, 7.0], np.float32) if swept else np.full(2, 2.0, np.float32)
    start = Start(walk, (("scale",),) if swept else (), [scales] if swept else [], 9, seeds, which)
    members = begun(start, way)
    for index, (row, scale) in enumerate(zip(which, scales, strict=True)):
        drawn, state, own = begun_by_hand(eqx.tree_at(lambda w: w.scale, walk, jnp.asarray(scale)), 9, seeds[row])
        np.testing.assert_allclose(members.drawn.own.basis[index], drawn.basis, atol=1e-6)
        np.testing.assert_allclose(members.drawn.own.place[index], drawn.place, rtol=1e-6)
        np.testing.assert_allclose(members.state[index], state, rtol=1e-5)
        np.testing.assert_array_equal(jax.random.key_data(members.keys.own[index]), jax.random.key_data(own))
        steps = jax.random.key_data(jax.random.fold_in(own, 2))
        np.testing.assert_array_equal(jax.random.key_data(members.keys.steps[index]), steps)
    assert members.drawn.own.table is None and members.diverged.tolist() == [-1] * len(which)
    np.testing.assert_array_equal(members.drawn.shared.table, np.arange(4))
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf, tree)
    assert kinds(start.shapes()) == kinds(members)


@pytest.mark.parametrize("swept", [False, True])
def test_a_compiled_draw_works_out_once_what_members_have_in_common(swept):
    walk = Walk(jnp.asarray(2.0), jnp.arange(4.0))
    values = [np.ones(3, np.float32)] if swept else []
    start = Start(
        walk, (("scale",),) if swept else (), values, 9, np.arange(2, dtype=np.uint32), np.array([0, 1, 1][: 2 + swept])
    )
    compiled = start.compiled(company=True)
    program = jax.make_jaxpr(compiled.program.run)(compiled.leaves)
    loops = [(e.params["length"], " qr" in str(e)) for e in program.eqns if e.primitive.name == "scan"]
    assert loops == ([(2, True), (3, False)] if swept else [(2, True)])
    assert "random_bits" not in str(program)


@pytest.mark.parametrize("way", ["in NumPy", "compiled"])
def test_members_that_are_not_finite_at_the_start_have_diverged(way):
    start = Start(Walk(jnp.asarray(jnp.nan), jnp.arange(4.0)), (), [], 0, np.arange(2, dtype=np.uint32), np.arange(2))
    assert begun(start, way).diverged.tolist() == [0, 0]


class Fitted(Process):
    """Draws what a factorisation that may fail makes of it, and a key to go on with."""

    shift: jax.Array
    root: jax.Array | None = None
    key: jax.Array | None = None

    def draw(self, key):
        moments = jnp.diag(jax.random.uniform(key, (2,))) + self.shift
        return Fitted(self.shift, jnp.linalg.cholesky(moments), jax.random.split(key)[0])

    def init(self, key):
        return [self.root[0, 0] * index for index in jnp.arange(12.0)]


def test_a_factorisation_that_fails_is_left_to_the_compiled_draw():
    good, bad = (
        Start(Fitted(jnp.asarray(shift)), (), [], 0, np.zeros(1, np.uint32), np.arange(1)) for shift in (0.0, -9.0)
    )
    members, other = good.in_numpy(), begun(good, "compiled")
    assert bad.in_numpy() is None and begun(bad, "compiled").diverged.tolist() == [0]
    np.testing.assert_array_equal(*(jax.random.key_data(one.drawn.own.key) for one in (members, other)))
    assert members.state[0].arrays.shape == other.state[0].arrays.shape == (1, 12)  # many alike are packed


@pytest.mark.parametrize("model", [MLP(4, 2, "tanh"), DeepLinear(2, width=4, initialisation=Orthogonal(0.5))])
def test_a_run_is_the_same_whichever_way_it_was_drawn(model, monkeypatch):
    experiment = Experiment(
        LinearTeacher(4, samples=6, noise=0.1),
        model,
        Descent(SGD(0.1), steps=3),
        [Losses()],
        Evenly(4),
        precision="float64",
    )
    drawn = simulate(experiment, seeds=2)
    monkeypatch.setattr(interpreter, "QUICK", 0.0)
    np.testing.assert_allclose(simulate(experiment, seeds=2).train_loss, drawn.train_loss, rtol=1e-9)


def test_shapes_are_known_without_drawing():
    walk = Walk(jnp.asarray(2.0), jnp.arange(4.0))
    program = Program(Stages([Stage(walk, (0.0,))]), [], [], np.arange(3), key=0)
    assert program._shapes.state.shape == (3, 3) and program.each == 4 * (9 + 3 + 3)


@pytest.mark.parametrize(
    ("model", "axes"),
    [
        (MLP(4, 2, "tanh"), {"learning_rate": [0.1, 0.2]}),
        (MLP(4, 2, "tanh"), {"gain": [0.5, 1.5], "noise": [0.1, 0.3]}),
        (DeepLinear(2, width=4, initialisation=Orthogonal(0.5)), {"initialisation.gain": [0.5, 1.0]}),
    ],
)
@pytest.mark.parametrize("seeds", [[3], [0, 3]])
def test_a_member_of_a_sweep_is_the_same_in_any_block_and_alone(model, axes, seeds):
    experiment = Experiment(
        LinearTeacher(4, samples=6, noise=0.1), model, Descent(SGD(0.1), steps=3), [Losses(), WeightNorm()], Evenly(4)
    )
    sweep = Sweep(experiment, axes)
    whole = simulate(sweep, seeds=seeds, members="map")
    last = {name: values[-1] for name, values in sweep.axes.items()}
    one = simulate(Sweep(experiment, {name: [value] for name, value in last.items()}), seeds=[3], members="map")
    alone = simulate(sweep.at(last), seeds=[3], members="map")
    program = of_grid(
        Stages([Stage(experiment)]), {sweep.paths[n]: v for n, v in sweep.axes.items()}, seeds, key=0, precision=None
    )
    blocks = program.blocks(Layout(size=3, width=1, each=1), lambda done: None)  # the last one is filled up
    losses = np.concatenate([block.records[0][1]["train_loss"].values for block in blocks], axis=1)
    np.testing.assert_array_equal(losses.T, whole.train_loss.values.reshape(-1, 4))
    for name in ("train_loss", "weight_norm"):
        expected = whole[name].sel(seed=[3], **last)
        np.testing.assert_array_equal(one[name].squeeze(list(last)), expected)
        np.testing.assert_allclose(alone[name], expected, rtol=1e-6)
