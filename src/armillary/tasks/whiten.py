"""Whitening: principal components scaled to unit variance."""

import numpy as np

from armillary.errors import require_between
from armillary.settings import floats
from armillary.tasks.data import Samples


def whitened(samples: Samples, components: int) -> Samples:
    """The samples' inputs centred and replaced by their first principal components, each of variance 1.

    The inputs' correlation is then the identity. Raises `InvalidValue` for more components than the inputs have
    directions of non-zero variance.

    >>> import jax.numpy as jnp
    >>> rng = np.random.default_rng(0)
    >>> white = whitened(Samples(jnp.asarray(rng.normal(size=(50, 4))), jnp.zeros((50, 1))), 2)
    >>> np.allclose(white.inputs.T @ white.inputs / 50, np.eye(2), atol=1e-5)
    True
    """
    inputs = np.asarray(samples.inputs, dtype=float).reshape(samples.count, -1)
    u, s, _ = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
    rank = int((s > s[0] * 1e-6).sum())
    require_between("the number of components", components, 1, rank, note="directions in which the inputs vary")
    return Samples(floats(u[:, :components] * np.sqrt(samples.count)), samples.targets)
