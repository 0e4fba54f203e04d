"""A misspelt option is an error that names the function and the nearest option."""

import asyncio
import inspect
import pickle
from typing import get_args

import polars as pl
import pytest

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, UnknownOptionError
from rainbear_dask.typing import ScanOptions, TableOptions


def sync():
    return rd.ZarrBackendSync.from_url("x")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: rd.scan_zarr("x", varaibles=["a"]),
            "scan_zarr() has no option 'varaibles'. Did you mean `variables`?",
        ),
        (lambda: rd.tables("x", max_row=1), "tables() has no option 'max_row'. Did you mean `max_rows`?"),
        (lambda: rd.tables("x", prefx="a"), "tables() has no option 'prefx'. Did you mean `prefix`?"),
        (lambda: rd.plan("x", n_row=1), "plan() has no option 'n_row'. Did you mean `n_rows`?"),
        (lambda: rd.plan("x", storage_option={}), "Did you mean `storage_options`?"),
        (
            lambda: rd.read_zarr("x", catgories=["lat"]),
            "read_zarr() has no option 'catgories'. Did you mean `categories`?",
        ),
        (lambda: rd.read_zarr("x", decod=False), "Did you mean `decode`?"),
        (lambda: rd.to_dask_dataframe(pl.LazyFrame(), indx="x"), "to_dask_dataframe() has no option 'indx'."),
        (lambda: rd.BackendOptions(coord_cache_max=1), "BackendOptions() has no option 'coord_cache_max'."),
        (lambda: sync().scan_zarr_sync(n_row=1), "scan_zarr_sync() has no option 'n_row'. Did you mean `n_rows`?"),
        (lambda: sync().scan_zarr_streaming_sync(batch=1), "Did you mean `batch_size`?"),
        (
            lambda: asyncio.run(rd.ZarrBackend.from_url("x").scan_zarr_async(None, max_concurency=1)),
            "scan_zarr_async() has no option 'max_concurency'. Did you mean `max_concurrency`?",
        ),
        (lambda: asyncio.run(rd.scan_zarr_async("x", None, prefx="a")), "Did you mean `prefix`?"),
        (lambda: rd.plan("x", qqq=1), "It has `source`, `predicate`, `columns`, `n_rows`, `max_chunks_to_read`, "),
    ],
)
def test_a_misspelt_option_is_refused_before_anything_is_opened(call, words):
    with pytest.raises(UnknownOptionError) as caught:
        call()
    assert words in str(caught.value)
    assert isinstance(caught.value, QueryError)
    assert isinstance(caught.value, TypeError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_scan_zarr_has_the_options_and_types_of_the_typed_dict():
    parameters = inspect.signature(rd.scan_zarr).parameters
    for name, annotation in ScanOptions.__annotations__.items():
        assert parameters[name].annotation == annotation, name


@pytest.mark.parametrize(
    ("func", "options"), [(rd.plan, ScanOptions), (rd.read_zarr, ScanOptions), (rd.tables, TableOptions)]
)
def test_other_functions_hand_on_their_options_as_scan_zarr_has_them(func, options):
    parameter = inspect.signature(func).parameters["options"]
    assert get_args(parameter.annotation) == (options,)
