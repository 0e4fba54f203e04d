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


# ---------------------------------------------------------------------- outlines


def corners(picture: ET.Element) -> list[list[tuple[float, float]]]:
    """Corners of each line in the inner picture, in pixels."""
    (inner,) = picture.iter(f"{SVG}svg") if picture.tag != f"{SVG}svg" else picture.findall(f"{SVG}svg")
    (path,) = inner.iter(f"{SVG}path")
    lines = path.get("d").strip("MZ").split("ZM")
    return [[tuple(map(float, corner.split())) for corner in line.split("L")] for line in lines]


def drawn_plan(tmp_path, lat, lon, predicate, *, dims=("lat", "lon")) -> ET.Element:
    sizes = {"lat": len(lat), "lon": len(lon)}
    data = xr.Dataset({"v": (dims, np.zeros([sizes[dim] for dim in dims]))}, {"lat": lat, "lon": lon})
    data.to_zarr(tmp_path / "a.zarr", encoding={"v": {"chunks": (10, 10)}}, zarr_format=2, mode="w")
    page = parsed(rd.explain(rd.scan_zarr(str(tmp_path / "a.zarr")).filter(predicate))._repr_html_())
    (picture,) = page.findall(f".//{SVG}svg[@role]")
    return picture


BOX = "POLYGON ((10 0, 20 0, 20 5, 10 5, 10 0))"


@pytest.mark.parametrize(
    ("lat", "lon", "dims", "expected"),
    [
        # cells are 1 degree wide and high, and the first one is centred on the first label
        (np.arange(0.5, 20), np.arange(0.5, 40), ("lat", "lon"), {(60, 0), (120, 0), (120, 30), (60, 30)}),
        (np.arange(0.5, 20)[::-1], np.arange(0.5, 40), ("lat", "lon"), {(60, 120), (120, 120), (120, 90), (60, 90)}),
        (np.arange(0.5, 20), np.arange(0.5, 40), ("lon", "lat"), {(0, 60), (0, 120), (60, 60), (60, 120)}),
        (np.arange(0.5, 20), np.arange(-359.5, -320), ("lat", "lon"), {(60, 0), (120, 0), (120, 30), (60, 30)}),
    ],
)
def test_a_polygon_is_drawn_over_its_chunks(tmp_path, lat, lon, dims, expected):
    picture = drawn_plan(tmp_path, lat, lon, rd.geo.within(BOX), dims=dims)
    (line,) = corners(picture)
    assert set(line) == expected
    assert picture.get("aria-label").endswith("A line shows the outline of the polygons.")
    assert 'stroke="currentColor"' in ET.tostring(picture, encoding="unicode")


def test_a_polygon_at_the_seam_is_drawn_on_both_sides(tmp_path):
    lon = np.arange(0.5, 360)
    picture = drawn_plan(tmp_path, np.arange(0.5, 20), lon, rd.geo.within("POLYGON ((-9 0, 9 0, 9 5, -9 5, -9 0))"))
    assert {(min(x for x, _ in line), max(x for x, _ in line)) for line in corners(picture)} == {(-6, 6), (234, 246)}
    both = rd.geo.within(BOX) | rd.geo.within("POLYGON ((30 0, 40 0, 40 5, 30 0), (32 1, 38 1, 37 2, 32 1))")
    assert len(corners(drawn_plan(tmp_path, np.arange(0.5, 20), lon, both))) == 3  # holes, too


@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("lat") > 3,
        rd.geo.within(BOX, pl.col("lon") + pl.col("lat"), "lat"),
        rd.geo.within(BOX, "lon", "lon"),
        rd.geo.dwithin((10, 5), 1e5),
    ],
)
def test_other_filters_have_no_outline(tmp_path, predicate):
    picture = drawn_plan(tmp_path, np.arange(0.5, 20), np.arange(0.5, 40), predicate)
    assert not picture.findall(f"{SVG}svg")
    assert "outline" not in picture.get("aria-label")


def test_labels_without_an_order_have_no_outline(tmp_path):
    picture = drawn_plan(tmp_path, np.arange(20.0) % 7, np.arange(0.5, 40), rd.geo.within(BOX))
    assert not picture.findall(f"{SVG}svg")


def test_dates_of_any_calendar_are_on_the_axes(tmp_path):
    units = {"units": "days since 2000-01-01", "calendar": "360_day"}
    data = xr.Dataset({"v": ("time", np.zeros(3))}, {"time": ("time", [0, 59, 60], units)})
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    page = parsed(rd.explain(rd.scan_zarr(str(tmp_path / "a.zarr")))._repr_html_())
    (picture,) = page.findall(f".//{SVG}svg[@role]")
    assert "2000-01-01 to 2000-03-01" in labels(picture)
