"""`armillary results`: what is in a results folder, shown, exported, removed and verified."""

import argparse
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armillary.cli import OneLine
from armillary.errors import InvalidValue, unknown
from armillary.store.files import Place, StoreError, children, is_local, place, read_text, remove_folder, write_whole
from armillary.store.runs import RUN_NAME, read_trajectories

USAGE = """usage: armillary results list | show NAME | export [NAME] --to FILE | rm NAME | verify [NAME]   [--out DIR] [--json]

  list     every run and sweep of the folder      show    what one of them is
  export   write its data: FILE.nc (netCDF), FILE.csv or FOLDER.zarr, by the ending; --experiment NAME for one of several
  rm       remove one                              verify  read everything again, check sums, say what is missing
  --out DIR   the results folder or URL (default armillary-results)"""

MOST_ROWS = 20_000_000
"""Rows that a table may have."""


def command(arguments: list[str]) -> int:
    """Run the command; the exit status: 1 where `verify` found something damaged, missing or failed."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    parser = OneLine(prog="armillary results", add_help=False, allow_abbrev=False)
    parser.add_argument("verb")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--out", default="armillary-results")
    parser.add_argument("--to")
    parser.add_argument("--experiment")
    parser.add_argument("--json", action="store_true")
    options, rest = parser.parse_known_args(arguments)
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list, "show": _show, "export": _export, "rm": _remove, "verify": _verify,
    }  # fmt: skip
    if options.verb not in verbs:
        raise unknown("verb", options.verb, verbs)
    if rest:
        raise InvalidValue(f"unknown argument {rest[0]!r}; see armillary results --help")
    return verbs[options.verb](options)


def runs_in(out: str | Place) -> dict[str, dict[str, Any]]:
    """The record of each run and sweep of a folder, by name; one that cannot be read says so under `error`."""
    found: dict[str, dict[str, Any]] = {}
    root = place(out)
    for name in filter(RUN_NAME.fullmatch, children(root)):
        path = root / name / "run.json"
        if not path.exists():
            continue
        try:
            record = json.loads(read_text(path))
            found[name] = record if isinstance(record, dict) else {"error": "run.json is no record"}
        except (ValueError, RecursionError, StoreError) as error:
            found[name] = {"error": str(error).splitlines()[0]}
    return found


def _chosen(options: argparse.Namespace, *, needed: bool) -> tuple[str, dict[str, Any]]:
    """The run that is meant: by name, or the only one of the folder."""
    known = runs_in(options.out)
    if options.name is None:
        if needed or len(known) != 1:
            names = ", ".join(list(known)[:10]) or "none"
            raise InvalidValue(f"{options.verb} which run? {options.out} has {len(known)} ({names}); give its name")
        return next(iter(known.items()))
    if not RUN_NAME.fullmatch(options.name) or ".." in options.name:
        raise InvalidValue(
            f"{options.name!r} cannot name a run; names are of a-z, 0-9, '-' and '.' (armillary results list)"
        )
    if options.name not in known:
        raise unknown("run", options.name, known)
    return options.name, known[options.name]


def _list(options: argparse.Namespace) -> int:
    rows = [{"name": name, **_summary(place(options.out) / name, said)} for name, said in runs_in(options.out).items()]
    if options.json:
        print(json.dumps({"runs": rows}))
        return 0
    if not rows:
        print(f"no results in {options.out}")
    for row in rows:
        print(f"{row['name']}\t{row['kind']}\t{row['state']}")
    return 0


def _summary(folder: Place, said: dict[str, Any]) -> dict[str, Any]:
    if "error" in said:
        return {"kind": "?", "state": said["error"]}
    if said.get("kind") == "sweep":
        try:
            done, wanted, failed = _blocks(folder)
        except StoreError as error:
            return {"kind": "sweep", "state": str(error)}
        return {"kind": "sweep", "state": f"{len(done)} of {len(wanted)} blocks done, {len(failed)} failed"}
    verdicts = [claim.get("verdict") for claim in said.get("claims", []) if isinstance(claim, dict)]
    counts = [f"{verdicts.count(v)} {v}" for v in ("holds", "fails", "undecided") if v in verdicts]
    return {"kind": "run", "state": ", ".join(counts) or "no claims"}


def _blocks(folder: Place) -> tuple[set[str], set[str], set[str]]:
    """Names of a sweep's finished, planned and failed blocks."""
    from armillary.store.files import names_in
    from armillary.sweeps.record import read_record

    parts = read_record(folder)["parts"]
    wanted = {f"{part['name']}-{first}" for part in parts for first in range(0, part["members"], part["size"])}
    done = {name.removesuffix(".nc") for name in names_in(folder / "blocks", ".nc")} & wanted
    failed = {name.removesuffix(".json") for name in names_in(folder / "failed", ".json")} & wanted - done
    return done, wanted, failed


def _show(options: argparse.Namespace) -> int:
    name, said = _chosen(options, needed=False)
    summary = _summary(place(options.out) / name, said)
    if options.json:
        print(json.dumps({"name": name, **summary, "record": said}))
        return 0
    print(f"{name}\t{summary['kind']}\t{summary['state']}")
    for entry in ("what", "slug", "size", "over", "seeds", "key", "armillary", "jax", "report", "trajectory"):
        if entry in said:
            print(f"{entry}\t{said[entry]}")
    for claim in said.get("claims", []):
        print(f"{claim['id']}\t{claim['verdict']}\t{claim['statement']}")
    return 0


