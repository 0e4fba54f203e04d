"""Whole statements: `rd.sql` on stores and DuckDB on the collected frames have the same rows."""

import duckdb
import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import rainbear_dask as rd

STATIONS = pl.DataFrame(
    {"lat": [-30.0, 0.0, 30.0, 30.0, 45.0], "lon": [0.0, 90.0, 90.0, 180.0, 0.0], "name": ["a", "b", "c", "d", "e"]}
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with two stores, and DuckDB's connection with their rows."""
    folder = tmp_path_factory.mktemp("sql")
    rng = np.random.default_rng(0)
    grid = {
        "time": np.arange("2020-01-01", "2020-01-13", dtype="M8[D]").astype("M8[ns]"),
        "lat": np.arange(-60.0, 75, 15),
        "lon": np.arange(0.0, 360, 45),
    }
    shape = [len(labels) for labels in grid.values()]
    values = rng.integers(-40, 40, shape) / 4
    values[rng.random(shape) < 0.1] = np.nan
    # the NaN of t are its fill value, and so null
    fields = {
        "t": (list(grid), values, {}, {"_FillValue": np.nan, "chunks": (5, 4, 3)}),
        "n": (list(grid), rng.integers(0, 9, shape), {}, {"chunks": (5, 4, 3)}),
        "height": (["lat", "lon"], rng.integers(0, 3000, shape[1:]) / 2),
    }
    xr.Dataset(fields, grid).to_zarr(folder / "era.zarr", zarr_format=3)
    xr.Dataset({"elevation": fields["height"]}, {dim: grid[dim] for dim in ("lat", "lon")}).to_zarr(
        folder / "land.zarr"
    )
    with duckdb.connect() as connection:
        for name in ("era", "land"):
            connection.register(name, rd.scan_zarr(folder / f"{name}.zarr").collect().to_arrow())
        connection.register("stations", STATIONS.to_arrow())
        connection.execute("SET TimeZone = 'UTC'")
        yield folder, connection


NUMBERS = st.integers(-12, 12).map(lambda value: value / 2)
DATES = st.integers(1, 14).map(lambda day: f"TIMESTAMP '2020-01-{day:02} 00:00:00'")
COMPARISONS = st.sampled_from(["<", "<=", ">", ">=", "=", "<>"])


@st.composite
def conditions(draw, depth=2):
    form = draw(st.sampled_from(["compare", "time", "between", "null", "in", "subquery", "and", "or", "not"]))
    if depth == 0 and form in ("and", "or", "not"):
        form = "compare"
    column = draw(st.sampled_from(["e.t", "e.lat", "e.lon / 10", "e.n", "e.height / 100", "ABS(e.lat) / 10"]))
    match form:
        case "compare":
            return f"{column} {draw(COMPARISONS)} {draw(NUMBERS)}"
        case "time":
            return f"e.time {draw(COMPARISONS)} {draw(DATES)}"
        case "between":
            return f"{column} BETWEEN {draw(NUMBERS)} AND {draw(NUMBERS)}"
        case "null":
            return f"e.t IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
        case "in":
            return (
                f"EXTRACT(DAY FROM e.time) IN ({', '.join(map(str, draw(st.lists(st.integers(1, 12), min_size=1))))})"
            )
        case "subquery":
            return f"e.lat IN (SELECT lat FROM stations WHERE lat > {draw(NUMBERS)})"
        case "not":
            return f"NOT ({draw(conditions(depth - 1))})"
    return f"({draw(conditions(depth - 1))} {form.upper()} {draw(conditions(depth - 1))})"


AGGREGATES = ["COUNT(*)", "COUNT(e.t)", "SUM(e.n)", "AVG(e.t)", "MIN(e.t)", "MAX(e.lon)", "SUM(e.t * 2 + e.lat)"]
KEYS = ["e.time", "e.lat", "e.lon", "EXTRACT(DAY FROM e.time)", "e.lat > 0", "e.n"]
JOINS = ["", "JOIN stations s USING (lat, lon)", "JOIN {land} l ON e.lat = l.lat AND e.lon = l.lon"]


@st.composite
def statements(draw):
    """A statement with {era} and {land} for tables, and the number of its columns."""
    join = draw(st.sampled_from(JOINS))
    where = f"WHERE {draw(conditions())}" if draw(st.booleans()) else ""
    extra = [{"s": "s.name", "l": "l.elevation"}[join.split()[2]]] if join else []
    source = f"FROM {{era}} e {join} {where}"  # a comment may follow
    if draw(st.booleans()):
        keys = draw(st.lists(st.sampled_from(KEYS + extra), unique=True, max_size=2))
        outputs = draw(st.lists(st.sampled_from(AGGREGATES), unique=True, min_size=1, max_size=3))
        columns = [f"{text} AS c{number}" for number, text in enumerate(keys + outputs)]
        group = f"GROUP BY {', '.join(keys)}" if keys else ""
        having = "HAVING COUNT(*) > 3" if keys and draw(st.booleans()) else ""
        return f"SELECT {', '.join(columns)} {source} {group} {having}"
    names = draw(st.lists(st.sampled_from(["e.time", "e.lat", "e.lon", "e.t", "e.n", *extra]), unique=True, min_size=1))
    columns = [f"{text} AS c{number}" for number, text in enumerate(names)]
    distinct = draw(st.sampled_from(["", "DISTINCT "]))
    inner = f"SELECT {distinct}{', '.join(columns)} -- 'FROM x\n {source}"
    if draw(st.booleans()):
        return f"WITH q AS ({inner}) SELECT COUNT(*) AS c0 FROM q"
    return inner


def sorted_rows(frame):
    frame = frame.cast({cs.numeric(): pl.Float64, cs.datetime(): pl.Datetime("us")})
    return frame.sort(frame.columns, nulls_last=True)


@given(statements(), st.booleans())
def test_rows_are_those_of_duckdb(here, statement, split):
    folder, connection = here
    ours = rd.sql(
        statement.format(era=f"'{folder}/era.zarr'", land="land"), land=folder / "land.zarr", stations=STATIONS
    )
    theirs = connection.sql(statement.format(era="era", land="land")).to_arrow_table()
    actual, expected = sorted_rows(rd.collect(ours) if split else ours.collect()), sorted_rows(pl.DataFrame(theirs))
    assert_frame_equal(actual, expected, rel_tol=1e-9)
