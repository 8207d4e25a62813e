"""Running a study for a person: progress, verdict table, files and where they are."""

import dataclasses
import functools
import io
import json
import os
import shlex
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from armillary.apart import Apart, can_fork
from armillary.executables import keep_executables, remove_oldest
from armillary.fields import flag, of_size
from armillary.progress import Bar, Silent, default_progress
from armillary.report.html import write_report
from armillary.report.style import save
from armillary.store import open_run, run_name, write_text, write_trajectories
from armillary.store.keeper import Keep
from armillary.study import Result, Study, run_study
from armillary.verdict import Verdict

WORTH_KEEPING = 2.0
"""Seconds of computing that are worth a file."""

MARKS = {
    Verdict.HOLDS: "[green]✓ holds[/]",
    Verdict.FAILS: "[red]✗ fails[/]",
    Verdict.UNDECIDED: "[yellow]? undecided[/]",
}


def run_and_report(study: Study, options: Any, name: str) -> int:
    """Run, write the results, print the verdicts; the exit status."""
    begun = time.perf_counter()
    slug = Path(name).stem.replace("_", "-").lower() if name.endswith(".py") else name
    settings = {**dataclasses.asdict(study), "seeds": options.seeds, "key": options.key}
    folder = open_run(options.out, run_name(slug, options.size, settings))
    progress = Silent() if options.json else default_progress()
    with ExitStack() as stack:
        forks = can_fork()
        crew = stack.enter_context(Apart(cache_compilations)) if forks else None
        studio = stack.enter_context(Apart(prepare_to_draw, 1)) if forks else None
        cache_compilations()
        with progress if isinstance(progress, Bar) else nullcontext():
            # What takes long is kept on the way, so that the same command goes on after an interruption.
            keep = Keep(folder / "parts", worth=WORTH_KEEPING)
            given = {"size": options.size, "seeds": options.seeds, "key": options.key}
            result = run_study(study, **given, progress=progress, keep=keep, crew=crew)
        draw = functools.partial(_drawn, study, result.measured, result.theory, folder / "figures")
        drawing = studio.begin(draw, [True], [()], Silent()) if studio else []
        trajectory = write_trajectories(folder, result.measured, result.theory)
        paths = drawing[0].result() if drawing else draw(False)
    drawn = list(zip(study.figures(result.measured, result.theory), paths, strict=True))
    report = write_report(result, slug, command_of(study, options, name), drawn, folder)
    record = {
        "slug": slug,
        "size": options.size,
        "seconds": round(time.perf_counter() - begun, 2),
        "claims": [claim.as_dict() for claim in result.claims],
        "trajectory": str(trajectory),
        "report": str(report),
    }
    write_text(folder / "run.json", json.dumps({**record, "settings": settings}, indent=1, default=str))
    keep.drop()
    for kind in ("jax", "programs"):
        remove_oldest(_cache() / kind)
    if options.json:
        print(json.dumps(record))
    else:
        _print(result, record)
    return int(options.strict and any(claim.verdict is Verdict.FAILS for claim in result.claims))


def _drawn(study: Study, measured: Any, theory: Any, folder: Path, share: bool, progress: Any = None) -> list[Path]:
    """The files of a study's figures, drawn; every other one by a copy of this process, which has all libraries loaded."""
    # First of all: a figure may ask a theory, which begins JAX and its threads, and then it would be too late.
    copy = os.fork() if share and can_fork() else None
    if copy == 0:
        try:
            for figure in list(study.figures(measured, theory))[1::2]:
                save(figure, folder)
            os._exit(0)
        finally:
            os._exit(1)
    figures = list(study.figures(measured, theory))
    for figure in figures if copy is None else figures[::2]:
        save(figure, folder)
    if copy is not None and os.waitpid(copy, 0)[1] != 0:  # its error is met again here
        for figure in figures[1::2]:
            save(figure, folder)
    return [folder / f"{figure.name}.svg" for figure in figures]


def prepare_to_draw() -> None:
    """Import what figures need, fonts and all, in the process that will draw them; JAX begins there only if a figure asks it."""
    from matplotlib.figure import Figure

    canvas = Figure(layout="constrained")
    canvas.subplots().set_title("$x$")
    for kind in ("png", "svg"):
        canvas.savefig(io.BytesIO(), format=kind)
    _use_cache()


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, for the next run of the command line."""
    import jax

    _use_cache()
    jax.jit(lambda: 0)()  # JAX opens its cache now: two threads that open it at once may find it closed for good


def _use_cache() -> None:
    import jax

    # With this, programs run in the thread that calls them, so that several can run at once (see `armillary.cores`).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(_cache() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    keep_executables(_cache() / "programs")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armillary"


def command_of(study: Study, options: Any, name: str) -> str:
    """The command that gives this result again."""
    words = ["armillary", "run", name, "--size", options.size]
    usual = of_size(type(study), options.size)
    for field in dataclasses.fields(study):
        value = getattr(study, field.name)
        if value == usual.get(field.name, field.default):
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag(field.name)}")
        else:
            words += [f"--{flag(field.name)}", *map(str, value if isinstance(value, tuple) else (value,))]
    words += ["--seeds", str(options.seeds)] if options.seeds is not None else []
    words += ["--key", str(options.key)] if options.key else []
    return shlex.join(words)


def _print(result: Result, record: dict[str, Any]) -> None:
    """The verdict table, and where everything is; plain lines when piped."""
    if not sys.stdout.isatty():
        for claim in result.claims:
            print(f"{claim.id}\t{claim.verdict}\t{claim.found}\t{claim.criterion}\t{claim.statement}")
        print(f"report\t{record['report']}\ntrajectory\t{record['trajectory']}\nseconds\t{record['seconds']}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(type(result.study).paper), title_justify="left", show_lines=False)
    for heading in ("", "claim", "expected", "measured", "verdict"):
        table.add_column(heading, no_wrap=heading in ("", "verdict"))
    for claim in result.claims:
        table.add_row(claim.id, claim.statement, claim.criterion, claim.found, MARKS[claim.verdict])
    console = Console()
    console.print(table)
    for name, (lost, total) in result.diverged.items():
        console.print(f"[yellow]{name}: {lost} of {total} runs diverged and are left out of the means[/]")
    console.print(f"report      {record['report']}", soft_wrap=True)
    console.print(f"data        {record['trajectory']}", soft_wrap=True)
    console.print(f"took        {record['seconds']} s", soft_wrap=True)
