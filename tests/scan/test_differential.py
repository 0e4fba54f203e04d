"""The whole scan equals what xarray reads, for any tree of arrays, layout, filter and projection."""

import tempfile
import warnings
from contextlib import contextmanager, suppress
from functools import reduce
from operator import or_
from pathlib import Path
from unittest import mock

import cftime
import dask
import icechunk
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

from rainbear_dask import BackendOptions, ZarrBackendSync, scan_zarr
from rainbear_dask.execution import columns
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning import plan as planner
from rainbear_dask.planning import tiling
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.table import order
from tests.support.oracle import assert_same_rows, datasets, expected_frame, ranked
from tests.support.questions import predicates, projections
from tests.support.strategies import layouts, trees

pytestmark = [
    # xarray warns of variables with two fill values, and of times that need cftime; that is what some are for
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
    # the package warns of arrays without a column type, and of tables in which variables repeat many times
    pytest.mark.filterwarnings("ignore:array .* is left out:UserWarning"),
    pytest.mark.filterwarnings("ignore:The table of .* has .* rows:UserWarning"),
]

icechunk.set_logs_filter("icechunk=error")  # it warns of local folders, which one process at a time may write
FOLDER, MEMORY, ICECHUNK = "folder", "memory", "icechunk"
engines = st.sampled_from(["in-memory", "streaming"])


@contextmanager
def written(data, *, of=None, group="", places=(MEMORY, MEMORY, FOLDER)):
    """A tree, its layout, and the store in which it lies so."""
    tree = data.draw(trees() if of is None else of, label="tree")
    place = data.draw(st.sampled_from(places), label="place")
    if place == ICECHUNK:
        layout = data.draw(layouts(tree, ["v3", "v3 sharded"], may_consolidate=False), label="layout")
    else:
        layout = data.draw(layouts(tree), label="layout")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "a.zarr") if place == FOLDER else MemoryStore()
        if place == ICECHUNK:
            repository = icechunk.Repository.create(icechunk.local_filesystem_storage(folder))
            session = repository.writable_session("main")
            store = session.store
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types and codecs that Zarr's specification does not name yet
            layout.write(tree, store, group)
            if place == ICECHUNK:
                session.commit("all")
                store = repository.readonly_session("main").store
        yield tree, layout, store


