"""The compiled loop: members started, advanced between observation times, observed.

Three programs a run, each compiled once for each shape: `start`, `advance` (any number of steps: the count is
an argument) and `observe`. The host only decides when to look, which gives progress, slices and
checkpoints without changing a single number.
"""

import time as wall
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from armillary.compiled import compiled, compiled_fast
from armillary.members import Drawn, bytes_of, draw_members, over_members
from armillary.process import Process
from armillary.quantity import Observation

LARGE = 1 << 23
"""Bytes of members from which looking at them is worth a well-optimised program."""

REPORT_EVERY = 0.3
"""Seconds between two signs of life of a long stretch."""


class Members(eqx.Module):
    """Members of a run at one moment: their processes, states, keys and where they diverged (-1: nowhere)."""

    drawn: Drawn
    state: PyTree
    keys: Array
    diverged: Array


def drawn_and_begun(
    template: Any, paths: tuple[tuple[str, ...], ...], values: list[Array], keys: Array, width: int
) -> Members:
    """Members drawn from `template`, each with its own `values` at `paths` and its own key."""

    def draw(template: Any, key: Array, *mine: Array) -> Process:
        for path, value in zip(paths, mine, strict=True):
            template = eqx.tree_at(lambda t, p=path: _follow_path(t, p), template, value, is_leaf=lambda x: x is None)
        return template.draw(jax.random.fold_in(key, 0))

    drawn = draw_members(draw, template, width, keys, *values)
    begin = lambda own, key: drawn.whole(own).init(jax.random.fold_in(key, 1))
    state = over_members(begin, width, drawn.own, keys)
    nowhere = jnp.asarray(-1, jnp.int32 if template.discrete else jnp.result_type(float))
    return settled(Members(drawn, state, keys, jnp.full(keys.shape, nowhere)))


def settled(members: Members) -> Members:
    """The members with definite types, as `advance` returns them: else its second call would compile it anew."""

    def settle(leaf: Any) -> Any:
        is_key = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf.astype(leaf.dtype) if eqx.is_array(leaf) and not is_key else leaf

    return jax.tree.map(settle, members)


start = compiled(drawn_and_begun)
start_fast = compiled_fast(drawn_and_begun)
"""The same, compiled in a tenth of the time: for draws that take no time anyway."""


@compiled
def advance(members: Members, begin: Array, end: Array, width: int) -> Members:
    """The members at time `end`, given that they are at `begin`."""

    def one(own: PyTree, state: PyTree, key: Array, diverged: Array) -> tuple[PyTree, Array]:
        return members.drawn.whole(own).advance(state, jax.random.fold_in(key, 2), begin, end, diverged)

    state, diverged = over_members(one, width, members.drawn.own, members.state, members.keys, members.diverged)
    return Members(members.drawn, state, members.keys, diverged)


def observed(members: Members, time: Array, width: int) -> Observation:
    """What each member's process records now."""

    def one(own: PyTree, state: PyTree) -> Observation:
        process = members.drawn.whole(own)
        # What a diverged member shows is marked nan later; LAPACK must not see its nans, it prints and may hang.
        fine = process.is_healthy(state)
        clean = jax.tree.map(lambda a: jnp.where(fine, a, 0) if eqx.is_inexact_array(a) else a, state)
        return process.observe(clean, time)

    return over_members(one, width, members.drawn.own, members.state)


observe = compiled(observed)
observe_fast = compiled_fast(observed)
"""The same, compiled in a fifth of the time: for members so small that looking takes no time anyway."""


@compiled
def hand_over(members: Members, template: Any, carry: Any, stage: int, width: int) -> Members:
    """Members that enter the next stage: a new process and state made of the old ones."""

    def one(own: PyTree, state: PyTree, key: Array) -> tuple[Process, PyTree]:
        fresh = jax.random.fold_in(key, 2 + stage)
        process = template.draw(jax.random.fold_in(fresh, 0))
        return carry(members.drawn.whole(own), state, process, jax.random.fold_in(fresh, 1))

    process, state = over_members(one, width, members.drawn.own, members.state, members.keys)
    own, rest = eqx.partition(process, eqx.is_array)
    return settled(Members(Drawn(own, rest), state, members.keys, members.diverged))


def observer(members: Members) -> Any:
    """The program that looks at `members`: well optimised where there is much to look at."""
    return observe if bytes_of(members) > LARGE else observe_fast


def warm(members: Members, width: int) -> None:
    """Compile what advances and observes members, by a run of no steps, before several threads want it."""
    zero = _moment(0, jnp.issubdtype(members.diverged.dtype, jnp.integer))
    observer(members)(advance(members, zero, zero, width), zero, width)


def follow(
    members: Members,
    clock: np.ndarray,
    width: int,
    progress: Callable[[float], None],
    *,
    discrete: bool,
    counted: int,
    skip: int = 0,
) -> tuple[Members, dict[str, Any]]:
    """Run `members` along `clock`, observing at each of its times but the first `skip`.

    Long stretches of steps are cut so that there is a sign of life every `REPORT_EVERY` seconds; the cuts
    change nothing, because the number of steps is an argument of the compiled program.
    Returns the members at the end and, for each observed name, a quantity with a leading time axis.
    """
    now = clock[0]
    seen, look = [], observer(members)
    speed = None  # steps a second of a call
    for index, goal in enumerate(clock):
        while now < goal:
            stop = goal
            if discrete and speed is None:
                stop = min(goal, now + 16)
            elif discrete:
                stop = min(goal, now + max(1, int(speed * REPORT_EVERY)))
            begun = wall.perf_counter()
            members = jax.block_until_ready(advance(members, _moment(now, discrete), _moment(stop, discrete), width))
            taken = wall.perf_counter() - begun
            speed = (stop - now) / max(taken, 1e-6) if index > 0 or speed is None else speed
            progress((stop - now) * counted)
            now = stop
        if index >= skip:
            seen.append(jax.device_get(look(members, _moment(now, discrete), width)))
    if not seen:
        return members, {}
    return members, jax.tree.map(lambda *parts: np.stack(parts), *seen)


def _moment(time: float, discrete: bool) -> Array:
    return jnp.asarray(int(time), jnp.int32) if discrete else jnp.asarray(time, jnp.result_type(float))


def _follow_path(node: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    return node
