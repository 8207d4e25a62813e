"""Second moments of Gaussian samples, drawn without the samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

PROPOSALS = 8
"""Proposals for each chi-squared number; more than 0.96 of them are accepted."""


def bartlett(key: PRNGKeyArray, size: int, degrees: ArrayLike) -> Float[Array, "size size"]:
    """A lower-triangular L such that L Lᵀ has the law of G Gᵀ, for G [size, degrees] with entries N(0, 1).

    On the diagonal are chi variables of `degrees`, `degrees` - 1, ... degrees of freedom, below it N(0, 1); columns
    from `degrees` on are 0, so that there may be fewer degrees than the size. `degrees` may be traced: moments of any
    number of samples are drawn by one program, in memory size². Source: Bartlett (1933)

    >>> bartlett(jax.random.key(0), 3, 1).round(1).tolist()[0][1:], bartlett(jax.random.key(0), 3, 9).shape
    ([0.0, 0.0], (3, 3))
    """
    key_diagonal, key_below = jax.random.split(key)
    left = jnp.asarray(degrees, jnp.result_type(float)) - jnp.arange(size)
    drawn = chi_squares(key_diagonal, jnp.maximum(left, 1.0))
    below = jnp.tril(jax.random.normal(key_below, (size, size)), -1)
    return jnp.where(left > 0, below + jnp.diag(jnp.sqrt(drawn)), 0.0)


def chi_squares(key: PRNGKeyArray, degrees: Float[Array, " count"]) -> Float[Array, " count"]:
    """Independent chi-squared numbers with these degrees of freedom, above 0.

    The method of `jax.random.gamma` (of degrees + 2, taken down by a power of a uniform number), but with so many
    proposals at once that all are refused with probability 1e-12, where that one loops: it draws an array on a CPU one
    number after another, and compiles in seconds. Source: Marsaglia & Tsang (2000)
    """
    key_normal, key_uniform = jax.random.split(key)
    normal = jax.random.normal(key_normal, (PROPOSALS, len(degrees)))
    uniform = jax.random.uniform(key_uniform, (PROPOSALS + 1, len(degrees)))
    scale = degrees / 2 + 2 / 3
    cube = (1 + normal / jnp.sqrt(9 * scale)) ** 3
    good = cube > 0
    cube = jnp.where(good, cube, 1.0)
    good &= jnp.log(uniform[1:]) < normal**2 / 2 + scale * (1 - cube + jnp.log(cube))
    first = jnp.take_along_axis(cube, jnp.argmax(good, axis=0)[None], axis=0)[0]
    return 2 * scale * first * uniform[0] ** (2 / degrees)
