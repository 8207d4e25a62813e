"""The compiled loop: members started, advanced between observation times, observed.

Three programs a run, each compiled once for each shape: one that starts them (`armillary.starting`), `advance` (any number
of steps: the count is an argument) and `observe`. The host only decides when to look, which gives progress, slices and
checkpoints without changing a single number.
"""

import functools
import time as wall
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from armillary.compiled import FASTEST, LIGHT, Bound, Compiled
from armillary.members import Drawn, is_key, over_members, packed, unpacked
from armillary.process import all_finite
from armillary.quantity import Observation
from armillary.starting import Members, settled

LITTLE_TO_DO, MUCH_TO_DO = 3e5, 1.2e7
"""Elementary operations of one member in all of a run, for each equation of the program that advances it: up to the first
the quickest compilation will do for it, from the second on the most careful is worth its time (as measured; with 64 members
right at the second it takes a second longer and saves a fifth of one, so it pays from the fifth run on, out of the cache)."""

SOLVER_STEPS = 1000
"""Steps that a flow is taken to have: how many it will have is not known."""

LITTLE_TO_SEE, MUCH_TO_SEE = 8e6, 1e8
"""Elementary operations of all of a run's observations, for each equation of the program that looks: up to the first the
quickest compilation will do for it, from the second on the most careful is worth its time. A more careful one takes 1 to
4 ms longer an equation, and saves up to 1 ns an operation."""

FEW_LOOKS, LARGE_LOOK = 500, 2e3
"""On a CPU members are looked at one by one up to so many looks at single ones (side by side, a search's program is a quarter
longer), and from so many elementary operations of one member an equation on: side by side, such arrays leave the cache."""

REPORT_EVERY = 0.3
"""Seconds between two signs of life of a long stretch."""


def advanced(
    drawn: Drawn, keys: Array, state: PyTree, diverged: Array, begin: Array, end: Array, width: int
) -> tuple[PyTree, Array]:
    """Each member's state and divergence at time `end`, given that they are at `begin`."""

    def one(own: PyTree, state: PyTree, key: Array, diverged: Array) -> tuple[PyTree, Array]:
        state, diverged = drawn.whole(own).advance(unpacked(state), key, begin, end, diverged)
        return packed(state), diverged

    return over_members(one, width, drawn.own, state, keys, diverged)


advance = Compiled(advanced)


def observed(drawn: Drawn, state: PyTree, memory: PyTree, time: Array, width: int) -> tuple[Observation, PyTree]:
    """What each member's process records now, and what its probes remember of it."""

    def one(own: PyTree, state: PyTree, memory: PyTree) -> tuple[Observation, PyTree]:
        process, state = drawn.whole(own), unpacked(state)
        # What a diverged member shows is marked nan later; LAPACK must not see its nans, it prints and may hang.
        fine = all_finite(packed(process.watched(state)))
        clean = jax.tree.map(lambda a: jnp.where(fine, a, 0) if eqx.is_inexact_array(a) else a, state)
        return process.look(clean, time, memory)

    return over_members(one, width, drawn.own, state, memory)


observe = Compiled(observed)


@functools.partial(Compiled, options=LIGHT)
def hand_over(members: Members, template: Any, carry: Any, stage: int, width: int) -> Members:
    """Members that enter the next stage: a new process and state made of the old ones."""

    def one(own: PyTree, state: PyTree, key: Array) -> tuple[PyTree, PyTree, PyTree, PyTree]:
        fresh = jax.random.fold_in(key, 2 + stage)
        process = template.draw(jax.random.fold_in(fresh, 0))
        process, state = carry(members.drawn.whole(own), unpacked(state), process, jax.random.fold_in(fresh, 1))
        own, rest = eqx.partition(process, eqx.is_array)
        # Shapes may have changed: probes begin anew.
        return packed(own), rest, packed(state), process.before_looking(state)

    own, rest, state, memory = over_members(one, width, members.drawn.own, members.state, members.keys.own)
    return settled(Members(Drawn(own, rest), state, members.keys, members.diverged, memory))


def programs(members: Members, width: int, clock: np.ndarray, *, discrete: bool) -> tuple[Bound, Bound]:
    """What advances and what looks at these members along `clock`, each as well optimised as it is worth.

    How members are advanced must not depend on their number, or a member would not be the same in any company.
    """
    zero = jax.device_put(np.zeros((), np.int32 if discrete else jnp.result_type(float)))
    move = advance.bind(members.drawn, members.keys.steps, members.state, members.diverged, zero, zero, width)
    look = _looking(members, zero, width, len(clock))
    steps = clock[-1] - clock[0] if discrete else SOLVER_STEPS * (clock[-1] > clock[0])
    # A program of no steps is never run nor traced.
    done = steps and steps * move.work() / members.diverged.size / max(move.size(), 1)
    careful = LIGHT if done < MUCH_TO_DO or not discrete else {}
    seen = len(clock) * look.work() / max(look.size(), 1)
    return (
        move.under(FASTEST if done < LITTLE_TO_DO else careful),
        look.under(FASTEST if seen < LITTLE_TO_SEE else LIGHT if seen < MUCH_TO_SEE else {}),
    )


