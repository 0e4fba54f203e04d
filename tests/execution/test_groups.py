"""The chunk loop: every wanted cell in one group, with its stored values, whatever the grids and the thread count."""

import sys
import threading
from itertools import product
from unittest import mock

import numpy as np
import polars as pl
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore

import rainbear_dask as rd
from rainbear_dask.execution import groups
from rainbear_dask.execution.groups import consume_groups
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.resources import threads
from rainbear_dask.table.tidy import CellMask
from tests.support.stores import CountingStore

SHAPE = (9, 8, 7)


class Copies:
    """Consumer: the place, the mask and copies of the values of each group."""

    def __init__(self):
        self.seen = []

    def use(self, group):
        stored = {name: values.copy() for name, values in group.stored.items()}
        assert [len(positions) for positions in group.index.values()] == list(group.cells.box.values())
        self.seen.append((group.index, group.place, group.cells.mask.copy(), stored))

    def done(self):
        return self.seen


@st.composite
def tables(draw):
    """Arrays over three dimensions and fewer, in chunks and shards of any length; and a reader of them."""
    store = MemoryStore()
    zarr.open_group(store, mode="w")
    values = {}
    for name, dims in (("a", "xyz"), ("b", "xyz"), ("c", "yz"), ("d", "x")):
        shape = [SHAPE["xyz".index(d)] for d in dims]
        chunks = tuple(draw(st.integers(1, n)) for n in shape)
        shards = tuple(draw(st.integers(1, 3)) * n for n in chunks) if draw(st.booleans()) else None
        values[name] = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 99, shape).astype("f4")
        zarr.create_array(
            store, name=name, shape=shape, dtype="f4", chunks=chunks, shards=shards, dimension_names=list(dims)
        )[:] = values[name]
    return store, values


def positions(length):
    return st.sets(st.integers(0, length - 1), min_size=1).map(lambda some: np.array(sorted(some)))


@st.composite
def cells_of(draw, box):
    """Wanted cells: all, as a mask, or as row numbers."""
    size = int(np.prod(list(box.values())))
    wanted = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    how = draw(st.sampled_from(["all", "mask", "rows"]))
    if how == "all":
        return CellMask(box)
    return (
        CellMask(box, wanted.reshape(tuple(box.values())))
        if how == "mask"
        else CellMask.of_rows(box, np.flatnonzero(wanted))
    )


@settings(deadline=None)
@given(st.data())
def test_each_wanted_cell_is_in_one_group_with_its_stored_values(tmp_path_factory, data):
    memory, values = data.draw(tables())
    folder = tmp_path_factory.mktemp("store")
    for key, content in memory._store_dict.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.to_bytes())
    where = data.draw(st.sampled_from(["folder", "service", "only zarr"]))
    store = {"folder": str(folder), "service": CountingStore(LocalStore(folder)), "only zarr": memory}[where]
    table = rd.scan_zarr(store).origin.reader.table
    along = [data.draw(positions(n)) for n in SHAPE]
    index = dict(zip(table.sizes, map(IndexSet.from_positions, along), strict=True))
    cells = data.draw(cells_of({dim: len(some) for dim, some in index.items()}))
    columns = [table.columns[name] for name in data.draw(st.sets(st.sampled_from("abcd"), min_size=1))]
    with (
        mock.patch.object(groups, "GROUP_BYTES", data.draw(st.sampled_from([1, 400, 2**21]))),
        mock.patch.object(groups, "STRIP_BYTES", data.draw(st.sampled_from([1, 400, 2**23]))),
        mock.patch.object(threads, "num_threads", return_value=3),
    ):
        strips = consume_groups(table.spec, columns, index, cells, Copies)
    covered = np.zeros(tuple(cells.box.values()), dtype=int)
    for part, place, mask, stored in (one for strip in strips for one in strip):
        covered[place] += mask
        at = dict(zip(index, (some.positions() for some in part.values()), strict=True))
        assert all(
            (whole[s] == part[d].positions()).all()
            for (d, whole), s in zip(zip(index, along, strict=True), place, strict=True)
        )
        assert stored.keys() == {column.name for column in columns}
        for column in columns:
            expected = values[column.name][np.ix_(*(at[dim] for dim in column.dims))]
            np.testing.assert_array_equal(stored[column.name], expected)
    np.testing.assert_array_equal(covered, cells.mask)


def field(path, **how):
    """One array of 12 chunks of 2 KiB."""
    values = np.arange(12 * 512, dtype="f4").reshape(12, 16, 32)
    zarr.open_group(path, mode="w")
    zarr.create_array(
        path, name="v", shape=values.shape, dtype="f4", dimension_names=list("tyx"), **({"chunks": (1, 16, 32)} | how)
    )[:] = values
    return values


