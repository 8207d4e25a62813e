"""Programs in two halves, and draws that are worked out once for members of one seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from armillary import Evenly, Experiment, Sweep, simulate
from armillary.dependence import halves
from armillary.members import draw_members
from armillary.models import MLP, DeepLinear, Orthogonal
from armillary.probes import Losses, WeightNorm
from armillary.programs import Layout, of_grid
from armillary.rules import SGD, Descent
from armillary.stages import Stage, Stages
from armillary.tasks import LinearTeacher

steps = some.lists(
    some.tuples(some.sampled_from(["add", "sin", "loop", "swap"]), some.integers(0, 9), some.integers(0, 9))
)


@given(steps, some.integers(0, 3))
def test_halves_together_are_the_whole(program, outputs):
    def function(a, b, c):
        known = [a, b, c, jnp.ones(2)]
        for kind, i, j in program:
            x, y = known[i % len(known)], known[j % len(known)]
            if kind == "loop":
                x = jax.lax.fori_loop(0, 2, lambda _, z, y=y: z + y, x)
            known.append({"add": x + y, "sin": jnp.sin(x), "loop": x, "swap": y}[kind])
        return known[-1 - outputs :]

    a, b, c = (jnp.arange(2.0) + n for n in range(3))
    common, rest = halves(function, [a, b], [c])
    for found, right in zip(rest(*common(a, b), c), function(a, b, c), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_what_the_values_have_no_part_in_is_drawn_once_a_key():
    def draw(template, key, scale):
        network = jax.random.normal(key, (3,))
        return {
            "template": template,
            "network": network,
            "scaled": scale * jnp.linalg.qr(jnp.outer(network, network))[0],
        }

    def drawn(template, keys, which, scales):
        return draw_members(draw, template, 1, keys, which, scales)

    keys, which, scales = jax.random.split(jax.random.key(0), 2), jnp.array([0, 1, 1]), jnp.array([1.0, 2.0, 3.0])
    seen = jax.jit(drawn)(jnp.ones(2), keys, which, scales)
    for index, key in enumerate(which):
        alone = draw(jnp.ones(2), keys[key], scales[index])
        np.testing.assert_allclose(seen.own["network"][index], alone["network"], rtol=1e-6)
        np.testing.assert_allclose(seen.own["scaled"][index], alone["scaled"], atol=1e-6)
    assert seen.own["template"] is None and np.array_equal(seen.shared["template"], np.ones(2))
    loops = [e for e in jax.make_jaxpr(drawn)(jnp.ones(2), keys, which, scales).eqns if e.primitive.name == "scan"]
    assert [(loop.params["length"], " qr" in str(loop)) for loop in loops] == [(2, True), (3, False)]


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
