"""Which parts of a query are split, and that everything else runs as it does without the engine."""

import pickle
from unittest import mock

import numpy as np
import polars as pl
import pytest
from polars.exceptions import InvalidOperationError
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.aggregation import cohorts, question
from rainbear_dask.engine import serialized
from rainbear_dask.engine.rewriting import rewrite

c = pl.col


@pytest.fixture
def lf(url):
    return rd.scan_zarr(url)


SMALL = pl.LazyFrame({"kind": ["a", "b"], "word": ["x", "y"]})
SPLIT, WHOLE = True, False

FORMS = {
    # split
    "select": (SPLIT, lambda t: t.select(c("plain").mean(), pl.len())),
    "several columns": (SPLIT, lambda t: t.select(c("plain", "numbers", "short").max())),
    "selector": (SPLIT, lambda t: t.drop("kind", "time").select(pl.selectors.float().min())),
    "suffix": (SPLIT, lambda t: t.group_by("lat").agg(c("plain", "masked").mean().name.suffix("_mean"))),
    "arithmetic": (SPLIT, lambda t: t.group_by("lat").agg((c("plain").max() - c("plain").min()).alias("range"))),
    "weighted mean": (
        SPLIT,
        lambda t: t.group_by("time").agg((c("plain") * c("lat").abs()).sum() / c("lat").abs().sum()),
    ),
    "weighted sum and mean": (
        SPLIT,
        lambda t: t.group_by("lat").agg(
            (c("masked") * c("lat").abs()).sum().alias("sum"), (c("masked") * c("lat").abs()).mean().alias("mean")
        ),
    ),
    "filtered aggregate": (SPLIT, lambda t: t.group_by("lat").agg(c("plain").filter(c("plain") > 5).len())),
    "count of a table": (SPLIT, lambda t: t.drop("lat", "time").count()),
    "count over a threshold": (SPLIT, lambda t: t.group_by("lat").agg((c("plain") > 5).sum())),
    "key of one coordinate": (SPLIT, lambda t: t.group_by(c("time").dt.date()).agg(c("plain").std())),
    "key of several coordinates": (
        SPLIT,
        lambda t: t.group_by((c("lat") > 0) & (c("lon") > 5)).agg(c("plain").var()),
    ),
    "2-D coordinate": (SPLIT, lambda t: t.group_by("zone").agg(c("plain").mean())),
    "struct key": (SPLIT, lambda t: t.group_by(pl.struct("lat", "kind")).agg(c("plain").sum())),
    "Boolean aggregates": (SPLIT, lambda t: t.group_by("lat").agg(c("flag").any(), all=c("flag").all())),
    "value filter": (SPLIT, lambda t: t.filter(c("plain") > 5.5).group_by("lat").agg(c("numbers").sum())),
    "filters in a row": (SPLIT, lambda t: t.filter(c("lat") > 0).filter(c("masked") < 3).select(pl.len())),
    "with_columns": (SPLIT, lambda t: t.with_columns(k=c("plain") - 273.15).group_by("lat").agg(c("k").mean())),
    "select below": (SPLIT, lambda t: t.select("lat", x=c("plain") * 2).group_by("lat").agg(c("x").mean())),
    "rename": (SPLIT, lambda t: t.rename({"plain": "p"}).group_by("lat").agg(c("p").mean())),
    "drop": (SPLIT, lambda t: t.drop("plain").select(c("numbers").mean())),
    "cast": (SPLIT, lambda t: t.cast({"plain": pl.Float64}).select(c("plain").mean())),
    "unique": (SPLIT, lambda t: t.select("lat", "kind").unique()),
    "unique in order": (SPLIT, lambda t: t.select("lon", "lat").unique(maintain_order=True)),
    "groups in order": (SPLIT, lambda t: t.group_by("lon", "kind", maintain_order=True).agg(c("plain").sum())),
    "mean of a table": (SPLIT, lambda t: t.select("plain", "short").mean()),
    "std of a table": (SPLIT, lambda t: t.filter(c("lat") > 0).select("plain", "short").std()),
    "null_count of a table": (SPLIT, lambda t: t.null_count()),
    "sort above": (SPLIT, lambda t: t.group_by("lat").agg(c("plain").mean()).sort("plain", descending=True).head(2)),
    "join above": (SPLIT, lambda t: t.group_by("kind").agg(c("plain").mean()).join(SMALL, on="kind")),
    "filter above": (SPLIT, lambda t: t.group_by("lat").agg(c("plain").mean()).filter(c("lat") > 0)),
    "two in a concat": (
        SPLIT,
        lambda t: pl.concat([t.select(c("plain").mean()), t.filter(c("lat") > 0).select(c("plain").mean())]),
    ),
    "time range": (SPLIT, lambda t: t.select(c("time").min(), end=c("time").max())),
    "group by all dimensions": (SPLIT, lambda t: t.group_by("time", "lat", "lon").agg(c("plain").mean())),
    "string of a coordinate": (SPLIT, lambda t: t.group_by("lat").agg(c("kind").count())),
    "arranged below": (SPLIT, lambda t: t.sort("plain").group_by("lat").agg(c("plain").mean())),
    "windows in order": (SPLIT, lambda t: t.group_by_dynamic("time", every="1d").agg(c("plain").mean(), pl.len())),
    "filtered windows in order": (
        SPLIT,
        lambda t: (
            t.filter(c("plain") > 5.5, c("time").dt.day() != 31)
            .sort("time")
            .group_by_dynamic("time", every="12h", offset="1h", closed="right", label="right")
            .agg(c("plain", "short").max())
        ),
    ),
    "windows of an expression in order": (
        SPLIT,
        lambda t: t.with_columns(c("time").cast(pl.Datetime("us"))).group_by_dynamic("time", every="1mo").agg(pl.len()),
    ),
    "windows of numbers in order": (
        SPLIT,
        lambda t: (
            t.with_columns(n=c("time").dt.epoch("s")).sort("n").group_by_dynamic("n", every="100000i").agg(pl.len())
        ),
    ),
    "inner join below": (SPLIT, lambda t: t.join(SMALL, on="kind").group_by("word").agg(c("plain").mean())),
    "left join below": (SPLIT, lambda t: t.join(SMALL, on="kind", how="left").group_by("word").agg(pl.len())),
    "semi join below": (SPLIT, lambda t: t.join(SMALL, on="kind", how="semi").group_by("kind").agg(pl.len())),
    "anti join below": (SPLIT, lambda t: t.join(SMALL, on="kind", how="anti").group_by("lat").agg(pl.len())),
    "anti join with null keys": (
        SPLIT,
        lambda t: t.join(pl.LazyFrame({"zone": [1.0, None]}), on="zone", how="anti").group_by("zone").agg(pl.len()),
    ),
    "join with values": (
        SPLIT,
        lambda t: (
            t.join(
                pl.LazyFrame({"y": [60.0, 0.0, None, -60.0], "plain": [1.0, 2.0, 3.0, None]}),
                left_on="lat",
                right_on="y",
                how="left",
            )
            .with_columns(twice=c("plain_right") * 2)
            .group_by("lon")
            .agg((c("plain") * c("plain_right")).sum(), c("twice").mean(), c("plain_right").null_count().alias("n"))
        ),
    ),
    "join with a filtered table": (
        SPLIT,
        lambda t: t.join(SMALL.filter(c("word") == "x"), on="kind").filter(c("plain") > 5).select(c("plain").sum()),
    ),
    # as without the engine
    "join that multiplies rows": (
        WHOLE,
        lambda t: t.join(pl.concat([SMALL, SMALL]), on="kind").group_by("word").agg(c("plain").mean()),
    ),
    "join by two keys": (
        WHOLE,
        lambda t: t.join(pl.LazyFrame({"kind": ["a"], "lat": [60.0]}), on=["kind", "lat"]).select(c("plain").sum()),
    ),
    "full join": (WHOLE, lambda t: t.join(SMALL, on="kind", how="full").select(c("plain").sum())),
    "join of scans": (WHOLE, lambda t: t.join(t.select("lat", "byte"), on="lat").select(c("plain").sum())),
    "windows that overlap": (
        WHOLE,
        lambda t: t.group_by_dynamic("time", every="1d", period="2d").agg(c("plain").mean()),
    ),
    "windows with gaps": (WHOLE, lambda t: t.group_by_dynamic("time", every="1d", period="6h").agg(pl.len())),
    "windows by group": (
        WHOLE,
        lambda t: t.group_by_dynamic("time", every="1d", group_by="kind").agg(c("plain").mean()),
    ),
    "windows with bounds": (
        WHOLE,
        lambda t: t.group_by_dynamic("time", every="1d", include_boundaries=True).agg(c("plain").mean()),
    ),
    "windows from the first row": (
        WHOLE,
        lambda t: t.group_by_dynamic("time", every="1d", start_by="datapoint").agg(c("plain").mean()),
    ),
    "windows labelled by a row": (
        WHOLE,
        lambda t: t.group_by_dynamic("time", every="1d", label="datapoint").agg(c("plain").mean()),
    ),
    "windows of a sorted variable": (
        WHOLE,
        lambda t: t.sort("turned").group_by_dynamic("turned", every="10i").agg(c("plain").mean()),
    ),
    "rolling": (WHOLE, lambda t: t.rolling("time", period="1d").agg(c("plain").sum())),
    "first rows of a sort": (SPLIT, lambda t: t.sort("plain").head(3).select(c("plain").sum())),
    "order after a sort": (
        WHOLE,
        lambda t: t.sort("plain", "lat", "lon").group_by("lat", maintain_order=True).agg(c("plain").max()),
    ),
    "key of a variable": (WHOLE, lambda t: t.group_by(c("plain").round()).agg(pl.len())),
    "median": (WHOLE, lambda t: t.group_by("lat").agg(c("plain").median())),
    "another ddof": (WHOLE, lambda t: t.group_by("lat").agg(c("plain").std(ddof=0))),
    "n_unique": (WHOLE, lambda t: t.select(c("short").n_unique())),
    "first": (WHOLE, lambda t: t.group_by("lat").agg(c("plain").first())),
    "values": (WHOLE, lambda t: t.group_by("lat").agg(c("plain").sort())),
    "shifted": (WHOLE, lambda t: t.select(c("plain").shift().sum())),
    "a running sum of groups": (
        WHOLE,
        lambda t: t.group_by("lat", maintain_order=True).agg(c("plain").sum().cum_sum()),
    ),
    "groups beside each other": (WHOLE, lambda t: t.select(c("plain").sum().shift())),
    "filter by a mean": (WHOLE, lambda t: t.filter(c("plain") > c("plain").mean()).select(pl.len())),
    "median over": (WHOLE, lambda t: t.select((c("plain") - c("plain").median().over("lat")).sum())),
    "head below": (WHOLE, lambda t: t.head(20).select(c("plain").sum())),
    "min of texts": (WHOLE, lambda t: t.select(c("kind").min())),
    "strict cast in a filter": (
        WHOLE,
        lambda t: t.filter(c("turned").cast(pl.Int8).is_in([1, 2]), c("lat") > 0).select(pl.len()),
    ),
    "order after a value filter": (
        WHOLE,
        lambda t: t.filter(c("plain") > 5).group_by("lon", maintain_order=True).agg(pl.len()),
    ),
    "literal": (WHOLE, lambda t: t.select(pl.lit(3), c("plain").sum())),
    "nothing to aggregate": (None, lambda t: t.filter(c("lat") > 0).select("plain")),
}


