"""Output to S3, Google and Azure has the content of output to a folder."""

from concurrent.futures import ThreadPoolExecutor

import dask
import icechunk
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import ConflictError, QueryError, StoreError, TargetExistsError, WriteError
from rainbear_dask.storage.repositories import repository_at
from tests.services.stores.servers import icechunk_storage
from tests.support.errors import caught
from tests.support.stores import write_field

pytestmark = pytest.mark.stores
c = pl.col


@pytest.fixture
def url(tmp_path) -> str:
    write_field(tmp_path / "field.zarr", chunks=(4, 12, 20))
    return str(tmp_path / "field.zarr")


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_an_export_reads_back(cloud, url, tmp_path, library, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    options, lf = cloud.for_library(library), rd.scan_zarr(url)
    folder = f"{cloud.scheme}://private/{tmp_path.name}/out"
    with dask.config.set({"rainbear-dask.task-bytes": 10_000}):
        report = rd.write_parquet(lf, folder, client=client, storage_options=options)
        again = rd.write_parquet(lf, folder, client=client, storage_options=options)
    assert (report.rows, report.skipped, again.skipped) == (48 * 12 * 20, 0, report.tasks)
    target = rd.api.export.target_of(folder, options)
    names = sorted(target.files())
    assert names[-1] == "_SUCCESS"
    assert_frame_equal(pl.concat(pl.read_parquet(target.read(name)) for name in names[:-1]), lf.collect())


def test_wrong_credentials_are_an_error_without_secrets(cloud, url):
    options = cloud.options() | cloud.wrong
    with pytest.raises((StoreError, WriteError)) as caught:
        rd.write_parquet(url, f"{cloud.scheme}://private/denied/out", storage_options=options)
    assert not any(secret in str(caught.value) for secret in ["planted", *cloud.wrong.values()])


def test_a_reader_cannot_write(cloud, url):
    with pytest.raises((StoreError, WriteError), match="Permission"):
        rd.write_parquet(url, f"{cloud.scheme}://private/denied/out", storage_options=cloud.place | cloud.reader)


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_a_zarr_store_reads_back(cloud, url, tmp_path, library, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    options, lf = cloud.for_library(library), rd.scan_zarr(url)
    target = f"{cloud.scheme}://private/{tmp_path.name}/t.zarr"
    january, rest = lf.filter(c.time.dt.day() == 31), lf.filter(c.time.dt.day() < 31)
    with dask.config.set({"rainbear-dask.task-bytes": 10_000}):
        rd.write_zarr(january, target, chunks={"time": 5}, client=client, storage_options=options)
        with pytest.raises(TargetExistsError):
            rd.write_zarr(january, target, storage_options=options)
        rd.write_zarr(rest, target, append_dim="time", client=client, storage_options=options)
    assert_frame_equal(rd.scan_zarr(target, storage_options=options).collect(), lf.collect())


def at_once(write, count: int) -> None:
    """Call a function with each number on a thread of its own."""
    with ThreadPoolExecutor(count) as pool:
        for job in [pool.submit(write, number) for number in range(count)]:
            job.result()


def part_of(number: int) -> pl.DataFrame:
    """Return the rows of one of the writers."""
    return pl.DataFrame({"x": range(10 * number, 10 * number + 10), "v": [float(number)] * 10})


def test_fifty_writers_of_a_zarr_store_lose_nothing(cloud, tmp_path):
    options, target = cloud.options(), f"{cloud.scheme}://private/{tmp_path.name}/t.zarr"
    axes = {"x": range(500)}
    rd.write_zarr(part_of(0), target, axes, chunks={"x": 10}, storage_options=options)
    at_once(lambda number: rd.write_zarr(part_of(number), target, mode="r+", storage_options=options), 50)
    found = rd.scan_zarr(target, storage_options=options).collect()
    assert found["v"].to_list() == [float(k // 10) for k in range(500)]


def test_fifty_writers_of_a_branch_lose_nothing(services, tmp_path):
    repo = icechunk.Repository.create(icechunk_storage(services.direct, tmp_path.name))
    rd.write_icechunk(part_of(0), repo, {"x": range(500)}, message="first", chunks={"x": 10})
    refused = []

    def write(number):
        while True:
            try:
                return rd.write_icechunk(part_of(number), repo, message=str(number), mode="r+")
            except ConflictError:
                refused.append(number)

    at_once(write, 50)
    found = rd.scan_zarr(repo.readonly_session("main").store).collect()
    assert found["v"].to_list() == [float(k // 10) for k in range(500)]
    assert len(list(repo.ancestry(branch="main"))) == 52


def test_an_icechunk_repository_on_azure_by_its_address(started, services, url, tmp_path, monkeypatch):
    cloud = started("azure")
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_KEY": cloud.admin["account_key"],
        "AZURE_STORAGE_ENDPOINT": cloud.place["endpoint"],
        "AZURE_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    place = f"az://private/{tmp_path.name}/repo"
    caught(QueryError, lambda: repository_at(place), "AZURE_STORAGE_ACCOUNT_NAME")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", cloud.place["account_name"])
    lf = rd.scan_zarr(url)
    rd.write_icechunk(lf, repository_at(place), message="all")
    host = place.replace("az://private/", "abfss://private@testaccount.dfs.core.windows.net/")
    for address in (place, host):
        store = repository_at(address).readonly_session("main").store
        assert_frame_equal(rd.scan_zarr(store).collect(), lf.collect())
