"""Paths between two trained networks: through dropped units, bent around what is high, and permutations that align
units.

Each returns networks: the corners of a piecewise linear path for `armillary.loss_along`.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree

from armillary.compiled import Compiled
from armillary.errors import InvalidValue, is_traced, require_between, unknown
from armillary.models.layers import Weights, as_masks, dense_layers, dropped, hidden_widths, with_layers
from armillary.models.model import learning_rate_scales, parameters
from armillary.paths import check_corners, network_at
from armillary.rules.optimisers import Adam, Optimiser
from armillary.tasks.data import Samples

Network = PyTree
Units = list[Int[np.ndarray, " _unit"]]
Curve = Literal["polygon", "bezier"]


def dropout_path(first: Network, second: Network, *, kept: Any = None) -> list[Network]:
    """Corners of a path from `first` to `second` on which the loss is high only where dropping units makes it so.

    Each network drops to the same `kept` units of each hidden layer (masks as `dropped` takes them; the first half
    unless given), at most half: the others then have no effect, take the other network's kept units, and the output
    weights move over to them and back. Seven segments for one hidden layer, eight more for each further one, whose
    units are dropped layer by layer, the last hidden layer first. For a loss that is convex in the outputs its largest
    value on the path is that at a corner: of an end, or of an end with the units of its last hidden layers dropped.

    Raises `InvalidValue` for more units kept than dropped, and for networks that are no equal chains of dense layers.
    Cost: memory of 8 networks (16 with two hidden layers). Source: Kuditipudi et al. (2019), as used by Shevchenko &
    Mondelli (2020).

    >>> a, b = (eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(seed)) for seed in (0, 1))
    >>> len(dropout_path(a, b))
    8
    """
    check_corners([first, second])
    widths = hidden_widths(first)
    stay, spare = _halves(kept, widths)
    down, up = _descent(first, stay, spare), _descent(second, stay, spare)
    target = dense_layers(dropped(second, _masks(stay, widths)))
    across = [dense_layers(down[-1])]
    for to in (spare, stay):
        across.append(_rewired(across[-1], target, 0, to, stay))
        across.append(_rerouted(across[-1], target, to, stay))
    return [*down, *(with_layers(first, layers) for layers in across[1:]), *reversed(up)]


def _halves(kept: Any, widths: Sequence[int]) -> tuple[Units, Units]:
    """The units kept in each hidden layer, and as many others that take their place meanwhile."""
    masks = [np.arange(width) < width // 2 for width in widths] if kept is None else as_masks(kept, widths)
    stay, spare = [], []
    for mask, width in zip(masks, widths, strict=True):
        on = np.ones(width, bool) if mask is None else np.asarray(mask, bool)
        note = "half of its layer, so that there is room for the other network's"
        require_between("the number of units kept", int(on.sum()), 1, width // 2, note=note)
        stay.append(np.flatnonzero(on))
        spare.append(np.flatnonzero(~on)[: on.sum()])
    return stay, spare


def _masks(units: Units, widths: Sequence[int]) -> list[Any]:
    return [np.isin(np.arange(width), on) for on, width in zip(units, widths, strict=True)]


def _descent(network: Network, stay: Units, spare: Units) -> list[Network]:
    """Corners from the network to the one whose output sees the kept units of all layers only."""
    masks = _masks(stay, hidden_widths(network))
    alone = lambda first: dropped(network, [m if i >= first else None for i, m in enumerate(masks)])
    corners = [network, alone(len(masks) - 1)]
    for layer in reversed(range(len(masks) - 1)):
        target, now = dense_layers(alone(layer)), dense_layers(corners[-1])
        for to in (spare, stay):
            rewired = _rewired(now, target, layer + 1, to, stay)
            now = _rerouted(rewired, target, to, stay)
            corners += [with_layers(network, rewired), with_layers(network, now)]
    return corners


def _rewired(layers: list[Weights], source: list[Weights], start: int, to: Units, by: Units) -> list[Weights]:
    """From hidden layer `start` on, the units `to` compute what the units `by` do in `source`: the output is unchanged
    where it does not see them."""
    changed = list(layers)
    for index in range(start, len(layers) - 1):
        weight, bias = layers[index]
        place, there = _place(weight.shape[0], to[index], by[index])
        rows = source[index].weight[place]
        if index > start:
            before, seen = _place(weight.shape[1], to[index - 1], by[index - 1])
            rows = jnp.where(seen, rows[:, before], 0.0)
        moved = None if bias is None else jnp.where(there, _bias(source[index])[place], bias)
        changed[index] = Weights(jnp.where(there[:, None], rows, weight), moved)
    return changed


def _place(width: int, to: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which unit each of a layer's units becomes, and whether it does: reading is cheaper than writing in place."""
    place, there = np.arange(width), np.zeros(width, bool)
    place[to], there[to] = by, True
    return place, there


