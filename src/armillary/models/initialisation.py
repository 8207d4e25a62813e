"""Initial weights of linear chains: random, orthogonal, decoupled, pretrained."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.settings import derived, floats

Stacks = tuple[Float[Array, "_layer _output _input"], ...]
"""Weights of a chain: its first layer, its hidden layers, its last one (as many of these as there are layers)."""


def haar_orthogonal(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """A matrix with orthonormal columns (or rows, whichever are fewer), uniform over all such matrices.

    The sign of R's diagonal is moved into Q: without it the QR of a Gaussian is not Haar (Mezzadri 2007).
    """
    tall = jax.random.normal(key, (max(rows, columns), min(rows, columns)))
    q, r = jnp.linalg.qr(tall)
    q = q * jnp.sign(jnp.diagonal(r))
    return q if rows >= columns else q.T


def drawn_alike(draw: Callable[[PRNGKeyArray, int, int], Array], key: PRNGKeyArray, sizes: Sequence[int]) -> Stacks:
    """`draw(key, output, input)` for each layer between `sizes`: the first, the hidden ones as one batch, the last.

    A deep network then compiles as fast as a shallow one, and layers of one shape are drawn by one piece of code. Hidden
    layers that are not equally wide come one by one, as batches of one; `gaussian_alike` compiles them faster.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    if len(set(sizes[1:-1])) > 1:
        return tuple(draw(k, rows, columns)[None] for k, columns, rows in zip(keys, sizes, sizes[1:], strict=False))
    shapes = ((sizes[1], sizes[0]), (sizes[1], sizes[1]), (sizes[-1], sizes[-2]))
    runs = [(run, s) for run, s in zip((keys[:1], keys[1:-1], keys[1:][-1:]), shapes, strict=True) if len(run)]
    stacks: dict[int, Array] = {}
    for shape in dict.fromkeys(shape for _, shape in runs):
        alike = [index for index, (_, other) in enumerate(runs) if other == shape]
        together = jnp.concatenate([runs[index][0] for index in alike])
        drawn = jax.vmap(lambda k, s=shape: draw(k, *s))(together)
        ends = np.cumsum([len(runs[index][0]) for index in alike])
        stacks.update(zip(alike, jnp.split(drawn, ends[:-1]), strict=True))
    return tuple(stacks[index] for index in range(len(runs)))


def gaussian_alike(key: PRNGKeyArray, sizes: Sequence[int]) -> Stacks:
    """Independent N(0, 1) entries for the layers between `sizes`, as `drawn_alike`; unequal ones are cut from one draw, which
    compiles in the time of one layer."""
    if len(set(sizes[1:-1])) <= 1:
        return drawn_alike(lambda k, o, i: jax.random.normal(k, (o, i)), key, sizes)
    shapes = list(itertools.pairwise(sizes))
    ends = np.cumsum([columns * rows for columns, rows in shapes])
    entries = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    return tuple(part.reshape(1, rows, columns) for part, (columns, rows) in zip(entries, shapes, strict=True))


def singular_frames(target: ArrayLike) -> tuple[Float[Array, "output mode"], Float[Array, "input mode"]]:
    """Left and right singular vectors of a matrix as columns, strongest mode first."""
    u, _, vt = np.linalg.svd(np.asarray(target, dtype=float), full_matrices=False)
    return floats(u), floats(vt.T)


class Gaussian(eqx.Module):
    """Independent entries N(0, scale²/fan_in), or N(0, scale²) with `per_entry`."""

    scale: float = 1.0
    per_entry: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_between("the initial scale", self.scale, 0.0)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Stacks:
        stacks = drawn_alike(lambda k, o, i: jax.random.normal(k, (o, i)), key, sizes)
        return tuple(self.scale * w / (1.0 if self.per_entry else np.sqrt(w.shape[2])) for w in stacks)


class Orthogonal(eqx.Module):
    """Haar-orthogonal weights times a gain: all singular values of the product are gain^depth."""

    gain: float = 1.0

    def __check_init__(self):
        require_between("the gain", self.gain, 0.0)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Stacks:
        return tuple(self.gain * w for w in drawn_alike(haar_orthogonal, key, sizes))


