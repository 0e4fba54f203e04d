"""Rows that pass a filter: the same whether they are picked one by one, or whole groups are copied."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import ChunkReadError
from rainbear_dask.execution import groups, survivors
from rainbear_dask.execution.worker import run_task

c = pl.col("v")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two variables of 24 chunks each: values rise with time, so that late chunks are dense and early ones are not."""
    monkeypatch.setattr(groups, "GROUP_BYTES", 1)
    monkeypatch.setattr(groups, "STRIP_BYTES", 2000)
    rng = np.random.default_rng(1)
    values = (rng.random((12, 10, 14)) + np.linspace(0, 1, 12)[:, None, None] ** 4).astype("f4")
    values[3, 2, 5] = values[0, 0, 0] = np.nan
    root = zarr.open_group(tmp_path, mode="w")
    for name, some in (("v", values), ("w", rng.random(values.shape).astype("f4"))):
        root.create_array(name, shape=values.shape, dtype="f4", chunks=(2, 6, 7), dimension_names=list("tyx"))[:] = some
    return str(tmp_path)


@pytest.mark.parametrize("cells_per_row", [1, 5, 50, 10**9])
@pytest.mark.parametrize(
    "expr",
    [
        c > 0.999,
        c > 0.5,
        c > 5,
        c.is_not_nan() & (c < 0.001),
        (c > 0.9) & (pl.col("w") < 0.1),
        (c > pl.col("w")) & (pl.col("x") == 3),
        (c > 0.9) & (pl.col("t") + pl.col("y") > 9),
        ((c > 0.9) | (pl.col("t") == 1)) & (pl.col("x") % 3 == 0),
    ],
    ids=str,
)
def test_rows_are_those_of_polars_in_order(store, monkeypatch, expr, cells_per_row):
    monkeypatch.setattr(survivors, "CELLS_PER_ROW", cells_per_row)
    lf = rd.scan_zarr(store)
    assert_frame_equal(lf.filter(expr).collect(), lf.collect().filter(expr))


def test_other_columns_are_read_only_where_a_row_passed(store):
    """All chunks of the other variable but those of the survivors hold noise."""
    lf = rd.scan_zarr(store)
    whole = lf.collect()
    threshold = whole["v"].drop_nans().sort(descending=True)[2]
    rows = whole.filter(c.is_not_nan() & (c >= threshold))
    needed = {(t // 2, y // 6, x // 7) for t, y, x in rows.select("t", "y", "x").rows()}
    for place in np.ndindex(6, 2, 2):
        if place not in needed:
            (zarr.storage.LocalStore(store).root / "w/c" / "/".join(map(str, place))).write_bytes(b"noise")
    assert_frame_equal(rd.scan_zarr(store).filter(c.is_not_nan() & (c >= threshold)).collect(), rows)
    with pytest.raises(ChunkReadError):
        rd.scan_zarr(store).collect()


def test_each_chunk_is_decoded_once_however_many_rows_pass(store, monkeypatch):
    decoded, plain = [], groups.stream_regions

    def counting(spec, requests):
        decoded.extend(request for group in requests for request in group)
        return plain(spec, requests)

    monkeypatch.setattr(groups, "stream_regions", counting)
    plan = rd.plan(store, c > 0.5, ["v"])
    rows = sum(run_task(task).height for task in plan.tasks())
    assert rows == rd.scan_zarr(store).collect().filter(c > 0.5).height > 0
    assert len(decoded) == len(set(decoded)) == 24


def test_a_filter_that_fails_on_a_row_that_another_filter_drops(store):
    strict = (c * 1000).cast(pl.Int8) > 100
    lf = rd.scan_zarr(store)
    few = c.is_between(0.101, 0.126)
    assert_frame_equal(lf.filter(few).filter(strict).collect(), lf.collect().filter(few).filter(strict))


def test_a_chunk_of_a_shorter_variable_beside_few_rows(tmp_path):
    x, s = np.zeros((4, 40, 60), "f4"), np.arange(2400.0).reshape(40, 60)
    x[2, 33, 50] = 9
    data = xr.Dataset(
        {"x": (("t", "y", "z"), x, {}, {"chunks": (4, 40, 60)}), "s": (("y", "z"), s, {}, {"chunks": (20, 30)})}
    )
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    found = rd.scan_zarr(tmp_path / "a.zarr").filter(pl.col("x") > 5).select("y", "z", "s").collect()
    assert found.rows() == [(33, 50, s[33, 50])]