def _bias(layer: Weights) -> Array:
    assert layer.bias is not None  # the networks have one architecture
    return layer.bias


def _rerouted(layers: list[Weights], source: list[Weights], to: Units, by: Units) -> list[Weights]:
    """The output takes from the units `to` of the last hidden layer what it takes from `by` in `source`."""
    weight, bias = source[-1]
    place, there = _place(weight.shape[1], to[-1], by[-1])
    return [*layers[:-1], Weights(jnp.where(there, weight[:, place], 0.0), bias)]


def bent_path(
    loss: Any,
    first: Network,
    second: Network,
    samples: Samples | tuple,
    *,
    curve: Curve = "polygon",
    optimiser: Optimiser | None = None,
    steps: int = 200,
    pieces: int = 10,
    seed: int = 0,
) -> list[Network]:
    """Corners of a path with one trained bend: the middle network descends the expected loss at a uniform position.

    `curve` is "polygon" (three corners) or "bezier", the quadratic curve with the bend as its control point, cut into
    `pieces` straight ones. The bend starts half-way between the ends; each of `steps` steps of the `optimiser` (Adam
    at 0.01) takes one random position and all `samples` (or a pair (inputs, targets)), with the layers' own
    learning-rate factors. Runs compiled, and inside compiled programs. Raises `UnknownName` for another curve,
    `InvalidValue` for negative steps, fewer than two pieces and networks of different shapes. Source: Garipov et al.
    (2018).

    >>> from armillary.rules import Loss
    >>> a, b = (eqx.nn.Linear(1, 1, key=jax.random.key(seed)) for seed in (0, 1))
    >>> pair = (jnp.ones((1, 1)), jnp.zeros((1, 1)))
    >>> len(bent_path(Loss(), a, b, pair, steps=5)), len(bent_path(Loss(), a, b, pair, curve="bezier", steps=5))
    (3, 11)
    """
    if curve not in get_args(Curve):
        raise unknown("curve", curve, get_args(Curve))
    require_between("the number of steps", steps, 0)
    require_between("the number of pieces", pieces, 2)
    check_corners([first, second])
    pair = Samples(*samples) if isinstance(samples, tuple) else samples
    optimiser = Adam(0.01) if optimiser is None else optimiser
    train = _trained_bend if _traced((first, second, pair, optimiser)) else _bend
    middle = train(loss, (first, second), pair, optimiser, curve, steps, seed)
    if curve == "polygon":
        return [first, middle, second]
    inner = [_on_curve((first, middle, second), t, curve) for t in np.linspace(0.0, 1.0, pieces + 1)[1:-1]]
    return [first, *inner, second]


def _on_curve(corners: tuple[Network, Network, Network], t: Any, curve: Curve) -> Network:
    """The network at t from 0 to 1: de Casteljau's two mixtures of mixtures for the quadratic curve."""
    if curve == "polygon":
        return network_at(corners, 2 * t)
    return network_at((network_at(corners[:2], t), network_at(corners[1:], t)), t)


