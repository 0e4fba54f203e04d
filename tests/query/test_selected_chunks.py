"""`selected_chunks_debug`: the chunks that a question needs, listed; which they are is worked out from the rows by xarray."""

import asyncio
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
import xarray as xr
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore, MemoryStore

import rainbear_dask as rd
from tests.support.oracle import expected_frame
from tests.support.stores import CountingStore

c = pl.col

SIZES = {"time": 5, "lat": 7, "lon": 9}  # no chunk length divides one of them
CHUNKS = {"time": 2, "lat": 2, "lon": 4}
SHARDS = {"time": 2, "lat": 4, "lon": 4}
LEVELS = ["temp", "wind"]


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    data = {name: (tuple(SIZES), rng.normal(size=tuple(SIZES.values()))) for name in LEVELS}
    coords = {
        "time": np.datetime64("2020-01-30", "ns") + np.arange(5) * np.timedelta64(1, "D"),
        "lat": np.arange(7.0) * 10,
        "lon": np.arange(9.0) * 40,
        "name": ("lon", np.array(list("abcabcabc"), dtype=object)),
        "height": (("lat", "lon"), np.add.outer(np.arange(7.0), np.arange(9.0) ** 2)),
        "lead": ("time", np.arange(5) * np.timedelta64(6, "h")),
    }
    return xr.Dataset(data | {"profile": ("lat", np.arange(7.0))}, coords)


def encoded(**more):
    grid = {"chunks": tuple(CHUNKS.values())}
    return {"temp": grid | more, "wind": grid | more, "profile": {"chunks": (2,)}}


