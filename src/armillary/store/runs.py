"""Results on disk: whole or not there. Nothing is pickled.

    OUT/RUN/run.json            the study, its fields, versions, verdicts; written last
    OUT/RUN/trajectory.nc       netCDF-4, one group for each experiment: /measured/NAME and /theory/NAME
    OUT/RUN/report.html, figures/*.svg, *.png

Each file is written under a hidden name, flushed to the disk and renamed into place.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from armillary.errors import InvalidValue
from armillary.store.files import Place, StoreError, children, local_copy, make_folder, place, write_whole

if TYPE_CHECKING:
    import xarray as xr

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")


def run_name(slug: str, size: str, settings: Mapping[str, Any]) -> str:
    """A name for a run: the same settings have the same name.

    >>> run_name("deep-linear", "desk", {"seeds": 4})
    'deep-linear-desk-e3d21f26'
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    name = f"{slug}-{size}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if not RUN_NAME.fullmatch(name) or ".." in name:
        raise InvalidValue(f"{name!r} cannot name a run; names are of a-z, 0-9, '-' and '.'")
    return name


def open_run(out: str | Place, name: str) -> Place:
    """The folder of a run, made if need be, with any earlier verdict of it withdrawn.

    Raises `StoreError` where the folder cannot be made or written.
    """
    folder = make_folder(place(out) / name)
    make_folder(folder / "figures")
    (folder / "run.json").unlink(missing_ok=True)
    return folder


def write_trajectories(
    folder: Place, measured: "Mapping[str, xr.Dataset]", theory: "Mapping[str, xr.Dataset]"
) -> Place:
    """All trajectories of a run in one netCDF-4 file with checksums, whole."""
    import xarray as xr

    groups = {f"/measured/{name}": data for name, data in measured.items()}
    groups |= {f"/theory/{name}": data for name, data in theory.items()}
    tree = xr.DataTree.from_dict({name: plain(data) for name, data in groups.items()})
    encoding = {name: _checksums(data) for name, data in groups.items()}
    write = lambda hidden: tree.to_netcdf(hidden, engine="netcdf4", encoding=encoding)
    return write_whole(folder / "trajectory.nc", write)


def read_trajectories(path: str | Place) -> "dict[str, dict[str, xr.Dataset]]":
    """{"measured": {name: dataset}, "theory": {...}} of a run's `trajectory.nc`.

    Raises `StoreError` for a file that is not there or not whole.
    """
    import xarray as xr

    try:
        with local_copy(place(path)) as local, xr.open_datatree(local, engine="netcdf4") as tree:
            return {
                side: {str(name): node.to_dataset().load() for name, node in tree[side].children.items()}
                for side in tree.children
            }
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"cannot read {path}: {error}; run the study again") from None


def last_runs(out: str | Place) -> dict[str, dict[str, Any]]:
    """The newest finished run of each study in a results folder, by slug; unreadable ones are left out."""
    newest: dict[str, tuple[float, dict]] = {}
    root = place(out)
    for name in filter(RUN_NAME.fullmatch, children(root)):
        path = root / name / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            when, slug = path.stat().st_mtime, record["slug"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if slug not in newest or when > newest[slug][0]:
            newest[slug] = (when, record)
    return {slug: record for slug, (_, record) in newest.items()}


def plain(data: "xr.Dataset") -> "xr.Dataset":
    """What netCDF can hold: complex arrays as two variables, objects as text."""
    import numpy as np

    for name, variable in list(data.variables.items()):
        if np.iscomplexobj(variable):
            data = data.assign({f"{name}_real": variable.real, f"{name}_imag": variable.imag}).drop_vars([name])
        elif variable.dtype == object:
            data = data.assign({name: variable.astype(str)})
    return data


def _checksums(data: "xr.Dataset") -> dict[str, dict[str, Any]]:
    """Fletcher-32 on every array; scalars and text have none in netCDF-4."""
    numbers = {n: v for n, v in plain(data).data_vars.items() if v.ndim and v.size and v.dtype.kind in "fiu"}
    return {str(name): {"fletcher32": True, "zlib": True, "complevel": 1} for name in numbers}
