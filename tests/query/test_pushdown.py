"""Canaries: what `query.pushdown` relies on in Polars. Each says which behaviour a release has changed."""

import pickle

import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.io.plugins import register_io_source

import rainbear_dask as rd
from rainbear_dask.query import pushdown
from rainbear_dask.query.pushdown import Request, pushed_down, recorder_of, request_of

c = pl.col
POSITIVE = '[(col("x")) > (1.0)]'
SCHEMA = {"x": pl.Float64(), "n": pl.Int64(), "text": pl.String()}
CHANGED = f"Polars {pl.__version__} changed what query/pushdown.py relies on: "


class Source:
    """A source that must never be called."""

    def __reduce__(self):
        return recorder_of(self) or (Source, ())

    def __call__(self, *_):
        raise AssertionError("a source was read")


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> pl.LazyFrame:
    path = tmp_path_factory.mktemp("pushdown") / "a.zarr"
    xr.Dataset({"v": ("x", np.arange(8.0))}, {"x": np.arange(8.0)}).to_zarr(path, consolidated=False)
    return rd.scan_zarr(path)


def lazy(source) -> pl.LazyFrame:
    return register_io_source(source, schema=SCHEMA, is_pure=True, explain_name="SCAN ZARR")


def parts(request):
    """Of a request, with its columns in a fixed order."""
    if request is None:
        return None
    return request.columns and sorted(request.columns), str(request.predicate), request.n_rows


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (lambda t: t, (None, "None", None)),
        (lambda t: t.select("n"), (["n"], "None", None)),
        (lambda t: t.filter(c.x > 1.0), (None, POSITIVE, None)),
        (lambda t: t.filter(c.x > 1.0).select("n"), (["n", "x"], POSITIVE, None)),
        (lambda t: t.head(3), (None, "None", 3)),
        (lambda t: t.head(3).filter(c.x > 1.0), (None, POSITIVE, 3)),  # the limit counts rows before the filter
        (lambda t: t.filter(False), None),  # the source is skipped
    ],
)
def test_what_polars_requests_of_a_source(query, expected):
    asked = request_of(query, SCHEMA)
    (found,) = [parts(request) for request in pushed_down(query(lazy(Source())))] or [None]
    for actual in (parts(asked), found):
        assert actual == expected, CHANGED + "projection, filter and limit reach a source as its arguments"


def test_a_limit_after_a_filter_is_not_pushed_down():
    request = request_of(lambda t: t.filter(c.x > 1.0).head(3), SCHEMA)
    assert request is not None
    assert request.n_rows is None, CHANGED + "a limit and a filter that reach a source together mean: first the limit"


def test_all_sources_start_before_a_frame_is_taken_and_each_is_known():
    first, second = Source(), Source()
    requests = pushed_down(lazy(first).join(lazy(second).filter(c.n > 0), on="x"))
    changed = CHANGED + "the streaming engine calls all sources first, and serialize() pickles each source"
    assert len(requests) == 2, changed
    assert {id(request.source) for request in requests} == {id(first), id(second)}, changed


def test_a_source_pickles_as_itself_outside_of_a_recording():
    assert type(pickle.loads(pickle.dumps(Source()))) is Source
    assert recorder_of(Source()) is None


def test_a_condition_that_may_fail_is_kept_only_beside_another():
    changed = CHANGED + "a strict cast is pushed down alone, and kept beside another condition"
    cast = c.text.cast(pl.Int64) > 1
    alone = request_of(lambda t: t.filter(cast), SCHEMA)
    beside = request_of(lambda t: t.filter(cast).filter(c.x.is_null()), SCHEMA)
    assert alone is not None, changed
    assert alone.predicate is not None, changed
    assert beside is not None, changed
    assert beside.predicate.meta.root_names() == ["x"], changed
    assert [part.meta.root_names() for part in pushdown.fallible_parts(cast, SCHEMA)] == [["text"]], changed


def test_what_needs_other_rows_is_kept():
    changed = CHANGED + "a filter that needs other rows is never pushed down"
    for needs_rows in (c.x > c.x.mean(), c.x.shift() > 0, c.x.map_batches(lambda s: s, return_dtype=pl.Float64) > 0):
        assert pushdown.elementwise(needs_rows, SCHEMA) is None, changed
        assert pushdown.pushed_part(needs_rows, SCHEMA) is None, changed


def test_operands_are_popped_last_first():
    changed = CHANGED + "Expr.meta.pop gives the operands of a function in reverse"
    assert [part.meta.is_literal() for part in (c.x > 1.0).meta.pop()] == [True, False], changed
    assert len(c.x.is_between(1, 2).meta.pop()) == 3, changed


def test_the_steps_that_explain_shows(scan):
    changed = CHANGED + "the first words of a step in LazyFrame.explain(): 'simple π', 'PYTHON[', 'FILTER'"
    kept = scan.filter((c.v.cast(pl.String).cast(pl.Int64) > 1) & (c.x > 1.0))
    for query in (scan, scan.filter(c.x > 1.0), scan.select("v")):
        steps = pushdown.optimized_steps(pickle.loads(pickle.dumps(query)))
        assert pushdown.ends_in_scan(steps), changed
        assert not pushdown.ends_in_filter(steps), changed
    for query in (kept, kept.select("v")):
        steps = pushdown.optimized_steps(pickle.loads(pickle.dumps(query)))
        assert pushdown.ends_in_filter(steps), changed
    assert not pushdown.ends_in_scan(pushdown.optimized_steps(scan.with_columns(c.v + 1))), changed
    assert not pushdown.ends_in_scan(pushdown.optimized_steps(scan.sort("v"))), changed


def test_a_request_is_plain_data():
    assert Request(["x"], None, 3) == (["x"], None, 3, None)