def loop(source, make, cells=None):
    table = rd.scan_zarr(source).origin.reader.table
    index = {dim: IndexSet.span(0, n) for dim, n in table.sizes.items()}
    return consume_groups(table.spec, [table.columns["v"]], index, cells or CellMask(table.sizes), make)


def test_strips_and_groups_do_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    field(tmp_path)
    monkeypatch.setattr(groups, "GROUP_BYTES", 2048)
    monkeypatch.setattr(groups, "STRIP_BYTES", 4096)
    seen = []
    for count in (1, 2, 8):
        monkeypatch.setattr(threads, "num_threads", lambda count=count: count)
        seen.append([[place for _, place, *_ in strip] for strip in loop(str(tmp_path), Copies)])
    assert [len(strip) for strip in seen[0]] == [2] * 6
    assert seen[0] == seen[1] == seen[2]


def test_the_buffers_of_a_group_are_used_again(tmp_path, monkeypatch):
    field(tmp_path)
    monkeypatch.setattr(groups, "GROUP_BYTES", 2048)
    addresses = set()

    class Addresses:
        def use(self, group):
            addresses.add((threading.get_ident(), group.stored["v"].__array_interface__["data"][0]))

        def done(self):
            return None

    monkeypatch.setattr(threads, "num_threads", lambda: 1)
    loop(str(tmp_path), Addresses)
    assert len(addresses) == 1


@pytest.mark.parametrize("kind", ["folder", "service"])
def test_groups_without_a_wanted_cell_are_not_read(tmp_path, monkeypatch, kind):
    field(tmp_path)
    monkeypatch.setattr(groups, "GROUP_BYTES", 4096)
    for step in (0, 3, 7):
        (tmp_path / f"v/c/{step}/0/0").write_bytes(b"noise")
    wanted = np.zeros((12, 16, 32), dtype=bool)
    wanted[[1, 2, 4, 11], 3, 5] = True
    source = str(tmp_path) if kind == "folder" else CountingStore(LocalStore(tmp_path))
    box = {"t": 12, "y": 16, "x": 32}
    for cells in (CellMask(box, wanted), CellMask.of_rows(box, np.flatnonzero(wanted))):
        strips = loop(source, Copies, cells)
        assert [place[0] for strip in strips for _, place, *_ in strip] == [slice(1, 3), slice(4, 5), slice(11, 12)]
    if kind == "service":
        assert {key for key in source.requests if "/c/" in key} == {f"v/c/{step}/0/0" for step in (1, 2, 4, 11)}


def test_an_error_of_a_consumer_reaches_the_caller_and_ends_the_loop(tmp_path, monkeypatch):
    field(tmp_path)
    monkeypatch.setattr(groups, "GROUP_BYTES", 1)
    monkeypatch.setattr(groups, "STRIP_BYTES", 1)
    used = []

    class Failing(Copies):
        def use(self, group):
            used.append(group.place)
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        loop(str(tmp_path), Failing)
    assert len(used) <= 1 + threads.num_threads()


def test_scans_in_many_threads_at_once_are_identical(tmp_path):
    """Buffers belong to one thread each: a buffer of another thread would change the sums."""
    values = field(tmp_path, chunks=(2, 7, 9))
    query = rd.scan_zarr(str(tmp_path)).filter(pl.col("v") % 97 == 5).select(pl.col("v").sum())
    flat = values.reshape(-1)
    expected = flat[flat % 97 == 5].sum(dtype="f8")
    found, switch = [], sys.getswitchinterval()

    def work():
        found.extend(query.collect().item() for _ in range(25))

    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(switch)
    assert found == [expected] * 200


def test_a_box_without_cells_reads_nothing(tmp_path):
    field(tmp_path)
    cells = CellMask.of_rows({"t": 12, "y": 16, "x": 32}, np.empty(0, np.int64))
    assert loop(str(tmp_path), Copies, cells) == []


def test_all_combinations_of_whole_chunks_make_c_order_of_the_other_axes(tmp_path, monkeypatch):
    field(tmp_path, chunks=(6, 8, 16))
    monkeypatch.setattr(groups, "GROUP_BYTES", 1)
    places = [place for strip in loop(str(tmp_path), Copies) for _, place, *_ in strip]
    starts = [(t, y, x) for y, x, t in product((0, 8), (0, 16), (0, 6))]
    assert [tuple(at.start for at in place) for place in places] == starts
