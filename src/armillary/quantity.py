"""Labelled values inside a compiled program: what a probe returns."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


class Quantity(eqx.Module):
    """An array with named dimensions, a unit and a long name; xarray's `DataArray` before there is one.

    `values` has one axis for each name in `dims`. Raises `ValueError` if their numbers differ.

    >>> Quantity(jnp.ones(3), dims="layer", unit="rad", long_name="angle turned").dims
    ('layer',)
    """

    values: Array
    dims: tuple[str, ...] = eqx.field(static=True)
    unit: str = eqx.field(static=True)
    long_name: str = eqx.field(static=True)

    def __init__(self, values: ArrayLike, dims: str | tuple[str, ...] = (), unit: str = "1", long_name: str = ""):
        self.values = jnp.asarray(values)
        self.dims = (dims,) if isinstance(dims, str) else tuple(dims)
        self.unit = unit
        self.long_name = long_name
        if self.values.ndim != len(self.dims):
            raise ValueError(f"{self.values.ndim} axes, but dimensions {self.dims} ({long_name or 'quantity'})")


Observation = dict[str, Quantity]
"""What one probe saw: names to quantities."""
