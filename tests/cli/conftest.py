"""What the tests of the command share."""

import pytest

from tests.support.stores import write_field


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("cli") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture(autouse=True)
def own_warnings(monkeypatch):
    """`main` says warnings in its own way, for the rest of its process."""
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)