@contextmanager
def warned_of(tree):
    """Each variable that has no column type is named by one warning; so is each such coordinate that would be a column."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    named = [str(w.message).split("'")[1] for w in caught if " is left out: " in str(w.message)]
    unreadable = {path for path, array in tree.arrays.items() if array.kind == "complex"}
    assert len(named) == len(set(named))
    assert {path for path in unreadable if "aux" not in path} <= set(named) <= unreadable


@contextmanager
def budgets(data):
    """Budgets that so small a dataset can exceed: many blocks and tasks, and selections that have to be widened."""
    block_bytes = data.draw(st.sampled_from([order.BLOCK_BYTES, 1, 100, 500, 2000]), label="bytes a block")
    max_sorted = data.draw(st.sampled_from([0, tiling.MAX_SORTED]), label="rows sorted")
    max_cells = data.draw(st.sampled_from([1, tiling.MAX_CELLS]), label="cells of a mask")
    task_bytes = data.draw(st.sampled_from([1, 100, 500, planner.TASK_BYTES]), label="bytes a task")
    max_boxes = data.draw(st.sampled_from([2, Selection.MAX_BOXES]), label="boxes a selection")
    with (
        dask.config.set({"rainbear-dask.task-bytes": task_bytes}),
        mock.patch.object(Selection, "MAX_BOXES", max_boxes),
        mock.patch.object(order, "BLOCK_BYTES", block_bytes),
        mock.patch.multiple(tiling, MAX_SORTED=max_sorted, MAX_CELLS=max_cells),
    ):
        yield


def in_its_order(frame: pl.DataFrame, table: pl.LazyFrame) -> pl.DataFrame:
    """Rows of a whole table, given in C order, in the order that the table has by definition."""
    (plan,) = plans_of(table)
    if not frame.columns:
        return frame
    event("order: " + ("C" if plan.table.blocks == dict(plan.table.sizes) else "blocks"))
    return frame[ranked(tuple(plan.table.sizes.values()), tuple(plan.table.blocks.values()))]


def maybe(strategy):
    """None now and then."""
    return st.integers(0, 7).flatmap(lambda k: st.none() if k == 7 else strategy)


def some_of(values):
    """Some of the values, each as likely as not; every other one where Hypothesis draws what is simplest."""
    return st.binary(min_size=len(values), max_size=len(values)).map(
        lambda drawn: [values[i] for i, byte in enumerate(drawn) if (byte + i) % 2 == 0]
    )


def draw_question(data, frame):
    """Filters, parts of what is left, and a projection, each perhaps absent, as a function of a lazy table."""
    if not frame.columns:
        return lambda table: table
    kinds = st.sampled_from(["filter", "filter", "head", "tail", "slice", "row number", "running count"])
    steps = [draw_step(data, frame, kind) for kind in data.draw(st.lists(kinds, max_size=3, unique=True))]
    columns = data.draw(maybe(projections(frame)), label="projection")
    steps += [] if columns is None else [lambda table: table.select(columns)]
    return lambda table: reduce(lambda so_far, step: step(so_far), steps, table)


def draw_step(data, frame, kind):
    """One step of a question that depends on rows or on their order."""
    predicate = data.draw(predicates(frame), label="predicate") if kind == "filter" else None
    n, offset = (data.draw(st.integers(0, frame.height + 1), label=label) for label in ("rows", "offset"))
    return {
        "filter": lambda table: table.filter(predicate),
        "head": lambda table: table.head(n),
        "tail": lambda table: table.tail(n),
        "slice": lambda table: table.slice(offset, n),
        "row number": lambda table: table.with_row_index("row number"),
        "running count": lambda table: table.with_columns(pl.first().cum_count().alias("running count")),
    }[kind]


def check_answer(table: pl.LazyFrame, frame: pl.DataFrame, ask, *, engine="in-memory"):
    """The scan answers a question as the table in memory does, row by row."""
    frame = in_its_order(frame, table)
    try:
        expected = ask(frame.lazy()).collect()
    except PolarsError:
        event("Polars refuses the question")
        with suppress(PolarsError):  # a scan that skips the offending rows may answer
            ask(table).collect(engine=engine)
        return
    event(f"rows: {'none' if expected.is_empty() else 'all' if expected.height == frame.height else 'some'}")
    actual = ask(table).collect(engine=engine)
    assert_same_rows(actual, expected)


@given(data=st.data())
def test_oracle_agrees_with_xarray_cell_by_cell(data):
    with written(data) as (tree, _, store):
        frame = expected_frame(store)
        groups = datasets(store)

    dims = [name for name in frame.columns if name in tree.sizes]
    places = list(np.ndindex(*(tree.sizes[dim] for dim in dims))) if frame.columns else []
    assert frame.height == len(places)
    for path, ds in groups.items():
        for name, variable in ds.variables.items():
            own = variable.dims == (name,)
            values = values_of(frame, name if own else f"{path}/{name}".strip("/"))
            cells = decoded_by_xarray(name, variable)
            if values is None or cells is None or (own and not labels_something(name, path, groups, frame)):
                continue
            axes = [dims.index(dim) for dim in variable.dims]
            units = variable.attrs.get("units")
            for value, place in zip(values, places, strict=True):
                cell = cells[tuple(place[axis] for axis in axes)]
                assert agrees(value, cell, units), (path, name, place, value, cell)


def labels_something(dim, group, groups, frame):
    """Whether a variable of the table, of a group or of one below it, has a dimension."""
    below = {path: ds for path, ds in groups.items() if f"{path}/".startswith(f"{group}/" if group else "")}
    return any(
        dim in variable.dims and values_of(frame, f"{path}/{name}".strip("/")) is not None
        for path, ds in below.items()
        for name, variable in ds.data_vars.items()
    )


def values_of(frame, path):
    """A column, or a field of structs, as a list; None if there is no such."""
    for name in path.split("/"):
        if name not in frame.columns:
            return None
        values = frame[name]
        frame = values.struct.unnest() if isinstance(values.dtype, pl.Struct) else pl.DataFrame()
    return values.to_list()


def decoded_by_xarray(name, variable):
    """Decoded values; None for masked times that it gives to cftime, which refuses NaN or makes a date of it."""
    try:
        cells = xr.conventions.decode_cf_variable(name, variable, decode_timedelta=True).values
    except (ValueError, OverflowError) as error:
        event(f"xarray refuses times: {type(error).__name__}")
        assert " since " in variable.attrs.get("units", "")
        return None
    by_cftime = any(isinstance(cell, cftime.datetime) for cell in cells.flat)
    masked = "_FillValue" in variable.attrs or np.any(pd.isna(variable.values))
    return None if by_cftime and masked else cells


def agrees(value, cell, units) -> bool:
    """Is a value of the table xarray's value of that cell? xarray shows what is masked as NaN or NaT."""
    if pd.isna(cell):
        return pd.isna(value) or value >= 2**63  # of those, xarray compares fill values in float64
    if isinstance(cell, cftime.datetime):
        label = cell.isoformat(timespec="microseconds")
        return (
            label in (value, f"{value}.000000")
            if isinstance(value, str)
            else label == value.isoformat(timespec="microseconds")
        )
    if isinstance(cell, np.timedelta64) and isinstance(value, int | float):  # of a data variable a number, no duration
        return cell == pd.Timedelta(value, units)
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return cell.astype(f"{cell.dtype.kind}8[us]").item() == value
    if isinstance(cell, np.float32) and value is None:
        return cell == np.float32(1e20)  # as a fill in float64, that is no value in float32 to xarray
    if isinstance(cell, np.float32):  # xarray unpacks what is short in float32
        return bool(np.isclose(cell, value, rtol=1e-6))
    return (
        value == (cell.decode() if isinstance(cell, bytes) and isinstance(value, str) else cell) or float(value) == cell
    )


