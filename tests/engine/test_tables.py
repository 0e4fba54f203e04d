"""Tables of unusual shapes, and stores of other kinds."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.engine.rewriting import rewrite

c = pl.col
QUERIES = [
    lambda t: t.select(c("x").sum(), c("x").mean().alias("m"), c("x").min().alias("low"), n=pl.len()),
    lambda t: t.select(c("x").std(), any=(c("x") > 2).any(), all=(c("x") > 2).all()),
    lambda t: t.group_by("i").agg(c("x").max(), pl.len()),
    lambda t: t.filter(c("x") > 1).group_by("i").agg(c("x").sum()),
]


def check(store, **options):
    for ask in QUERIES:
        table = rd.scan_zarr(store, **options)
        if "i" not in table.collect_schema():
            continue
        done = rewrite(ask(table))
        assert all(part.split for part in done.parts), done.parts
        assert_frame_equal(done.query.collect(), ask(table.collect().lazy()).collect(), check_row_order=False)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (3, 2)])
def test_dimensions_of_any_length_with_and_without_coordinates(tmp_path, shape):
    xr.Dataset({"x": (("i", "j"), np.arange(float(np.prod(shape))).reshape(shape))}).to_zarr(
        tmp_path / "a.zarr", zarr_format=2
    )
    check(tmp_path / "a.zarr")


def test_a_table_of_one_row(tmp_path):
    xr.Dataset({"x": ((), 3.5), "i": ((), 1)}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    ask = QUERIES[0]
    table = rd.scan_zarr(tmp_path / "a.zarr")
    assert_frame_equal(rd.collect(ask(table)), ask(table.collect().lazy()).collect())


def test_sharded_chunks_and_shorter_variables(tmp_path):
    data = xr.Dataset(
        {"x": (("i", "j"), np.arange(48.0).reshape(8, 6)), "y": ("j", np.arange(6))}, {"i": np.arange(8) // 2}
    )
    data.to_zarr(tmp_path / "a.zarr", encoding={"x": {"chunks": (2, 2), "shards": (4, 6)}}, consolidated=False)
    check(tmp_path / "a.zarr")


def test_a_missing_chunk_is_the_fill_value(tmp_path):
    data = xr.Dataset({"x": ("i", np.ones(6), {}, {"chunks": (2,)})}, {"i": np.arange(6)})
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    (tmp_path / "a.zarr" / "x" / "1").unlink()
    check(tmp_path / "a.zarr")
    assert rd.collect(rd.scan_zarr(tmp_path / "a.zarr").select(c("x").count())).item() == 4


def test_undecoded_values_and_big_endian_numbers(tmp_path):
    data = xr.Dataset(
        {"x": ("i", np.arange(6, dtype=">f4"), {"missing_value": np.float32(3)})}, {"i": np.arange(6) % 2}
    )
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"x": {"dtype": ">f4"}})
    check(tmp_path / "a.zarr")
    check(tmp_path / "a.zarr", decode=False)
    check(tmp_path / "a.zarr", mask=False)


def test_child_groups_are_left_to_polars(tmp_path):
    xr.Dataset({"x": ("i", np.arange(4.0))}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    xr.Dataset({"z": ("i", np.arange(4.0))}).to_zarr(tmp_path / "a.zarr", group="child", zarr_format=2, mode="a")
    table = rd.scan_zarr(tmp_path / "a.zarr")
    query = table.select(c("x").sum())
    assert "child groups" in rewrite(query).parts[0].reason
    assert rd.collect(query).item() == 6


def test_billions_of_rows_are_counted_from_positions(tmp_path):
    root = zarr.open_group(tmp_path / "huge.zarr", mode="w", zarr_format=2)
    x = root.create_array("x", shape=(20_000, 400, 500), chunks=(10, 100, 100), dtype="f4", fill_value=0)
    t = root.create_array("t", shape=(20_000,), chunks=(20_000,), dtype="i4")
    x.attrs["_ARRAY_DIMENSIONS"], t.attrs["_ARRAY_DIMENSIONS"] = ["t", "y", "z"], ["t"]
    t[:] = np.arange(1, 20_001)  # 0 is the fill value
    table = rd.scan_zarr(tmp_path / "huge.zarr", variables=["x"])
    counted = {
        4_000_000_000: table.select(pl.len()),
        2_000_000_000: table.filter(c("t") % 2 == 1).select(pl.len()),
        20_000_000: table.filter(c("t") <= 100).group_by(c("t") > 50).len().select(pl.col("len").sum()),
    }
    for count, query in counted.items():
        (part,) = rewrite(query).parts
        assert part.split.question.plan.arrays == ()
        assert len(list(part.split.question.tasks())) == 1
        assert rd.collect(query).item() == count


AGGREGATES = {
    "len": pl.len(),
    **{name: getattr(c("x"), name)() for name in ["count", "null_count", "sum", "mean", "min", "max", "std", "var"]},
    "warm": (c("x") > 2).sum(),
    "filtered": c("x").filter(c("x") > 2).min(),
    "any": (c("x") > 2).any(),
}


@pytest.mark.parametrize("fill", [np.nan, 7.0, None], ids=str)
@pytest.mark.parametrize("one", AGGREGATES)
def test_aggregates_do_not_disturb_each_other(tmp_path, one, fill):
    """One state may tell that a chunk holds NaN, and the others have to learn it."""
    values = np.arange(40.0).reshape(8, 5) % 11
    values[1:3, 2] = values[5] = np.nan
    attributes = {} if fill is None else {"_FillValue": fill}
    xr.Dataset({"x": (("i", "j"), values, {}, {**attributes, "chunks": (3, 2)})}, {"i": np.arange(8) // 2}).to_zarr(
        tmp_path / "a.zarr", zarr_format=3
    )
    table = rd.scan_zarr(tmp_path / "a.zarr")
    frame = table.collect()
    for other in AGGREGATES.values():
        pair = {"a": AGGREGATES[one], "b": other}
        for ask in (lambda t, p=pair: t.select(**p), lambda t, p=pair: t.group_by("i", maintain_order=True).agg(**p)):
            done = rewrite(ask(table))
            assert all(part.split for part in done.parts), done.parts
            assert_frame_equal(done.query.collect(), ask(frame.lazy()).collect())