@pytest.mark.parametrize("name", FORMS)
def test_named_forms(lf, url, name):
    expected, ask = FORMS[name]
    done = rewrite(ask(lf))
    found = {part.split is not None for part in done.parts}
    assert found == ({expected} if expected is not None else set())
    assert expected is not False or done.parts[0].reason
    frame = rd.scan_zarr(url).collect().lazy()
    ordered = "order" in name or "sort" in name
    assert_frame_equal(done.query.collect(), ask(frame).collect(), check_row_order=ordered, rel_tol=1e-5, abs_tol=1e-4)


def test_explain_says_what_is_split_and_why_the_rest_is_not(lf):
    said = rd.explain(lf.group_by("lat").agg(c("plain").mean()))
    assert "GroupBy: split in array space: plain by lat, at most 5 groups" in said
    said = rd.explain(lf.group_by("lat").agg(c("plain").median()))
    assert "GroupBy: not split, because column 'plain' is not aggregated" in said
    said = rd.explain(lf.select(c("plain").shift().sum()))
    assert "Select: not split, because" in said
    assert "needs other rows" in said
    assert rd.explain(lf.select("plain")).split == ()


def test_a_query_without_a_scan_is_left_alone():
    frame = pl.LazyFrame({"x": [1, 2]}).select(c("x").sum())
    assert rd.rewrite(frame) is frame
    wrong = pl.LazyFrame({"x": [1, 2]}).select(c("y").sum())
    assert rd.rewrite(wrong) is wrong