WRITERS = {
    "v2": {"zarr_format": 2, "encoding": encoded()},
    "v3": {"zarr_format": 3, "encoding": encoded(), "consolidated": False},
    "sharded": {"zarr_format": 3, "encoding": encoded(shards=tuple(SHARDS.values())), "consolidated": False},
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A store of each kind; their paths by name."""
    folder = tmp_path_factory.mktemp("chunks")
    for name, how in WRITERS.items():
        dataset().to_zarr(folder / name, **how)
    return {name: str(folder / name) for name in WRITERS}


@pytest.fixture(scope="module")
def frame(paths):
    return expected_frame(paths["v3"])


@pytest.fixture
def backend(paths):
    return rd.ZarrBackendSync.from_url(paths["v3"])


def listed(found, *variables) -> dict[tuple[str, ...], list[tuple[int, ...]]]:
    """Chunks of each grid, by its variables; of the grids that have some variables, if they are given."""
    grids = {tuple(grid["variables"]): [tuple(chunk["indices"]) for chunk in grid["chunks"]] for grid in found["grids"]}
    return {names: chunks for names, chunks in grids.items() if not variables or set(names) & set(variables)}


def needed(frame, predicate, dims=SIZES) -> list[tuple[int, ...]]:
    """Chunks of the grid along some dimensions that hold a row at which the predicate is true."""
    rows = frame.with_row_index().filter(predicate)["index"].to_numpy()
    at = dict(zip(SIZES, np.unravel_index(rows, tuple(SIZES.values())), strict=True))
    return sorted(set(zip(*((at[dim] // CHUNKS[dim]).tolist() for dim in dims), strict=True)))


NORTH, EAST = c.lat > 35, c.lon < 170


def box(low: float, high: float) -> pl.Expr:
    return c.lat.is_between(low, high) & (c.lon > high) & (c.time < datetime(2020, 2, 2))


def remote(values: pl.Series) -> pl.Series:
    return values > 250


EXACT = {
    "column left": c.lat > 35,
    "literal left": pl.lit(35) < c.lat,
    "number left": 35 >= c.lat,  # noqa: SIM300  what is tested
    "equal": c.lon == 120,
    "not equal": c.time != datetime(2020, 2, 3),
    **{f"between, {closed}": c.lat.is_between(20, 40, closed) for closed in ("both", "left", "right", "none")},
    "is_in": c.lon.is_in([0.0, 320.0]),
    "and": NORTH & EAST,
    "or": NORTH | EAST,
    "xor": NORTH ^ EAST,
    "not": ~NORTH,
    "not and": ~(NORTH & EAST),
    "not or": ~(NORTH | EAST),
    "not xor": ~(NORTH ^ EAST),
    "complement within one chunk": ~(c.lat == 10) & (c.lat < 20),
    "boxes": box(10, 20) | box(30, 40),
    "boxes without": ~box(10, 40) & (c.lat < 50),
    "symmetric difference of boxes": box(10, 30) ^ box(20, 40),
    "all_horizontal": pl.all_horizontal(NORTH, EAST, c.time > datetime(2020, 1, 31)),
    "any_horizontal": pl.any_horizontal(NORTH, c.lon > 300),
    "datetime": c.time >= datetime(2020, 2, 1),
    "pl.datetime": c.time < pl.datetime(2020, 2, 1),
    "date": c.time > date(2020, 2, 1),
    "duration": c.lead > timedelta(hours=12),
    "pl.duration": c.lead <= pl.duration(hours=6),
    "time and duration": c.time - timedelta(days=2) >= datetime(2020, 2, 1),
    "alias": NORTH.alias("north"),
    "cast of a column": c.lat.cast(pl.Int32) > 35,
    "cast of a predicate": NORTH.cast(pl.Boolean),
    "over": NORTH.over("lon"),
    "over, in order": NORTH.over("lon", order_by="time", descending=True),
    "over a predicate": NORTH.over(EAST),
    "over in a conjunction": NORTH.over("lon") & ~EAST.over("time", "lat"),
    "over twice": NORTH.over("lon").over("time"),
    "filter": NORTH.filter(EAST),
    "filter in a filter": NORTH.filter(EAST).filter(c.time > datetime(2020, 2, 1)),
    "filter over": NORTH.filter(EAST).over("lon"),
    "when, else false": pl.when(NORTH).then(pl.lit(value=True)).otherwise(pl.lit(value=False)),
    "when, else nothing": pl.when(NORTH & EAST).then(pl.lit(value=True)),
    "when, when": pl.when(NORTH).then(EAST).when(EAST).then(pl.lit(value=True)).otherwise(pl.lit(value=False)),
    "unknown side of and": NORTH & (c.temp > 0),
    "unknown first": (c.temp > c.wind) & NORTH & EAST,
    "month": c.time.dt.month() == 2,
    "arithmetic": c.lat * 2 + 1 > 85,
    "wrapped": (c.lon + 180) % 360 - 180 < 0,
    "abs": (c.lat - 30).abs() < 5,
    "text": c.name == "b",
    "part of text": c.name.str.starts_with("a") | (c.lat < 15),
    "two dimensions": c.height > 40,
    "a box in two dimensions": c.height.is_between(3, 12) & NORTH,
    "dimensions together": c.lat + c.lon > 300,
    "a function": c.lon.map_elements({0.0, 240.0}.__contains__, return_dtype=pl.Boolean),
    "a function of a column": c.lon.map_batches(remote, return_dtype=pl.Boolean, is_elementwise=True),
}

SEEN_AS = {  # conditions that are seen through, and values that no coordinate decides
    "filter": NORTH & EAST,
    "filter in a filter": NORTH & EAST & (c.time > datetime(2020, 2, 1)),
    "filter over": NORTH & EAST,
    "unknown side of and": NORTH,
    "unknown first": NORTH & EAST,
}


@pytest.mark.parametrize("store", WRITERS)
@pytest.mark.parametrize("name", EXACT)
def test_chunks_of_a_predicate_are_those_that_hold_a_row_of_it(paths, frame, store, name):
    found = rd.ZarrBackendSync.from_url(paths[store]).selected_chunks_debug(EXACT[name])
    expected = needed(frame, SEEN_AS.get(name, EXACT[name]))
    assert expected
    assert listed(found, "temp") == {("temp", "wind"): expected}


def test_a_plain_predicate_lists_all_variables_grid_by_grid(backend):
    def chunk(shape, *indices):
        origin = [i * size for i, size in zip(indices, shape, strict=True)]
        return {"indices": list(indices), "origin": origin, "shape": list(shape), "shards": []}

    assert backend.selected_chunks_debug((c.lat == 60) & (c.lon > 300) & (c.time < datetime(2020, 2, 1))) == {
        "grids": [
            {"dims": ["lat"], "variables": ["profile"], "chunks": [chunk((2,), 3)]},
            {"dims": ["lat", "lon"], "variables": ["height"], "chunks": [chunk((7, 9), 0, 0)]},
            {"dims": ["lon"], "variables": ["lon", "name"], "chunks": [chunk((9,), 0)]},
            {"dims": ["time"], "variables": ["lead", "time"], "chunks": [chunk((5,), 0)]},
            {"dims": ["time", "lat", "lon"], "variables": LEVELS, "chunks": [chunk((2, 2, 4), 0, 3, 2)]},
        ],
        "coord_reads": 3,
    }


def test_a_chunk_of_a_shard_names_the_shard_clipped_to_the_array(paths):
    backend = rd.ZarrBackendSync.from_url(paths["sharded"])
    (grid,) = backend.selected_chunks_debug(c.temp.filter((c.lat == 60) & (c.lon == 320) & (c.time.dt.day() == 3)))[
        "grids"
    ]
    shard = {"indices": [2, 1, 2], "origin": [4, 4, 8], "shape": [1, 3, 1]}
    assert grid["chunks"] == [{"indices": [2, 3, 2], "origin": [4, 6, 8], "shape": [2, 2, 4], "shards": [shard]}]


@pytest.mark.parametrize("store", WRITERS)
def test_grids_are_sorted_and_chunks_in_c_order_without_duplicates(paths, store):
    found = rd.ZarrBackendSync.from_url(paths[store]).selected_chunks_debug(box(10, 20) | box(15, 40) | (c.height > 60))
    kinds = [(grid["dims"], grid["chunks"][0]["shape"]) for grid in found["grids"]]
    assert kinds == sorted(kinds)
    for grid in found["grids"]:
        places = [chunk["indices"] for chunk in grid["chunks"]]
        assert places == sorted(map(list, set(map(tuple, places))))
        for chunk in grid["chunks"]:
            assert chunk["origin"] == [i * n for i, n in zip(chunk["indices"], chunk["shape"], strict=True)]


def test_the_grid_of_a_coordinate_is_listed_only_where_no_larger_one_has_its_dimension(backend):
    assert listed(backend.selected_chunks_debug(c.lat)) == {("lat",): [(0,)]}
    assert listed(backend.selected_chunks_debug(pl.struct("lat", "temp"))) == {("temp",): needed_of_all()}
    assert listed(backend.selected_chunks_debug(pl.struct("lat", "lon", "profile"))) == {
        ("lat",): [(0,)],
        ("lon",): [(0,)],
        ("profile",): [(0,), (1,), (2,), (3,)],
    }


def needed_of_all() -> list[tuple[int, ...]]:
    return list(np.ndindex(3, 4, 3))


def test_a_coordinate_and_a_variable_of_the_same_chunks_are_one_grid():
    store = MemoryStore()
    ds = xr.Dataset({"v": ("x", np.zeros(4)), "w": ("x", np.zeros(4))}, {"x": np.arange(4)})
    encoding = {"x": {"chunks": (2,)}, "v": {"chunks": (2,)}, "w": {"chunks": (4,)}}
    ds.to_zarr(store, zarr_format=3, consolidated=False, encoding=encoding)
    found = rd.ZarrBackendSync.from_store(store).selected_chunks_debug(c.x > 2)
    assert listed(found) == {("v", "x"): [(1,)], ("w",): [(0,)]}


NOTHING = [
    pl.lit(value=False),
    pl.lit(None),
    pl.lit(None, dtype=pl.Boolean),
    c.lat.is_in([]),
    (c.lat > 40) & (c.lat < 20),
    c.lat > 1000,
    c.lat == 35,
    c.time.is_between(datetime(2021, 1, 1), datetime(2020, 1, 1)),
    c.temp.filter(pl.lit(value=False)),
    (c.temp > 0) & (c.lat < -1),
]


@pytest.mark.parametrize("expr", NOTHING, ids=range(len(NOTHING)))
def test_what_no_row_can_match_selects_nothing(backend, expr):
    assert backend.selected_chunks_debug(expr)["grids"] == []


PROJECTIONS = {  # what is listed, of all chunks
    "a column": (c.temp, {"temp"}),
    "arithmetic": (c.temp - c.wind * 2, {"temp", "wind"}),
    "struct": (pl.struct("temp", "wind"), {"temp", "wind"}),
    "several columns": (c("temp", "profile"), {"temp", "profile"}),
    "by pattern": (c("^t.mp$"), {"temp"}),
    "sum": (c.temp.sum(), {"temp"}),
    "rolling": (c.temp.rolling_mean(3), {"temp"}),
    "cumulative": (c.temp.cum_sum(), {"temp"}),
    "shift": (c.temp.shift(1), {"temp"}),
    "diff": (c.temp.diff(), {"temp"}),
    "rank": (c.temp.rank(), {"temp"}),
    "diff, then filter": (c.temp.diff().filter(NORTH), {"temp", "lat"}),
    "a value's filter": (c.temp.filter(c.wind > 0), {"temp", "wind"}),
    "filter by an aggregate": (c.temp.filter(c.lat == c.lat.max()), {"temp", "lat"}),
    "sum over": (c.temp.sum().over("lat"), {"temp", "lat"}),
    "sum over a predicate": (c.temp.sum().over(NORTH), {"temp", "lat"}),
    "when, else another": (pl.when(NORTH).then(c.temp).otherwise(c.wind), {"temp", "wind", "lat"}),
    "selector": (cs.by_name("temp"), {"temp"}),
    "selectors met": (cs.float() & cs.starts_with("t", "w"), {"temp", "wind"}),
    "selectors joined": (cs.by_name("temp") | cs.by_name("wind"), {"temp", "wind"}),
    "selector without": (cs.float() - cs.by_name("height", "wind"), {"lat", "lon", "profile", "temp"}),
    "no selector": (~cs.by_name("temp", "wind", "height"), {"time", "lat", "lon", "lead", "name", "profile"}),
    "temporal": (cs.temporal(), {"time", "lead"}),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_what_projects_lists_the_variables_that_it_refers_to_with_all_chunks(backend, name):
    expr, variables = PROJECTIONS[name]
    found = listed(backend.selected_chunks_debug(expr))
    names = {each for several in found for each in several}
    assert names == variables if "temp" not in names else names == variables - {"time", "lat", "lon"}
    if "temp" in names:
        ((chunks),) = listed(backend.selected_chunks_debug(expr), "temp").values()
        assert chunks == needed_of_all()


NARROWED = {
    "filter": c.temp.filter(NORTH & EAST),
    "filter and sum": c.temp.filter(NORTH & EAST).sum(),
    "filter twice": c.temp.filter(NORTH).filter(EAST),
    "several filters": c.temp.filter(NORTH, EAST).mean(),
    "filter of a computation": (c.temp * 2 + 1).filter(NORTH & EAST).max(),
    "filter by a value too": c.temp.filter(NORTH & EAST & (c.temp > 0)),
    "when": pl.when(NORTH & EAST).then(c.temp),
    "when, else null": pl.when(NORTH & EAST).then(c.temp).otherwise(None),
    "when and sum": pl.when(NORTH & EAST).then(c.temp).sum(),
    "filter over": c.temp.filter(NORTH & EAST).over("lon"),
    "filter and sum over": c.temp.filter(NORTH & EAST).sum().over("lon", "time"),
    "filter and sum over, in order": c.temp.filter(NORTH & EAST).sum().over("lon", order_by="time", nulls_last=True),
    "filter over, joined": c.temp.filter(NORTH & EAST).over("lon", mapping_strategy="join"),
    "when over": pl.when(NORTH & EAST).then(c.temp).sum().over("lon"),
}


@pytest.mark.parametrize("name", NARROWED)
def test_what_is_filtered_before_it_is_used_needs_the_chunks_of_the_filter(backend, frame, name):
    assert listed(backend.selected_chunks_debug(NARROWED[name])) == {("temp",): needed(frame, NORTH & EAST)}


def test_two_filters_in_one_expression_need_the_chunks_of_both(backend, frame):
    found = backend.selected_chunks_debug(c.temp.filter(NORTH & EAST).sum() - c.temp.filter(~NORTH).sum())
    assert listed(found) == {("temp",): needed(frame, (NORTH & EAST) | ~NORTH)}


@pytest.mark.parametrize(
    "expr",
    [
        NORTH | (c.temp > 0),
        (c.temp > 0) | NORTH,
        pl.any_horizontal(NORTH, c.temp > 0),
        ~(NORTH & (c.temp > 0)),
        NORTH ^ (c.temp > 0),
        c.temp > 0,
        c.temp.is_null(),
        c.lat.shift(1) > 30,
        c.lat == c.lat.max(),
        c.lat.rank() > 3,
        pl.lit(value=True),
    ],
    ids=str,
)
def test_what_no_coordinate_decides_selects_all(backend, expr):
    assert listed(backend.selected_chunks_debug(expr), "temp") == {("temp", "wind"): needed_of_all()}


def test_is_null_selects_the_chunks_of_masked_coordinates():
    """More than is asked for: any answer that holds them would do."""
    store = MemoryStore()
    x = xr.Variable("x", np.array([1, -1, 3, 4], dtype="i4"), {"_FillValue": np.int32(-1)})
    ds = xr.Dataset({"v": ("x", np.zeros(4))}, {"x": x})
    ds.to_zarr(store, zarr_format=3, consolidated=False, encoding={"v": {"chunks": (1,)}})
    backend = rd.ZarrBackendSync.from_store(store)
    assert listed(backend.selected_chunks_debug(c.x.is_null()), "v") == {("v",): [(1,)]}
    assert listed(backend.selected_chunks_debug(c.x.is_not_null()), "v") == {("v",): [(0,), (2,), (3,)]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A root with a grid, and below it a group and a group in that."""
    path = str(tmp_path_factory.mktemp("tree") / "tree.zarr")
    root = dataset().drop_vars(["profile", "name", "height", "lead"])
    surface = xr.Dataset({name: (("time", "lat"), np.zeros((5, 7))) for name in ("gust", "snow")})
    soil = xr.Dataset({"moisture": ("lat", np.arange(7.0))})
    encoding = {
        "/": {name: encoded()[name] for name in LEVELS},
        "/surface": {name: {"chunks": (2, 2)} for name in surface},
        "/surface/soil": {"moisture": {"chunks": (2,)}},
    }
    nodes = {"/": root, "/surface": surface, "/surface/soil": soil}
    xr.DataTree.from_dict(nodes).to_zarr(path, encoding=encoding, consolidated=False, zarr_format=3)
    return path


BELOW = {"surface/gust", "surface/snow", "surface/soil/moisture"}


@pytest.mark.parametrize(
    ("expr", "variables"),
    [
        (NORTH & (c.time > datetime(2020, 2, 2)), {*LEVELS, *BELOW}),
        (cs.float() - cs.by_name("lat", "lon"), {*LEVELS, *BELOW}),
        (c.surface, BELOW),
        (c("surface/gust"), {"surface/gust"}),
        (c("surface/gust").filter(NORTH), {"surface/gust"}),
    ],
    ids=["predicate", "selector", "struct", "path", "path, filtered"],
)
def test_variables_of_a_tree_are_named_by_their_path(tree, expr, variables):
    found = listed(rd.ZarrBackendSync.from_url(tree).selected_chunks_debug(expr))
    assert {name for several in found for name in several} - set(SIZES) == variables


def test_chunks_of_a_tree_are_those_that_hold_a_row(tree, frame):
    predicate = NORTH & (c.time > datetime(2020, 2, 2)) & (c.lon > 300)
    found = listed(rd.ZarrBackendSync.from_url(tree).selected_chunks_debug(predicate))
    assert found["surface/gust", "surface/snow"] == needed(frame, predicate, ("time", "lat"))
    assert found["temp", "wind"] == needed(frame, predicate)


def test_every_kind_of_backend_lists_the_same_and_reads_no_variable(paths):
    question = NORTH & (c.temp > 0)
    counted = CountingStore(LocalStore(paths["v3"], read_only=True))
    expected = rd.ZarrBackendSync.from_store(counted).selected_chunks_debug(question)
    assert rd.ZarrBackend.from_store(counted).selected_chunks_debug(question) == expected
    assert not counted.chunks("temp") | counted.chunks("wind")
    assert isinstance(expected["coord_reads"], int)


# ---------------------------------------------------------------------- the same questions, answered


@pytest.mark.parametrize("name", [name for name in EXACT if name.startswith("over")])
def test_a_predicate_over_groups_filters_and_reads_its_chunks(paths, frame, name):
    counted = CountingStore(LocalStore(paths["v3"], read_only=True))
    actual = rd.ZarrBackendSync.from_store(counted).scan_zarr_sync(EXACT[name])
    assert_frame_equal(actual, frame.filter(EXACT[name]))
    assert len(counted.chunks("temp")) == len(needed(frame, EXACT[name]))


@pytest.mark.parametrize(
    "expr",
    [
        c.temp.filter(NORTH).sum().over("lon"),
        c.temp.filter(NORTH).sum().over(pl.lit(1)),
        c.temp.filter(NORTH).over(pl.lit(1), mapping_strategy="join").list.len(),
        NORTH.filter(EAST),
        NORTH.over("lon", mapping_strategy="explode"),
        (c.lat > c.lat.mean()).over("lon"),
        pl.when(NORTH).then(c.temp),
    ],
    ids=str,
)
def test_what_is_seen_through_is_answered_with_all_its_rows(backend, frame, expr):
    async def awaited():
        return await rd.scan_zarr_async(backend, expr)

    per_row = frame.select(expr).height == frame.height and frame.select(expr).dtypes == [pl.Boolean]
    expected = frame.filter(expr) if per_row else frame.select(expr)
    assert_frame_equal(asyncio.run(awaited()), expected)
