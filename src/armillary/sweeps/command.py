"""`armillary sweep`: a study over some of its fields, from flags or a TOML file."""

import argparse
import json
from pathlib import Path
from typing import Any

from armillary.cli import OneLine
from armillary.errors import InvalidValue
from armillary.sweeps.grid import parse_axis, read_grid

USAGE = """usage: armillary sweep STUDY --over NAME=VALUES [--over ...] [--seeds N] [--size smoke|desk|paper] [--out DIR]
       armillary sweep FILE.toml [--out DIR]

  --over NAME=VALUES  a field of the study, or of its experiments (dots for nested ones), and its values:
                      2,3,4   log:LOW:HIGH:COUNT   lin:LOW:HIGH:COUNT   a JSON list
  --experiment NAME   one of the study's experiments; all by default, may be given more than once
  --seeds N           seeds of each cell      --key N   the root of all random numbers
  --out DIR           the results folder, or a URL (s3://bucket/results)
  --cluster WHERE     local:4 (processes) or tcp://host:port (a Dask scheduler)
  --dry-run           print programs and blocks with an estimate of time and memory, and run nothing
  --retry             run blocks again that failed before
  --json              print one JSON object and nothing else
and the study's own flags, as armillary run STUDY --help shows them."""


def command(arguments: list[str], parse_study: Any) -> int:
    """Run the command line's sweep; the exit status: 1 where blocks failed."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    parser = OneLine(prog="armillary sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("study")
    for name in ("over", "experiment"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--cluster")
    for name in ("dry-run", "retry"):
        parser.add_argument(f"--{name}", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    asked, options = _asked(own, rest, parse_study)
    from armillary.report.console import cache_compilations
    from armillary.sweeps.sweep import run

    if own.dry_run:
        return _dry_run(asked, options)
    cache_compilations()
    from armillary.sweeps.board import default_board

    with default_board(quiet=options.json) as board:
        outcome = run(asked, out=options.out, cluster=own.cluster, retry=own.retry, board=board)
    if options.json:
        print(json.dumps({"sweep": outcome.folder.name, "blocks": outcome.done, "failed": outcome.failed}))
    else:
        print(f"sweep\t{outcome.folder}\nblocks\t{outcome.done} done, {len(outcome.failed)} failed")
        for name, error in outcome.failed.items():
            print(f"failed\t{name}\t{error}")
        if outcome.failed:
            print("retry with --retry; tracebacks are in the folder failed/")
        print(
            f"export\tarmillary results export {outcome.folder.name} --out {options.out} --to FILE.nc|FILE.csv|FOLDER.zarr"
        )
    return int(bool(outcome.failed))


def _asked(own: argparse.Namespace, rest: list[str], parse_study: Any) -> tuple[Any, Any]:
    """The sweep, and the options of how it is run."""
    from armillary.register import study_class
    from armillary.sweeps.sweep import of_grid_file, prepare

    if own.study.endswith(".toml"):
        if own.over or own.experiment:
            raise InvalidValue("a TOML file says itself what is swept; leave out --over and --experiment")
        grid = read_grid(Path(own.study))
        _, options = parse_study(study_class(grid.study), grid.study, rest)
        return of_grid_file(grid), options
    over = dict(parse_axis(text) for text in own.over)
    if len(over) < len(own.over):
        raise InvalidValue("an axis is given twice; give all its values at once (--over NAME=A,B)")
    if not over:
        raise InvalidValue(
            "sweep over what? give --over NAME=VALUES, as in --over depth=2,3,4 (armillary sweep --help)"
        )
    study, options = parse_study(study_class(own.study), own.study, rest)
    asked = prepare(
        study, over, seeds=options.seeds, key=options.key, size=options.size, experiments=tuple(own.experiment)
    )
    return asked, options


def _dry_run(asked: Any, options: Any) -> int:
    """What would be run, and about how long and how large."""
    from armillary.cores import cores
    from armillary.sweeps.board import where
    from armillary.sweeps.sweep import MEMORY, sweep_name

    rows, total = [], 0.0
    for part in asked.parts():
        layout, seconds = part.layout(int(MEMORY)), part.program.seconds()
        blocks = -(-part.program.members // layout.size)
        total += seconds
        rows.append({
            "program": part.name, "experiment": part.experiment, "at": where(part.entries), "cells": part.program.members,
            "blocks": blocks, "seconds": round(seconds, 2), "megabytes": round(3 * layout.size * layout.each / 1e6, 2),
        })  # fmt: skip
    name, hands = sweep_name(asked.slug, asked.said), cores()
    summary = {
        "sweep": name,
        "programs": len(rows),
        "cells": sum(row["cells"] for row in rows),
        "seconds": round(total, 1),
    }
    if options.json:
        print(json.dumps({**summary, "plan": rows}))
        return 0
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(str(value) for value in row.values()))
    print(
        f"{name}: {summary['cells']} cells in {sum(row['blocks'] for row in rows)} blocks of {len(rows)} compiled programs"
    )
    print(
        f"about {total:.0f} s of computing on one core, {total / hands:.0f} s on {hands}, and 1 to 5 s for each compilation"
    )
    return 0
