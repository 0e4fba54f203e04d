"""Each form of question reads the chunks that it needs, and no others; counted at the store."""

import polars as pl
import pytest
from zarr.storage import LocalStore

import rainbear_dask as rd
from benchmarks.predicate_forms import CountingStore, chunk_bytes, chunks_planned, chunks_read, written_stores
from benchmarks.problems import FORMS


@pytest.fixture(scope="module")
def paths():
    """Path of each store by name."""
    with written_stores() as paths:
        yield paths


def parameters(forms):
    return [
        pytest.param(form, id=form.name, marks=[pytest.mark.xfail(strict=True, reason=form.gap)] if form.gap else [])
        for form in forms
    ]


@pytest.mark.parametrize("form", parameters(FORMS))
def test_reads_the_chunks_that_it_needs(form, paths):
    assert chunks_read(form, paths[form.store]) == form.need


@pytest.mark.parametrize("form", parameters(form for form in FORMS if form.store == "grid" and form.need <= 40))
def test_reads_of_a_shard_the_chunks_that_it_needs(form, paths):
    assert chunks_read(form, paths["sharded"]) == form.need


FEW_ROWS = {
    "all": None,
    "coordinate": pl.col("lat") < 45,
    "value": pl.col("t2m") > 250,
    "both": (pl.col("lat") > 45) & (pl.col("t2m") > 250),
    "two dimensions": (pl.col("lat") - 40) ** 2 + (pl.col("lon") - 100) ** 2 < 100,
    "two boxes": (pl.col("lat") > 80) | (pl.col("lon") < 5),
}


@pytest.mark.parametrize("store", ["grid", "sharded"])
@pytest.mark.parametrize("name", FEW_ROWS)
def test_ten_rows_that_are_asked_for_with_the_filter_read_one_chunk(paths, store, name):
    counted = CountingStore(LocalStore(paths[store], read_only=True))
    backend = rd.ZarrBackendSync.from_store(counted)
    for ask in (
        lambda: rd.plan(counted, FEW_ROWS[name], n_rows=10).collect(),
        lambda: backend.scan_zarr_sync(FEW_ROWS[name], n_rows=10),
    ):
        counted.bytes_read = 0
        assert ask().height == 10
        assert counted.bytes_read == chunk_bytes(paths[store])


@pytest.mark.parametrize("form", parameters(FORMS))
def test_plans_the_chunks_that_it_needs(form, paths):
    assert chunks_planned(form, paths[form.store]) == form.need
