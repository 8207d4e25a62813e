"""How the units of a recurrent network are connected at the start, at a chosen norm: spectra, cell types, signs, space, tables.

Each law is called as `law(key, units)` and gives weights [unit, unit], the receiving unit first, scaled to the Frobenius norm
gain * sqrt(units), which independent entries N(0, gain²/units) have. What laws differ in is then not the weights' size.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from armillary.errors import InvalidValue, MissingData, require_between
from armillary.models.initialisation import haar_orthogonal
from armillary.settings import floats

Weights = Float[Array, "unit unit"]


def of_norm(weights: Weights, gain: Any) -> Weights:
    """The matrix scaled to the Frobenius norm gain * sqrt(units)."""
    return weights * (gain * np.sqrt(len(weights)) / jnp.linalg.norm(weights))


class RankCut(eqx.Module):
    """Independent Gaussian weights of which the `kept` largest singular values stay, the rank (None: all).

    `kept` and `gain` can be swept in one program. Raises `InvalidValue` for a rank below 1: weights that are all zero have no
    norm to keep.

    >>> weights = RankCut(kept=2.0)(jax.random.key(0), 16)
    >>> int(jnp.linalg.matrix_rank(weights)), round(float(jnp.linalg.norm(weights)), 4)
    (2, 4.0)
    """

    kept: float | None = None
    gain: float = 1.0

    def __check_init__(self):
        require_between("the rank", 1.0 if self.kept is None else self.kept, 1.0)
        require_between("the gain", self.gain, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        weights = jax.random.normal(key, (units, units))
        if self.kept is not None:
            require_between("the rank", self.kept, 1.0, units, note="the number of units")
            left, values, right = jnp.linalg.svd(weights)
            weights = (left * jnp.where(jnp.arange(units) < self.kept, values, 0.0)) @ right
        return of_norm(weights, self.gain)


class PowerLawSpectrum(eqx.Module):
    """Singular values that fall as i^-exponent, between two random frames. `exponent` and `gain` can be swept."""

    exponent: float = 1.0
    gain: float = 1.0

    def __check_init__(self):
        require_between("the spectrum's exponent", self.exponent, 0.0)
        require_between("the gain", self.gain, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        left, right = jax.vmap(lambda k: haar_orthogonal(k, units, units))(jax.random.split(key))
        values = jnp.arange(1, units + 1, dtype=left.dtype) ** -jnp.asarray(self.exponent, left.dtype)
        return of_norm((left * values) @ right.T, self.gain)


class CellTypes(eqx.Module):
    """Groups of cells: the mean weight depends on the two cells' types, and single weights scatter around it.

    `groups` types are equally frequent; their mean weights are drawn N(0, 1), or given as `means` [type, type] (the
    receiving one first), as measured connection statistics are. `share` is the means' part of the squared norm, the rest is
    independent Gaussian. Raises `InvalidValue` for a share outside [0, 1] and means that are not square.
    """

    groups: int = eqx.field(static=True)
    share: float
    gain: float
    means: Float[Array, "type type"] | None

    def __init__(self, groups: int = 4, share: float = 0.7, gain: float = 1.0, means: ArrayLike | None = None):
        shape = (groups, groups) if means is None else np.shape(means)
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
            raise InvalidValue(
                f"mean weights of cell types are {shape}, but must be a square matrix of one type or more"
            )
        require_between("the share of the means", share, 0.0, 1.0)
        require_between("the gain", gain, 0.0, open_low=True)
        self.groups, self.share, self.gain = shape[0], share, gain
        self.means = None if means is None else floats(means)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        require_between("the number of units", units, self.groups, note="the number of cell types")
        key_means, key_each = jax.random.split(key)
        means = jax.random.normal(key_means, (self.groups, self.groups)) if self.means is None else self.means
        kind = np.arange(units) * self.groups // units
        whole, each = means[kind][:, kind], jax.random.normal(key_each, (units, units))
        parts = [jnp.sqrt(part) * of_norm(w, 1.0) for part, w in ((self.share, whole), (1 - self.share, each))]
        return of_norm(parts[0] + parts[1], self.gain)


class Dale(eqx.Module):
    """Every unit excites or inhibits: a column of weights has one sign (Dale's law).

    A share `excitatory` of the columns is positive; sizes are those of Gaussian weights, and inhibitory ones are stronger, so
    that a unit's mean input is 0 where `balance` is 1 (0: all sizes alike, which leaves one large singular value).
    """

    excitatory: float = 0.8
    balance: float = 1.0
    gain: float = 1.0

    def __check_init__(self):
        require_between("the share of excitatory units", self.excitatory, 0.0, 1.0)
        require_between("the balance", self.balance, 0.0, 1.0)
        require_between("the gain", self.gain, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        sizes = jnp.abs(jax.random.normal(key, (units, units)))
        exciting = jnp.arange(units) < self.excitatory * units
        ratio = jnp.sum(exciting) / jnp.maximum(jnp.sum(~exciting), 1)
        inhibiting = 1 + self.balance * (ratio - 1)
        return of_norm(sizes * jnp.where(exciting, 1.0, -inhibiting), self.gain)


class Sparse(eqx.Module):
    """Gaussian weights on a random graph: each connection is there with probability `density`.

    `reciprocity` is the correlation between the two directions of a pair, a motif that is frequent in cortex: 0 for
    independent ones, 1 if all connections go both ways.
    """

    density: float = 0.1
    reciprocity: float = 0.0
    gain: float = 1.0

    def __check_init__(self):
        require_between("the density", self.density, 0.0, 1.0, open_low=True)
        require_between("the reciprocity", self.reciprocity, 0.0, 1.0)
        require_between("the gain", self.gain, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        key_pair, key_one, key_weights = jax.random.split(key, 3)
        shape = (units, units)
        one = jax.random.uniform(key_one, shape) < self.density
        # A share of the pairs has both directions decided by one draw: that share is the correlation.
        together = jnp.triu(jax.random.uniform(key_pair, shape) < self.reciprocity, 1)
        copied = jnp.where(together, one, False)
        there = jnp.where(together | together.T, copied | copied.T, one)
        return of_norm(there * jax.random.normal(key_weights, shape), self.gain)


class NearestNeighbours(eqx.Module):
    """Units in space whose connections weaken with distance: Gaussian weights times exp(-distance/reach).

    Units lie on a ring, or, as a `chain`, on a line along which connections only go on (a unit hears those before it).
    `reach` is in units, and can be swept.
    """

    reach: float = 4.0
    chain: bool = eqx.field(static=True, default=False)
    gain: float = 1.0

    def __check_init__(self):
        require_between("the reach", self.reach, 0.0, open_low=True)
        require_between("the gain", self.gain, 0.0, open_low=True)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        after = np.subtract.outer(np.arange(units), np.arange(units))
        distance = after if self.chain else np.minimum(np.abs(after), units - np.abs(after))
        # The nearest has weight 1 whatever the reach, so that a short one does not underflow.
        envelope = jnp.exp((1 - np.maximum(distance, 1)) / jnp.asarray(self.reach))
        weights = jax.random.normal(key, (units, units)) * envelope
        return of_norm(jnp.where(after > 0, weights, 0.0) if self.chain else weights, self.gain)


class GivenConnectivity(eqx.Module):
    """A matrix of weights or of synapse counts [unit, unit], the receiving unit first, rescaled to the norm.

    `signs` [unit] makes columns of counts excitatory and inhibitory. Raises `InvalidValue` for what is no square matrix of
    finite numbers or has none but zeros, and at drawing for another number of units.
    """

    matrix: Weights
    gain: float
    signs: Float[Array, " unit"] | None

    def __init__(self, matrix: ArrayLike, gain: float = 1.0, signs: ArrayLike | None = None):
        values = np.asarray(matrix, float)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or not np.isfinite(values).all() or not values.any():
            raise InvalidValue(
                f"the connectivity is {values.shape}, but must be a square matrix of finite numbers, not all 0"
            )
        if signs is not None and np.shape(signs) != values.shape[:1]:
            raise InvalidValue(f"there are {np.size(signs)} signs for {len(values)} units; give one for each")
        require_between("the gain", gain, 0.0, open_low=True)
        self.matrix, self.gain, self.signs = floats(values), gain, None if signs is None else floats(signs)

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        if units != len(self.matrix):
            raise InvalidValue(
                f"the network has {units} units, but the given connectivity {len(self.matrix)}; use that width"
            )
        return of_norm(self.matrix if self.signs is None else self.matrix * self.signs, self.gain)


class Shuffled(eqx.Module):
    """The entries of another law's weights at random places: the same norm, sparsity and law of single weights, without
    the structure. What a structure does is its difference from this."""

    law: Any

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        key_law, key_places = jax.random.split(key)
        weights = self.law(key_law, units)
        return jax.random.permutation(key_places, weights.ravel()).reshape(weights.shape)


class AnyOf(eqx.Module):
    """One of several laws by its number, from 0: `which` can be swept, and all of them then run in one program.

    Raises `InvalidValue` for no laws and for a number that is none's.
    """

    laws: tuple[Any, ...]
    which: float = 0.0

    def __check_init__(self):
        require_between("the number of laws", len(self.laws), 1)
        require_between("which law", self.which, 0, len(self.laws) - 1, note="numbers begin at 0")

    def __call__(self, key: PRNGKeyArray, units: int) -> Weights:
        draws = [lambda key, law=law: law(key, units) for law in self.laws]
        return jax.lax.switch(jnp.asarray(self.which).astype(int), draws, key)


def read_connectivity(path: str | Path, *, receiving_first: bool = True) -> Float[np.ndarray, "unit unit"]:
    """A square matrix from a plain table: numbers separated by commas or blanks, one row a line, `#` for comments.

    `receiving_first` says that rows are receiving units; tables with the sending ones in rows are transposed. Raises
    `MissingData` where there is no such file or it is no square table of finite numbers.
    """
    path = Path(path)
    try:
        text = path.read_text()
        rows = [line.split("#")[0].replace(",", " ").split() for line in text.splitlines()]
        table = np.array([[float(number) for number in row] for row in rows if row])
    except (OSError, ValueError) as error:
        raise MissingData(f"{path} cannot be read as a table of numbers: {error}; give a square one") from None
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not np.isfinite(table).all():
        raise MissingData(f"{path} has shape {table.shape}, but must be a square table of finite numbers")
    return table if receiving_first else table.T


Connectivity = (
    RankCut | PowerLawSpectrum | CellTypes | Dale | Sparse | NearestNeighbours | GivenConnectivity | Shuffled | AnyOf
)
"""Any law of initial recurrent weights: `law(key, units) -> weights`."""
