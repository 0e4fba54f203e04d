"""The examples of the README, of the guide to queries and of each how-to run in order, in an empty folder.

`make docs` runs those of all pages. These are the pages that need no package but those of the tests.
"""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import polars as pl
import pytest
from distributed import Client

import rainbear_dask as rd

ROOT = Path(__file__).parents[2]
QUERIES = ROOT / "docs" / "guide" / "queries.md"
PAGES = [QUERIES, *sorted(ROOT.glob("docs/howto/*.md"))]
BLOCK = re.compile(r"^```python(?P<raises> raises)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
"""As in ``docs/hooks/execute.py``: examples marked ``py`` need a service, and do not run."""


def run(page, folder):
    """Run a page, and return its names."""
    names = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, pl.Config():  # a page may choose an engine
        patch.chdir(folder)
        patch.setattr(Client, "__init__", _small(Client.__init__))
        for block in BLOCK.finditer(page.read_text()):
            code = compile(block["code"], page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if block["raises"]:
                with pytest.raises(rd.exceptions.RainbearError):
                    _run(code, names)
            else:
                _run(code, names)
    return names


def _run(code, names):
    if inspect.iscoroutine(waiting := eval(code, names)):  # noqa: S307  our own text
        asyncio.run(waiting)


def _small(init):
    return lambda self, *args, **options: init(
        self, *args, **{"processes": False, "n_workers": 1, "dashboard_address": None} | options
    )


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    return run(ROOT / "README.md", tmp_path_factory.mktemp("readme"))


def test_the_readme_is_a_door():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 90
    assert len(BLOCK.findall(text)) == text.count("```python") >= 2
    assert "make demo" in text
    assert "make test" in text


def test_the_first_example_has_rows(readme):
    assert rd.explain(readme["summer"]).chunks_kept > 0
    assert readme["summer"].collect().height > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, tmp_path):
    names = run(page, tmp_path)
    if page == QUERIES:
        assert names["west"].chunks_kept == 0
        assert "longitude is 0° to 357.5°" in names["west"]
