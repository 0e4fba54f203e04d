"""Columns of a task whose last chunks hold no wanted cell."""

import numpy as np
import zarr

import rainbear_dask as rd
from rainbear_dask.execution.columns import read_columns
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.table.tidy import CellMask


def test_a_skipped_chunk_at_the_end_keeps_its_place(tmp_path):
    """One region is left, and it holds fewer positions than the task."""
    group = zarr.create_group(tmp_path / "a.zarr")
    values = np.arange(18.0).reshape(2, 9)
    group.create_array("a", data=values, chunks=(1, 7), dimension_names=["y", "x"])
    (plan,) = plans_of(rd.scan_zarr(tmp_path / "a.zarr"))
    index = {"y": IndexSet.span(1, 2), "x": IndexSet.span(0, 8)}
    for wanted in ([4, 5], [7], [0, 7]):
        mask = np.zeros((1, 8), dtype=bool)
        mask[0, wanted] = True
        column = plan.table.columns["a"]
        found = read_columns(plan.table.spec, [column], index, CellMask({"y": 1, "x": 8}, mask))["a"]
        assert len(found) == 8
        assert found.to_numpy()[wanted].tolist() == values[1, wanted].tolist()
