"""The fields of an experiment's parts that a user gives, as against what a part lays out from them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def derived(**kwargs: Any) -> Any:
    """A field that the part's own `__init__` computes: not written down, not passed when a part is rebuilt."""
    return eqx.field(metadata={"derived": True}, **kwargs)


def given(node: Any) -> dict[str, Any]:
    """The fields by which `node` was made; the items of a dict; nothing for what is no part."""
    if isinstance(node, dict):
        return node
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = (f for f in dataclasses.fields(node) if f.init and not f.metadata.get("derived"))
        return {f.name: getattr(node, f.name) for f in fields}
    return {}


def rebuilt(node: Any, **changes: Any) -> Any:
    """`node` made anew with some of its fields changed, so that its own checks speak."""
    fields = {**given(node), **changes}
    return fields if isinstance(node, dict) else type(node)(**fields)


def floats(values: ArrayLike) -> Float[Array, "..."]:
    """`values` as a JAX array of the current float type: by a copy, where `jnp.asarray` may compile a conversion."""
    return jax.device_put(np.asarray(values, np.dtype(jnp.result_type(float))))
