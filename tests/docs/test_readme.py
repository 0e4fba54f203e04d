"""The examples of the README run one after the other, on the sample store."""

import re
from pathlib import Path

import polars as pl
import pytest
from distributed import Client

import rainbear_dask as rd

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall("```python\n(.*?)```", README.read_text(), re.DOTALL)
NEEDED = re.compile(r"s3://|S3Store|connect\(|await ")
"""Parts of examples that need a service, a cluster or a notebook."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """All names of the examples after they ran in a folder with the sample store."""
    folder = tmp_path_factory.mktemp("readme")
    names = {"rd": rd, "pl": pl}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Client, "__init__", _small(Client.__init__))
        for block in BLOCKS:
            if not NEEDED.search(block):
                exec(compile(block, "README.md", "exec"), names)  # noqa: S102  our own text
        yield names


def _small(init):
    return lambda self, *args, **options: init(
        self, *args, **{"processes": False, "n_workers": 1, "dashboard_address": None} | options
    )


def test_most_examples_run(done):
    runnable = [block for block in BLOCKS if not NEEDED.search(block)]
    assert len(runnable) >= 6


def test_the_first_example_has_rows(done):
    assert rd.explain(done["summer"]).chunks_kept > 0
    assert done["summer"].collect().height > 0


def test_the_filter_that_keeps_nothing_says_why(done):
    assert done["west"].chunks_kept == 0
    assert "longitude is 0° to 357.5°" in done["west"]


def test_the_plan_has_rows(done):
    assert done["plan"].num_chunks_kept > 0
