"""Plans built from SQL are split and pruned as those of Polars' own calls."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.engine import over, pruning
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.engine.sql import _TABLE


@pytest.fixture(autouse=True, scope="module")
def few_keys_are_few():
    """The store of these tests has few rows for each key, and few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "ROWS_FOR_A_KEY", 0)
        patch.setattr(over, "is_small", lambda *_: False)
        yield


S = pl.LazyFrame({"lat": [60.0, 60.0, 30.0, None], "lon": [10.0, 0.0, 350.0, 10.0], "w": [1, 2, 3, 4]})


@pytest.fixture
def lf(url):
    return rd.scan_zarr(url)


@pytest.fixture(scope="module")
def table(url):
    return rd.scan_zarr(url).collect().lazy()


TEXTS = [
    "SELECT avg(plain) AS m FROM era WHERE lat > 0",
    "SELECT lat, max(masked) AS m, count(*) AS n FROM era GROUP BY lat ORDER BY lat",
    "SELECT lat, lon, plain FROM era ORDER BY plain DESC LIMIT 5",
    "SELECT lat, lon, plain FROM era ORDER BY plain LIMIT 5 OFFSET 2",
    "SELECT plain FROM era WHERE lat IN (SELECT lat FROM s)",
    "SELECT s.w, e.plain FROM era e JOIN s ON e.lat = s.lat AND e.lon = s.lon ORDER BY s.w, e.plain",
    "SELECT w, avg(plain) AS m FROM s LEFT JOIN era USING (lat) GROUP BY w ORDER BY w",
    "SELECT count(*) AS n FROM era",
    "SELECT count(*) FROM era WHERE lat > 0 AND extract(hour FROM time) = 6",
    "SELECT DISTINCT lat FROM era",
    "SELECT DISTINCT lat FROM era ORDER BY lat",
    "SELECT DISTINCT kind, lat FROM era ORDER BY lat DESC, kind LIMIT 3",
    "WITH q AS (SELECT * FROM era WHERE lat > 0) SELECT max(plain) FROM q",
    "SELECT kind, avg(plain) AS a FROM era GROUP BY kind HAVING avg(plain) > 5 ORDER BY a",
    "SELECT lat, sum(short) AS s FROM era WHERE plain > 5 GROUP BY lat ORDER BY s DESC LIMIT 2",
    "SELECT lat, avg(plain) - min(plain) AS d FROM era GROUP BY 1 ORDER BY 1 -- a comment",
    "SELECT max(plain) AS m FROM era UNION ALL SELECT min(plain) FROM era;",
    "SELECT lat, plain - avg(plain) OVER (PARTITION BY lat) AS a FROM era",
    "SELECT sqrt(avg(plain * plain)) AS r FROM era WHERE zone = 1",
    "SELECT * FROM (SELECT lat, avg(plain) AS a FROM era GROUP BY lat) x WHERE a > 5 ORDER BY lat",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_split_or_pruned(lf, table, text):
    query = pl.SQLContext(era=lf, s=S).execute(text)
    done = rewrite(query)
    assert any(part.split for part in done.parts) or any(join.keys for join in done.joins), (done.parts, done.joins)
    expected = pl.SQLContext(era=table, s=S).execute(text).collect()
    assert_frame_equal(done.query.collect(), expected, check_row_order="ORDER BY" in text, rel_tol=1e-5, abs_tol=1e-4)


def test_other_ways_to_write_sql(lf, table):
    era = lf  # noqa: F841  the text names it
    named = pl.sql("SELECT lat, avg(plain) AS m FROM era GROUP BY lat ORDER BY lat")
    of_frame = lf.sql("SELECT lat, avg(plain) AS m FROM self GROUP BY lat ORDER BY lat")
    nested = of_frame.sql("SELECT max(m) AS m FROM self").sql("SELECT m + 1 AS m FROM self")
    for query in (named, of_frame, nested):
        assert all(part.split for part in rewrite(query).parts[-1:])
    assert_frame_equal(rd.collect(named), rd.collect(of_frame))
    assert rd.collect(nested).item() == pytest.approx(rd.collect(named)["m"].max() + 1)


def test_steps_above_and_below_sql(lf, table):
    def ask(t):
        return t.filter(pl.col("lat") > 0).sql("SELECT lat, plain FROM self").group_by("lat").agg(pl.col("plain").max())

    assert rewrite(ask(lf)).parts[0].split
    assert_frame_equal(rd.collect(ask(lf)), ask(table).collect(), check_row_order=False)


def test_a_table_of_the_engines_name_is_left_to_polars(lf):
    query = pl.SQLContext(frames={_TABLE: lf}).execute("SELECT max(plain) FROM rainbear_dask_query")
    assert rewrite(query).query is query


def test_wrong_sql_raises_polars_own_error(lf):
    with pytest.raises(pl.exceptions.SQLInterfaceError, match="nowhere"):
        rd.collect(pl.SQLContext(era=lf).execute("SELECT * FROM nowhere"))
    with pytest.raises(pl.exceptions.PolarsError, match="nothing"):
        rd.collect(pl.SQLContext(era=lf).execute("SELECT nothing FROM era"))


@pytest.mark.parametrize("ordered", [False, True])
def test_conditions_of_groups(lf, table, ordered):
    def ask(t):
        groups = t.group_by("lat", maintain_order=ordered).having(pl.col("plain").max() > 6.5, pl.len() > 3)
        return groups.agg(pl.col("plain").mean())

    assert rewrite(ask(lf)).parts[0].split
    assert_frame_equal(rd.collect(ask(lf)), ask(table).collect(), check_row_order=ordered, rel_tol=1e-5)
    by_median = lf.group_by("lat").having(pl.col("plain").median() > 5).agg(pl.len())
    assert rewrite(by_median).query is by_median


def test_distinct_rows_of_a_stable_sort(lf, table):
    def by_all(t):
        return t.select("kind", "lat").sort("lat", "kind", maintain_order=True).unique(maintain_order=True)

    def by_one(t):
        return t.select("kind", "lat").sort("lat", maintain_order=True).unique(maintain_order=True)

    assert rewrite(by_all(lf)).parts[0].split
    assert rewrite(by_one(lf)).parts[0].split is None
    for ask in (by_all, by_one):
        assert_frame_equal(rd.collect(ask(lf)), ask(table).collect())
