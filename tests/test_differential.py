"""The whole scan equals what xarray reads, for any dataset, layout, filter and projection."""

import math
import tempfile
import warnings
from contextlib import contextmanager, suppress
from functools import partial, reduce
from operator import or_
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import event, given, settings
from hypothesis import strategies as st
from polars.exceptions import PolarsError
from polars.testing import assert_frame_equal
from zarr.storage import MemoryStore

from rainbear_dask import planner, reader, scan_zarr
from rainbear_dask.selection import Selection
from tests.oracle import assert_same_rows, expected_frame
from tests.strategies import datasets, layouts, predicates, projections

# xarray warns of variables with two fill values; that is what some of them are for.
pytestmark = pytest.mark.filterwarnings("ignore:variable .* has multiple fill values:xarray.SerializationWarning")

FOLDER, MEMORY = "folder", "memory"
engines = st.sampled_from(["in-memory", "streaming"])


@contextmanager
def written(data, *, of=None, group=None, places=(FOLDER, MEMORY)):
    """A dataset, its layout, and the store in which it lies so."""
    ds = data.draw(datasets() if of is None else of, label="dataset")
    layout = data.draw(layouts(ds), label="layout")
    with tempfile.TemporaryDirectory() as folder:
        place = data.draw(st.sampled_from(places), label="place")
        store = str(Path(folder) / "a.zarr") if place == FOLDER else MemoryStore()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types that Zarr's specification does not name yet
            layout.write(ds, store, group=group)
        yield ds, layout, store


@contextmanager
def budgets(data):
    """Budgets of the planner that so small a dataset can exceed: many tasks, and selections that have to be widened."""
    task_bytes = data.draw(st.sampled_from([1, 100, 500, planner.TASK_BYTES]), label="bytes a task")
    max_boxes = data.draw(st.sampled_from([2, Selection.MAX_BOXES]), label="boxes a selection")
    with (
        mock.patch.object(reader, "build_plan", partial(planner.build_plan, task_bytes=task_bytes)),
        mock.patch.object(Selection, "MAX_BOXES", max_boxes),
    ):
        yield


def maybe(strategy):
    """None now and then."""
    return st.integers(0, 7).flatmap(lambda k: st.none() if k == 7 else strategy)


def some_of(values):
    """Some of the values, each as likely as not; every other one where Hypothesis draws what is simplest."""
    return st.binary(min_size=len(values), max_size=len(values)).map(
        lambda drawn: [values[i] for i, byte in enumerate(drawn) if (byte + i) % 2 == 0]
    )


def draw_question(data, frame):
    """A filter and a projection, either perhaps absent, as a function of a lazy table."""
    predicate = data.draw(maybe(predicates(frame)), label="predicate")
    columns = data.draw(maybe(projections(frame)), label="projection")

    def ask(table: pl.LazyFrame) -> pl.LazyFrame:
        table = table if predicate is None else table.filter(predicate)
        return table if columns is None else table.select(columns)

    return ask


def check_answer(table: pl.LazyFrame, frame: pl.DataFrame, ask, *, engine="in-memory", in_order=False):
    """The scan answers a question as the table in memory does."""
    try:
        expected = ask(frame.lazy()).collect()
    except PolarsError:
        event("Polars refuses the question")
        with suppress(PolarsError):  # a scan that skips the offending rows may answer
            ask(table).collect(engine=engine)
        return
    event(f"rows: {'none' if expected.is_empty() else 'all' if expected.height == frame.height else 'some'}")
    actual = ask(table).collect(engine=engine)
    assert_same_rows(actual, expected, in_order=in_order)


@given(data=st.data())
def test_oracle_agrees_with_xarray_cell_by_cell(data):
    with written(data) as (_, _, store):
        actual = expected_frame(store)
        ds = xr.open_zarr(store, consolidated=False, chunks=None, decode_timedelta=True).load()

    dims = [name for name in actual.columns if name in ds.dims]
    assert actual.height == math.prod(ds.sizes[dim] for dim in dims)
    for row, index in zip(actual.iter_rows(named=True), np.ndindex(*(ds.sizes[dim] for dim in dims)), strict=True):
        place = dict(zip(dims, index, strict=True))
        for name, value in row.items():
            if name not in ds.variables:
                assert value == place[name]
            else:
                cell = ds[name].values[tuple(place[dim] for dim in ds[name].dims)]
                assert agrees(value, cell), (name, place, value, cell)


