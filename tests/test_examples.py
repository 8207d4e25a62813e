"""The examples in docstrings, README and docs run and say what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import armillary

ROOT = Path(__file__).parent.parent
MODULES = [m.name for m in pkgutil.walk_packages(armillary.__path__, "armillary.") if "__main__" not in m.name]
STUBS = sorted((ROOT / "src").glob("armillary/**/__init__.pyi"))
PACKAGES = [".".join(stub.parent.relative_to(ROOT / "src").parts) for stub in STUBS]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there(package):
    """Names are loaded when first used; one that a module also has would be that module as soon as this is imported."""
    home = importlib.import_module(package)
    modules = {module.name for module in pkgutil.iter_modules(home.__path__)}
    found = {name: getattr(home, name) for name in home.__all__}
    assert {name for name in found if name in modules} == {
        name for name in found if isinstance(found[name], ModuleType)
    }


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert outcome.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_in_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), space)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_in_pages_are_the_codes(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    tables = importlib.import_module("tables")
    assert tables.page(page.read_text()) == page.read_text(), "run python docs/tables.py"
