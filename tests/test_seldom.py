"""Work that a rule does at few of its steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armillary import At, Experiment, simulate
from armillary.models import MLP
from armillary.probes import WeightNorm
from armillary.rules import SGD, Descent, Loss, MiniBatch
from armillary.rules.lanczos_rate import LanczosRate
from armillary.rules.seldom import where_due
from armillary.tasks import Digits
from armillary.work import programs_within

STATE = {"count": np.arange(3), "weights": np.arange(6.0).reshape(3, 2)}


def worked(state):
    return {"count": state["count"] + 1, "weights": jnp.sin(state["weights"])}


@pytest.mark.parametrize("due", [[True, False, True], [False] * 3, [True] * 3])
def test_each_member_has_its_own_due_steps(due):
    found = jax.jit(jax.vmap(lambda due, state: where_due(due, worked, state)))(jnp.array(due), STATE)
    for index, done in enumerate(due):
        state = jax.tree.map(lambda a, i=index: a[i], STATE)
        expected = worked(state) if done else state
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-6), found, expected)


def test_side_by_side_the_work_is_in_a_branch_also_of_two_axes():
    once = jax.vmap(lambda due, x: where_due(due, jnp.sin, x))
    for function, shape in ((once, (3,)), (jax.vmap(once), (2, 3))):
        program = jax.make_jaxpr(function)(jnp.zeros(shape, bool), jnp.ones(shape))
        [branch] = [one for one in program.eqns if one.primitive.name == "cond"]
        assert branch.invars[0].aval.shape == () and "sin" not in {one.primitive.name for one in program.eqns}
        due = jnp.zeros(shape, bool).at[..., 0].set(True)
        np.testing.assert_allclose(function(due, jnp.ones(shape)), np.where(due, np.sin(1), 1), rtol=1e-6)


def test_it_has_a_gradient():
    slope = jax.grad(lambda x, due: where_due(due, jnp.sin, x))
    np.testing.assert_allclose([slope(0.5, True), slope(0.5, False)], [np.cos(0.5), 1.0], rtol=1e-6)


@pytest.mark.parametrize("optimiser", [SGD(0.1), LanczosRate(every=2, lanczos_steps=3)])
def test_rules_do_not_work_at_every_step_for_members_side_by_side(optimiser):
    """The permutation of an epoch and the curvature are in branches, whatever the number of members at once."""
    rule = Descent(optimiser, 3, Loss("cross_entropy"), MiniBatch(30))
    experiment = Experiment(Digits(60), MLP(4, 1), rule, [WeightNorm()], At((3.0,)))
    process, keys = experiment.draw(jax.random.key(0)), jax.random.split(jax.random.key(1))
    states = eqx.filter_vmap(process.init)(keys)
    step = eqx.filter_make_jaxpr(eqx.filter_vmap(process.step))(states, keys)[0]
    assert "sort" not in kinds(step.jaxpr, branches=False) and "sort" in kinds(step.jaxpr, branches=True)
    eigen = "eigh" if isinstance(optimiser, LanczosRate) else "sort"
    assert eigen not in kinds(step.jaxpr, branches=False) and eigen in kinds(step.jaxpr, branches=True)
    alone, both = (simulate(experiment, seeds=2, members=width).weight_norm for width in ("map", "vmap"))
    np.testing.assert_allclose(alone, both, rtol=1e-5)


def kinds(jaxpr, *, branches):
    """Names of all operations of a program, those within branches only if asked for."""
    found = set()
    for one in jaxpr.eqns:
        found.add(one.primitive.name)
        if one.primitive.name != "cond" or branches:
            for inner in programs_within(one.params):
                found |= kinds(getattr(inner, "jaxpr", inner), branches=branches)
    return found
