"""The command line: `armillary list | show | run | sweep | results`. Heavy imports wait until a study runs."""

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Literal

from armillary.errors import ArmillaryError, InvalidValue, unknown
from armillary.fields import SIZES, flag
from armillary.register import claims_in, entries, study_class

RESULTS = "armillary-results"
COMMANDS = ("list", "show", "run", "sweep", "results")


@dataclass(frozen=True)
class Options:
    """How a study is run."""

    size: Literal["smoke", "desk", "paper"] = "desk"
    """Seconds, about a minute, or the paper's own."""
    seeds: int | None = None
    """How many seeds; each study has its number for each size."""
    key: int = 0
    """The root of all random numbers."""
    out: str = RESULTS
    """The results folder."""
    json: bool = False
    """Print one JSON object and nothing else."""
    strict: bool = False
    """Exit with status 1 if a claim fails."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (strict, a claim fails), 2 (bad input)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    gc.set_threshold(50_000, 50, 100)  # imports and tracing make objects that stay; looking through them takes seconds
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("NPROC", str(cores + 1))  # programs run side by side, see `armillary.cores`
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would wait for each other, spinning
    os.environ.setdefault("EQX_ON_ERROR", "nan")  # a failed check inside a program shows as a diverged member
    try:
        return _dispatch(arguments)
    except ArmillaryError as error:
        print(f"armillary: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("armillary: stopped; finished results are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("ARMILLARY_DEBUG"):
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        hint = "set ARMILLARY_DEBUG=1 for the traceback, and please report it"
        print(f"armillary: internal error: {type(error).__name__}: {first} ({hint})", file=sys.stderr)
        return 3


def command() -> None:
    """The program `armillary`. It ends at once: taking JAX apart in order takes half a second, and all is written."""
    status = main()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    if arguments[0] in ("sweep", "results"):
        return _reach(arguments[0], arguments[1:])
    known, rest = parser.parse_known_args(arguments)
    if known.command == "run":
        return _run(known.study, rest)
    if rest:
        raise InvalidValue(f"unknown argument {rest[0]!r} for {known.command}; see armillary {known.command} --help")
    return _list(known) if known.command == "list" else _show(known)


class OneLine(argparse.ArgumentParser):
    """Errors as one line, like all others."""

    def error(self, message: str) -> Any:
        raise InvalidValue(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = OneLine(
        prog="armillary",
        description="Predict, measure and steer how neural networks learn.",
        epilog="armillary run deep-linear is a good start; armillary run STUDY --help lists a study's flags.",
    )
    parser.add_argument("--version", action="version", version=f"armillary {version('armillary')}")
    commands = parser.add_subparsers(dest="command", metavar="list | show | run | sweep | results", required=True)
    listing = commands.add_parser("list", help="the studies, by family, with their last verdicts")
    listing.add_argument("--out", default=RESULTS, help=f"the results folder (default {RESULTS})")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    showing = commands.add_parser("show", help="a study's paper, claims and knobs")
    showing.add_argument("study", help="a name from armillary list, or a Python file")
    showing.add_argument("--out", default=RESULTS, help=f"the results folder (default {RESULTS})")
    running = commands.add_parser("run", help="run a study: verdicts, report and figures", add_help=False)
    running.add_argument("study", nargs="?", help="a name from armillary list, or a Python file")
    commands.add_parser("sweep", help="a study over values of its fields, kept and resumed", add_help=False)
    commands.add_parser(
        "results", help="list, show, export, remove or verify what is in a results folder", add_help=False
    )
    return parser


def _reach(command: str, arguments: list[str]) -> int:
    """The commands that have files of their own."""
    if command == "sweep":
        from armillary.sweeps import command as sweeps

        return sweeps.command(arguments, _parse)
    from armillary.store import command as results

    return results.command(arguments)


def _list(options: argparse.Namespace) -> int:
    from armillary.store import last_runs

    runs = last_runs(options.out)
    if options.json:
        rows = [{**entry._asdict(), "last": runs.get(slug)} for slug, entry in entries().items()]
        print(json.dumps({"studies": rows}))
        return 0
    width = max(len(slug) for slug in entries())
    family = ""
    for slug, entry in entries().items():
        if entry.family != family:
            family = entry.family
            print(f"\n{family}" if slug != next(iter(entries())) else family)
        last = runs.get(slug)
        print(f"  {slug:<{width}}  {_counts(last) if last else 'not run yet':<24}  {entry.title}")
    return 0


def _counts(run: dict[str, Any]) -> str:
    verdicts = [claim["verdict"] for claim in run["claims"]]
    parts = [f"{verdicts.count(v)} {v}" for v in ("holds", "fails", "undecided") if v in verdicts]
    return f"{', '.join(parts) or 'no claims'} ({run['size']})"


def _show(options: argparse.Namespace) -> int:
    from armillary.store import last_runs

    kind = study_class(options.study)
    print(f"{kind.paper}\n")
    print((kind.__doc__ or "").strip())
    path = sys.modules[kind.__module__].__file__
    assert path is not None
    last = last_runs(options.out).get(options.study, {"claims": []})
    verdicts = {claim["id"]: claim["verdict"] for claim in last["claims"]}
    print("\nClaims")
    for name, statement in claims_in(path):
        print(f"  {name:<5} {statement}{f'  [{verdicts[name]}]' if name in verdicts else ''}")
    print("\nKnobs (armillary run " + options.study + " --help)")
    for field in fields(kind):
        sizes = "".join(f", {size} {value}" for size, value in field.metadata.get("sizes", {}).items())
        print(f"  --{flag(field.name):<22} {field.default}{sizes}")
    return 0


def _run(name: str | None, arguments: list[str]) -> int:
    if name is None:
        if {"-h", "--help"} & set(arguments):
            print("usage: armillary run STUDY [--size smoke|desk|paper] [--seeds N] [--out DIR] [--json] [--strict]")
            print("\narmillary list names the studies; armillary run STUDY --help lists a study's own flags.")
            return 0
        raise InvalidValue("run what? name a study, as in armillary run deep-linear (armillary list names them)")
    kind = study_class(name)
    study, options = _parse(kind, name, arguments)
    from armillary.report.console import run_and_report

    return run_and_report(study, options, name)


def _parse(kind: Any, name: str, arguments: list[str]) -> tuple[Any, Options]:
    """The study and the options that the flags describe; every field of the study is a flag."""
    import io
    from contextlib import redirect_stderr

    import tyro

    size = _size_in(arguments)
    flags = {flag(f.name) for f in (*fields(kind), *fields(Options))}
    flags |= {f"no-{flag(f.name)}" for f in (*fields(kind), *fields(Options)) if isinstance(f.default, bool)}
    for argument in arguments:
        if argument.startswith("--") and argument not in ("--", "--help"):
            given = argument[2:].split("=")[0].replace("_", "-")
            if given not in flags:
                error = unknown("flag", f"--{given}", {f"--{f}" for f in flags})
                raise InvalidValue(f"{error} for {name}") from None
    said = io.StringIO()
    both = tyro.conf.OmitArgPrefixes
    try:
        with redirect_stderr(said):
            return tyro.cli(
                tuple[both[kind], both[Options]],
                args=arguments,
                default=(kind.at_size(size), Options(size=size)),
                prog=f"armillary run {name}",
                description=(kind.__doc__ or "").strip(),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise SystemExit(0) from None
        raise InvalidValue(f"{_one_line(said.getvalue())} (armillary run {name} --help)") from None


def _size_in(arguments: list[str]) -> Any:
    for index, argument in enumerate(arguments):
        value = argument[7:] if argument.startswith("--size=") else None
        if argument == "--size":
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        if value is not None:
            if value not in SIZES:
                raise unknown("size", value, SIZES)
            return value
    return "desk"


def _one_line(box: str) -> str:
    """What tyro said in its box, as one line."""
    lines = [line.strip(" │╭╮╰╯─|+-") for line in box.splitlines()]
    kept = [line for line in lines if line and "Parsing error" not in line and "full helptext" not in line]
    said = re.sub(r"^Value error Error parsing \S+: ", "", " ".join(kept).strip())
    return said or "these flags cannot be read"


if __name__ == "__main__":
    sys.exit(main())
