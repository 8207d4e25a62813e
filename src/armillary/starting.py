"""How members of a run are drawn and begin: one member is traced, and the program is looped over all of them."""

import functools
from collections.abc import Callable, Sequence
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
from armillary.interpreter import GAVE_UP, from_numpy, interpreted, is_quick
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

    - `results`: the shapes of these arrays.
    - `tree` and `other`: how they are put together, and what of them is no array.
    - `untouched`: arrays of the process that are the template's as they were given, by place: which of the template's.
    """

    draw: Draw
    results: list[jax.ShapeDtypeStruct]
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
    kinds = [jax.ShapeDtypeStruct(kind.shape, kind.dtype) for kind in program.out_avals]
    return Member(draw_of(program, count, 2), kinds, tree, other, untouched)


def _follow_path(node: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        node = node[name] if isinstance(node, dict) or isinstance(name, int) else getattr(node, name)
    return node


class Start(NamedTuple):
    """Members that are to begin: each draws with one of the `seeds` (`which`) and has numbers of its own at `paths`.

    To be asked in the precision of the members' numbers.
    """

    template: Any
    paths: Paths
    values: list[np.ndarray]
    key: int
    seeds: np.ndarray
    which: np.ndarray

    @property
    def member(self) -> Member:
        """One of them, traced."""
        return member_of(self.template, self.paths, self.values)

    def shapes(self) -> Members:
        """The members with shapes in the place of arrays; nothing is drawn."""
        member, count = self.member, len(self.which)
        found = [jax.ShapeDtypeStruct((count, *kind.shape), kind.dtype) for kind in member.results]
        words: Any = jax.ShapeDtypeStruct((count, 2), np.uint32)
        pack = lambda arrays: jnp.stack(arrays, 1)
        members = lambda fixed, found, keys: _put_together(member, fixed, found, keys, pack)
        return eqx.filter_eval_shape(members, self._fixed(), found, Keys(words, words))

    def is_quick(self, members: int) -> bool:
        """Whether so many of them are drawn sooner in NumPy than compiled."""
        return is_quick(self.member.draw.program, members)

    def in_numpy(self) -> Members | None:
        """The members, drawn without compiling anything; None where NumPy lacks an operation, or gave up."""
        member, own = self.member, self._own_keys()
        draw = member.draw
        handed = draw.arrays(threefry.fold_in(own, 0), threefry.fold_in(own, 1))
        for place, var in enumerate(draw.handed):
            if is_key(var.aval):
                handed[place] = threefry.as_integers(handed[place])
        program = draw.closed(self._fixed())
        parts = halves(program, len(handed)) if self.values else (program, None)
        first, second = (part and interpreted(part) for part in parts)
        if first is None or (self.values and second is None):
            return None
        try:
            with np.errstate(all="ignore"):  # what is not finite is found out and told (`Member`)
                rows = [first(*(array[row] for array in handed)) for row in range(len(self.seeds))]
                if second:
                    mine = zip(self.which, *self.values, strict=True)
                    rows = [second(*rows[seed], *(np.asarray(value) for value in values)) for seed, *values in mine]
        except GAVE_UP:
            return None
        columns = enumerate(zip(zip(*rows, strict=True), member.results, strict=True))
        found = [
            None if place in member.untouched else from_numpy(np.stack(column), kind)
            for place, (column, kind) in columns
        ]
        pack = lambda arrays: jax.device_put(np.stack(arrays, 1))
        return _put_together(member, self._fixed(), found, self._keys(), pack)

    def compiled(self, *, company: bool) -> Bound:
        """What draws them and begins them, compiled.

        `company`: one seed or member alone is done together with itself, which nobody sees: XLA dissolves a loop of one, and
        `FASTEST` would then round it differently.
        """
        alone = company and len(self.which) == 1
        seeds, which, values = self.seeds, self.which, self.values
        if company and len(seeds) == 1:
            seeds = np.repeat(seeds, 2)
        if alone:
            which, *values = (np.repeat(rows, 2, 0) for rows in (which, *values))
        start = self._replace(seeds=seeds, which=which, values=values)
        own = start._own_keys()
        numbers = jax.device_put(self.member.draw.numbers(threefry.fold_in(own, 0), threefry.fold_in(own, 1)))
        # Unsigned, because a signed place may count from the end, which takes three operations an axis to find out.
        values, which = jax.device_put((values, which.astype(np.uint32)))
        return _start.bind(self.template, self.paths, values, numbers, start._keys(), which, alone)

    def _own_keys(self) -> threefry.Words:
        return threefry.fold_in(threefry.key_of(self.key), self.seeds)

    def _keys(self) -> Keys:
        own = self._own_keys()[self.which]
        return Keys(*jax.device_put((own, threefry.fold_in(own, 2))))

    def _fixed(self) -> list[Array]:
        return jax.tree.leaves(eqx.filter(self.template, eqx.is_array))


def _put_together(
    member: Member, fixed: list[Array], results: list[Any], keys: Keys, pack: Callable[[list[Any]], Array]
) -> Members:
    """Members of what the traced program gives for each of them, with a leading axis for the members."""
    own, state, diverged, memory = member.whole(results)
    keys = Keys(*(jax.random.wrap_key_data(words, impl=threefry.NAME) for words in keys))
    return Members(Drawn(packed(own, pack), member.shared(fixed)), packed(state, pack), keys, diverged, memory)


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
        common, rest = map(jaxpr_as_fun, halves(program, len(member.draw.handed)))
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


def settled(members: Members) -> Members:
    """The members with definite types, as `advance` returns them: else its second call would compile it anew."""

    def settle(leaf: Any) -> Any:
        return leaf.astype(leaf.dtype) if eqx.is_array(leaf) and not is_key(leaf) else leaf

    return jax.tree.map(settle, members)
