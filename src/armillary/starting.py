"""How members of a run are drawn and begin: one member is traced, and the program is looped over all of them."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Var, jaxpr_as_fun
from jaxtyping import Array, PyTree

from armillary import threefry
from armillary.compiled import Bound, Compiled, Form, form_of
from armillary.dependence import halves
from armillary.drawing import Draw, draw_of
from armillary.members import Drawn, is_key, over_members, packed
from armillary.process import all_finite

Paths = tuple[tuple[str | int, ...], ...]


class Keys(NamedTuple):
    """A member's own key, and the one that its steps draw theirs from."""

    own: Array
    steps: Array


class Members(eqx.Module):
    """Members of a run at one moment: their processes, states (each `packed`), keys, where they diverged (-1: nowhere), and
    what their probes remember of the last observation."""

    drawn: Drawn
    state: PyTree
    keys: Keys
    diverged: Array
    memory: PyTree


class Member(NamedTuple):
    """One member traced: its draw and start, whose results are the arrays of (process, state, diverged, memory).

    - `tree` and `other`: how these are put together, and what of them is no array.
    - `untouched`: arrays of the process that are the template's as they were given, by place: which of the template's.
    """

    draw: Draw
    tree: Any
    other: Any
    untouched: dict[int, int]

    def whole(self, results: list[Any]) -> tuple[PyTree, PyTree, Array, PyTree]:
        """What of a member is its own: process (without what is untouched), state, where it diverged, memory."""
        # A result that is the same for any input comes as a plain number.
        mine = [None if place in self.untouched else jnp.asarray(result) for place, result in enumerate(results)]
        own, *rest = jax.tree.unflatten(self.tree, mine)
        return own, *eqx.combine(rest, list(self.other[1:]))

    def shared(self, template: list[Array]) -> PyTree:
        """What of the process is the same for all: arrays of the template, and what is no array."""
        places = range(self.tree.num_leaves)
        ours = [template[self.untouched[place]] if place in self.untouched else None for place in places]
        return eqx.combine(jax.tree.unflatten(self.tree, ours)[0], self.other[0])


def member_of(template: Any, paths: Paths, values: list[Any]) -> Member:
    """A member of the template with numbers of its own at `paths`, of which `values` has one for each member.

    Templates and values of one form are traced once.
    """
    form, _ = form_of(template, [jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for value in values])
    return _traced(form, paths, jnp.result_type(float))


