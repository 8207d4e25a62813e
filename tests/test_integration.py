"""Differential equations along a run: the plain loop against diffrax's own, closed forms, and solutions that end."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary.rules.integration import integrated

MOST = 2_000


def turned(t, y):
    """A rotation that speeds up, with a damped second part."""
    place, size = y
    return (1 + t) * jnp.stack([-place[1], place[0]]), -size


@functools.partial(jax.jit, static_argnames="tolerance")
def ours(begun, start, stop, first, tolerance):
    return integrated(turned, begun, start, stop, first, tolerance=tolerance, max_steps=MOST)


@functools.partial(jax.jit, static_argnames="tolerance")
def peers(begun, start, stop, first, tolerance):
    """What `diffrax.diffeqsolve` makes of the same."""
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: turned(t, y)), diffrax.Tsit5(), start, stop, first, begun, max_steps=MOST,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * 1e-3, pcoeff=0.3, icoeff=0.3),
        adjoint=diffrax.ForwardMode(), throw=False,
    )  # fmt: skip
    return jax.tree.map(lambda y: y[0], found.ys), found.stats["num_steps"]


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 3), st.floats(0, 5), st.floats(1e-3, 1), st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_it_takes_the_steps_of_diffrax(start, length, first, tolerance):
    with jax.enable_x64(True):
        begun = (jnp.array([1.0, 0.5]), jnp.array(2.0))
        numbers = [jnp.asarray(number) for number in (start, start + length, min(first, length))]
        (mine, steps), (theirs, others) = (solve(begun, *numbers, tolerance=tolerance) for solve in (ours, peers))
        assert steps == others
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
        angle = length + ((start + length) ** 2 - start**2) / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(mine[0], turn @ begun[0], atol=1e3 * tolerance)
        np.testing.assert_allclose(mine[1], 2 * np.exp(-length), atol=1e3 * tolerance)


def blown_up(stop, steps):
    """dy/dt = y² from 1, which is at infinity at time 1."""
    number = lambda value: jnp.asarray(value, jnp.float32)
    solve = jax.jit(lambda stop: integrated(
        lambda t, y: y**2, number(1.0), number(0.0), stop, number(0.1), tolerance=1e-5, max_steps=steps))  # fmt: skip
    return solve(number(stop))


def test_a_solution_that_ends_is_no_number_and_no_long_wait():
    value, _ = blown_up(0.9, 10_000)
    assert value == pytest.approx(10.0, rel=1e-3)
    value, _ = blown_up(1.1, 1_000_000)
    assert np.isnan(value)


def test_too_few_steps_are_no_number():
    value, steps = blown_up(0.9, 5)
    assert np.isnan(value)
    assert steps == 5
