"""Pages of the site: those that other files of the project become, and the completeness of the others."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import yaml

import rainbear_dask
from rainbear_dask import exceptions

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "hooks" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_leads_to_the_page_that_a_file_becomes(pages):
    text = "[a](../../benchmarks/README.md#memory) [b](../design.md) [c](../../LICENSE) [d](https://x.org)"
    actual, downloads = pages.with_links("packages/query.md", text)
    assert actual == "[a](../about/measurements.md#memory) [b](../design.md) [c](../files/LICENSE) [d](https://x.org)"
    assert downloads == ["LICENSE"]


def test_a_link_of_a_copied_page_is_relative_to_its_file(pages):
    actual, downloads = pages.with_links("operations/clusters.md", "[a](slurm/dask.yaml) [b](../docs/packages)")
    assert actual == "[a](../files/cluster/slurm/dask.yaml) [b](../packages/index.md)"
    assert downloads == ["cluster/slurm/dask.yaml"]


def test_the_page_of_settings_has_each_with_its_default(pages):
    settings = yaml.safe_load((ROOT / "rainbear_dask" / "rainbear-dask.yaml").read_text())["rainbear-dask"]
    flat = {key: value for key, value in settings.items() if key != "cluster"}
    flat |= {f"cluster.{key}": value for key, value in settings["cluster"].items()}
    page = pages.generated()["reference/settings.md"]
    rows = dict(re.findall(r"^## ([\w.-]+)$.*?^Default: `([^`]+)`", page, re.MULTILINE | re.DOTALL))
    assert {key: yaml.safe_load(value) for key, value in rows.items()} == flat
    assert "`DASK_RAINBEAR_DASK__CLUSTER__NAME`" in page


def test_the_page_of_the_command_has_each_part(pages):
    page = pages.generated()["reference/command.md"]
    assert {"info", "plan", "scan", "sample", "zonal", "export"} <= set(
        re.findall(r"^## ([\w-]+)$", page, re.MULTILINE)
    )
    assert "--where" in page


def test_the_gallery_links_figures_to_their_pages(pages):
    page = pages.gallery(
        {"a.md": "# A\n\n![x](a-1.png)\n", "b/c.md": "# C\n\n![x](c-1.png)\n\n![x](c-2.png)\n", "d.md": "# D\n"}
    )
    assert re.findall(r"\[!\[(\w+)\]\(([^)]+)\)\]\(([^)]+)\)", page) == [
        ("A", "a-1.png", "a.md"),
        ("C", "b/c-2.png", "b/c.md"),
    ]


def test_the_reference_has_each_public_name():
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert [name for name in rainbear_dask.__all__ if not re.search(rf"(?<!\w){name}(?!\w)", text)] == []


def test_the_page_of_errors_has_each_class():
    text = (DOCS / "reference" / "errors.md").read_text()
    classes = [
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    ]
    assert [name for name in classes if f"`{name}`" not in text] == []


def test_each_limit_names_a_test():
    names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "operations" / "limits.md").read_text())
    assert len(names) >= 9
    assert [name for file, name in names if f"def {name}(" not in (ROOT / file).read_text()] == []


def test_the_navigation_names_each_page():
    for nav in DOCS.glob("*/.nav.yml"):
        named = {entry for entry in yaml.safe_load(nav.read_text())["nav"] if isinstance(entry, str)}
        assert {page.name for page in nav.parent.glob("*.md")} <= named, nav
