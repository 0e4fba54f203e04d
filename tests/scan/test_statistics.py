"""A scan that prunes by statistics has the rows of a scan without them, whatever was written since."""

import tempfile
import warnings
from pathlib import Path

import polars as pl
import pytest
import zarr
from hypothesis import event, given, settings
from hypothesis import strategies as st
from polars.exceptions import PanicException, PolarsError
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import RainbearError
from tests.support import questions
from tests.support.strategies import DIMS, arrays, layouts, trees

pytestmark = pytest.mark.filterwarnings("ignore::rainbear_dask.exceptions.RainbearWarning")


@st.composite
def conditions(draw, frame: pl.DataFrame, depth: int = 2) -> pl.Expr:
    """Draw a filter, mostly on data variables."""
    if depth == 0 or draw(st.booleans()):
        every = list(questions.fields(frame))
        data = [pair for pair in every if pair[1].name not in DIMS] or every
        leaf = draw(questions.leaves(*draw(st.sampled_from(data if draw(st.integers(0, 3)) else every))))
        return ~leaf if draw(st.integers(0, 3)) == 3 else leaf
    parts = [draw(conditions(frame, depth - 1)) for _ in range(2)]
    return questions.JOINS[draw(st.sampled_from(sorted(questions.JOINS)))](parts)


def rows(table):
    """Return the rows of a query, or the fact that it fails."""
    try:
        return table.collect()
    except (RainbearError, PolarsError, PanicException):
        return None


def overwrite(data, tree, path):
    """Overwrite a variable with values of the same kind, in part, as another process could."""
    name = data.draw(st.sampled_from(sorted(tree.arrays)), label="overwritten")
    found = tree.arrays[name]
    if found.dims and found.kind != "complex":
        target = zarr.open_array(str(path / name), mode="r+")
        sizes = dict(zip(found.dims, found.values.shape, strict=True))
        new = data.draw(arrays(found.dims, sizes), label="new values")
        if new.values.dtype == found.values.dtype and new.values.size:
            target[: 1 + found.values.shape[0] // 2] = new.values[: 1 + found.values.shape[0] // 2]


CONDITIONS = 10


@settings(max_examples=settings().max_examples // CONDITIONS)
@given(st.data())
def test_pruned_equals_unpruned(data):
    tree = data.draw(trees().filter(lambda tree: all(tree.sizes.values())), label="tree")
    layout = data.draw(layouts(tree), label="layout")
    options = data.draw(st.sampled_from([{}, {}, {}, {"mask": False}, {"decode": False}]), label="options")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, beside = Path(folder, "a.zarr"), str(Path(folder, "beside"))
        layout.write(tree, str(path))
        where = data.draw(st.sampled_from(["store", beside]), label="where")
        read = rd.analyze(path, where=where).read
        assert rd.analyze(path, where=where).read == 0
        event("statistics of " + ("chunks" if read else "nothing"))
        if data.draw(st.integers(0, 3)) == 3:
            overwrite(data, tree, path)
        statistics = "auto" if where == "store" else where
        try:
            plain = rd.scan_zarr(path, statistics=False, **options)
        except RainbearError:  # the overwritten values have another type
            return
        frame = plain.collect()
        if not frame.width:
            return
        table = rd.scan_zarr(path, statistics=statistics, **options)
        for _ in range(CONDITIONS):  # writing a store takes longer than many scans of it
            condition = data.draw(conditions(frame), label="condition")
            expected, actual = rows(plain.filter(condition)), rows(table.filter(condition))
            if expected is not None:
                assert_frame_equal(actual, expected)
        used = [use for plan in rd.explain(table.filter(condition)).plans for use in plan.statistics]
        event("statistics were used" if used else "statistics told nothing")
