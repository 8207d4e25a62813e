"""What is read off a whole spectrum: how many eigenvalues stand out, how many are 0, how much is negative.

All take eigenvalues along the last axis, the largest first, and give one number for each row.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from armillary.errors import require_between

Spectrum = Float[Array, "... parameter"] | Float[np.ndarray, "... parameter"]

FLOOR = 1e-8
"""Eigenvalues below this times the largest count as so small in a logarithm: rounding opens no gaps there."""


def log_gaps(values: Spectrum, among: int = 40) -> Float[Array, "... gap"]:
    """log(λ_i/λ_(i+1)) of the first `among` eigenvalues and those after them; entry i - 1 is the gap after i of them.

    Eigenvalues at or below `FLOOR` times the largest, negative ones too, count as that. There are as many gaps as the
    spectrum has, if that is fewer. Raises `InvalidValue` for fewer than one.
    """
    require_between("the number of eigenvalues looked at (among)", among, 1)
    kept = jnp.asarray(values)[..., : among + 1]
    sizes = jnp.maximum(kept, FLOOR * jnp.maximum(kept[..., :1], jnp.finfo(kept.dtype).tiny))
    logs = jnp.log(sizes)
    return logs[..., :-1] - logs[..., 1:]


def gap_count(values: Spectrum, among: int = 40) -> Int[Array, "..."]:
    """How many eigenvalues lie above the largest logarithmic gap among the first `among`: the number of outliers.

    It always finds one: read `gap_after` beside it, the ratio of the eigenvalues on its two sides. The count of a
    spectrum of 0 is 1.

    >>> print(gap_count(jnp.array([5.0, 4.0, 3.0, 0.02, 0.01, 0.0, -0.01])), gap_count(jnp.array([1.0, 0.9, 0.1]), among=1))
    5 1
    >>> print(gap_count(jnp.array([5.0, 4.0, 3.0, 0.02, 0.01, 0.009]), among=5))
    3
    """
    return jnp.argmax(log_gaps(values, among), axis=-1) + 1


def gap_after(values: Spectrum, count: int) -> Float[Array, "..."]:
    """The `count`-th largest eigenvalue over the next one, at least 1 and up to 1/`FLOOR`.

    Raises `InvalidValue` for a count below 1 or at or above the number of eigenvalues.

    >>> print(gap_after(jnp.array([4.0, 2.0, 0.5]), 2))
    4.0
    """
    require_between("the count", count, 1, values.shape[-1] - 1, note="the number of eigenvalues less 1")
    return jnp.exp(log_gaps(values, count)[..., count - 1])


def count_above_bulk(values: Spectrum, factor: float = 10.0, quantile: float = 0.95) -> Int[Array, "..."]:
    """How many eigenvalues exceed `factor` times the `quantile` of all sizes |λ|: outliers by another definition.

    It sees at most a share 1 - quantile of the spectrum, and so none in a small network with many outliers. Raises
    `InvalidValue` for a factor below 0 or a quantile outside [0, 1].

    >>> print(count_above_bulk(jnp.array([9.0] + [0.1] * 99)))
    1
    """
    require_between("the factor", factor, 0.0)
    require_between("the quantile", quantile, 0.0, 1.0)
    bulk = jnp.quantile(jnp.abs(values), quantile, axis=-1, keepdims=True)
    return jnp.sum(values > factor * bulk, axis=-1)


def zero_fraction(values: Spectrum, threshold: float = 1e-3, *, relative: bool = True) -> Float[Array, "..."]:
    """The share of eigenvalues with |λ| below `threshold` times the largest, or below `threshold` itself.

    The first moves when the largest eigenvalue does: quote both. 1 for a spectrum of 0. Raises `InvalidValue` for a
    negative threshold.

    >>> spectrum = jnp.array([2.0, 0.001, -0.001, 0.1])
    >>> print(zero_fraction(spectrum), zero_fraction(spectrum, 0.5, relative=False))
    0.5 0.75
    """
    require_between("the threshold", threshold, 0.0)
    sizes = jnp.abs(values)
    largest = jnp.max(sizes, axis=-1, keepdims=True)
    return jnp.mean(sizes <= threshold * largest if relative else sizes < threshold, axis=-1)


def negative_mass(values: Spectrum) -> Float[Array, "..."]:
    """The sum of the sizes of the negative eigenvalues over that of all, in [0, 1]; 0 for a spectrum of 0.

    >>> print(negative_mass(jnp.array([3.0, 0.0, -1.0])))
    0.25
    """
    total = jnp.sum(jnp.abs(values), axis=-1)
    return jnp.sum(jnp.maximum(-values, 0.0), axis=-1) / jnp.where(total > 0, total, 1.0)
