"""What the tests of split queries share."""

import pytest

from tests.support.aggregations import write_mixed


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = tmp_path_factory.mktemp("mixed") / "mixed.zarr"
    write_mixed(url)
    return url
