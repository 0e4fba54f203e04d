"""What the tests of split queries share."""

import pytest

from tests.support.aggregations import split_on_threads, write_mixed


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = tmp_path_factory.mktemp("mixed") / "mixed.zarr"
    write_mixed(url)
    return url


@pytest.fixture(name="split_on_threads")
def _split_on_threads(monkeypatch):
    split_on_threads(monkeypatch)
