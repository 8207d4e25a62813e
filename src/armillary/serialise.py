"""Experiments as JSON, and back. Nothing that is read can run code: only Armillary's own parts are built."""

import base64
import dataclasses
import importlib
import json
from typing import Any

import jax
import numpy as np
import optax

from armillary.errors import InvalidValue
from armillary.settings import given

PACKAGES = ("armillary.tasks", "armillary.models", "armillary.rules", "armillary.probes")
LARGEST = 100_000
"""Numbers of an array that are written out; a longer one makes the experiment one that can't be rebuilt."""

READABLE = 1_000
"""Numbers up to which an array is a list; the bytes of a longer one are written, which is shorter and fifty times as fast."""

KINDS = ("float32", "float64", "int32", "int64", "bool")
"""Types of the arrays that are read."""


def experiment_to_json(what: Any) -> str:
    """The experiment as one JSON object: each part its class and its fields, arrays as lists (long ones as
    their bytes in base64)."""
    return json.dumps(_encode(what))


def experiment_from_json(text: str) -> Any:
    """The experiment written by `experiment_to_json`.

    Only classes that `armillary.tasks`, `.models`, `.rules` and `.probes` export, and functions of optax by
    name, are built. Raises `InvalidValue` for anything else, and for text that is not such JSON.
    """
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, TypeError, RecursionError):
        raise InvalidValue("this is no experiment: not the JSON text that a trajectory carries") from None
    if not isinstance(tree, dict) or "type" not in tree:
        raise InvalidValue("this is no experiment: its JSON does not name a type")
    return _decode(tree)


def _encode(node: Any) -> Any:
    if isinstance(node, bool | int | float | str) or node is None:
        return node if not isinstance(node, float) or np.isfinite(node) else {"float": str(node)}
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {name: _encode(value) for name, value in given(node).items()}
        name = type(node).__name__
        return {"type": name, **fields} if _class(name) is type(node) else _opaque(node)
    if isinstance(node, dict):
        return {"dict": {str(k): _encode(v) for k, v in node.items()}}
    if isinstance(node, list | tuple):
        return {"tuple": [_encode(child) for child in node]}
    if isinstance(node, jax.Array | np.ndarray) and node.size <= LARGEST:
        values = np.asarray(node)
        if values.size <= READABLE or values.dtype.name not in KINDS:
            return {"array": values.tolist(), "dtype": str(values.dtype)}
        raw = base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
        return {"array": raw.decode(), "shape": list(values.shape), "dtype": values.dtype.name}
    if callable(node) and getattr(optax, getattr(node, "__name__", ""), None) is node:
        return {"optax": node.__name__}
    return _opaque(node)


def _opaque(node: Any) -> dict:
    return {"opaque": f"{type(node).__module__}.{type(node).__qualname__}"}


def _decode(node: Any) -> Any:
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise InvalidValue("this is no experiment: it holds a bare list")
        return node
    try:
        match node:
            case {"float": text}:
                return float(text)
            case {"tuple": children}:
                return tuple(_decode(child) for child in children)
            case {"dict": children}:
                return {name: _decode(child) for name, child in children.items()}
            case {"array": str(raw), "shape": list(shape), "dtype": str(dtype)} if dtype in KINDS:
                values = np.frombuffer(base64.b64decode(raw, validate=True), np.dtype(dtype).newbyteorder("<"))
                return values.astype(dtype).reshape(shape)
            case {"array": list() | int() | float() as values, "dtype": str(dtype)} if dtype in KINDS:
                return np.asarray(values, dtype=dtype)
            case {"optax": str(name)} if callable(getattr(optax, name, None)) and not name.startswith("_"):
                return getattr(optax, name)
            case {"opaque": name}:
                raise InvalidValue(f"the experiment held a {name}, which cannot be rebuilt from its record")
            case {"type": str(name), **fields}:
                kind = _class(name)
                if kind is None:
                    raise InvalidValue(f"the experiment names {name!r}, which is no part of Armillary")
                return kind(**{field: _decode(child) for field, child in fields.items()})
    except InvalidValue:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise InvalidValue(f"this is no experiment: {error}") from None
    raise InvalidValue("this is no experiment: it holds something of no known kind")


def _class(name: str) -> Any:
    """The part of that name that Armillary exports, or None."""
    from armillary import clock, experiment, stages

    for module in (experiment, clock, stages):
        found = vars(module).get(name)
        if isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module.__name__:
            return found
    for package in PACKAGES:
        module = importlib.import_module(package)
        if name in module.__all__ and isinstance(getattr(module, name), type):
            return getattr(module, name)
    return None
