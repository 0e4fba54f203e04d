"""A plan's report in a notebook: the facts of `explain`, and a picture of the chunks kept."""

from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import rainbear_dask as rd
from rainbear_dask.diagnostics.svg import draw_chunks, draw_report
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"y": 9, "x": 8}
masks = {dim: st.lists(st.booleans(), min_size=n, max_size=n).filter(any).map(np.array) for dim, n in SIZES.items()}


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  our own text


def grid_of(sizes, chunks) -> ChunkGrid:
    return ChunkGrid(tuple(sizes), tuple(sizes.values()), tuple(chunks[dim] for dim in sizes))


def cells(picture: ET.Element) -> list[tuple[int, int]]:
    """Corner, in cells, of each coloured rectangle; a strip has no second coordinate."""
    return [(int(cell.get("x")), int(cell.get("y", "0"))) for cell in picture.iter(f"{SVG}rect")]


def labels(picture: ET.Element) -> list[str]:
    return [label.text for label in picture.iter(f"{SVG}text")]


@given(st.lists(st.fixed_dictionaries({}, optional=masks), max_size=4), st.integers(1, 9), st.integers(1, 8))
def test_cells_are_the_chunks_that_hold_a_selected_position(some, tall, wide):
    chunks = {"y": tall, "x": wide}
    selected = np.zeros(tuple(SIZES.values()), dtype=bool)
    for box in some:
        selected[np.ix_(*(box.get(dim, np.ones(n, dtype=bool)) for dim, n in SIZES.items()))] = True
    boxes = [{dim: IndexSet.from_mask(mask) for dim, mask in box.items()} for box in some]
    expected = {(int(x) // wide, int(y) // tall) for y, x in np.argwhere(selected)}
    drawn = cells(parsed(draw_chunks(grid_of(SIZES, chunks), boxes)))
    assert len(drawn) == len(expected)
    assert set(drawn) == expected


def test_other_dimensions_are_strips_above():
    sizes = {"t": 10, "y": 4, "x": 4}
    boxes = [{"t": IndexSet.from_spans([(0, 3), (8, 9)]), "x": IndexSet.span(0, 1)}]
    picture = parsed(draw_chunks(grid_of(sizes, {"t": 2, "y": 4, "x": 2}), boxes))
    assert labels(picture) == ["t: 10 in 5 chunks", "y: 4 in 1 chunk (down)", "x: 4 in 2 chunks (across)"]
    strip, grid = [list(part.iter(f"{SVG}rect")) for part in picture.findall(f"{SVG}g")]
    assert [(part.get("x"), part.get("width")) for part in strip] == [("0", "2"), ("4", "1")]
    assert [(part.get("x"), part.get("y")) for part in grid] == [("0", "0")]


@pytest.mark.parametrize("count", [40, 41, 1_323_648])
def test_many_chunks_share_cells_and_none_that_is_kept_is_lost(count):
    grid = grid_of({"t": count}, {"t": 1})

    def drawn(position):
        return cells(parsed(draw_chunks(grid, [{"t": IndexSet.span(position, position + 1)}])))

    assert drawn(0) == [(0, 0)]
    assert drawn(count - 1) == [(39, 0)]
    assert len(cells(parsed(draw_chunks(grid, Selection.everything().boxes)))) == 1


@pytest.mark.parametrize("sizes", [{}, {"t": 0}, {"t": 3, "x": 0}])
def test_what_has_no_cell_is_drawn_empty(sizes):
    assert cells(parsed(draw_chunks(grid_of(sizes, dict.fromkeys(sizes, 1)), Selection.everything().boxes))) == []


def test_names_are_text_whatever_is_in_them():
    name = '<b>&"lat"'
    assert labels(parsed(draw_chunks(grid_of({name: 3}, {name: 1}), []))) == [f"{name}: 3 in 3 chunks"]
    report = parsed(draw_report(name, [(name, name)], ""))
    assert [report.find("b").text, *(cell.text for cell in report.iter() if cell.tag in {"th", "td"})] == [name] * 3


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """6 by 8 cells in chunks of 2 by 2."""
    path = str(tmp_path_factory.mktemp("picture") / "a.zarr")
    ds = xr.Dataset({"v": (("y", "x"), np.zeros((6, 8)))}, {"y": np.arange(6), "x": np.arange(8)})
    ds.to_zarr(path, zarr_format=2, encoding={"v": {"chunks": (2, 2)}})
    return path


def test_a_plan_shows_the_facts_of_explain_and_its_chunks(store):
    plan = rd.plan(store, (pl.col("y") > 3) | (pl.col("x") == 1))
    report = parsed(plan._repr_html_())
    told = [tuple("".join(cell.itertext()) for cell in row) for row in report.iter("tr")]
    assert [report.find("b").text, *(f"  {name:8} {text}" for name, text in told)] == str(plan.explain()).splitlines()
    assert len(cells(report)) == plan.num_chunks_kept == 4 + 2
    assert labels(report) == [
        "y: 6 in 3 chunks (down)",
        "0 to 5, step 1",
        "x: 8 in 4 chunks (across)",
        "0 to 7, step 1",
    ]


def test_a_plan_that_is_cut_short_shows_what_is_read_for_it(store):
    plan = rd.plan(store, n_rows=9)
    assert sorted(cells(parsed(plan._repr_html_()))) == [(x, 0) for x in range(4)]
    assert plan.num_chunks_kept == 4
    assert "  reads" not in plan.explain()


def test_a_plan_that_reads_no_array_has_no_picture(store):
    assert "<svg" not in rd.plan(store, columns=["y"])._repr_html_()


def test_a_picture_of_100_million_chunks_is_small(tmp_path):
    sizes = {"time": 10_000, "lat": 1000, "lon": 1000}
    group = zarr.open_group(tmp_path, mode="w")
    group.create_array("v", shape=tuple(sizes.values()), chunks=(1, 10, 10), dtype="f4", dimension_names=list(sizes))
    for plan in (rd.plan(tmp_path), rd.plan(tmp_path, (pl.col("time") % 3 == 0) | (pl.col("lat") % 20 < 10))):
        text = plan._repr_html_()
        assert len(text) < 100_000
        assert len(cells(parsed(text))) > 800
