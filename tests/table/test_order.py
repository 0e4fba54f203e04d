"""The order of rows follows from the table alone: C order, or C order of blocks of whole chunks."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.table.order import BLOCK_BYTES, MAX_UNIT_BYTES, block_lengths, first_rows, in_order, sorted_rows
from tests.support.oracle import ranked

MIB = 2**20


def array(name, sizes, chunks, *, shards=None, dims=None, dtype="f4"):
    dims = tuple(dims or sizes)
    return ArrayMeta(name, dims, tuple(sizes[d] for d in dims), chunks, shards, np.dtype(dtype), None, {}, "")


def lengths_of(shape, *chunks, shards=None, count=1):
    """Blocks of a table of float32 variables on some grids, each with three coordinates of eight bytes."""
    sizes = dict(zip("tyx", shape, strict=True))
    arrays = [array(f"v{i}{n}", sizes, one, shards=shards) for i, one in enumerate(chunks) for n in range(count)]
    return tuple(block_lengths(sizes, arrays, 3 * 8 + 4 * len(arrays)).values())


@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [
        ((8760, 181, 360), [(24, 181, 360)], None),
        ((8760, 181, 360), [(24, 61, 120)], None),
        ((8760, 181, 360), [(1, 61, 120)], None),
        ((8760, 181, 360), [(1, 1, 1)], None),
        ((8760, 721, 1440), [(1, 721, 1440)], None),
        ((7440, 183, 360), [(744, 183, 360)], (744, 183, 360)),
        ((64, 128, 128), [(64, 8, 8)], None),
        ((100, 100, 100), [(5, 100, 100), (100, 20, 20)], None),
        ((1, 1, 1), [(1, 1, 1)], None),
    ],
)
def test_rows_are_in_c_order_where_blocks_span_all_but_the_first_dimension(shape, chunks, shards):
    assert lengths_of(shape, *chunks, shards=shards) == shape


@pytest.mark.parametrize(
    ("shape", "chunks", "count", "expected"),
    [
        ((512, 256, 256), [(512, 16, 16)], 1, (512, 64, 256)),
        ((40_320, 721, 1440), [(1440, 50, 50)], 1, (1440, 50, 100)),
        ((2400, 180, 360), [(24, 60, 90)], 12, (24, 120, 360)),
    ],
)
def test_rows_are_in_c_order_of_blocks_where_chunks_are_long(shape, chunks, count, expected):
    assert lengths_of(shape, *chunks, count=count) == expected


def test_blocks_end_with_shards_or_divide_them():
    assert lengths_of((2880, 1536, 1536), (1440, 50, 50), shards=(1440, 400, 400)) == (1440, 50, 100)
    assert lengths_of((2000, 2000, 2000), (500, 10, 20), shards=(1000, 10, 120)) == (500, 10, 1800)


def test_chunk_grids_without_a_small_common_unit_are_cut_so_that_none_is_read_often():
    """(5, 1000, 1000) and (1000, 20, 20) have the whole table as their unit: 4 GB for each variable."""
    found = lengths_of((1000, 1000, 1000), (5, 1000, 1000), (1000, 20, 20))
    assert 2 * 4 * prod(found) <= MAX_UNIT_BYTES
    assert max(-(-1000 // found[1]) * -(-1000 // found[2]), 1000 / found[0]) <= 8


def test_one_grid_of_large_chunks_has_them_as_blocks():
    assert lengths_of((1000, 2000, 2000), (1000, 1000, 1000)) == (1000, 1000, 1000)


def test_variables_of_fewer_dimensions_do_not_make_blocks_longer():
    sizes = {"t": 8760, "y": 1800, "x": 3600}
    large = array("v", sizes, (24, 180, 360))
    mask = array("mask", sizes, (1800, 3600), dims=("y", "x"))
    assert block_lengths(sizes, [large], 28) == block_lengths(sizes, [large, mask], 28)


def test_a_table_of_coordinates_alone_is_in_c_order():
    sizes = {"t": 1_000_000, "y": 721, "x": 1440}
    assert block_lengths(sizes, [], 24) == sizes


@given(st.data())
def test_blocks_follow_from_the_table_and_keep_chunks_whole(data):
    sizes = {d: data.draw(st.integers(1, 2000), label=d) for d in "tyx"}
    chunks = tuple(data.draw(st.integers(1, n), label="chunk") for n in sizes.values())
    found = block_lengths(sizes, [array("v", sizes, chunks)], 28)
    for (dim, n), chunk in zip(sizes.items(), chunks, strict=True):
        assert found[dim] % chunk == 0 or found[dim] == n
    unit = dict(zip(sizes, chunks, strict=True))
    if found not in (sizes, unit):
        assert 4 * prod(found.values()) <= BLOCK_BYTES


dims = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 8)), min_size=1, max_size=3)


def cells_in_order(shape, lengths):
    """Every cell of the table, in the order of rows."""
    cells = np.stack([axis.reshape(-1) for axis in np.indices(shape)], axis=1)
    return cells[ranked(shape, lengths)]


@given(dims, st.integers(0, 400))
def test_the_first_rows_are_selected_exactly(along, count):
    shape, lengths = zip(*along, strict=True)
    sizes = {f"d{i}": n for i, n in enumerate(shape)}
    found = first_rows(sizes, dict(zip(sizes, lengths, strict=True)), count)
    assert found.exact
    assert len(found.boxes) <= 2 * len(shape)
    held = np.zeros(shape, dtype=int)
    for box in found.boxes:
        held[np.ix_(*(box[d].positions() if d in box else np.arange(n) for d, n in sizes.items()))] += 1
    expected = np.zeros(shape, dtype=int)
    expected[tuple(cells_in_order(shape, lengths)[:count].T)] = 1
    assert np.array_equal(held, expected)


@given(dims, st.data())
def test_cells_of_a_product_are_sorted_into_the_order_of_rows(along, data):
    shape, lengths = zip(*along, strict=True)
    masks = [data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any)) for n in shape]
    index = [IndexSet.from_mask(np.array(mask)) for mask in masks]
    wanted = data.draw(st.sets(st.sampled_from(range(prod(map(len, index))))), label="rows")
    rows = np.array(sorted(wanted), dtype=np.int64)
    cells = list(product(*(positions.positions().tolist() for positions in index)))
    taken = [cells[row] for row in rows[sorted_rows(index, lengths, rows)]] if len(rows) else []
    place = {tuple(cell): number for number, cell in enumerate(cells_in_order(shape, lengths).tolist())}
    assert taken == sorted((cells[row] for row in rows), key=place.__getitem__)
    if in_order(index, lengths):
        assert taken == [cells[row] for row in rows]
    elif len(rows) == len(cells):
        assert taken != cells
