"""The examples of each how-to run in order, in an empty folder; those marked ``py`` need more packages, and do not run."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

PAGES = sorted(Path(__file__).parents[2].glob("docs/howto/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names = {"__name__": "__main__"}
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)  # noqa: S102  our own text