def test_a_scan_that_is_not_ours_is_left_alone(lf):
    def source(with_columns, predicate, n_rows, batch_size):
        yield pl.DataFrame({"x": [1, 2]})

    other = register_io_source(source, schema={"x": pl.Int64}, is_pure=True)
    both = pl.concat([other.select(c("x").sum()), lf.select(x=c("short").cast(pl.Int64).sum())])
    done = rewrite(both)
    assert [part.split is not None for part in done.parts] == [False, True]
    assert_frame_equal(done.query.collect(), both.collect())


class TestUnknownLayouts:
    """Whatever Polars changes in its serialized plans, a query runs as without the engine."""

    @pytest.fixture
    def query(self, lf):
        return lf.filter(c("lat") > 0).group_by("lat").agg(c("plain").mean())

    def is_left_alone(self, query):
        done = rewrite(query)
        assert done.query is query
        assert all(part.split is None and part.reason for part in done.parts)
        return done.parts[0].reason

    def test_another_header(self, query):
        with mock.patch.object(serialized, "_own_header", return_value=b"DSL_VERSION" + bytes(68)):
            assert "unknown" in self.is_left_alone(query)

    @pytest.mark.parametrize("kind", ["GroupBy", "Filter", "PythonScan"])
    @pytest.mark.parametrize("change", ["new field", "other name", "list"])
    def test_another_field_of_a_node(self, query, kind, change):
        plan = serialized.LogicalPlan(query)
        (node,) = (each for each in plan.nodes(plan.root) if serialized.kind_of(each) == kind)
        fields = node[kind]
        if change == "new field":
            fields["brand_new"] = True
        elif change == "other name":
            fields["renamed"] = fields.pop(
                "keys" if kind == "GroupBy" else "predicate" if kind == "Filter" else "options"
            )
        else:
            node[kind] = list(fields.values())
        with mock.patch("rainbear_dask.engine.rewriting.LogicalPlan", return_value=plan):
            self.is_left_alone(query)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("maintain_order", 1),
            ("apply", []),
            ("predicates", [{"Column": "lat"}]),
            ("options", {"dynamic": None, "rolling": None, "slice": [0, 1]}),
        ],
    )
    def test_a_changed_option(self, query, option, value):
        plan = serialized.LogicalPlan(query)
        serialized.fields_of(plan.root)[option] = value
        with mock.patch("rainbear_dask.engine.rewriting.LogicalPlan", return_value=plan):
            self.is_left_alone(query)

    def test_a_plan_that_is_no_message_pack(self, query):
        with mock.patch.object(serialized.msgpack, "unpackb", side_effect=ValueError("extra data")):
            self.is_left_alone(query)

    def test_a_plan_without_slots(self, query):
        with mock.patch.object(serialized.msgpack, "unpackb", return_value={"root": 3}):
            self.is_left_alone(query)

    def test_a_long_plan(self, query):
        with mock.patch.object(serialized, "_MAX_BYTES", 10):
            assert "4 MiB" in self.is_left_alone(query)

    def test_a_query_that_does_not_serialize(self, lf):
        class Local:
            def __reduce__(self):
                raise TypeError("stays here")

        held = Local()
        query = lf.select(c("plain").map_elements(lambda x: (held, x)[1], return_dtype=pl.Float64).sum())
        assert "stays here" in self.is_left_alone(query)