@functools.lru_cache(8)
def _traced(form: Form, paths: Paths, precision: Any) -> Member:
    count = len(form.shapes) - len(paths)
    outcome: list[Any] = []

    def one(fixed: Sequence[Array], keys: Sequence[Array], own: Sequence[Array]) -> list[Array]:
        template, values = form.whole([*fixed, *own])
        for path, value in zip(paths, values, strict=True):
            template = eqx.tree_at(lambda t, p=path: _follow_path(t, p), template, value, is_leaf=lambda x: x is None)
        process = template.draw(keys[0])
        state = process.init(keys[1])
        nowhere = jnp.asarray(-1, jnp.int32 if process.discrete else precision)
        # What is not finite at the start (a fit that failed) must not be shown as a number.
        diverged = jnp.where(all_finite(packed(process.watched(state))), nowhere, jnp.zeros_like(nowhere))
        arrays, other = eqx.partition((process, state, diverged, process.before_looking(state)), eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        outcome[:] = [tree, other, len(jax.tree.leaves(arrays[0]))]
        return leaves

    key = jax.eval_shape(lambda: jax.random.key(0, impl=threefry.NAME))
    program = jax.make_jaxpr(one)(form.shapes[:count], [key, key], form.shapes[count:])
    tree, other, ours = outcome
    place_of = {var: place for place, var in enumerate(program.jaxpr.invars[:count])}
    results = enumerate(program.jaxpr.outvars[:ours])
    untouched = {place: place_of[var] for place, var in results if isinstance(var, Var) and var in place_of}
    return Member(draw_of(program, count, 2), tree, other, untouched)


def _follow_path(node: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        node = node[name] if isinstance(node, dict) or isinstance(name, int) else getattr(node, name)
    return node


def _started(
    template: Any, paths: Paths, values: list[Array], numbers: Array, keys: Keys, which: Array, alone: bool
) -> Members:
    """Members with keys, values and what is drawn for `which` of the rows of `numbers` each; the first only if it is `alone`.

    What of a draw the values have no part in is worked out once for each row.
    """
    member = member_of(template, paths, values)
    fixed = jax.tree.leaves(eqx.filter(template, eqx.is_array))
    program, integers = member.draw.closed(fixed), member.draw.integers
    # One by one on a CPU: a member's draw is then the same in any company, and batched LAPACK is no faster there.
    width = 1 if jax.default_backend() == "cpu" else len(which)

    def ended(results: list[Any]) -> tuple[PyTree, PyTree, Array, PyTree]:
        own, state, diverged, memory = member.whole(results)
        return packed(own), packed(state), diverged, memory

    if values:
        common, rest = halves(program, len(member.draw.handed))
        known = over_members(lambda row: common(*integers(row)), width, numbers)
        at = lambda row: (lax.dynamic_index_in_dim(array, row, keepdims=False) for array in known)
        one = lambda row, *mine: ended(rest(*at(row), *mine))
        own, state, diverged, memory = over_members(one, width, which, *values)
    else:
        whole = jaxpr_as_fun(program)
        own, state, diverged, memory = over_members(lambda row: ended(whole(*integers(row))), width, numbers)
    keys = Keys(*(jax.random.wrap_key_data(words, impl=threefry.NAME) for words in keys))
    if alone:
        first = lambda leaf: leaf[:1] if eqx.is_array(leaf) else leaf
        own, state, keys, diverged, memory = jax.tree.map(first, (own, state, keys, diverged, memory))
    return settled(Members(Drawn(own, member.shared(fixed)), state, keys, diverged, memory))


_start = Compiled(_started, kept=4)


def start_of(
    template: Any,
    paths: Paths,
    values: list[np.ndarray],
    key: int,
    seeds: np.ndarray,
    which: np.ndarray,
    *,
    company: bool,
    drawn: bool = True,
) -> Bound:
    """What draws members and begins them: each has one of the `seeds` (`which`), and numbers of its own at `paths`.

    - `company`: one seed or member alone is done together with itself, which nobody sees: XLA dissolves a loop of one, and
      `FASTEST` would then round it differently.
    - `drawn`: whether it will be called; else only shapes can be asked for.
    """
    alone = company and len(which) == 1
    if company and len(seeds) == 1:
        seeds = np.repeat(seeds, 2)
    if alone:
        which, *values = (np.repeat(rows, 2, 0) for rows in (which, *values))
    own = threefry.fold_in(threefry.key_of(key), seeds)
    steps = threefry.fold_in(own, 2)
    draw = member_of(template, paths, values).draw
    if drawn:
        numbers = jax.device_put(draw.numbers(threefry.fold_in(own, 0), threefry.fold_in(own, 1)))
    else:
        numbers = jax.ShapeDtypeStruct((len(seeds), draw.words), np.uint32)
    keys = Keys(*jax.device_put((own[which], steps[which])))
    # Unsigned, because a signed place may count from the end, which takes three operations an axis to find out.
    values, which = jax.device_put((values, which.astype(np.uint32)))
    return _start.bind(template, paths, values, numbers, keys, which, alone)


def settled(members: Members) -> Members:
    """The members with definite types, as `advance` returns them: else its second call would compile it anew."""

    def settle(leaf: Any) -> Any:
        return leaf.astype(leaf.dtype) if eqx.is_array(leaf) and not is_key(leaf) else leaf

    return jax.tree.map(settle, members)
