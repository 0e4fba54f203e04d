"""Names and links of the documentation lead to something that exists."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import rainbear_dask

ROOT = Path(__file__).parents[2]
DESIGN = [ROOT / "docs" / "design.md", ROOT / "docs" / "glossary.md", *sorted(ROOT.glob("docs/packages/*.md"))]
PAGES = [*DESIGN, *ROOT.glob("*.md"), *ROOT.glob("cluster/*.md"), *ROOT.glob("benchmarks/*.md")]
MODULES = {
    module.name.removeprefix("rainbear_dask."): importlib.import_module(module.name)
    for module in pkgutil.walk_packages(rainbear_dask.__path__, "rainbear_dask.")
    if not module.name.endswith("__main__")
}
CLASSES = {
    name: value
    for module in MODULES.values()
    for name, value in vars(module).items()
    if inspect.isclass(value) and value.__module__ == module.__name__
}


def is_there(owner, names):
    for name in names:
        if name in getattr(owner, "__dataclass_fields__", {}):
            return True
        owner = getattr(owner, name, None)
    return owner is not None


def is_known(name):
    """Whether a dotted name exists; those of other libraries, and of variables, are not looked at."""
    first, *rest = name.split(".")
    if first in CLASSES:
        return is_there(CLASSES[first], rest)
    if first == "rd" or first in MODULES:
        return is_there(rainbear_dask, rest if first == "rd" else [first, *rest])
    return True


def names_of(page):
    return re.findall(r"`((?:[A-Za-z_]+\.)+[A-Za-z_]+)(?:\([^`]*\))?`", page.read_text())


@pytest.mark.parametrize("page", DESIGN, ids=lambda page: page.name)
def test_names_of_the_design_exist(page):
    assert [name for name in names_of(page) if not is_known(name)] == []


def test_a_name_that_does_not_exist_is_found():
    assert is_known("planning.predicate.MAX_CELLS")
    assert is_known("StoreSpec.opening_id")
    assert not is_known("planning.predicate.no_such_name")
    assert not is_known("StoreSpec.no_such_name")


def test_pages_of_packages_have_the_name_of_their_package():
    pages = {page.stem for page in ROOT.glob("docs/packages/*.md")}
    assert pages <= MODULES.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