def test_a_pickled_query_is_split_too(lf):
    query = pickle.loads(pickle.dumps(lf.group_by("lat").agg(c("plain").mean())))
    assert rewrite(query).parts[0].split
    again = pickle.loads(pickle.dumps(rd.rewrite(query)))
    assert_frame_equal(again.collect().sort("lat"), query.collect().sort("lat"), rel_tol=1e-5)


def test_the_query_itself_stays_as_it_is(lf):
    query = lf.group_by("lat").agg(c("plain").mean())
    rd.rewrite(query)
    assert "SCAN ZARR" in query.explain()


def test_an_error_of_a_part_is_polars_own(lf):
    overflows = lf.select(c("short").cast(pl.Int8).sum())
    with pytest.raises(InvalidOperationError, match="conversion from `i16` to `i8` failed"):
        rd.collect(overflows)

    def fails(_):
        raise KeyError("from the user")

    by_hand = lf.select(c("plain").map_elements(fails, return_dtype=pl.Float64).sum())
    with pytest.raises(Exception, match="from the user"):
        rd.collect(by_hand)


def test_a_cast_that_fails_only_on_dropped_rows_does_not_fail(lf, url):
    query = lf.filter(c("short").is_between(-100, 100)).select(c("short").cast(pl.Int8).sum())
    assert rewrite(query).parts[0].split
    expected = rd.scan_zarr(url).collect().lazy().filter(c("short").is_between(-100, 100))
    assert_frame_equal(rd.collect(query), expected.select(c("short").cast(pl.Int8).sum()).collect())


