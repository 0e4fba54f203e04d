"""Output to an S3 server has the content of output to a folder."""

import dask
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreError, WriteError
from tests.support.stores import write_field

pytestmark = pytest.mark.stores


@pytest.fixture
def url(tmp_path) -> str:
    write_field(tmp_path / "field.zarr", chunks=(4, 12, 20))
    return str(tmp_path / "field.zarr")


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_an_export_to_s3_reads_back(services, url, tmp_path, library, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    options, lf = services.options(library=library), rd.scan_zarr(url)
    folder = f"s3://private/{tmp_path.name}/out"
    with dask.config.set({"rainbear-dask.task-bytes": 10_000}):
        report = rd.write_parquet(lf, folder, client=client, storage_options=options)
        again = rd.write_parquet(lf, folder, client=client, storage_options=options)
    assert (report.rows, report.skipped, again.skipped) == (48 * 12 * 20, 0, report.tasks)
    target = rd.api.export.target_of(folder, options)
    names = sorted(target.files())
    assert names[-1] == "_SUCCESS"
    assert_frame_equal(pl.concat(pl.read_parquet(target.read(name)) for name in names[:-1]), lf.collect())


def test_wrong_credentials_are_an_error_without_secrets(services, url):
    options = services.options() | {"secret": "very-wrong-secret"}
    with pytest.raises((StoreError, WriteError)) as caught:
        rd.write_parquet(url, "s3://private/denied/out", storage_options=options)
    assert "very-wrong-secret" not in str(caught.value)
