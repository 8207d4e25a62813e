"""A digest of all that decides a run's numbers: equal digests, equal numbers."""

import dataclasses
import functools
import hashlib
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from armillary.members import is_key

LIBRARIES = ("armillary", "jax", "numpy", "optax", "equinox", "diffrax", "scipy")


@functools.cache
def source() -> str:
    """A digest of this library's own source, of the versions it stands on and the backend: others may give other numbers."""
    root = Path(__file__).parents[1]
    versions = [version(name) for name in ("jaxlib", *LIBRARIES)]
    found = hashlib.sha256(f"{versions} {jax.default_backend()}".encode())
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def fingerprint(what: Any) -> str | None:
    """The digest of a tree of parts, arrays, numbers, words and functions; None where it holds an object of another kind.

    A function counts with its code and what it closes over, not with the globals that it reads.

    >>> fingerprint({"rate": 0.1}) == fingerprint({"rate": 0.1}), fingerprint(object()) is None
    (True, True)
    """
    found = hashlib.sha256()
    try:
        _add(found, what)
    except (_Unknown, RecursionError):
        return None
    return found.hexdigest()


class _Unknown(Exception):
    pass


def _add(found: Any, node: Any) -> None:
    say = lambda text: found.update(text.encode() + b"\0")
    if node is None or isinstance(node, bool | int | float | complex | str | bytes):
        say(f"{type(node).__name__} {node!r}")
    elif isinstance(node, jax.Array | np.ndarray | np.generic):
        array: Any = node
        values = np.asarray(jax.random.key_data(array) if is_key(array) else array)
        say(f"array {values.dtype.str} {values.shape}")
        if values.dtype == object:
            raise _Unknown(type(node))
        found.update(np.ascontiguousarray(values).tobytes())
    elif _is_a_librarys(node):
        say(f"{node.__module__}.{node.__qualname__}")
    elif isinstance(node, types.FunctionType):
        say(f"function {node.__module__}.{node.__qualname__}")
        _add_code(found, node.__code__)
        _add(found, node.__defaults__)
        _add(found, [cell.cell_contents for cell in node.__closure__ or ()])
    elif isinstance(wrapped := getattr(node, "__wrapped__", None), types.FunctionType) and callable(node):
        _add(found, wrapped)
    elif isinstance(node, type | types.BuiltinFunctionType) or type(node).__module__.startswith("jax"):
        say(f"{getattr(node, '__module__', '')}.{getattr(node, '__qualname__', '') or _named(node)}")
    elif dataclasses.is_dataclass(node):
        say(f"{type(node).__module__}.{type(node).__qualname__}")
        for field in dataclasses.fields(node):
            say(field.name)
            _add(found, getattr(node, field.name, None))
    elif isinstance(node, dict | types.MappingProxyType):
        say(f"dict {len(node)}")
        for name, value in node.items():
            _add(found, name)
            _add(found, value)
    elif isinstance(node, list | tuple):
        say(f"{type(node).__name__} {len(node)}")
        for child in node:
            _add(found, child)
    elif isinstance(node, functools.partial):
        for part in (node.func, node.args, node.keywords):
            _add(found, part)
    elif isinstance(node, types.MethodType):
        _add(found, node.__func__)
        _add(found, node.__self__)
    else:
        raise _Unknown(type(node))


def _is_a_librarys(node: Any) -> bool:
    """Whether this is a function that is known by its name: its library's version, or `source`, tells its code."""
    module = getattr(node, "__module__", None) or ""
    if not callable(node) or module.split(".")[0] not in LIBRARIES or module not in sys.modules:
        return False
    return getattr(sys.modules[module], getattr(node, "__qualname__", ""), None) is node


def _add_code(found: Any, code: types.CodeType) -> None:
    found.update(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(found, constant)
        else:
            found.update(repr(constant).encode())


def _named(node: Any) -> str:
    """JAX's own functions, by what they wrap; raises for what has no name."""
    name = getattr(getattr(node, "__wrapped__", node), "__qualname__", None)
    if name is None:
        raise _Unknown(type(node))
    return str(name)