def test_a_key_that_fails_on_dropped_labels_does_not_fail(lf):
    query = lf.filter(c("lat").abs() < 1).group_by((c("lat") * 4).cast(pl.Int8)).agg(pl.len())
    assert rewrite(query).parts[0].split
    assert rd.collect(query).rows() == [(0, 42)]
    fails = lf.group_by((c("lat") * 4).cast(pl.Int8)).agg(pl.len())
    assert "fails on a label" in rewrite(fails).parts[0].reason


def test_limits_count_the_answer(url):
    query = rd.scan_zarr(url, max_rows=5).group_by("lat").agg(c("plain").mean())
    assert rd.collect(query).height == 5
    with pytest.raises(
        rd.exceptions.PlanTooLargeError, match=r"max_rows exceeded: the answer from .* has 7 rows, limit"
    ):
        rd.collect(rd.scan_zarr(url, max_rows=5).group_by("time").agg(c("plain").mean()))
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="max_chunks_to_read"):
        rd.collect(rd.scan_zarr(url, max_chunks_to_read=1).group_by("lon").agg(c("plain").mean()))


def test_too_many_groups_are_left_alone(lf, monkeypatch):
    monkeypatch.setattr(cohorts, "MAX_GROUPS", 3)
    assert "5 groups share chunks, and 3 are" in rewrite(lf.group_by("lat").agg(c("plain").mean())).parts[0].reason


def test_too_many_labels_are_left_alone(lf, monkeypatch):
    monkeypatch.setattr(question, "MAX_BLOCK_CELLS", 3)
    assert "more than 3" in rewrite(lf.group_by("lat").agg(c("plain").mean())).parts[0].reason


def test_an_answer_reads_the_chunks_of_its_filter_alone(lf):
    query = lf.filter(c("lat") == 60).group_by("lon").agg(c("plain").mean(), pl.len())
    (part,) = rewrite(query).parts
    assert part.split.question.plan.counts.chunks_kept == {"plain": 6}
    assert part.split.question.blocks[0].keys.height == 4
    coordinates_only = lf.group_by("lat").agg(pl.len())
    (part,) = rewrite(coordinates_only).parts
    assert part.split.question.plan.arrays == ()
    assert len(list(part.split.question.tasks())) == 1


def test_groups_that_no_row_reaches_are_absent(lf):
    narrow = lf.filter(c("lat") == 60, c("time").dt.hour() < 0)
    assert rd.collect(narrow.group_by("lat").agg(c("plain").sum())).height == 0
    assert rd.collect(narrow.select(c("plain").sum(), c("short").min(), pl.len().alias("n"))).rows() == [(0.0, None, 0)]


def test_sums_of_integers_wrap_as_in_polars(tmp_path):
    import xarray as xr  # noqa: PLC0415

    data = xr.Dataset(
        {"x": ("i", np.full(6, 2**62, "i8"), {}, {"chunks": (2,)}), "y": ("i", np.full(6, 2**31 - 1, "i4"))}
    )
    data.to_zarr(tmp_path / "big.zarr", zarr_format=2)
    query = rd.scan_zarr(tmp_path / "big.zarr").select(c("x", "y").sum())
    assert rewrite(query).parts[0].split
    assert_frame_equal(rd.collect(query), rd.scan_zarr(tmp_path / "big.zarr").collect().select(c("x", "y").sum()))