def _looking(members: Members, zero: Array, width: int, times: int) -> Bound:
    """What looks at members, as many side by side as is quickest, and `width` at most."""
    bound = lambda width: observe.bind(members.drawn, members.state, members.memory, zero, width)
    if width == 1 or jax.default_backend() != "cpu":
        return bound(width)
    alone, count = bound(1), members.diverged.size
    few = times * count <= FEW_LOOKS
    return alone if few or alone.work() >= LARGE_LOOK * count * alone.size() else bound(width)


def work(members: Members, clock: np.ndarray, *, discrete: bool) -> tuple[float, float]:
    """Elementary operations of advancing and of looking at these members (or members' shapes) along `clock`."""
    zero = jax.device_put(np.zeros((), np.int32 if discrete else jnp.result_type(float)))
    move = advance.bind(members.drawn, members.keys.steps, members.state, members.diverged, zero, zero, 1)
    look = observe.bind(members.drawn, members.state, members.memory, zero, 1)
    steps = clock[-1] - clock[0] if discrete else SOLVER_STEPS * (clock[-1] > clock[0])
    return steps and steps * move.work(), len(clock) * look.work()


class Saver(NamedTuple):
    """How a run is saved on its way: `save(looks, fresh, seen, arrays)` is called after a look where `due(looks)`, with how
    much of the clock is done, the number of looks since the last save, what they saw, and what `restored` needs."""

    due: Callable[[int], bool]
    save: Callable[[int, int, dict[str, Any], list[np.ndarray]], None]


def restored(members: Members, arrays: list[np.ndarray]) -> Members:
    """The members with arrays that a `Saver` was given."""
    leaves, tree = jax.tree.flatten(_changing(members))
    fresh = [
        jax.random.wrap_key_data(jax.device_put(new)) if is_key(old) else jax.device_put(new)
        for old, new in zip(leaves, arrays, strict=True)
    ]
    own, state, diverged, memory = jax.tree.unflatten(tree, fresh)
    own, state, memory = (
        eqx.combine(new, old)
        for new, old in ((own, members.drawn.own), (state, members.state), (memory, members.memory))
    )
    return Members(Drawn(own, members.drawn.shared), state, members.keys, diverged, memory)


def _changing(members: Members) -> PyTree:
    """What of members is their own, or changes."""
    return eqx.filter((members.drawn.own, members.state, members.diverged, members.memory), eqx.is_array)


def warm(members: Members, width: int, clock: np.ndarray, *, discrete: bool) -> None:
    """Compile what advances and looks at members, by a run of no steps, before several threads want it."""
    for program in programs(members, width, clock, discrete=discrete):
        jax.block_until_ready(program(program.leaves))


def follow(
    members: Members,
    clock: np.ndarray,
    width: int,
    progress: Callable[[float], None],
    *,
    discrete: bool,
    counted: int,
    skip: int = 0,
    saver: Saver | None = None,
) -> tuple[Members, dict[str, Any]]:
    """Run `members` along `clock`, observing at each of its times but the first `skip`.

    Long stretches of steps are cut so that there is a sign of life every `REPORT_EVERY` seconds; the cuts
    change nothing, because the number of steps is an argument of the compiled program.
    Returns the members at the end and, for each observed name, a quantity with a leading time axis.
    """
    move, look = programs(members, width, clock, discrete=discrete)
    moment = move.leaves[-1].dtype.type
    drawn, state = _arrays(members.drawn), _arrays((members.state, members.diverged))
    memory = _arrays(members.memory)
    fixed = move.leaves[: -len(state) - 2]  # what was drawn, and the keys
    own = [jax.device_get(_data(leaf)) for leaf in _arrays(members.drawn.own)] if saver else []
    now, seen, speed, told = clock[0], [], None, 0  # speed: steps a second of a call
    for index, goal in enumerate(clock):
        while now < goal:
            stop = goal
            if discrete and speed is None:
                stop = min(goal, now + 16)
            elif discrete:
                stop = min(goal, now + max(1, int(speed * REPORT_EVERY)))
            begun = wall.perf_counter()
            state = jax.block_until_ready(move([*fixed, *state, moment(now), moment(stop)]))
            taken = wall.perf_counter() - begun
            speed = (stop - now) / max(taken, 1e-6) if index > 0 or speed is None else speed
            progress((stop - now) * counted)
            now = stop
        if index >= skip:
            found = look([*drawn, *state[:-1], *memory, moment(now)])
            shown, memory = found[: len(found) - len(memory)], found[len(found) - len(memory) :]
            seen.append(jax.device_get(shown))
        if saver and saver.due(index + 1):
            arrays = [jax.device_get(_data(leaf)) for leaf in (*state, *memory)]
            saver.save(index + 1, len(seen) - told, _together(look, seen[told:], memory), own + arrays)
            told = len(seen)
    if now > clock[0]:
        after, diverged = move.whole(state)
        members = Members(members.drawn, after, members.keys, diverged, members.memory)
    # The memory at the end has no use: a next stage begins anew.
    return members, _together(look, seen, memory)


def _together(look: Bound, seen: list[list[np.ndarray]], memory: list[Array]) -> dict[str, Any]:
    """What was seen at several times, with a leading time axis."""
    return look.whole([*(np.stack(parts) for parts in zip(*seen, strict=True)), *memory])[0] if seen else {}


def _data(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _arrays(tree: PyTree) -> list[Array]:
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))
