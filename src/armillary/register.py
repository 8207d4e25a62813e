"""The register of studies: a study is a file in `studies/FAMILY/`, and its slug is the file's name.

Nothing is imported to list them: titles are read from the files' first lines, so that the command line
answers before jax is there.
"""

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from armillary.errors import ArmillaryError, InvalidValue, unknown

FOLDER = Path(__file__).parent / "studies"


class Entry(NamedTuple):
    """One registered study."""

    slug: str
    family: str
    title: str
    module: str


def entries() -> dict[str, Entry]:
    """All studies by slug, in the order of their families and names.

    >>> entries()["deep-linear"].family
    'exact'
    """
    found = {}
    for path in sorted(FOLDER.glob("*/*.py")):
        if path.stem.startswith("_"):
            continue
        slug = path.stem.replace("_", "-")
        module = f"armillary.studies.{path.parent.name}.{path.stem}"
        found[slug] = Entry(slug, path.parent.name, _title(path), module)
    return found


def _title(path: Path) -> str:
    """The first line of the module's docstring, with which a study's file begins; parsing all files would take a second."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    opened = re.match(r'[rR]?("""|\'\'\'|"|\')', first)
    return first[opened.end() :].removesuffix(opened.group(1)).strip().rstrip(".") if opened else ""


def study_class(slug_or_file: str) -> Any:
    """The class of the study of that slug, or in that Python file.

    Raises `UnknownName` with the nearest slugs, and `InvalidValue` for a file that holds not exactly one study.
    """
    if slug_or_file.endswith(".py"):
        return _from_file(Path(slug_or_file))
    known = entries()
    if slug_or_file not in known:
        raise unknown("study", slug_or_file, known)
    return _only_study(importlib.import_module(known[slug_or_file].module), slug_or_file)


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise InvalidValue(f"there is no file {path}; give a study's name or the path of a Python file")
    spec = importlib.util.spec_from_file_location(f"armillary_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ArmillaryError:
        raise
    except Exception as error:  # the file is the user's: whatever it raises is told in one line
        raise InvalidValue(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return _only_study(module, str(path))


def _only_study(module: Any, where: str) -> Any:
    from armillary.study import Study

    own = [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, Study) and k is not Study]
    own = [k for k in own if k.__module__ == module.__name__]
    if len(own) != 1:
        raise InvalidValue(f"{where} holds {len(own)} studies, but must hold one subclass of armillary.study.Study")
    return own[0]


def claims_in(path: str | Path) -> list[tuple[str, str]]:
    """The claims that a study's file states, as (id, statement), without running it: its `Claim("C1", "...")` calls.

    Numbers that a statement fills in stand as "…".
    """
    stated = []
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Claim" and len(node.args) >= 2:
            stated.append((_text(node.args[0]), _text(node.args[1]), node.lineno))
    return [(name, statement) for name, statement, _ in sorted(stated, key=lambda claim: claim[2])]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"
