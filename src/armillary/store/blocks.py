"""A block: what one compiled program returned at once, as one immutable netCDF-4 file.

    /                  diverged (cell); attributes: the format, the digest of all numbers
    /stage-0, ...      time, and each observed quantity as (time, cell, its own dimensions)

Every array carries a checksum of its own (Fletcher-32), which the library checks when it reads, and the file the digest
of all of them. Nothing is pickled. The netCDF library is not safe for threads: one at a time comes in here.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from armillary.quantity import Quantity
from armillary.store.files import Place, StoreError, local_copy, write_whole

FORMAT = "armillary block 1"

_alone = threading.Lock()


class Block(NamedTuple):
    """Members of a program through all stages: [(times, {name: values (time, cell, ...)})], and where each diverged
    (-1: nowhere)."""

    records: list[tuple[np.ndarray, dict[str, Quantity]]]
    diverged: np.ndarray


def write_block(path: Place, block: Block) -> Place:
    """The block as a file, whole."""

    def write(hidden: Path) -> None:
        import netCDF4

        with _alone, netCDF4.Dataset(hidden, "w", format="NETCDF4") as file:
            file.setncatts({"format": FORMAT, "digest": digest_of(block)})
            _write(file, "diverged", np.asarray(block.diverged), {})
            for number, (times, seen) in enumerate(block.records):
                group = file.createGroup(f"stage-{number}")
                _write(group, "time", np.asarray(times, float), {})
                for name, quantity in seen.items():
                    about = {"dims": json.dumps(quantity.dims), "units": quantity.unit, "long_name": quantity.long_name}
                    _write(group, name, np.asarray(quantity.values), about)

    return write_whole(path, write)


def read_block(path: Place) -> Block:
    """The block in a file. Raises `StoreError` where it cannot be read or is not as it was written."""
    import netCDF4

    try:
        with local_copy(path) as local, _alone, netCDF4.Dataset(local) as file:
            if getattr(file, "format", "") != FORMAT:
                raise StoreError(f"cannot read {path}: it is no block of this version of Armillary")
            stages = [file[f"stage-{number}"] for number in range(len(file.groups))]
            block = Block([_read_stage(stage) for stage in stages], _read(file, "diverged"))
            said = file.digest
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise StoreError(f"cannot read {path}: {str(error).splitlines()[0]}; it is damaged") from None
    if digest_of(block) != said:
        raise StoreError(f"cannot read {path}: its numbers are not those that were written; it is damaged")
    return block


def digest_of(block: Block) -> str:
    """SHA-256 of all that a block holds."""
    found = hashlib.sha256()

    def add(name: str, values: Any) -> None:
        values = np.ascontiguousarray(values)
        found.update(f"{name} {values.dtype.str} {values.shape}".encode())
        found.update(values.tobytes())

    add("diverged", block.diverged)
    for times, seen in block.records:
        add("time", np.asarray(times, float))
        for name in sorted(seen):
            add(f"{name} {seen[name].dims} {seen[name].unit} {seen[name].long_name}", seen[name].values)
    return found.hexdigest()


def joined(parts: list[dict[str, Quantity]]) -> dict[str, Quantity]:
    """Observations of one stage at times that follow one another, as one."""
    return over_parts(parts, lambda values: np.concatenate(values, axis=0))


def over_parts(parts: list[dict[str, Quantity]], join: Callable[[list], np.ndarray]) -> dict[str, Quantity]:
    """Each quantity's values of all parts put together by `join`."""
    whole = {}
    for name, first in parts[0].items() if parts else ():
        whole[name] = _quantity(
            join([np.asarray(part[name].values) for part in parts]), first.dims, first.unit, first.long_name
        )
    return whole


def _quantity(values: np.ndarray, dims: tuple[str, ...], unit: str, long_name: str) -> Quantity:
    """A quantity of values on the host, with their leading axes: `Quantity` itself would move them to the device."""
    made = object.__new__(Quantity)
    for field, value in (("values", values), ("dims", tuple(dims)), ("unit", unit), ("long_name", long_name)):
        object.__setattr__(made, field, value)
    return made


def _write(group: Any, name: str, values: np.ndarray, about: dict[str, str]) -> None:
    """An array with dimensions of its own; complex numbers as a last axis of two, truth values as bytes."""
    about = {**about, "dtype": values.dtype.str}
    if np.iscomplexobj(values):
        values = np.stack([np.real(values), np.imag(values)], axis=-1)
    if values.dtype == bool:
        values = values.astype(np.int8)
    dims = []
    for axis, size in enumerate(values.shape):
        dims.append(f"{name}.{axis}")
        group.createDimension(dims[-1], size)
    checked = {"fletcher32": True, "zlib": True, "complevel": 1} if values.ndim and values.size else {}
    variable = group.createVariable(name, values.dtype, dims, **checked)
    variable.set_auto_maskandscale(False)
    if values.size:
        variable[...] = values
    variable.setncatts(about)


def _read(group: Any, name: str) -> np.ndarray:
    variable = group.variables[name]
    variable.set_auto_maskandscale(False)
    values = np.asarray(variable[...])
    dtype = np.dtype(variable.getncattr("dtype"))
    if dtype.kind == "c":
        return (values[..., 0] + 1j * values[..., 1]).astype(dtype)
    return values.astype(dtype)


def _read_stage(group: Any) -> tuple[np.ndarray, dict[str, Quantity]]:
    seen = {}
    for name, variable in group.variables.items():
        if name != "time":
            dims = tuple(json.loads(variable.getncattr("dims")))
            seen[name] = _quantity(_read(group, name), dims, variable.units, variable.long_name)
    return _read(group, "time"), seen
