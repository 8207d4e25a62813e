"""Compiled programs kept on disk and found again by what was traced.

JAX keeps compiled programs too, but finds them by their lowered form, and most of a second run would be lowering. Here a
program is known by its traced equations and constants, the compiler's options, and the libraries, machine and settings
that decide how it is compiled. Files hold machine code and JAX's own pickles, so only a folder that nobody else can
write to is read.
"""

import functools
import hashlib
import os
import platform
import re
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable

from armillary.members import is_key
from armillary.store.files import write_whole
from armillary.work import programs_within

MOST_BYTES = 1 << 30
"""What the folder may hold; programs that were not used for longest are removed beyond."""

_folder: Path | None = None

_CHECK = hashlib.sha256().digest_size
_CACHE_HIT = "/jax/compilation_cache/cache_hits"

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DERIVATIVES = re.compile(r"\b(jvp_jaxpr_fun|fwd_jaxpr_thunk|bwd|jvp|fwd)=<function .*? at 0x[0-9a-f]+>")
"""How a function would be differentiated, which was done when it was traced."""


def keep_executables(folder: Path) -> None:
    """Keep the programs of this process in `folder`, and use those that are there."""
    global _folder
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        private = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        _folder = folder if private and (os.name != "posix" or found.st_uid == os.getuid()) else None
        _listen()


def executable(function: Any, leaves: list[Any], options: Mapping[str, Any]) -> Any:
    """The compiled form of a jitted function of one list of arrays, which returns another; from disk if it is there.

    The function itself, where it cannot be kept.
    """
    if _folder is None or not _on_first_device(leaves):
        return function
    traced = function.trace(leaves)
    name = _name(traced.jaxpr, options)
    if name is None:
        return function
    path = _folder / name
    known = _read(path, leaves, len(jax.tree.leaves(traced.out_info)))
    if known is None:
        _heard.hits = 0
        known = traced.lower().compile()
        if not _heard.hits:  # what comes from JAX's own cache cannot be written again: it lacks parts
            _write(path, known)
    return known


_heard = threading.local()


@functools.cache
def _listen() -> None:
    jax.monitoring.register_event_listener(_hear)


def _hear(event: str, **_: Any) -> None:
    if event == _CACHE_HIT:
        _heard.hits = getattr(_heard, "hits", 0) + 1


def remove_oldest(folder: Path) -> None:
    """Keep a folder of programs within `MOST_BYTES`."""
    with suppress(OSError):
        files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= MOST_BYTES:
                break
            os.unlink(path)
            total -= size


def _on_first_device(leaves: list[Any]) -> bool:
    """Whether all is on one CPU device; other programs have not been tried."""
    first = jax.devices()[0]
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return first.platform == "cpu" and all(array.devices() == {first} for array in arrays)


def _read(path: Path, leaves: list[Any], results: int) -> Any:
    try:
        whole = path.read_bytes()
        check, code = whole[:_CHECK], whole[_CHECK:]
        if hashlib.sha256(code).digest() != check:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        if b"lapack" in code:
            _begin_lapack()
        given, returned = jax.tree.structure(((leaves,), {})), jax.tree.structure([0] * results)
        return serialize_executable.deserialize_and_load(code, given, returned, execution_devices=jax.devices()[:1])
    except Exception:  # not there, or of no use: it is compiled and written anew
        return None


@functools.cache
def _begin_lapack() -> None:
    """JAX looks up LAPACK's routines when it first lowers a factorisation; a program that calls them before would crash."""
    jax.jit(jnp.linalg.qr).lower(np.eye(2, dtype=np.float32))


def _write(path: Path, compiled: Any) -> None:
    with suppress(Exception):  # a program that calls Python cannot be kept; a full disk is no reason to stop
        code, _, _ = serialize_executable.serialize(compiled)
        write_whole(path, lambda hidden: hidden.write_bytes(hashlib.sha256(code).digest() + code))


def _name(jaxpr: Any, options: Mapping[str, Any]) -> str | None:
    """A digest of all that decides the compiled program; None where something in it cannot be told by its text."""
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        text = _DERIVATIVES.sub("", str(jaxpr))
    if _ADDRESS.search(text):
        return None
    # Read anew each time: a context may have changed them.
    settings = sorted((name, value) for name, value in jax.config.values.items() if "cache" not in name)
    found = hashlib.sha256(f"{_surroundings()}{settings}{sorted(options.items())}{text}".encode())
    for constant in _constants(jaxpr):
        values = np.asarray(jax.random.key_data(constant) if is_key(constant) else constant)
        found.update(f"{values.dtype.str}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Arrays that a program holds, those of programs within included."""
    yield from getattr(jaxpr, "consts", ())
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        for inner in programs_within(equation.params):
            yield from _constants(inner)


@functools.cache
def _surroundings() -> str:
    """Libraries and machine."""
    device = jax.devices()[0]
    around = [os.environ.get(name) for name in ("XLA_FLAGS", "NPROC")]
    versions = [jax.__version__, version("jaxlib"), device.client.platform_version, device.device_kind]
    return f"{versions} {_processor()} {around}"


def _processor() -> str:
    """What instructions it knows, of which machine code may use any."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()} {platform.node()}"