def load(folder: Place, said: dict[str, Any]) -> dict[str, Any]:
    """The datasets of a run or a sweep, by experiment (what theory says of it as `theory/NAME`)."""
    if said.get("kind") == "sweep":
        from armillary.sweeps.gather import gather

        return gather(folder)
    sides = read_trajectories(folder / "trajectory.nc")
    return {**sides.get("measured", {}), **{f"theory/{name}": data for name, data in sides.get("theory", {}).items()}}


def _export(options: argparse.Namespace) -> int:
    name, said = _chosen(options, needed=False)
    ending = Path(options.to or "").suffix
    if ending not in (".nc", ".csv", ".zarr"):
        raise InvalidValue(f"export to {options.to or 'what'}? give --to FILE.nc, FILE.csv or FOLDER.zarr")
    if "error" in said:
        raise StoreError(f"cannot export {name}: {said['error']}")
    data = load(place(options.out) / name, said)
    if options.experiment:
        if options.experiment not in data:
            raise unknown("experiment", options.experiment, data)
        data = {options.experiment: data[options.experiment]}
    if not data:
        raise InvalidValue(f"{name} has no finished cells yet")
    if ending == ".csv":
        _to_csv(data, place(options.to))
    else:
        write = _to_netcdf if ending == ".nc" else _to_zarr
        write(_whole(data, sweep=said.get("kind") == "sweep"), place(options.to))
    print(json.dumps({"exported": str(options.to)}) if options.json else f"exported\t{options.to}")
    return 0


def _whole(data: dict[str, Any], *, sweep: bool) -> Any:
    """One dataset as files can hold it; a run's measurements and theory are a tree of them."""
    import xarray as xr

    from armillary.store.runs import plain
    from armillary.sweeps.gather import as_one

    plainer = {name: plain(one) for name, one in data.items()}
    return as_one(plainer) if sweep or len(plainer) == 1 else xr.DataTree.from_dict(plainer)


def _to_netcdf(whole: Any, to: Place) -> None:
    write_whole(to, lambda hidden: whole.to_netcdf(hidden, engine="netcdf4"))


def _to_csv(data: dict[str, Any], to: Place) -> None:
    """A row for each cell and moment, a column for each quantity (and the experiment's name, where there are several)."""
    import pandas as pd

    rows = sum(int(pd.Series([*one.sizes.values()], dtype=float).prod()) for one in data.values())
    if rows > MOST_ROWS:
        raise InvalidValue(
            f"the table would have {rows:,} rows, but may have {MOST_ROWS:,}; export one --experiment, or to .nc"
        )
    tables = []
    for name, one in data.items():
        table = one.to_dataframe().reset_index()
        if len(data) > 1:
            table.insert(0, "experiment", name)
        tables.append(table)
    write_whole(to, lambda hidden: pd.concat(tables, ignore_index=True).to_csv(hidden, index=False))


def _to_zarr(whole: Any, to: Place) -> None:
    if importlib.util.find_spec("zarr") is None:
        raise InvalidValue("a .zarr folder needs a library: pip install 'armillary[cloud]'")
    if not is_local(to):
        whole.to_zarr(str(to), mode="w", zarr_format=2)
        return
    hidden = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        whole.to_zarr(hidden, mode="w", zarr_format=2)
        shutil.rmtree(to, ignore_errors=True)
        hidden.rename(to)
    except OSError as error:
        raise StoreError(f"cannot write {to}: {error.strerror}") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _remove(options: argparse.Namespace) -> int:
    name, _ = _chosen(options, needed=True)
    remove_folder(place(options.out) / name)
    print(json.dumps({"removed": name}) if options.json else f"removed\t{name}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    known = runs_in(options.out)
    names = [_chosen(options, needed=False)[0]] if options.name else list(known)
    wrong = []
    for name in names:
        wrong += [{"run": name, **one} for one in problems(place(options.out) / name, known[name])]
    if options.json:
        print(json.dumps({"verified": names, "problems": wrong}))
    else:
        for one in wrong:
            print(f"{one['run']}\t{one['kind']}\t{one['what']}")
        print(f"verified {len(names)} runs: {'all is there and whole' if not wrong else f'{len(wrong)} problems'}")
    return int(bool(wrong))


def problems(folder: Place, said: dict[str, Any]) -> list[dict[str, str]]:
    """What is damaged, missing or failed in a run or a sweep."""
    from armillary.store.blocks import read_block

    if "error" in said:
        return [{"kind": "damaged", "what": said["error"]}]
    wrong: list[dict[str, str]] = []
    try:
        if said.get("kind") != "sweep":
            load(folder, said)
            return []
        done, wanted, failed = _blocks(folder)
    except StoreError as error:
        return [{"kind": "damaged", "what": str(error)}]
    for block in sorted(done):
        try:
            read_block(folder / "blocks" / f"{block}.nc")
        except StoreError as error:
            wrong.append({"kind": "damaged", "what": str(error)})
    wrong += [{"kind": "failed", "what": block} for block in sorted(failed)]
    return wrong + [{"kind": "missing", "what": block} for block in sorted(wanted - done - failed)]
