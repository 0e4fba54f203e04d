"""`rd.sql`: names of tables, stores, groups, geometry, explanations and errors."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import shapely
import xarray as xr
import zarr
from distributed import Client
from polars.exceptions import SQLInterfaceError, SQLSyntaxError
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    ClusterError,
    GeometryError,
    QueryError,
    SQLError,
    StoreNotFoundError,
    UnknownColumnError,
    UnknownOptionError,
    UnknownTableError,
)
from tests.support.stores import TREE

STATIONS = pl.DataFrame({"lat": [22.5, -22.5], "lon": [36.0, 90.0], "name": ["a", "it's"]})
MODULE_TABLE = pl.DataFrame({"x": [1, 2]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    axes = {
        "time": np.arange("2020-01-01", "2020-01-09", dtype="M8[D]").astype("M8[ns]"),
        "lat": np.arange(-67.5, 90, 45),
        "lon": np.arange(0.0, 360, 18),
    }
    shape = [len(labels) for labels in axes.values()]
    data = xr.Dataset({"t": (list(axes), np.arange(np.prod(shape), dtype="f4").reshape(shape))}, axes)
    data.to_zarr(folder / "era.zarr", encoding={"t": {"chunks": (2, 2, 5)}}, zarr_format=3)
    (folder / "it's").mkdir()
    data.isel(time=[0]).to_zarr(folder / "it's" / "era.zarr", zarr_format=3)
    TREE.drop_vars("name").to_zarr(folder / "tree.zarr", group="model/run", zarr_format=3)
    STATIONS.write_csv(folder / "stations.csv")
    STATIONS.write_parquet(folder / "stations.parquet")
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def era():
    return rd.scan_zarr("era.zarr").collect()


@pytest.mark.parametrize(
    "table",
    [
        "'era.zarr'",
        '"era.zarr"',
        "`era.zarr`",
        "'era.zarr' e",
        "'era.zarr' AS e",
        "read_zarr('era.zarr')",
        'READ_ZARR(:path) AS "it\'s"',
        "read_zarr('era.zarr', variables => ['t'], decode => TRUE, max_rows => 1000)",
        "read_zarr('era.zarr', storage_options = NULL, group => NULL)",
        "passed",
        "PASSED p",
        "a_path",
        "a_store",
        "a_backend",
        "/* a ' quote */ 'era.zarr' -- and another '",
        "(SELECT * FROM 'era.zarr') q",
        "('era.zarr')",
    ],
)
def test_a_store_is_a_table(table):
    found = rd.sql(
        f"SELECT * FROM {table}",
        params={"path": "era.zarr"},
        passed=rd.scan_zarr("era.zarr"),
        a_path="era.zarr",
        a_store=zarr.open_group("era.zarr", mode="r"),
        a_backend=rd.ZarrBackendSync.from_url("era.zarr"),
    )
    assert isinstance(found, pl.LazyFrame)
    assert_frame_equal(found.collect(), era())


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT era.t FROM 'era.zarr' LIMIT 1", [(0.0,)]),
        ("SELECT era.t FROM './era.zarr' LIMIT 1", [(0.0,)]),
        ('SELECT "era.zarr".t FROM "era.zarr" LIMIT 1', [(0.0,)]),
        ("SELECT era.t FROM read_zarr('era.zarr') LIMIT 1", [(0.0,)]),
        ("SELECT era.t FROM 'it''s/era.zarr' LIMIT 1", [(0.0,)]),
        ("SELECT COUNT(*) FROM 'era.zarr', 'it''s/era.zarr' b WHERE era.t = b.t", [(80,)]),
        ("SELECT COUNT(*) FROM 'era.zarr' JOIN 'it''s/era.zarr' USING (time, lat, lon)", [(80,)]),
        ("SELECT run.t FROM 'tree.zarr'.model.run LIMIT 1", [(0.0,)]),
        ("SELECT t FROM tree.model.run AS r WHERE r.x = 20", [(1.0,), (4.0,)]),
        ("SELECT t FROM read_zarr('tree.zarr', group => 'model/run') WHERE x = 20", [(1.0,), (4.0,)]),
        ("SELECT COUNT(*) FROM 'stations.csv'", [(2,)]),
        ("SELECT stations.name FROM 'stations.parquet' WHERE name <> 'a'", [("it's",)]),
        ("WITH era AS (SELECT * FROM 'era.zarr' WHERE lat > 60) SELECT COUNT(*) FROM era", [(160,)]),
        ("WITH passed AS (SELECT * FROM passed WHERE lat > 60) SELECT COUNT(*) FROM passed", [(160,)]),
        ("SELECT EXTRACT(DAY FROM time) AS d FROM passed WHERE t = 0", [(1,)]),
        ("SELECT COUNT(*) FROM passed WHERE lat IS DISTINCT FROM 67.5", [(480,)]),
        ("SELECT COUNT(*) FROM passed WHERE lat IS NOT DISTINCT FROM 67.5", [(160,)]),
        ("SELECT COUNT(*) FROM passed e, UNNEST([1, 2]) AS u(v)", [(1280,)]),
        ("FROM 'era.zarr' SELECT COUNT(*)", [(640,)]),
        ("SELECT t FROM passed WHERE t < 1 UNION ALL SELECT t FROM 'it''s/era.zarr' WHERE t = 5", [(0.0,), (5.0,)]),
        ("SELECT (SELECT MAX(t) FROM 'era.zarr') AS m, x FROM local_table", [(639.0, 1), (639.0, 2)]),
        ("SELECT COUNT(*) FROM MODULE_TABLE", [(2,)]),
        ("SELECT COUNT(*) FROM a_pandas JOIN an_arrow USING (x)", [(2,)]),
        ("SELECT COUNT(*) FROM MODULE_TABLE, local_table WHERE TIMESTAMP WITH TIME ZONE '2020-01-01' IS NULL", [(0,)]),
    ],
)
def test_names(statement, rows):
    local_table = pl.LazyFrame({"x": [1, 2]})
    a_pandas, an_arrow = pd.DataFrame({"x": [1, 2]}), MODULE_TABLE.to_arrow()
    found = rd.sql(statement, passed=rd.scan_zarr("era.zarr"), tree="tree.zarr")
    assert found.collect().rows() == rows
    assert [local_table.collect().height, len(a_pandas), an_arrow.num_rows] == [2, 2, 2]


def test_tables_come_before_stores_and_those_before_variables():
    era = pl.DataFrame({"t": [-1.0]})
    assert rd.sql("SELECT COUNT(*) FROM 'era.zarr'").collect().item() == 640
    assert rd.sql("SELECT COUNT(*) FROM 'era.zarr'", **{"era.zarr": era}).collect().item() == 1
    assert rd.sql("SELECT COUNT(*) FROM era", era="era.zarr").collect().item() == 640
    assert rd.sql('SELECT COUNT(*) FROM "era"').collect().item() == 1
    assert [rd.sql("SELECT COUNT(*) FROM era").collect().item() for _ in range(1)] == [1]


@pytest.mark.parametrize(
    ("statement", "chunks"),
    [
        ("SELECT t FROM 'era.zarr' WHERE time < :end AND lat > 0", 4),
        ("SELECT e.t FROM 'era.zarr' e WHERE e.time IN :days", 16),
        ("SELECT t FROM 'era.zarr' WHERE ST_Within(ST_Point(lon, lat), ST_GeomFromText(:box))", 4),
        ("SELECT t FROM 'era.zarr' WHERE ST_Intersects(ST_GeomFromText(:box), ST_Point(lon, lat)) AND lat < 60", 4),
        ("SELECT t FROM 'era.zarr' e WHERE st_dwithin(ST_Point(e.lon, e.lat), ST_Point(36, 22.5), 100e3)", 4),
        (
            "SELECT e.t, s.name FROM s, 'era.zarr' e WHERE ST_Within(ST_Point(e.lon, e.lat), :shape) AND s.lat = e.lat",
            4,
        ),
        ("SELECT e.t FROM 'era.zarr' e LEFT JOIN s ON e.lat = s.lat WHERE ST_Within(ST_Point(e.lon, e.lat), :box)", 4),
        ("SELECT t FROM (SELECT * FROM 'era.zarr' WHERE ST_Within(ST_Point(lon, lat), :box)) q WHERE lat > 0", 4),
    ],
)
def test_conditions_prune(statement, chunks):
    box = "POLYGON ((10 10, 40 10, 40 50, 10 50, 10 10))"
    params = {
        "end": np.datetime64("2020-01-03"),
        "days": ["2020-01-01", "2020-01-02", "2020-01-03"],
        "box": box,
        "shape": shapely.from_wkt(box),
    }
    found = rd.sql(statement, params=params, s=STATIONS)
    assert rd.explain(found).chunks_kept == chunks
    assert found.collect().height > 0


BOX = "POLYGON ((18 0, 54 0, 54 45, 18 45, 18 0))"


@pytest.mark.parametrize(
    ("condition", "expr"),
    [
        (f"ST_Within(ST_Point(lon, lat), ST_GeomFromText('{BOX}'))", rd.geo.within(BOX, boundary="exclude")),
        (f"ST_Intersects(ST_Point(lon, lat), '{BOX}')", rd.geo.within(BOX)),
        ("ST_DWithin(ST_Point(lon, lat), ST_Point(-18, 22.5), 2000e3)", rd.geo.dwithin((-18, 22.5), 2e6)),
        (
            f"lat > 0 AND ST_Within(ST_Point(lon, lat), '{BOX}') AND ST_DWithin(ST_Point(0, 0), ST_Point(lon, lat), 5e6)",
            rd.geo.within(BOX, boundary="exclude") & rd.geo.dwithin((0, 0), 5e6),
        ),
    ],
)
def test_geometry_is_that_of_geo(condition, expr):
    actual = rd.sql(f"SELECT * FROM 'era.zarr' WHERE {condition}").collect()
    assert_frame_equal(actual, rd.scan_zarr("era.zarr").filter(expr).collect())
    assert actual.height > 0


def test_a_test_of_geometry_filters_before_a_join_as_after_it():
    box = "POLYGON ((0 0, 100 0, 100 50, 0 50, 0 0))"
    joined = (
        rd.scan_zarr("era.zarr")
        .join(STATIONS.lazy(), on="lat", how="left", suffix=":s")
        .filter(rd.geo.within(box, boundary="exclude"))
    )
    statement = (
        "SELECT e.t, s.name FROM 'era.zarr' e LEFT JOIN s ON e.lat = s.lat WHERE ST_Within(ST_Point(e.lon, e.lat), :b)"
    )
    actual = rd.sql(statement, params={"b": box}, s=STATIONS).collect()
    assert_frame_equal(actual, joined.select("t", "name").collect(), check_row_order=False)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("NOT ST_Within(ST_Point(lon, lat), :b)", "only with AND"),
        ("ST_Within(ST_Point(lon, lat), :b) OR lat > 0", "only with AND"),
        ("lat > 0 OR lat < 0 AND ST_Within(ST_Point(lon, lat), :b)", "only with AND"),
        ("ST_Within(ST_Point(lon, lat), :b) = FALSE", "only with AND"),
        (
            "CASE WHEN lat > 0 THEN lon > 0 AND ST_Within(ST_Point(lon, lat), :b) AND lat > 0 ELSE TRUE END",
            "only with AND",
        ),
        ("(ST_Within(ST_Point(lon, lat), :b))", "only with AND"),
        ("ST_Within(lon, lat)", "Write ST_Within"),
        ("ST_Within(:b, ST_Point(lon, lat))", "Write ST_Within"),
        ("ST_Within(ST_Point(lon, lat))", "Write ST_Within"),
        ("ST_Within(ST_Point(lon + 1, lat), :b)", "two columns of one table"),
        ("ST_Intersects(ST_Point(lon, lat), ST_Point(lon, lat))", "two columns of one table"),
        ("ST_DWithin(ST_Point(lon, lat), ST_Point(1, 2))", "metres"),
        ("ST_DWithin(ST_Point(lon, lat), ST_GeomFromText('POINT (1 2)', 4326), 1)", "The number of its arguments"),
        ("ST_Within(ST_Point(x, y), :b)", "has the columns x and y"),
        ("ST_Within(ST_Point(s.lon, s.lat), :b)", "has the columns lon and lat"),
    ],
)
def test_places_where_geometry_cannot_filter(condition, message):
    with pytest.raises(SQLError, match=message):
        rd.sql(f"SELECT * FROM 'era.zarr' e WHERE {condition}", params={"b": BOX})


@pytest.mark.parametrize(
    "source",
    [
        "s LEFT JOIN 'era.zarr' e ON e.lat = s.lat",
        "'era.zarr' e RIGHT JOIN s ON e.lat = s.lat",
        "'era.zarr' e FULL JOIN s ON e.lat = s.lat",
    ],
)
def test_outer_joins_that_extend_the_table_are_refused(source):
    with pytest.raises(SQLError, match="Put the test into a subquery"):
        rd.sql(f"SELECT * FROM {source} WHERE ST_Within(ST_Point(e.lon, e.lat), :b)", params={"b": BOX}, s=STATIONS)


def test_bad_geometry():
    with pytest.raises(GeometryError):
        rd.sql("SELECT * FROM 'era.zarr' WHERE ST_Within(ST_Point(lon, lat), ST_GeomFromText('POLYGON'))")


def test_explain():
    query = "SELECT t FROM 'era.zarr' WHERE lat > :low"
    report = rd.explain(rd.sql(query, params={"low": 60}))
    found = rd.sql(f"/* why */ EXPLAIN {query}", params={"low": 60}).collect()
    assert found.columns == ["plan"]
    assert found["plan"].to_list() == str(report).splitlines()
    assert report.chunks_kept == 16
    # a name like the word is a name
    assert rd.sql("SELECT x AS explain FROM MODULE_TABLE").collect().columns == ["explain"]


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("SELECT * FORM passed", "Line: 1, Column: 10"),
        ("SELECT *\nFROM passed\nWHERE t > :long AND 1 2", "Line: 3, Column: 23"),
        ("EXPLAIN SELECT * FROM passed WHERE t > :long AND 1 2", "Line: 1, Column: 52"),
        ("SELECT * FROM read_zarr('era.zarr', variables => ['t']) WHERE t > 1 2", "Line: 1, Column: 69"),
        ("SELECT e.t FROM 'era.zarr'\n, tree.model.run r WHERE (t > 1 2)", "Line: 2, Column: 33"),
        ("SELECT 'abc FROM passed", "Line: 1, Column: 8"),
        ("SELECT t /* abc FROM passed", "Line: 1, Column: 10"),
        ("SELECT *\nFROM read_zarr('era.zarr', variables => t + 1)", "Line: 2, Column: 41"),
    ],
)
def test_syntax_errors_name_the_place(statement, place):
    with pytest.raises(SQLError, match=place) as found:
        rd.sql(statement, params={"long": "a text\nof two lines"}, passed="era.zarr", tree="tree.zarr")
    assert isinstance(found.value, SQLInterfaceError | SQLSyntaxError)
    assert isinstance(pickle.loads(pickle.dumps(found.value)), SQLError)
    assert "Resolved plan" not in str(found.value)


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("SELECT * FROM statoins", UnknownTableError, r"Did you mean 'stations'.*Stores near: 'era.zarr', 'tree.zarr'"),
        ("SELECT * FROM era", UnknownTableError, r"Did you mean 'era'"),
        ("SELECT * FROM stations.x", UnknownTableError, "is a frame, which has no group 'x'"),
        ("SELECT * FROM 'ear.zarr'", StoreNotFoundError, r"Did you mean 'era.zarr'"),
        ("SELECT * FROM read_zarr('era.zarr', variablse => 't')", UnknownOptionError, "Did you mean `variables`"),
        ("SELECT * FROM read_zarr()", SQLError, "Write read_zarr"),
        ("SELECT * FROM read_zarr('a', 'b')", SQLError, "Write read_zarr"),
        ("SELECT * FROM read_zarr('era.zarr', decode => 1x)", SQLError, "This is no number"),
        ("SELECT * FROM read_zarr('era.zarr', storage_options => {'a'})", SQLError, "This is no entry"),
        ("SELECT lta FROM 'era.zarr'", UnknownColumnError, "Did you mean 'lat'"),
        ("SELECT SUM(DATE_TRUNC(name)) FROM stations", SQLError, "DATE_TRUNC"),
    ],
)
def test_other_errors(statement, error, message):
    with pytest.raises(error, match=message) as found:
        rd.sql(statement, stations=STATIONS).collect()
    assert "Resolved plan" not in str(found.value)


def test_what_is_no_statement():
    with pytest.raises(QueryError, match="A statement is text"):
        rd.sql(pl.LazyFrame())
    with pytest.raises(rd.exceptions.StoreFormatError, match="int"):
        rd.sql("SELECT * FROM x", x=3)


def test_a_message_does_not_repeat_quoted_text():
    with pytest.raises(SQLError) as found:
        rd.sql("SELECT * FROM read_zarr('s3://b', storage_options => {'secret': 'hidden' 'hidden'})")
    assert "hidden" not in str(found.value)


def test_nothing_is_read(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lf = rd.sql("SELECT AVG(t) AS t FROM 'era.zarr' WHERE time > '2020-01-05'")
    assert rd.explain(lf).chunks_kept == 16
    assert isinstance(pickle.loads(pickle.dumps(lf)), pl.LazyFrame)


def test_a_rewritten_table_stays_rewritten():
    mean = rd.rewrite(rd.scan_zarr("era.zarr").group_by("lat").agg(pl.col("t").mean()))
    found = rd.sql("SELECT * FROM mean WHERE lat > 0 ORDER BY lat", mean=mean)
    assert "ANSWER" in found.explain()
    assert_frame_equal(found.collect(), mean.filter(pl.col("lat") > 0).sort("lat").collect())


def test_the_client_reads_the_stores_that_the_statement_opens():
    statement = "SELECT * FROM 'era.zarr' WHERE lat > 0"
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        found = rd.sql(statement, client=client)
        assert rd.explain(found).runs_on == "cluster"
        assert_frame_equal(found.collect(), rd.scan_zarr("era.zarr").filter(pl.col("lat") > 0).collect())
    with pytest.raises(ClusterError):
        rd.sql(statement, client=client)
    with pytest.raises(ClusterError):
        rd.sql(statement, client="tcp://127.0.0.1:1")
