"""Hierarchical data: items on the leaves of a tree, with properties that diffuse down its branches."""

import jax.numpy as jnp
import numpy as np

from armillary.errors import require_between
from armillary.tasks.linear import Correlations


def hierarchical(levels: int = 3, branching: int = 2) -> Correlations:
    """Items of a balanced tree, one-hot inputs, and one property for every node that an item descends from.

    The modes of the input-output correlation are the tree's levels, broadest distinction first: with n
    items, the properties' Gram matrix has entries (number of common ancestors). One-hot inputs are
    white (scaled to unit correlation). Source: Saxe, McClelland & Ganguli (2013); (2019).

    Raises `InvalidValue` for fewer than one level or fewer than two branches.

    >>> np.linalg.svd(hierarchical(2, 2).input_output_correlation, compute_uv=False).round(3)
    array([1.323, 0.866, 0.5  , 0.5  ], dtype=float32)
    """
    require_between("the number of levels", levels, 1)
    require_between("branching", branching, 2)
    items = branching**levels
    rows = [np.kron(np.eye(branching**level), np.ones(items // branching**level)) for level in range(levels + 1)]
    properties = np.vstack(rows)
    # One-hot inputs scaled by sqrt(items) are white; E[y xᵀ] is then the property matrix over sqrt(items).
    return Correlations(jnp.eye(items), jnp.asarray(properties / np.sqrt(items)))