def agrees(value, cell) -> bool:
    """Is a value of the table xarray's value of that cell? xarray shows what is masked as NaN or NaT."""
    if isinstance(cell, np.datetime64 | np.timedelta64) and not np.isnat(cell):
        if isinstance(value, int):  # a data variable in hours, which the table leaves a number
            return cell == np.timedelta64(value, "h")
        return np.asarray(cell).astype(f"{cell.dtype.kind}8[us]").item() == value
    return value == cell or (pd.isna(value) and pd.isna(cell))


@given(data=st.data())
def test_scan_answers_as_xarray_does(data):
    with written(data) as (ds, layout, store), budgets(data):
        frame = expected_frame(store)
        table = scan_zarr(store)
        assert table.collect_schema() == frame.schema
        in_order = layout.splits_only(frame.columns[0], ds)
        check_answer(table, frame, draw_question(data, frame), engine=data.draw(engines), in_order=in_order)


@given(data=st.data())
def test_scan_of_scattered_positions_gives_the_cells_there(data):
    without_coordinates = datasets().map(lambda ds: ds.drop_vars(ds.dims, errors="ignore"))
    with written(data, of=without_coordinates) as (ds, _, store), budgets(data):
        frame = expected_frame(store)
        dims = [dim for dim in frame.columns if dim in ds.dims]
        wanted = [pl.col(dim).is_in(data.draw(some_of(range(ds.sizes[dim])), label=dim)) for dim in dims]
        join = data.draw(st.sampled_from([pl.all_horizontal, lambda parts: reduce(or_, parts)]))
        check_answer(scan_zarr(store), frame, lambda table: table.filter(join(wanted)))


@given(data=st.data())
def test_scan_of_some_variables_has_the_rows_of_those(data):
    with written(data) as (ds, _, store), budgets(data):
        variables = data.draw(st.lists(st.sampled_from(sorted(ds.data_vars)), unique=True, min_size=1))
        frame = expected_frame(store, variables)
        check_answer(scan_zarr(store, variables=variables), frame, draw_question(data, frame))


@given(data=st.data())
@settings(max_examples=30)
def test_scan_of_a_group_is_the_table_of_that_group(data):
    with written(data, group="upper/lower") as (_, _, store), budgets(data):
        frame = expected_frame(store, group="upper/lower")
        check_answer(scan_zarr(store, group="upper/lower"), frame, draw_question(data, frame))


@given(data=st.data())
def test_head_gives_the_first_rows_of_the_whole_answer(data):
    with written(data) as (_, _, store), budgets(data):
        question = scan_zarr(store)
        if (predicate := data.draw(st.none() | predicates(expected_frame(store)))) is not None:
            question = question.filter(predicate)
        try:
            whole = question.collect()
        except PolarsError:
            event("Polars refuses the question")
            return
        n = data.draw(st.integers(0, whole.height + 1))
        assert_frame_equal(question.head(n).collect(), whole.head(n), check_exact=True)


@given(data=st.data())
@settings(max_examples=50)
def test_number_of_rows_needs_no_columns(data):
    with written(data) as (_, _, store), budgets(data):
        frame = expected_frame(store)
        assert scan_zarr(store).select(pl.len()).collect().item() == frame.height
        predicate = data.draw(predicates(frame))
        check_answer(scan_zarr(store), frame, lambda table: table.filter(predicate).select(pl.len()))


@pytest.mark.cluster
def test_cluster_answers_as_xarray_does(client):
    @given(data=st.data())
    @settings(max_examples=15)
    def check(data):
        with written(data, places=[FOLDER]) as (_, _, store), budgets(data):
            frame = expected_frame(store)
            check_answer(scan_zarr(store, client=client), frame, draw_question(data, frame))

    check()