@given(data=st.data())
def test_scan_answers_as_xarray_does(data):
    with written(data) as (tree, _, store), budgets(data):
        frame = expected_frame(store)
        with warned_of(tree):
            table = scan_zarr(store)
        assert table.collect_schema() == frame.schema
        check_answer(table, frame, draw_question(data, frame), engine=data.draw(engines))


@given(data=st.data())
@settings(max_examples=25)
def test_scan_of_icechunk_answers_as_xarray_does(data):
    with written(data, places=[ICECHUNK]) as (_, _, store), budgets(data):
        frame = expected_frame(store)
        check_answer(scan_zarr(store), frame, draw_question(data, frame))


@given(data=st.data())
@settings(max_examples=50)
def test_scan_of_scattered_positions_gives_the_cells_there(data):
    without_coordinates = trees().map(lambda tree: tree.without_coordinates())
    with written(data, of=without_coordinates) as (tree, _, store), budgets(data):
        frame = expected_frame(store)
        dims = [dim for dim in frame.columns if dim in tree.sizes]
        wanted = [pl.col(dim).is_in(data.draw(some_of(range(tree.sizes[dim])), label=dim)) for dim in dims]
        join = data.draw(st.sampled_from([pl.all_horizontal, lambda parts: reduce(or_, parts)]))
        check_answer(scan_zarr(store), frame, lambda table: table.filter(join(wanted)) if wanted else table)