def _trained_bend(
    loss: Any, ends: tuple[Network, Network], samples: Any, optimiser: Any, curve: Any, steps: int, seed: int
) -> Network:
    first, second = ends
    descent = optimiser.transformation()
    rates = learning_rate_scales(first, adaptive=optimiser.adaptive)
    bend, static = eqx.partition(network_at(ends, 0.5), eqx.is_inexact_array)

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        bend, memory = carry
        along = lambda b: loss(
            _on_curve((first, eqx.combine(b, static), second), jax.random.uniform(key), curve), samples
        )
        updates, memory = descent.update(jax.grad(along)(bend), memory, bend)
        updates = jax.tree.map(lambda u, rate: rate * u, updates, rates)
        return (eqx.apply_updates(bend, updates), memory), None

    keys = jax.random.split(jax.random.key(seed), steps)
    (bend, _), _ = lax.scan(step, (bend, descent.init(parameters(bend))), keys)
    return eqx.combine(bend, static)


_bend = Compiled(_trained_bend)


def _traced(tree: PyTree) -> bool:
    """Whether it is inside a compiled program, which cannot have another one with options of its own."""
    return any(is_traced(leaf) for leaf in jax.tree.leaves(tree))


def aligned(network: Network, like: Network, *, sweeps: int = 100) -> Network:
    """The same function with its hidden units in the order that brings its weights nearest to those of `like`.

    One hidden layer after another, units are assigned so that the inner product of incoming and outgoing weights and
    biases with the other network's is largest, until none changes: a local optimum, that of the squared distance too.
    After so many `sweeps` it is what it is. Not inside compiled programs. Raises `InvalidValue` for fewer than one
    sweep and for networks that are no equal chains of dense layers. Cost: width³ a layer and sweep. Source: weight
    matching of Ainsworth, Hayase & Srinivasa (2023), with the layers in order instead of at random.

    >>> network = eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(0))
    >>> turned = with_layers(network, permuted(dense_layers(network), [np.array([2, 0, 3, 1])]))
    >>> bool(jnp.all(aligned(turned, network).layers[0].weight == network.layers[0].weight))
    True
    """
    from scipy.optimize import linear_sum_assignment  # loads slowly

    check_corners([network, like])
    require_between("the number of sweeps", sweeps, 1)
    if _traced((network, like)):
        raise InvalidValue("units are aligned one network at a time, not inside a compiled program; call it outside")
    layers, goal = dense_layers(network), [np.asarray(layer.weight, float) for layer in dense_layers(like)]
    biases = [None if layer.bias is None else np.asarray(layer.bias, float) for layer in dense_layers(like)]
    orders = [np.arange(width) for width in hidden_widths(network)]
    for _ in range(sweeps):
        before = [order.copy() for order in orders]
        for index in range(len(orders)):
            free = [np.arange(len(o)) if i == index else o for i, o in enumerate(orders)]
            now = [np.asarray(layer.weight, float) for layer in permuted(layers, free)]
            match = goal[index] @ now[index].T + goal[index + 1].T @ now[index + 1]
            mine, other = biases[index], layers[index].bias
            if mine is not None and other is not None:
                match = match + np.outer(mine, np.asarray(other, float))
            orders[index] = linear_sum_assignment(match, maximize=True)[1]
        if all((a == b).all() for a, b in zip(before, orders, strict=True)):
            break
    return with_layers(network, permuted(layers, orders))


def permuted(layers: list[Weights], orders: Units) -> list[Weights]:
    """The same layers with each hidden layer's units in another order: unit i is what unit order[i] was."""
    turned = []
    for index, (weight, bias) in enumerate(layers):
        rows = orders[index] if index < len(orders) else slice(None)
        weight = weight[:, orders[index - 1]] if index else weight
        turned.append(Weights(weight[rows], None if bias is None else bias[rows]))
    return turned
