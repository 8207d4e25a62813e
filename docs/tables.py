"""The tables of docs/: studies, theories and probes as the code has them. `python docs/tables.py` writes them anew."""

import inspect
import re
import sys
from pathlib import Path

import armillary as arm
from armillary.probes.probing import Probe
from armillary.register import entries, study_class

DOCS = Path(__file__).parent


def first_line(thing: object) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s", text)[0].rstrip(".:")


def studies() -> list[str]:
    """One row a study."""
    rows = ["| study | family | paper |", "|---|---|---|"]
    for slug, entry in entries().items():
        paper = study_class(slug).paper
        rows.append(f"| `{slug}` | {entry.family} | [{paper.title}]({paper.url}) ({paper.year}) |")
    return rows


def theories() -> list[str]:
    """One row a theory that `predict` asks."""
    rows = ["| theory | what it says |", "|---|---|"]
    return rows + [f"| {one.name} | {first_line(one)} |" for one in sorted(arm.theory.theories(), key=lambda t: t.name)]


def probes() -> list[str]:
    """One row a probe."""
    rows = ["| probe | what it sees |", "|---|---|"]
    found = {n: getattr(arm.probes, n) for n in arm.probes.__all__}
    kinds = {n: p for n, p in found.items() if inspect.isclass(p) and issubclass(p, Probe) and p is not Probe}
    return rows + [f"| `{name}` | {first_line(kind)} |" for name, kind in sorted(kinds.items())]


def page(text: str) -> str:
    """A page with the lines between its markers `<!-- NAME -->` and `<!-- end -->` made anew."""
    made = {"studies": studies, "theories": theories, "probes": probes}
    for name, rows in made.items():
        if f"<!-- {name} -->" in text:
            whole = "\n".join([f"<!-- {name} -->", *rows(), "<!-- end -->"])
            text = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, w=whole: w, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(page(path.read_text()))
        sys.stdout.write(f"{path.name}\n")
