"""Files of statistics: what is written is read, and everything else is refused."""

import io
import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.statistics import form
from rainbear_dask.statistics.form import ChunkStatistics, FormError, Subject, no_statistics, read_statistics

GRID = ChunkGrid(("y", "x"), (5, 4), (2, 2))
SUBJECT = Subject((2, 2), "digest", "decoding", "files")
CELLS = [4, 4, 4, 4, 2, 2]


FLOAT = pl.Float32()


def statistics(dtype=FLOAT, ends=(1.0, 2.0), unknown=()):
    low, high = ends
    rows = pl.DataFrame(
        {
            "min": pl.Series([low] * 6, dtype=dtype),
            "max": pl.Series([high] * 6, dtype=dtype),
            "nulls": [0, 1, 0, 0, 0, 0],
            "nans": [0, 0, 3, 0, 0, 0],
            "count": [None if n in unknown else cells for n, cells in enumerate(CELLS)],
            "stamp": [-(2**63), 2**63 - 1, 3, 4, 5, 6],
            "size": [10, 20, 30, 40, 50, -1],
        }
    )
    return ChunkStatistics(rows, datetime(2026, 11, 28, tzinfo=UTC))


def written(found, grid=GRID, subject=SUBJECT):
    file = io.BytesIO()
    form.write_statistics(found, subject, "a", grid, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [
        (pl.Float32(), (-1.5, float("inf"))),
        (pl.UInt64(), (0, 2**64 - 1)),
        (pl.Boolean(), (False, True)),
        (pl.String(), ("", "é")),
        (pl.Binary(), (b"", b"\xff")),
        (pl.Datetime("ns"), (datetime(1900, 1, 1), datetime(2100, 1, 1))),
        (pl.Duration("us"), (None, None)),
    ],
    ids=str,
)
def test_what_is_written_is_read(dtype, ends):
    found = statistics(dtype, ends)
    again = read_statistics(written(found), SUBJECT, GRID, dtype)
    assert_frame_equal(again.rows, found.rows)
    assert again.made == found.made


def test_chunks_without_statistics_have_no_row():
    content = written(statistics(unknown=(1, 4)))
    assert pl.read_parquet(io.BytesIO(content)).height == 4
    again = read_statistics(content, SUBJECT, GRID, pl.Float32())
    assert again.known.tolist() == [True, False, True, True, False, True]
    assert again.rows["min"].null_count() == 2
    assert no_statistics(GRID, pl.Float32()).known.tolist() == [False] * 6


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((6, 4), [True] * 4 + [False, False]),  # the last row of chunks has more cells now
        ((7, 4), [True] * 4 + [False] * 4),
        ((5, 5), [True, True, False, True, True, False, True, True, False]),
        ((5, 3), [True, False, True, False, True, False]),
        ((2, 4), [True, True]),
    ],
)
def test_an_array_that_grew_or_shrank_keeps_whole_chunks_alone(shape, known):
    content = written(statistics())
    found = read_statistics(content, SUBJECT, ChunkGrid(("y", "x"), shape, (2, 2)), pl.Float32())
    assert found.known.tolist() == known


@pytest.mark.parametrize(
    "other",
    [
        Subject((2, 1), "digest", "decoding", "files"),
        Subject((2, 2), "another codec", "decoding", "files"),
        Subject((2, 2), "digest", "another mask", "files"),
        Subject((2, 2), "digest", "decoding", "objects"),
    ],
    ids=["chunks", "document", "decoding", "identity"],
)
def test_statistics_of_another_subject_are_no_statistics(other):
    assert read_statistics(written(statistics()), other, GRID, pl.Float32()) is None


def changed(**about):
    """Return a file with another description."""
    content = written(statistics())
    described = json.loads(pl.read_parquet_metadata(io.BytesIO(content))["rainbear_dask.statistics"]) | about
    file = io.BytesIO()
    text = json.dumps({key: value for key, value in described.items() if value is not None})
    pl.read_parquet(io.BytesIO(content)).write_parquet(file, metadata={"rainbear_dask.statistics": text})
    return file.getvalue()


def foreign(rows):
    """Return a Parquet file with our description and other rows."""
    about = pl.read_parquet_metadata(io.BytesIO(written(statistics())))["rainbear_dask.statistics"]
    file = io.BytesIO()
    rows.write_parquet(file, metadata={"rainbear_dask.statistics": about})
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged, or no Parquet"),
        (written(statistics())[:-20], "damaged, or no Parquet"),
        (foreign(pl.DataFrame({"a": [1]})), "damaged"),
        (foreign(pl.read_parquet(io.BytesIO(written(statistics(pl.Int8(), (1, 2)))))), "other types"),
        (changed(version=form.VERSION + 1), "a later version of this package"),
        (changed(version=None), "description is damaged"),
        (changed(made="yesterday"), "description is damaged"),
        (changed(chunks=5), "description is damaged"),
    ],
    ids=["empty", "cut", "foreign columns", "other types", "later form", "no version", "no date", "no chunks"],
)
def test_other_files_are_refused(content, reason):
    with pytest.raises(FormError, match=reason):
        read_statistics(content, SUBJECT, GRID, pl.Float32())


def test_a_plain_parquet_file_is_refused():
    file = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(file)
    with pytest.raises(FormError, match="something else"):
        read_statistics(file.getvalue(), SUBJECT, GRID, pl.Float32())


def test_a_file_with_too_many_rows_is_refused():
    rows = pl.read_parquet(io.BytesIO(written(statistics())))
    with pytest.raises(FormError, match="many more rows"):
        read_statistics(foreign(pl.concat([rows] * 1000)), SUBJECT, GRID, pl.Float32())


def test_cells_of_chunks_are_counted():
    assert form.cells_of(GRID).tolist() == CELLS
    assert form.cells_of(ChunkGrid((), (), ())).tolist() == [1]


def test_rows_in_any_order_find_their_chunk():
    found = statistics()
    rows = pl.read_parquet(io.BytesIO(written(found))).reverse()
    assert_frame_equal(read_statistics(foreign(rows), SUBJECT, GRID, pl.Float32()).rows, found.rows)
    assert np.array_equal(found.stamps, found.rows.select("stamp", "size").to_numpy())
