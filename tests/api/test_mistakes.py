"""Mistakes of newcomers: each has an answer that says what happened and what to do, in one error."""

import json
import pickle
import warnings
from datetime import UTC, datetime

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from distributed import Client

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    ClusterError,
    PlanTooLargeError,
    PredicateError,
    QueryError,
    RainbearWarning,
    StoreAccessError,
    StoreNotFoundError,
    SuspiciousFilterWarning,
    UnknownOptionError,
    UnknownSettingWarning,
)
from rainbear_dask.query.io_source import plans_of

c = pl.col
NOON = datetime(2006, 7, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files and folders that are no Zarr stores, beside one that is."""
    root = tmp_path_factory.mktemp("mistakes")
    time = np.arange("2006-01", "2008-01", dtype="M8[M]").astype("M8[ns]")
    axes = {"time": time, "latitude": np.linspace(-85, 85, 18), "longitude": np.arange(36) * np.float32(10)}
    data = xr.Dataset({"sst": (list(axes), np.zeros((24, 18, 36), "f4"))}, axes)
    data.to_zarr(root / "sst.zarr", consolidated=False, encoding={"sst": {"chunks": (6, 9, 12)}})
    data.isel(time=[0]).to_netcdf(root / "four.nc", engine="netcdf4")
    data.isel(time=[0]).drop_vars("time").to_netcdf(root / "three.nc", format="NETCDF3_CLASSIC")
    for name, start in {"a.tif": b"II*\0", "b.tif": b"MM\0+", "a.grib": b"GRIB", "a.parquet": b"PAR1"}.items():
        (root / name).write_bytes(start + bytes(100))
    group = json.dumps({"zarr_format": 2})
    (root / "refs.json").write_text(json.dumps({"version": 1, "refs": {".zgroup": group}}))
    (root / "old refs.json").write_text(json.dumps({".zgroup": group}))
    (root / "other.txt").write_text("text")
    (root / "empty").write_bytes(b"")
    (root / "parquet").mkdir()
    (root / "parquet" / "part-0.parquet").touch()
    return root


@pytest.fixture(scope="module")
def url(folder) -> str:
    return str(folder / "sst.zarr")


def answer(error, call, *words):
    """The one error that a call raises: it pickles, and its traceback shows no other error."""
    with pytest.raises(error) as caught:
        call()
    found = caught.value
    assert str(pickle.loads(pickle.dumps(found))) == str(found)
    assert found.__cause__ is None
    assert found.__context__ is None or found.__suppress_context__
    for word in words:
        assert word in str(found), str(found)
    return found


# ---------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ssst.zarr", "the path does not exist. Did you mean 'sst.zarr'?"),
        ("no/such/sst.zarr", "has no 'no'"),
        ("four.nc", "it is an HDF5 file, as NetCDF-4 is. Convert it (xarray"),
        ("three.nc", "it is a NetCDF-3 file. Convert it (xarray"),
        ("a.tif", "it is a TIFF file. Convert it with rioxarray"),
        ("b.tif", "it is a TIFF file."),
        ("a.grib", "it is a GRIB file."),
        ("a.parquet", "polars.scan_parquet"),
        ("parquet", "polars.scan_parquet"),
        ("refs.json", "scan_zarr('reference://'"),
        ("old refs.json", "scan_zarr('reference://'"),
        ("other.txt", "it is a file, not a Zarr store. Check the path."),
        ("empty", "it is a file, not a Zarr store. Check the path."),
    ],
)
def test_another_format_is_told_with_the_way_to_read_it(folder, name, words):
    error = answer(StoreNotFoundError, lambda: rd.scan_zarr(folder / name), words, f"No Zarr store at {folder / name}:")
    assert str(error).count(str(folder / name)) == 1


def test_a_repository_of_icechunk_is_told_with_its_backend(tmp_path):
    icechunk = pytest.importorskip("icechunk")
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    answer(
        StoreNotFoundError,
        lambda: rd.scan_zarr(tmp_path / "repo"),
        "IcechunkBackend.from_filesystem",
        "readonly_session",
    )


@pytest.mark.parametrize("scheme", ["memory://"])
def test_where_no_bytes_are_the_name_tells_the_format(scheme):
    answer(StoreNotFoundError, lambda: rd.scan_zarr(f"{scheme}there/is/nothing.nc"), "judged by its name")


@pytest.mark.parametrize(
    ("address", "options", "error", "words"),
    [
        ("s3://b/a.zarr", {"annon": True}, UnknownOptionError, "no storage option 'annon'. Did you mean 'anon'?"),
        ("s3://b/a.zarr", {"endpoint": "http://x"}, UnknownOptionError, "Did you mean 'endpoint_url'?"),
        ("s3://b/a.zarr", {"qqq": 1}, UnknownOptionError, "s3:// has no storage option 'qqq'."),
        ("https://x/a.zarr", {"kwargs": 1}, UnknownOptionError, "https:// has no storage option 'kwargs'."),
        ("https://x/a.zarr", {"header": {}}, UnknownOptionError, "Did you mean 'headers'?"),
        ("/a/path", {"anon": True}, QueryError, "The storage_options `anon` need a URL, but the source is a path."),
        ("s3://b/a.zarr", "anon", QueryError, "The storage_options are a str, not a mapping."),
        ("/a/path", "anon", QueryError, "The storage_options are a str, not a mapping."),
    ],
)
def test_an_unknown_storage_option_is_refused_before_a_request(address, options, error, words):
    answer(error, lambda: rd.scan_zarr(address, storage_options=options), words)


def test_a_store_object_takes_no_options():
    store = rd.store.MemoryStore()
    answer(QueryError, lambda: rd.scan_zarr(store, storage_options={"anon": True}), "the source is an object")
    rd.store.MemoryStore()  # no option is no mistake
    with pytest.raises(StoreNotFoundError):
        rd.scan_zarr(store, storage_options={})


@pytest.mark.parametrize("name", ["connect_timeout", "verify", "retries", "headers_of_mine"])
def test_options_of_a_file_system_that_checks_its_own_are_left_to_it(name):
    with pytest.raises(StoreNotFoundError):
        rd.scan_zarr("memory://nothing", storage_options={name: 1})


def test_a_store_of_a_bucket_without_keys_asks_for_credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    store = rd.store.S3Store(
        "bucket",
        client_options={"timeout": "1s", "connect_timeout": "1s", "allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(StoreAccessError, match="skip_signature=True"):
        rd.scan_zarr(store)


# ---------------------------------------------------------------------- clients


USES = {
    "scan_zarr": lambda url, client: rd.scan_zarr(url, client=client),
    "tables": lambda url, client: rd.tables(url, client=client),
    "collect": lambda url, client: rd.plan(url).collect(client),
    "frames": lambda url, client: rd.plan(url).frames(client),
    "map_partitions": lambda url, client: rd.plan(url).map_partitions(len, client),
    "to_delayed": lambda url, client: rd.plan(url).to_delayed(client),
    "to_futures": lambda url, client: rd.plan(url).to_futures(client),
    "to_pandas": lambda url, client: rd.plan(url).to_pandas(client),
}


@pytest.fixture(scope="module")
def closed():
    client = Client(processes=False, n_workers=1, dashboard_address=None)
    client.close()
    return client


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_closed_client_or_an_address_is_an_error_of_ours(url, closed, use):
    answer(ClusterError, lambda: use(url, closed), "The Dask client is closed")
    answer(ClusterError, lambda: use(url, "tcp://1.2.3.4:8786"), "is a str", "distributed.Client('tcp://1.2.3.4:8786')")


def test_a_client_that_closes_after_the_scan_is_an_error_of_ours(url):
    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        lf = rd.scan_zarr(url, client=client)
    answer(ClusterError, lf.collect, "The Dask client is closed")


# ---------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (c.time > NOON, "replace(tzinfo=None)"),
        (c.time.is_between(NOON, NOON), "replace(tzinfo=None)"),
        ((c.latitude > 0) & (c.time == NOON), "replace(tzinfo=None)"),
        (c.latitude > "a", "'latitude' is Float64"),
    ],
)
def test_values_of_another_type_fail_when_the_query_is_planned(url, predicate, words):
    for call in (
        lambda: rd.plan(url, predicate),
        lambda: rd.explain(rd.scan_zarr(url).filter(predicate)),
        lambda: rd.scan_zarr(url).filter(predicate).collect(),
        lambda: rd.ZarrBackendSync.from_url(url).scan_zarr_sync(predicate),
    ):
        answer(PredicateError, call, "fails for every row", words)


@pytest.mark.parametrize(
    "predicate",
    [
        c.time > 2008,
        c.time.lt(2008),
        c.time.is_between(2007, 2008),
        (c.latitude > 0) & ~(c.time == 2007),
        c.time > 2008.5,
    ],
)
def test_times_beside_a_number_are_warned_of(url, predicate):
    for call in (
        lambda: rd.plan(url, predicate),
        lambda: plans_of(rd.scan_zarr(url).filter(predicate)),
        lambda: rd.scan_zarr(url).filter(predicate).head(1).collect(),
    ):
        with pytest.warns(SuspiciousFilterWarning, match=r"times of 'time' with the number 200\d.*dt.year"):
            call()


@pytest.mark.parametrize(
    "predicate",
    [c.time.dt.year() == 2007, c.latitude > 3, c.time > datetime(2007, 1, 1), c.time.dt.month().is_in([1, 2])],
)
def test_other_filters_are_not_warned_of(url, predicate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rd.plan(url, predicate)


@pytest.mark.parametrize(
    "condition",
    [
        "latitude > 30 AND time >= '2007-01-01'",
        "MONTH(time) IN (6, 7)",
        "longitude BETWEEN 100 AND 140 OR NOT latitude < 40",
        "sst IS NULL",
        "TRUE",
        "1 = 2",
        "latitude > 40 OR TRUE",
    ],
)
def test_a_filter_may_be_sql(url, condition):
    whole = rd.scan_zarr(url).collect()
    expected = pl.SQLContext(whole=whole).execute(f"SELECT * FROM whole WHERE {condition}").collect()  # noqa: S608  our own
    assert rd.plan(url, condition).collect().equals(expected)
    frame = rd.read_zarr(url, condition).compute(scheduler="sync")
    assert len(frame) == expected.height


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("latitude >", "does not understand the condition 'latitude >'"),
        ("1=1) OR (2=2", "does not understand"),
        ("latitude > 3; DROP TABLE x", "does not understand"),
        ("sst > AVG(sst)", "needs other rows"),
        ("latitude", "Compare it with a value"),
    ],
)
def test_a_wrong_condition_is_an_error_of_ours(url, condition, words):
    answer(PredicateError, lambda: rd.plan(url, condition), words)


def test_a_column_that_is_a_text_is_one_column(url):
    assert rd.plan(url, columns="sst").collect().columns == ["sst"]


# ---------------------------------------------------------------------- keywords and settings


@pytest.mark.parametrize(
    ("func", "option", "words"),
    [
        (rd.plan, "foo", "plan() has no option 'foo'"),
        (rd.plan, "client", "A method of the plan takes it: plan(...).collect(client)."),
        (rd.plan, "filters", "Did you mean `predicate`?"),
        (rd.plan, "where", "Did you mean `predicate`?"),
        (rd.plan, "select", "Did you mean `columns`?"),
        (rd.plan, "with_columns", "Did you mean `columns`?"),
        (rd.plan, "head", "Did you mean `n_rows`?"),
        (rd.plan, "max_chunks", "Did you mean `max_chunks_to_read`?"),
        (rd.read_zarr, "filters", "Did you mean `predicate`?"),
        (rd.scan_zarr, "filters", "Filter the table: scan_zarr(...).filter(...)."),
        (rd.scan_zarr, "columns", "scan_zarr(...).select(...)"),
        (rd.scan_zarr, "n_rows", "scan_zarr(...).head(n)"),
    ],
)
def test_a_keyword_of_another_function_leads_to_ours(func, option, words):
    answer(UnknownOptionError, lambda: func("x", **{option: None}), words)


@pytest.mark.parametrize("value", [-1, "many", 2.5])
@pytest.mark.parametrize("option", ["n_rows", "max_rows", "max_bytes", "max_chunks_to_read"])
def test_a_bound_is_a_whole_number(option, value):
    answer(
        QueryError, lambda: rd.plan("x", **{option: value}), f"The option `{option}` is {value!r}. Give a whole number"
    )


def test_a_plan_has_the_bounds_of_a_scan(url):
    answer(
        PlanTooLargeError, lambda: rd.plan(url, max_chunks_to_read=3), "max_chunks_to_read exceeded: 24 chunks needed"
    )
    answer(PlanTooLargeError, lambda: rd.plan(url, c.latitude > 0, max_rows=3), "max_rows exceeded")
    assert rd.plan(url, max_chunks_to_read=24).num_chunks_kept == 24


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cach-bytes", "Did you mean 'cache-bytes'?"),
        ("qqq", "The settings are cache-bytes"),
        ("cluster.nmae", "Did you mean 'name'?"),
    ],
)
def test_an_unknown_setting_is_warned_of(url, name, words):
    with dask.config.set({f"rainbear-dask.{name}": 1}), pytest.warns(UnknownSettingWarning) as caught:
        rd.scan_zarr(url)
    (warning,) = caught
    assert words in str(warning.message)
    assert isinstance(warning.message, RainbearWarning)
    assert isinstance(warning.message, UserWarning)


def test_settings_may_be_spelt_with_underscores(url):
    with dask.config.set({"rainbear-dask.cache_bytes": "1MiB"}), warnings.catch_warnings():
        warnings.simplefilter("error")
        rd.scan_zarr(url)
