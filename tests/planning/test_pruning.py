"""Statistics in plans: what is compared with the store, and what becomes of selections."""

from unittest import mock

import numpy as np
import polars as pl
import pytest
import zarr

import rainbear_dask as rd
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.statistics import lookup

c = pl.col


@pytest.fixture
def path(tmp_path):
    """A field of 8 x 4 chunks of one value, which is the number of the chunk; z is a row of it."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("a", data=np.arange(32.0).reshape(8, 4), chunks=(1, 1), dimension_names=["y", "x"])
    group.create_array("z", data=np.arange(4.0), chunks=(1,), dimension_names=["x"])
    rd.analyze(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def kept(path, condition):
    """Return the chunks of ``a`` that a plan keeps, and the chunks that were compared with the store."""
    table = plans_of(rd.scan_zarr(path))[0].table
    compared = []

    def stamps(spec, array, identities, chunks):
        compared.extend(chunks.tolist())
        return lookup_stamps(spec, array, identities, chunks)

    lookup_stamps = lookup.stamps_of
    with mock.patch.object(lookup, "stamps_of", stamps):
        plan = plan_scan(table, columns=["a"], predicate=condition)
    grid = table.columns["a"].array.grid
    return np.flatnonzero(grid.touched_by(plan.selection.boxes)).tolist(), sorted(compared), plan


def test_only_dropped_chunks_are_compared_once(path):
    chunks, compared, _ = kept(path, c.a > 29)
    assert chunks == [30, 31]
    assert compared == list(range(30))
    chunks, compared, _ = kept(path, (c.a > 27) & (c.a > 29))
    assert compared == list(range(30))


def test_chunks_outside_of_coordinates_are_not_compared(path):
    chunks, compared, _ = kept(path, (c.a > 29) & (c.y >= 6))
    assert chunks == [30, 31]
    assert compared == [24, 25, 26, 27, 28, 29]


@pytest.mark.parametrize(
    ("condition", "chunks"),
    [
        ((c.a > 29) | (c.y == 0), [0, 1, 2, 3, 30, 31]),
        (~((c.a <= 29) | (c.x < 3)), [31]),
        ((c.a > 29) & (c.z > 2), [31]),
        ((c.a > 29) ^ (c.a > 30), [30]),
        ((c.a > 5) & (c.a.sin() < 0.5) & (c.a < 8), [6, 7]),
        ((c.a > c.z) & (c.a > 30), [31]),
        (c.a.is_in([3.0, 17.0]), [3, 17]),
    ],
    ids=["or", "not", "and of two", "xor", "with an unknown form", "with two variables", "is_in"],
)
def test_conditions_combine(path, condition, chunks):
    found, _, plan = kept(path, condition)
    assert found == chunks
    rows = rd.scan_zarr(path).filter(condition).collect()
    assert rows.equals(rd.scan_zarr(path, statistics=False).filter(condition).collect())
    assert {use.column for use in plan.statistics} <= {"a", "z"}


def test_a_filter_that_nothing_passes_is_exact(path):
    chunks, _, plan = kept(path, c.a > 50)
    assert chunks == []
    assert plan.filters == ()
    chunks, _, plan = kept(path, (c.a > 50) | (c.y == 1))
    assert chunks == [4, 5, 6, 7]
    assert plan.filters == ()


def test_no_statistics_are_looked_for_without_need(path):
    table = plans_of(rd.scan_zarr(path))[0].table
    unneeded = plans_of(rd.scan_zarr(path, statistics=False))[0].table
    with mock.patch.object(lookup, "identities_below", side_effect=AssertionError):
        plan_scan(table, predicate=c.y > 3)
        plan_scan(table)
        plan_scan(unneeded, predicate=c.a > 3)


def test_a_plan_with_a_limit_keeps_its_rows(path):
    for n in range(4):
        expected = rd.scan_zarr(path, statistics=False).filter(c.a > 28).head(n).collect()
        assert rd.scan_zarr(path).filter(c.a > 28).head(n).collect().equals(expected)
        expected = rd.scan_zarr(path, statistics=False).head(20 + n).filter(c.a > 17).collect()
        assert rd.scan_zarr(path).head(20 + n).filter(c.a > 17).collect().equals(expected)
