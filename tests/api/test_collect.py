"""`rd.collect`, `rd.rewrite` and `rd.Engine`: each way to run a query takes the split one, with the same result."""

import asyncio

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.aggregation import answer
from tests.support.stores import write_field

c = pl.col


@pytest.fixture
def query(tmp_path):
    write_field(str(tmp_path / "field.zarr"), chunks=(2, 12, 20))
    lf = rd.scan_zarr(tmp_path / "field.zarr")
    return lf.group_by("lat").agg(c("t2m").mean(), pl.len()).sort("lat")


@pytest.fixture
def answers(monkeypatch):
    """Each answer that was computed in parts."""
    found, finish = [], answer.Answer.frame

    def noted(self):
        found.append(self)
        return finish(self)

    monkeypatch.setattr(answer.Answer, "frame", noted)
    return found


def assert_is_answer(actual, query):
    assert_frame_equal(actual, query.collect(engine="in-memory"), rel_tol=1e-5)


@pytest.mark.parametrize("options", [{}, {"engine": "streaming"}, {"engine": "in-memory"}])
def test_collect(query, answers, options):
    assert_is_answer(rd.collect(query, **options), query)
    assert len(answers) == 1


def test_rewrite_collects_as_often_as_one_likes(query, answers):
    rewritten = rd.rewrite(query)
    assert_frame_equal(rewritten.collect(), rewritten.collect(engine="streaming"))
    assert_is_answer(rewritten.select("lat").collect(), query.select("lat"))
    assert rewritten.head(2).collect().height == 2
    assert len(answers) == 4


def test_an_engine_for_one_query(query, answers):
    assert_is_answer(query.collect(engine=rd.Engine()), query)
    assert len(answers) == 1
    assert rd.Engine().name == "in-memory"


def test_plain_calls_with_the_engine_as_affinity(query, answers, tmp_path):
    expected = query.collect(engine="in-memory")
    with pl.Config():
        pl.Config.set_engine_affinity(rd.Engine())
        found = [
            query.collect(),
            *pl.collect_all([query, query.filter(c("lat") > 0)])[:1],
            pl.concat(query.collect_batches()),
            asyncio.run(await_it(query)),
        ]
        query.sink_parquet(tmp_path / "x.parquet")
        query.sink_ipc(tmp_path / "x.arrow")
        query.sink_csv(tmp_path / "x.csv", float_precision=9)
        query.sink_ndjson(tmp_path / "x.json")
        batches = []
        query.sink_batches(batches.append)
    assert len(answers) == 10
    read = [pl.read_parquet(tmp_path / "x.parquet"), pl.read_ipc(tmp_path / "x.arrow")]
    texts = [
        pl.read_csv(tmp_path / "x.csv", schema=expected.schema),
        pl.read_ndjson(tmp_path / "x.json", schema=expected.schema),
    ]
    for frame in [*found, *read, *texts, pl.concat(batches)]:
        assert_frame_equal(frame, expected, rel_tol=1e-5)


async def await_it(query):
    return await query.collect_async()


def test_all_queries_awaited_together(query, answers):
    async def both():
        return await pl.collect_all_async([query, query], engine=rd.Engine())

    for frame in asyncio.run(both()):
        assert_is_answer(frame, query)
    assert len(answers) == 2


def test_a_handle_of_a_result(query, answers):
    assert_is_answer(query.execute(engine=rd.Engine()).lazy().collect(engine="in-memory"), query)
    assert len(answers) == 1


def test_queries_without_a_scan_run_as_ever():
    frame = pl.LazyFrame({"x": [1, 2]})
    assert frame.select(c("x").sum()).collect(engine=rd.Engine()).item() == 3
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        frame.select("y").collect(engine=rd.Engine())
