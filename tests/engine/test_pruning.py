"""Keys of small tables prune the scans that they are joined with, and change no row of the result."""

import pickle
from unittest import mock

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.engine import keys as engine_keys
from rainbear_dask.engine import pruning
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.indexing.selection import Selection

c = pl.col
START = np.datetime64("2020-01-30T06", "ns")
SMALL = pl.LazyFrame(
    {"lat": [60.0, 60.0, 30.0, None, 7.0], "lon": [10.0, 0.0, 350.0, 10.0, 10.0], "w": [1, 2, 3, 4, 5]}
)
POINTS = pl.LazyFrame(
    {"when": START + np.array([0, 27, 27]) * np.timedelta64(1, "h"), "lat": [60.0, 30.0, -60.0], "w": [1, 2, 3]}
)
LATER = POINTS.with_columns(c("when") + pl.duration(hours=3).cast(pl.Duration("ns"))).sort("when")


@pytest.fixture(autouse=True, scope="module")
def few_keys_are_few():
    """The stores of these tests have few rows for each key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "ROWS_FOR_A_KEY", 0)
        yield


@pytest.fixture
def lf(url):
    return rd.scan_zarr(url)


@pytest.fixture(scope="module")
def table(url):
    return rd.scan_zarr(url).collect()


FORMS = {
    "inner": lambda t: t.join(SMALL, on=["lat", "lon"]),
    "inner, scan on the right": lambda t: SMALL.join(t, on=["lat", "lon"]),
    "semi": lambda t: t.join(SMALL, on=["lat", "lon"], how="semi"),
    "semi, scan on the right": lambda t: SMALL.join(t, on=["lat", "lon"], how="semi"),
    "anti, scan on the right": lambda t: SMALL.join(t, on=["lat", "lon"], how="anti"),
    "left, scan on the right": lambda t: SMALL.join(t, on=["lat", "lon"], how="left"),
    "right": lambda t: t.join(SMALL, on=["lat", "lon"], how="right"),
    "in order": lambda t: t.join(SMALL, on=["lat", "lon"], maintain_order="right_left"),
    "null beside null": lambda t: SMALL.join(t, left_on="lat", right_on="zone", how="left", nulls_equal=True),
    "coalesced": lambda t: SMALL.join(t, on=["lat"], how="left", coalesce=False, suffix="_scan"),
    "other names": lambda t: t.join(POINTS, left_on=["time", "lat"], right_on=["when", "lat"]),
    "expressions": lambda t: t.join(
        POINTS, left_on=[c("time").dt.date(), c("lat").abs()], right_on=[c("when").dt.date(), c("lat").abs()]
    ),
    "a key of a variable": lambda t: t.join(
        pl.LazyFrame({"lat": [60.0, 30.0], "byte": [3, 4]}, schema_overrides={"byte": pl.UInt8}), on=["lat", "byte"]
    ),
    "steps below": lambda t: (
        t.filter(c("plain") > 5)
        .with_columns(x=c("plain") * 2)
        .rename({"lat": "y"})
        .join(SMALL, left_on="y", right_on="lat")
    ),
    "a filtered table": lambda t: t.join(SMALL.filter(c("w") < 3).unique(maintain_order=True), on=["lat", "lon"]),
    "a median above": lambda t: t.join(SMALL, on=["lat", "lon"]).group_by("w").agg(c("plain").median()).sort("w"),
    "two joins": lambda t: t.join(SMALL.select("lat").head(1), on="lat").join(POINTS, left_on="time", right_on="when"),
    "one of two": lambda t: pl.concat([t.join(SMALL, on="lat", how="semi"), t]),
    "an empty table": lambda t: t.join(SMALL.filter(c("w") > 100), on=["lat", "lon"]),
    "backward": lambda t: LATER.join_asof(t.select("time", "plain"), left_on="when", right_on="time"),
    "forward": lambda t: LATER.join_asof(
        t.filter(c("lon") == 10).sort("time"), left_on="when", right_on="time", strategy="forward", by="lat"
    ),
    "nearest, which is later": lambda t: LATER.with_columns(
        c("when") + pl.duration(hours=3).cast(pl.Duration("ns"))
    ).join_asof(t.filter(c("lat") == 30).select("time", "short"), left_on="when", right_on="time", strategy="nearest"),
    "nearest": lambda t: LATER.join_asof(
        t.filter(c("lat") == 30).select("time", "short"),
        left_on="when",
        right_on="time",
        strategy="nearest",
        tolerance="5h",
    ),
}


@pytest.mark.filterwarnings("ignore:Sortedness of columns:UserWarning")
@pytest.mark.parametrize("name", FORMS)
def test_named_forms(lf, table, name):
    ask = FORMS[name]
    done = rewrite(ask(lf))
    assert done.joins
    assert all(join.keys for join in done.joins), done.joins
    assert done.query is not ask(lf)
    # the in-memory engine has one order of rows, which users see in rd.Engine
    actual = done.query.collect(engine="in-memory")
    assert_frame_equal(actual, ask(table.lazy()).collect(engine="in-memory"))
    assert_frame_equal(ask(lf).collect(engine=rd.Engine()), actual)


NOT_PRUNED = {
    "anti": lambda t: t.join(SMALL, on=["lat", "lon"], how="anti"),
    "left": lambda t: t.join(SMALL, on=["lat", "lon"], how="left"),
    "full": lambda t: t.join(SMALL, on=["lat", "lon"], how="full"),
    "cross": lambda t: t.join(SMALL, how="cross"),
    "asof, scan on the left": lambda t: t.select("time", "plain").join_asof(LATER, left_on="time", right_on="when"),
    "head below": lambda t: t.head(20).join(SMALL, on="lat"),
}


@pytest.mark.parametrize("name", NOT_PRUNED)
def test_sides_whose_rows_all_count(lf, table, name):
    ask = NOT_PRUNED[name]
    query = ask(lf)
    done = rewrite(query)
    assert done.query is query
    assert not done.joins
    assert_frame_equal(query.collect(), ask(table.lazy()).collect(), check_row_order=False)


REASONS = {
    "comes from a scan": lambda t: t.join(t.select("lat", "lon", "byte"), on=["lat", "lon"]),
    "no key is a function": lambda t: t.join(pl.LazyFrame({"plain": [1.0]}).cast(pl.Float32), on="plain"),
    "other rows than the nearest": lambda t: LATER.join_asof(
        t.filter(c("plain") > 5).select("time", "plain"), left_on="when", right_on="time"
    ),
    "another node than this join": lambda t: t.join(SMALL.unique(["lat"]), on="lat", validate="m:1"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(lf, table, reason):
    ask = REASONS[reason]
    query = ask(lf)
    done = rewrite(query)
    assert done.query is query
    assert reason in str(done.joins[0])
    assert reason in rd.explain(query)
    assert_frame_equal(query.collect(), ask(table.lazy()).collect(), check_row_order=False)


def test_a_table_of_too_many_rows_is_left_to_polars(lf, monkeypatch):
    monkeypatch.setattr(pruning, "MAX_PARTNERS", 4)
    (join,) = rewrite(lf.join(SMALL, on="lat")).joins
    assert "more than 4 rows" in join.reason


def test_keys_over_too_many_labels_are_left_to_polars(lf, monkeypatch):
    monkeypatch.setattr(engine_keys, "MAX_BLOCK_CELLS", 3)
    (join,) = rewrite(lf.join(SMALL, on="lat")).joins
    assert "more than 3 values" in join.reason


def test_a_source_of_the_user_is_read_once(lf, table):
    calls = []

    def source(with_columns, predicate, n_rows, batch_size):
        calls.append(1)
        yield pl.DataFrame({"lat": [60.0]})

    other = register_io_source(source, schema={"lat": pl.Float64})
    query = lf.join(other, on="lat")
    assert "comes from a scan" in rewrite(query).joins[0].reason
    assert not calls
    assert rd.collect(query).height == table.filter(c("lat") == 60).height


def test_a_table_that_changes_with_each_evaluation_is_evaluated_once(lf, table):
    random = pl.LazyFrame({"lat": [60.0, 30.0, 0.0, -30.0, -60.0]}).select(c("lat").shuffle().head(1))
    for _ in range(5):
        assert rd.collect(lf.join(random, on="lat").select("lat")).height == table.height // 5


@pytest.mark.parametrize("how", ["inner", "semi"])
def test_types_that_do_not_match_raise_polars_own_error(lf, how):
    query = lf.join(POINTS.cast({"when": pl.Datetime("ms")}), left_on="time", right_on="when", how=how)
    with pytest.raises(pl.exceptions.SchemaError, match="datatypes of join keys"):
        rd.collect(query)
    assert rd.collect(
        lf.join(POINTS.cast({"when": pl.Datetime("ns")}), left_on="time", right_on="when", how=how)
    ).height


def test_pruned_queries_pickle(lf):
    query = rd.rewrite(lf.join(SMALL, on=["lat", "lon"]))
    again = pickle.loads(pickle.dumps(query))
    assert_frame_equal(again.collect(), query.collect(), check_row_order=False)
    assert rd.explain(again).chunks_kept == rd.explain(query).chunks_kept


def test_explain_counts_the_chunks_after_pruning(lf):
    query = lf.join(SMALL.filter(c("w") == 1), on=["lat", "lon"]).select("time", "plain", "w")
    report = rd.explain(query)
    assert report.chunks_kept == 3
    assert report.chunks_total == 18
    assert "keys" in report
    assert "the scan reads the chunks of 1 rows of keys alone" in report
    assert rd.explain(rd.rewrite(query)).chunks_kept == 3


SIZES = {"time": 24, "lat": 20, "lon": 30}
CHUNKS = {"time": 4, "lat": 5, "lon": 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(5)
    labels = {dim: np.arange(float(n)) for dim, n in SIZES.items()}
    data = xr.Dataset({"x": (tuple(SIZES), rng.standard_normal(tuple(SIZES.values())))}, labels)
    url = tmp_path_factory.mktemp("keys") / "x.zarr"
    data.to_zarr(url, zarr_format=2, encoding={"x": {"chunks": tuple(CHUNKS.values())}})
    return url


def points_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame({dim: rng.integers(0, n, count).astype(float) for dim, n in SIZES.items()})


def chunks_of(points):
    return points.select((c(dim) // n).alias(dim) for dim, n in CHUNKS.items()).unique().height


@pytest.mark.parametrize("how", ["inner", "semi"])
@pytest.mark.parametrize("count", [0, 1, 7, 60, 2000])
@pytest.mark.parametrize("most", [1024, 150])
def test_chunks_of_combinations(store, monkeypatch, how, count, most):
    monkeypatch.setattr(Selection, "MAX_BOXES", most)
    points = points_of(count)
    lf = rd.scan_zarr(store)
    query = lf.join(points.lazy(), on=list(SIZES), how=how)
    report = rd.explain(query)
    assert report.chunks_kept == chunks_of(points)
    expected = lf.collect().lazy().join(points.lazy(), on=list(SIZES), how=how).collect(engine="in-memory")
    assert_frame_equal(rd.collect(query, engine="in-memory"), expected)


def test_chunks_of_some_dimensions(store):
    points = points_of(5).select("lat", "lon")
    query = rd.scan_zarr(store).join(points.lazy(), on=["lat", "lon"])
    chunks = points.select(c("lat") // 5, c("lon") // 6).unique().height
    assert rd.explain(query).chunks_kept == chunks * 6


def test_tasks_return_the_rows_of_keys_alone(store, monkeypatch):
    monkeypatch.setattr(Selection, "MAX_BOXES", 150)
    points = points_of(500).unique()
    query = rd.rewrite(rd.scan_zarr(store).join(points.lazy(), on=list(SIZES), how="semi"))
    (plan,) = rd.explain(query).plans
    rows = sum(len(rd_frame) for rd_frame in map(_frame, plan.tasks()))
    assert rows == points.height


def test_more_pairs_than_are_held_prune_each_dimension_by_itself(store, monkeypatch):
    monkeypatch.setattr(engine_keys, "_MAX_PAIRS", 10)
    points = points_of(20)
    query = rd.scan_zarr(store).join(points.lazy(), on=list(SIZES))
    parts = [points.select(c(dim) // n).n_unique() for dim, n in CHUNKS.items()]
    assert rd.explain(query).chunks_kept == np.prod(parts)
    assert rd.collect(query).height == points.height


def _frame(task):
    from rainbear_dask.execution.worker import make_frame  # noqa: PLC0415

    return make_frame(task)


LEFT_KEYS = [
    c("lat"),
    c("lon"),
    c("time"),
    c("time").dt.hour(),
    c("zone"),
    c("kind"),
    (c("lat") / 50).floor(),
    c("zone") + c("lat").sign(),
    c("byte"),
]


@st.composite
def joins(draw, table):
    """Return a query of a scan, joined with rows of its own keys, some of them changed or null."""
    left = draw(st.lists(st.sampled_from(LEFT_KEYS), min_size=1, max_size=3, unique_by=str))
    names = [f"k{number}" for number in range(len(left))]
    every = table.select(key.alias(name) for key, name in zip(left, names, strict=True))
    rows = draw(st.lists(st.integers(0, table.height - 1), max_size=6))
    small = every[rows] if rows else every.clear()
    if draw(st.booleans()):
        small = small.vstack(small.head(1).select(pl.lit(None, dtype).alias(n) for n, dtype in small.schema.items()))
    if draw(st.booleans()):
        small = small.with_columns(
            -c(name) if small.schema[name].is_float() else c(name) for name in small.columns
        )  # -0.0 is 0.0
    small = small.with_row_index("w").lazy()
    how = draw(st.sampled_from(["inner", "left", "right", "semi", "anti"]))
    scan_is_left = draw(st.booleans())
    nulls_equal = draw(st.booleans())
    order = draw(st.sampled_from(["none", "left_right", "right_left"])) if how == "inner" else "none"
    keep = draw(st.none() | st.sampled_from([c("plain") > 5.25, c("lat") > 0, c("zone") == 1]))

    def ask(t):
        t = t if keep is None else t.filter(keep)
        options = {"how": how, "nulls_equal": nulls_equal}
        if order != "none":
            options["maintain_order"] = order
        if scan_is_left:
            return t.join(small, left_on=left, right_on=names, **options)
        return small.join(t, left_on=names, right_on=left, **options)

    return ask, how


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_random_joins_equal_those_of_polars(url, table, data):
    ask, how = data.draw(joins(table), label="join")
    with (
        dask.config.set({"rainbear-dask.task-bytes": data.draw(st.sampled_from([1, 2**26]), label="bytes a task")}),
        mock.patch.object(Selection, "MAX_BOXES", data.draw(st.sampled_from([3, 1024]), label="boxes")),
        mock.patch.object(engine_keys, "_MAX_PAIRS", data.draw(st.sampled_from([3, 2**22]), label="pairs")),
    ):
        done = rewrite(ask(rd.scan_zarr(url)))
        note([str(join) for join in done.joins])
        event(f"{how}: {'pruned' if any(join.keys for join in done.joins) else 'as it is'}")
        actual = done.query.collect(engine="in-memory")
    assert_frame_equal(actual, ask(table.lazy()).collect(engine="in-memory"))


def test_as_many_keys_as_rows_are_left_to_polars(lf, table, monkeypatch):
    monkeypatch.setattr(pruning, "ROWS_FOR_A_KEY", 256)
    query = lf.join(table.lazy().select("time", "lat", "lon"), on=["time", "lat", "lon"], how="semi")
    (join,) = rewrite(query).joins
    assert "Polars joins faster" in str(join)
    assert_frame_equal(rd.collect(query), table)