class Decoupled(eqx.Module):
    """Weights whose modes never mix: W_l = R_{l+1} D_l R_lᵀ with R_1 = V, R_last = U of the target's SVD.

    `strength` is every mode's initial product of layer strengths, split evenly over the layers;
    `imbalance` multiplies the first layer's strengths and divides the last one's, keeping the product.
    The hidden rotations are Haar. `target` is the input-output correlation, whose singular vectors are
    taken. Source: Saxe, McClelland & Ganguli (2013)

    Raises `InvalidValue` where a hidden layer is narrower than the number of modes.
    """

    target: Float[Array, "output input"]
    strength: float
    imbalance: float
    frames: tuple[Float[Array, "output mode"], Float[Array, "input mode"]] = derived()

    def __init__(self, target: ArrayLike, strength: float = 1e-3, imbalance: float = 1.0):
        require_between("the initial mode strength", strength, 0.0, open_low=True)
        require_between("imbalance", imbalance, 0.0, open_low=True)
        self.target, self.strength, self.imbalance = floats(target), strength, imbalance
        self.frames = singular_frames(target)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Stacks:
        modes = min(self.target.shape)
        if min(sizes) < modes:
            raise InvalidValue(f"a layer is {min(sizes)} wide, but must be at least {modes}, the number of modes")
        layers = len(sizes) - 1
        u, v = self.frames
        level = jnp.asarray(self.strength) ** (1 / layers)
        if layers == 1:
            return (level * (u @ v.T)[None],)
        keys = jax.random.split(key, layers)[:-1]
        r = jax.vmap(lambda k: haar_orthogonal(k, sizes[1], modes))(keys)  # [hidden layer, neuron, mode]
        first, last = level * self.imbalance * r[:1] @ v.T, level / self.imbalance * u @ r[-1:].mT
        hidden = level * r[1:] @ r[:-1].mT
        return (first, hidden, last) if layers > 2 else (first, last)


class GreedyAutoencoder(eqx.Module):
    """Weights as greedy layer-wise pretraining leaves them: each layer a linear autoencoder of the one below.

    A linear autoencoder trained from small balanced weights keeps the leading principal directions of its
    input and ends as an orthonormal map onto them, up to a rotation (Baldi & Hornik 1989; Saxe et al. 2013).
    So W_1 = R_1 P with the rows of P the leading eigenvectors of `input_correlation`; the hidden layers, whose
    inputs are then rotated principal components of equal variance, are rotations themselves. The last layer was never pretrained: `readout` is "orthogonal" or "gaussian", of size `scale`.
    """

    input_correlation: Float[Array, "input input"]
    scale: float
    readout: Literal["orthogonal", "gaussian"] = eqx.field(static=True)
    principal: Float[Array, "component input"] = derived()

    def __init__(
        self,
        input_correlation: ArrayLike,
        scale: float = 1.0,
        readout: Literal["orthogonal", "gaussian"] = "orthogonal",
    ):
        require_between("the read-out's scale", scale, 0.0)
        if readout not in ("orthogonal", "gaussian"):
            raise unknown("readout", readout, ("orthogonal", "gaussian"))
        self.input_correlation, self.scale, self.readout = floats(input_correlation), scale, readout
        _, vectors = np.linalg.eigh(np.asarray(input_correlation, dtype=float))  # ascending
        self.principal = floats(vectors[:, ::-1].T)

    def __call__(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> Stacks:
        key_readout, key_hidden = jax.random.split(key)
        if self.readout == "orthogonal":
            last = self.scale * haar_orthogonal(key_readout, sizes[-1], sizes[-2])[None]
        else:
            last = self.scale * jax.random.normal(key_readout, (1, sizes[-1], sizes[-2])) / np.sqrt(sizes[-2])
        if len(sizes) == 2:
            return (last,)
        rotations = jax.vmap(lambda k: haar_orthogonal(k, sizes[1], sizes[1]))(
            jax.random.split(key_hidden, len(sizes) - 2)
        )
        kept = self.principal[: sizes[1]]
        first, hidden = rotations[:1, :, : kept.shape[0]] @ kept, rotations[1:]
        return (first, hidden, last) if len(hidden) else (first, last)


Initialisation = Gaussian | Orthogonal | Decoupled | GreedyAutoencoder
"""Any way to draw the weights of a chain: `initialisation(key, sizes) -> stacks`."""