@given(data=st.data())
def test_scan_of_some_variables_has_the_rows_of_those(data):
    """Any arrays may be named: bounds and coordinates too, and those of child groups."""
    with written(data) as (tree, _, store), budgets(data):
        if tree.readable:
            variables = data.draw(st.lists(st.sampled_from(tree.readable), unique=True, min_size=1), label="variables")
            frame = expected_frame(store, variables)
            check_answer(scan_zarr(store, variables=variables), frame, draw_question(data, frame))


@given(data=st.data())
@settings(max_examples=30)
def test_scan_of_a_group_is_the_table_of_that_group(data):
    with written(data, group="upper/lower") as (tree, _, store), budgets(data):
        below = data.draw(st.sampled_from(sorted(tree.groups)), label="group")
        group = f"upper/lower/{below}".rstrip("/")
        frame = expected_frame(store, group=group)
        check_answer(scan_zarr(store, group=group), frame, draw_question(data, frame))


@given(data=st.data())
@settings(max_examples=50)
def test_head_gives_the_first_rows_of_the_whole_answer(data):
    with written(data) as (_, _, store), budgets(data):
        question = scan_zarr(store)
        frame = expected_frame(store)
        if frame.columns and (predicate := data.draw(maybe(predicates(frame)))) is not None:
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
def test_columns_side_by_side_belong_together(data):
    with written(data) as (_, _, store), budgets(data):
        frame = expected_frame(store)
        if frame.columns:
            table, engine = scan_zarr(store), data.draw(engines)
            predicate = data.draw(maybe(predicates(frame)), label="predicate")
            cut = data.draw(st.integers(0, len(frame.columns)), label="cut")
            sides = [side for side in (frame.columns[:cut], frame.columns[cut:]) if side]

            def ask(lazy):
                passed = lazy if predicate is None else lazy.filter(predicate)
                return pl.concat([passed.select(side) for side in sides], how="horizontal")

            check_answer(table, frame, ask, engine=engine)


@given(data=st.data())
@settings(max_examples=30)
def test_number_of_rows_needs_no_columns(data):
    with written(data) as (_, _, store), budgets(data):
        frame = expected_frame(store)
        assert scan_zarr(store).select(pl.len()).collect().item() == frame.height
        if frame.columns:
            predicate = data.draw(predicates(frame))
            check_answer(scan_zarr(store), frame, lambda table: table.filter(predicate).select(pl.len()))


@given(data=st.data())
@settings(max_examples=50)
def test_whatever_a_backend_keeps_it_answers_as_xarray_does(data):
    """Asked several questions, it keeps more and less of the store; here every chunk may be kept of which not all is wanted."""
    most = data.draw(st.sampled_from([0, 1, 3, 4096]), label="pieces kept")
    options = BackendOptions(coord_cache_max_entries=most, var_cache_max_entries=most)
    kept_bytes = data.draw(st.sampled_from([0, 500, 2**29]), label="bytes kept")
    with (
        written(data) as (_, _, store),
        budgets(data),
        mock.patch.object(columns, "_SMALL_PART_RATIO", 1),
        dask.config.set({"rainbear-dask.cache-bytes": kept_bytes}),
    ):
        frame = expected_frame(store)
        backend = ZarrBackendSync.from_store(store, options=options)
        for _ in range(3):
            check_answer(scan_zarr(backend), frame, draw_question(data, frame))
        stats = backend.cache_stats()
        assert stats["bytes"] <= kept_bytes
        event(f"pieces kept: {stats['coord_entries'] > 0}, {stats['var_entries'] > 0}")


@pytest.mark.cluster
def test_cluster_answers_as_xarray_does(client):
    @given(data=st.data())
    @settings(max_examples=25)
    def check(data):
        with written(data, places=[FOLDER, ICECHUNK]) as (_, _, store), budgets(data):
            frame = expected_frame(store)
            check_answer(scan_zarr(store, client=client), frame, draw_question(data, frame), engine=data.draw(engines))

    check()
