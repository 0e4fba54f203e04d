"""Aggregates of statements are split, and statements of all kinds keep the rows that Polars gives."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "era.zarr"
    axes = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(24) * np.timedelta64(36, "h"),
        "lat": np.arange(-67.5, 90, 45),
        "lon": np.arange(0.0, 360, 18),
    }
    values = np.random.default_rng(0).normal(280, 10, [len(labels) for labels in axes.values()]).astype("f4")
    xr.Dataset({"t": (list(axes), values)}, axes).to_zarr(
        path, encoding={"t": {"chunks": (4, 2, 5)}}, zarr_format=3, consolidated=False
    )
    return rd.scan_zarr(path)


SPLIT = [
    "SELECT AVG(t) AS mean FROM era",
    "SELECT COUNT(*) AS n, MIN(t) AS low, MAX(t) AS high FROM era WHERE lat > 0",
    "SELECT lat, AVG(t) AS mean FROM era GROUP BY lat",
    "SELECT lat, lon, SUM(t) AS total, COUNT(t) AS n FROM era WHERE time >= '2020-01-10' GROUP BY lat, lon",
    "SELECT MONTH(time) AS m, AVG(t) AS mean FROM era GROUP BY MONTH(time) HAVING COUNT(*) > 3 ORDER BY m DESC LIMIT 1",
    "SELECT EXTRACT(HOUR FROM time) AS h, AVG(t) FROM era WHERE DAY(time) IN (1, 4, 7) GROUP BY EXTRACT(HOUR FROM time)",
    "SELECT lat > 0 AS north, AVG(t * 2 + 1) AS mean FROM era WHERE NOT (lon BETWEEN 90 AND 180) GROUP BY lat > 0",
    "WITH warm AS (SELECT * FROM era WHERE t > 290) SELECT lat, COUNT(*) AS n FROM warm GROUP BY lat",
    "SELECT lat, mean FROM (SELECT lat, AVG(t) AS mean FROM era GROUP BY lat) q WHERE mean > 270 ORDER BY lat",
]
PLAIN = [
    "SELECT * FROM era WHERE t > 290 AND time < TIMESTAMP '2020-01-05 00:00:00'",
    "SELECT time, t - 273.15e0 AS celsius FROM era WHERE t IS NOT NULL ORDER BY time, celsius DESC LIMIT 10 OFFSET 2",
    "SELECT CASE WHEN t > 280 THEN lat ELSE lon END AS x FROM era",
    "SELECT e.lat, AVG(e.t) AS mean FROM era e JOIN places p USING (lat) GROUP BY e.lat",
    "SELECT e.time, e.t, p.name FROM era e LEFT JOIN places p ON e.lat = p.lat WHERE e.lon = 36",
    "SELECT e.lat AS a, p.lat AS b FROM places p FULL JOIN era e ON e.lat = p.lat WHERE e.lon = 36 OR e.lon IS NULL",
    "SELECT lat, t FROM era WHERE lat IN (SELECT lat FROM places)",
    "SELECT lat, t FROM era e ANTI JOIN places p USING (lat)",
    "SELECT * FROM places p JOIN era e USING (lat) WHERE e.t > 290",
]
WHOLE = [
    "SELECT p.name, COUNT(e.t) AS n FROM places p LEFT JOIN era e ON e.lat = p.lat AND e.t > 285 GROUP BY p.name",
    "SELECT e.lat FROM era e CROSS JOIN places p WHERE e.lat < p.lat",
    "SELECT lat FROM era UNION SELECT lat FROM places",
    "SELECT time, RANK() OVER (ORDER BY t) AS r FROM era",
    "SELECT COUNT(*) AS n FROM era WHERE time > '2020-01-05 00:00:00.000000001'",
    "SELECT COUNT(*) AS n FROM era WHERE time + INTERVAL '1 nanosecond' > '2020-01-05'",
    "SELECT UPPER(name) AS name FROM places",
]
PLACES = pl.DataFrame({"lat": [22.5, 67.5], "name": ["a", "b"]})


def rows_of(frame):
    return frame.sort(frame.columns)


@pytest.mark.parametrize("statement", [*SPLIT, *PLAIN, *WHOLE])
def test_split_statements_have_the_rows_of_plain_ones(scan, statement):
    frames = {"era": scan, "places": PLACES.lazy()}
    query = rd.sql(statement, **frames)
    expected = pl.SQLContext(frames=frames).execute(statement)
    assert query.collect_schema() == expected.collect_schema()
    assert_frame_equal(rows_of(query.collect()), rows_of(expected.collect()))
    assert_frame_equal(rows_of(rd.collect(query)), rows_of(expected.collect()), rel_tol=1e-5)


@pytest.mark.parametrize("statement", SPLIT)
def test_aggregates_of_statements_are_split(scan, statement):
    assert rd.explain(rd.sql(statement, era=scan)).split == ("array",)


def test_a_limit_keeps_the_order(scan):
    query = rd.sql(PLAIN[1], era=scan)
    assert_frame_equal(rd.collect(query), pl.SQLContext(era=scan).execute(PLAIN[1]).collect())


def test_keys_of_joins_in_statements_prune(scan):
    report = rd.explain(rd.sql(PLAIN[6], era=scan, places=PLACES))
    assert report.chunks_kept == report.chunks_total // 2  # the northern half
