"""The report: one self-contained page."""

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from armillary.report.figure import Figure
from armillary.study import Result

VERSIONS = ("armillary", "jax", "equinox", "optax", "diffrax", "xarray", "numpy")


def write_report(result: Result, slug: str, command: str, figures: Sequence[tuple[Figure, Path]], folder: Path) -> Path:
    """`report.html` with the verdicts and every figure (as inline SVG); needs no network."""
    import jinja2

    from armillary.store import write_text

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("armillary.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = templates.get_template("report.html.jinja").render(
        result=result,
        slug=slug,
        doc=(type(result.study).__doc__ or "").strip(),
        paper=type(result.study).paper,
        command=command,
        fields={f.name: getattr(result.study, f.name) for f in dataclasses.fields(result.study)},
        counts=_counts(result),
        figures=[(figure, _inline(path)) for figure, path in figures],
        versions={name: version(name) for name in VERSIONS},
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        theories=_theories(result.theory),
    )
    return write_text(folder / "report.html", page)


def _inline(svg: Path) -> str:
    """The drawing without its XML head; ids made the figure's own, so that two on one page do not clash."""
    text = svg.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = html.escape(svg.stem)
    for before in ('id="', 'href="#', "url(#"):
        text = text.replace(before, f"{before}{prefix}-")
    return text


def _counts(result: Result) -> dict[str, int]:
    counts = {"holds": 0, "fails": 0, "undecided": 0}
    for claim in result.claims:
        counts[str(claim.verdict)] += 1
    return {name: count for name, count in counts.items() if count}


def _theories(theory: Mapping) -> list[str]:
    spoke = {part for said in theory.values() for part in said.attrs.get("theories", "").split("; ") if part}
    return sorted(spoke)
