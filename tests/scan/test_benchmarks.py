"""The benchmarks run, on stores of a day, and all readers agree."""

import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import dask
import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks
import rainbear_dask as rd
from benchmarks import writing
from benchmarks.cluster import measure as measure_on_cluster
from benchmarks.dataframes import CHUNKS, QUESTIONS, to_parquet, write_matrix
from benchmarks.dataframes import measure as measure_dataframes
from benchmarks.engine import QUESTIONS as ENGINE_QUESTIONS
from benchmarks.engine import measure as measure_engine
from benchmarks.engine import report as report_engine
from benchmarks.engine import write as write_engine
from benchmarks.floor import QUESTIONS as FLOOR_QUESTIONS
from benchmarks.floor import STORES as FLOOR_STORES
from benchmarks.floor import floor, places
from benchmarks.floor import measure as measure_floor
from benchmarks.floor import report as report_floor
from benchmarks.geometries import GEOMETRIES
from benchmarks.groups import SMALL, climatology
from benchmarks.groups import check as check_groups
from benchmarks.groups import write as write_groups
from benchmarks.growth import GROWTHS, Series, ask_alone, ask_here
from benchmarks.growth import READERS as GROWN
from benchmarks.growth import measure as measure_growth
from benchmarks.growth import report as report_growth
from benchmarks.guard import MAX_CALLS, count_calls
from benchmarks.guard import QUESTIONS as GUARDED
from benchmarks.guard import report as report_guard
from benchmarks.memory import value_filter
from benchmarks.planning import CASES, ERA5, MILLIONS, PROJECTED, measured_alone
from benchmarks.planning import measure as measure_planning
from benchmarks.planning import report as report_planning
from benchmarks.points import STORES as POINT_STORES
from benchmarks.points import measure as measure_points
from benchmarks.points import report as report_points
from benchmarks.points import report_interpolars
from benchmarks.predicate_forms import planned
from benchmarks.problems import HOT, LAYOUTS, QUERIES
from benchmarks.queries import HEADER as QUERIES_HEADER
from benchmarks.queries import measure as measure_queries
from benchmarks.regions import TILES, polygons
from benchmarks.regions import measure as measure_regions
from benchmarks.regions import readers as readers_of_regions
from benchmarks.regions import report as report_regions
from benchmarks.repeated import STORES as REPEATED
from benchmarks.repeated import measure as measure_repeated
from benchmarks.repeated import report as report_repeated
from benchmarks.run import (
    READERS,
    Measure,
    Memory,
    Target,
    measure,
    memory_of,
    ours,
    report,
    report_memory,
    report_targets,
    targets_of,
)
from benchmarks.sql import JOBS, frames_of, write_stores
from benchmarks.sql import measure as measure_sql
from benchmarks.sql import report as report_sql
from benchmarks.statistics import STORES as STATISTICS_STORES
from benchmarks.statistics import measure as measure_statistics
from benchmarks.statistics import opening
from benchmarks.statistics import report as report_statistics
from benchmarks.statistics import write as write_statistics_store

PROGRAMS = sorted(
    path.stem for path in Path(benchmarks.__file__).parent.glob("*.py") if "ArgumentParser" in path.read_text()
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_begins(program):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}", "--help"], capture_output=True, text=True, check=False
    )
    assert "usage" in done.stdout, done.stderr


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def layout(request):
    return request.param.sized("tiny")


@pytest.fixture(scope="module")
def path(layout, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("stores") / f"{layout.name}.zarr")
    layout.write(path)
    return path


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_all_readers_give_the_same_answer(layout, path, query):
    measures = measure(path, layout.name, query, rounds=1)
    assert {each.reader: each.answer for each in measures} == dict.fromkeys(READERS, "right")
    assert all(len(each.times) == 1 for each in measures)


@pytest.fixture(scope="module", params=GEOMETRIES, ids=lambda geometry: geometry.name)
def geometry(request):
    return request.param.sized("tiny")


@pytest.fixture(scope="module")
def geometry_path(geometry, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("stores") / "store.zarr")
    geometry.write(path)
    return path


def test_questions_to_geometries_are_answered_as_by_xarray(geometry, geometry_path):
    for query in geometry.queries:
        answers = {each.reader: each for each in measure(geometry_path, geometry.name, query, rounds=1)}
        assert (query.name, answers["rainbear_dask"].answer) == (query.name, "right")
        kept, total = answers["rainbear_dask"].chunks
        assert 0 < kept <= total
        assert ours(geometry_path, query).height > 0


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.name)
def test_geometries_keep_the_shape_of_their_chunks_at_full_size(geometry):
    for variable in geometry.variables.values():
        encoding = variable.encoding(geometry.sizes)
        assert len(variable.dims) == len(variable.chunks)
        if variable.shards:
            assert all(n % m == 0 for n, m in zip(encoding["shards"], encoding["chunks"], strict=True))


@pytest.mark.cluster
def test_a_cluster_and_xarray_on_it_give_the_answer_of_threads(tmp_path, client):
    path = str(tmp_path / "slabs.zarr")
    LAYOUTS[0].shortened(24).write(path)
    for name in ("full scan", "box"):
        *_, of_table = measure_on_cluster(path, name, client, rounds=1).split(" | ")
        assert 0.2 < float(of_table) < 0.35


@pytest.mark.cluster
@pytest.mark.usefixtures("client")
def test_dask_dataframes_answer_as_those_of_xarray(tmp_path):
    path = str(tmp_path / "tiles.zarr")
    LAYOUTS[0].shortened(24).write(path)
    for question in QUESTIONS:
        assert set(measure_dataframes(path, question, rounds=0)) == {"rainbear_dask", "xarray"}


@pytest.mark.cluster
@pytest.mark.slow
def test_a_wide_matrix_goes_to_parquet_in_bounded_memory(tmp_path):
    shape = (4 * CHUNKS[0], 24_000)
    write_matrix(tmp_path / "matrix.zarr", shape)
    _, most = to_parquet(tmp_path / "matrix.zarr", tmp_path / "matrix.parquet")
    assert most < 1500
    assert pq.ParquetDataset(tmp_path / "matrix.parquet").read(columns=["y"]).num_rows == shape[0] * shape[1]


def test_the_value_filter_keeps_about_one_cell_in_100_000():
    values = LAYOUTS[0].shortened(240).dataset().t2m.values
    assert 0.5e-5 < (values > HOT).mean() < 2e-5


def test_memory_of_a_full_scan_is_more_than_its_table(tmp_path):
    slabs = LAYOUTS[0].sized("tiny")
    slabs.write(tmp_path / "slabs.zarr")
    values = 2 * 24 * 181 * 360
    memory = memory_of(str(tmp_path / "slabs.zarr"), "slabs", "full scan", "rainbear_dask")
    assert memory.answer == pytest.approx((values / 2 * 24 + values * 4) / 1e6)
    assert memory.peak > memory.opened + memory.answer
    assert 2 < memory.read / (values / 1e6) < 5  # floats of noise, compressed a little


def test_a_wrong_answer_is_shown_as_wrong_and_not_as_fast():
    measures = [Measure("slabs", "box", reader, "right", [0.5, 0.7, 0.6]) for reader in READERS]
    measures[-1] = Measure("slabs", "box", "xarray", "wrong")
    assert report(measures).splitlines()[-1].count("0.500 / 0.600 s") == len(READERS) - 1
    assert "wrong" in report(measures).splitlines()[-1]
    measures[-1].answer = "none"
    assert report(measures).splitlines()[-1].split("|")[-2].strip() == "-"
    measures[0] = Measure("slabs", "box", "rainbear_dask", "wrong")
    measures[-1] = Measure("slabs", "box", "xarray", "right", [0.5])
    assert report(measures).splitlines()[-1].split("|")[-2].strip() == "0.500 / 0.500 s"  # a multiple of nothing


def test_another_answer_is_wrong_and_an_error_is_no_answer(path, layout, monkeypatch):
    query = next(query for query in QUERIES if query.name == "box")
    monkeypatch.setitem(READERS, "other", lambda *_: ours(path, query).head(10))
    monkeypatch.setitem(READERS, "broken", lambda *_: 1 / 0)
    answers = {each.reader: each for each in measure(path, layout.name, query, rounds=1)}
    assert (answers["other"].answer, answers["broken"].answer) == ("wrong", "none")
    assert answers["other"].times == answers["broken"].times == []


def test_targets_are_compared_with_what_was_reached():
    times = {"rainbear_dask": 0.5, "rainbear": 0.75}
    measures = [Measure("slabs", "full scan", reader, "right", [seconds]) for reader, seconds in times.items()]
    (target,) = targets_of(measures)
    assert (target.target, target.reached, target.is_reached) == (1.4, 1.5, True)
    missed = Target("slabs", "peak", 1.25, 1.3, at_most=True)
    assert not missed.is_reached
    cells = [cell.strip() for cell in report_targets([target, missed]).splitlines()[-1].split("|")]
    assert cells[1:-1] == ["slabs", "peak", "<= 1.25", "1.300", "no"]


def test_memory_is_shown_where_it_was_measured():
    measures = [Measure("slabs", query, reader, "right", [1.0]) for query in ("box", "count") for reader in READERS]
    measures[0].memory = Memory(opened=200, peak=1234.5, answer=1000, read=67.8)
    header, _, row = report_memory(measures).splitlines()
    assert header.count("MB") == header.count("read by") == len(READERS)
    assert "1,234" in row
    assert "67.8 MB" in row


@pytest.mark.parametrize(
    ("name", "sizes"), [("rows", (10**6, 2 * 10**6)), ("chunks", (100, 1000)), ("variables", (1, 3))]
)
def test_growth_is_measured(name, sizes, tmp_path):
    measured = measure_growth(replace(GROWTHS[name], rounds=1), sizes, tmp_path, ask_here)
    assert all(seconds > 0 for each in measured for seconds in each.seconds)
    *_, last = report_growth(measured).splitlines()
    assert last.split("|")[2].strip() == "slope"
    if name == "rows":
        rows = GROWTHS[name].ask(rd.scan_zarr(str(tmp_path / f"rows-{sizes[-1]}.zarr"))).item(0, "len")
        assert rows == pytest.approx(sizes[-1], rel=0.5)


def test_growth_is_measured_in_a_process_of_its_own(tmp_path):
    GROWTHS["variables"].write(tmp_path / "a.zarr", 2)
    seconds, peak = ask_alone(GROWTHS["variables"], GROWN[0], tmp_path / "a.zarr")
    assert seconds > 0
    assert 50 < peak < 1000


def test_slopes_are_those_of_powers():
    sizes = (10, 100, 1000)
    for power in (0, 0.5, 1, 2):
        assert Series("a", "b", sizes, tuple(3 * n**power for n in sizes), ()).slope == pytest.approx(power, abs=1e-9)


@pytest.fixture(scope="module")
def short_grids(tmp_path_factory):
    """Stores of 5,000 hours by the grid that each is cut from, with that shorter grid."""
    short = {grid: replace(grid, shape=(5000, *grid.shape[1:])) for grid in {case.grid: None for case in CASES}}
    paths = {grid: tmp_path_factory.mktemp("grid") / "a.zarr" for grid in short}
    for grid, path in paths.items():
        short[grid].write(path)
    return {grid: (short[grid], paths[grid]) for grid in short}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.grid.name}, {case.name}")
def test_planning_is_measured(case, short_grids):
    grid, path = short_grids[case.grid]
    found = measure_planning(replace(case, grid=grid), path)
    assert 0 < found.kept <= found.chunks
    assert min(found.open, found.plan, found.explain, found.first_tasks) > 0
    *_, row = report_planning([(case, found)])
    assert row.startswith(f"| {case.grid.name} | {case.name} | {found.chunks:,} | {found.kept:,} |")


@pytest.mark.parametrize(
    ("grid", "name", "kept"),
    [
        (ERA5, "hour == 7", 209),
        (ERA5, "a box", 25),
        (MILLIONS[0], "a box", 25 * 6 * 6),
        (PROJECTED, "a circle", 5000 * 26),
    ],
)
def test_questions_of_planning_are_those_that_they_are_called(grid, name, kept, short_grids):
    case = next(case for case in CASES if (case.grid, case.name) == (grid, name))
    assert measure_planning(case, short_grids[grid][1]).kept == kept


def test_memory_of_planning_is_that_of_a_process_of_its_own(short_grids):
    found = measured_alone(next(case for case in CASES if case.name == "a circle"), short_grids[PROJECTED][1])
    assert found.memory > 2 * 8 * 1059 * 1799 / 1e6  # two coordinates of two dimensions


def test_regions_are_measured_and_all_means_agree(tmp_path):
    path = str(tmp_path / "tiles.zarr")
    TILES.shortened(3).write(path)
    measures = measure_regions(path, polygons(5), rounds=1)
    assert [each.reader for each in measures] == list(readers_of_regions())
    assert len(report_regions(measures).splitlines()) == 2 + len(measures)


@pytest.mark.parametrize("store", REPEATED, ids=lambda store: store.name)
def test_repeated_questions_are_measured_and_their_answers_agree(store, tmp_path):
    path = str(tmp_path / "s.zarr")
    short = store.shortened(20)
    short.write(path)
    measures = measure_repeated(path, short, rounds=1, counts=(1, 3))
    assert all(0 < seconds < inf for each in measures for seconds in each.seconds.values())
    assert len(report_repeated(measures).splitlines()) == 2 + 3 * 2


def test_statistics_are_measured_and_all_rows_agree(tmp_path):
    layout = next(layout for layout in STATISTICS_STORES if layout.name == "tiles").sized("tiny")
    path = write_statistics_store(layout, str(tmp_path))
    measures = measure_statistics(path, layout.name, rounds=1)
    assert [each.question for each in measures][:2] == ["collecting", "rare values"]
    assert all(0 < each.plain < inf and 0 < each.known < inf for each in measures)
    assert len(report_statistics(measures).splitlines()) == 2 + len(measures)
    assert 0 < opening((10, 2, 2), rounds=1) < inf


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpolars needs Python 3.12")
def test_an_expression_of_interpolars_is_measured_and_agrees(tmp_path):
    path, layout = str(tmp_path / "a.zarr"), replace(POINT_STORES[1], shape=(26, 19, 36), chunks=(24, 7, 12))
    layout.write(path)
    assert report_interpolars(path, layout, 1).splitlines()[0] == "9 of 18 chunks"


def test_values_at_points_are_measured_and_agree(tmp_path):
    path, layout = str(tmp_path / "a.zarr"), POINT_STORES[1].sized("tiny")
    layout.write(path)
    measures = measure_points(path, layout, rounds=1, counts=(50,))
    assert all(0 < each.ours < inf and 0 < each.theirs < inf for each in measures)
    assert len(report_points(measures).splitlines()) == 2 + 2 + 2 * 2


@pytest.mark.parametrize("store", FLOOR_STORES, ids=lambda store: store.name)
def test_the_floor_reads_the_chunks_that_a_plan_keeps(store, tmp_path):
    store, path = replace(store, layout=store.layout.sized("tiny")), str(tmp_path / "a.zarr")
    store.write(path)
    results = [measure_floor(store, path, question, rounds=1) for question in FLOOR_QUESTIONS]
    for result in results:
        names = result.question.floor(store.layout.variables)
        kept, others = (
            planned(result.question.polars(rd.scan_zarr(path, variables=names)))[0],
            store.layout.variables[1:],
        )
        if result.question.is_late and others:  # and those chunks of the others that hold a row
            assert kept < result.chunks <= kept * (1 + len(others)), result.question.name
        else:
            assert result.chunks == kept, result.question.name
        assert result.floor.wall > 0
    assert len(report_floor(results).splitlines()) == 2 + len(FLOOR_QUESTIONS)


def test_aggregations_are_measured_and_their_answers_agree(tmp_path):
    tiny = LAYOUTS[1].sized("tiny")
    path, parquet = write_engine(tiny, str(tmp_path))
    results = [measure_engine(tiny, path, parquet, question, rounds=1) for question in ENGINE_QUESTIONS[::5]]
    for result in results:
        assert {"floor", "ours", "today", "parquet"} <= set(result.samples)
        assert 0 < result.ratio("ours") < inf
    assert len(report_engine(results).splitlines()) == 2 + len(results) + 1


def test_the_floor_decodes_each_chunk(tmp_path):
    store = replace(FLOOR_STORES[1], layout=FLOOR_STORES[1].layout.sized("tiny"))
    store.write(str(tmp_path))
    chunks = places(str(tmp_path), ["t2m"], tuple(map(np.arange, store.layout.shape)))
    (tmp_path / "t2m" / "c" / "0" / "1" / "1").write_bytes(bytes(1000))
    chunks = [(name, file, start, Path(file).stat().st_size) for name, file, start, _ in chunks]
    with pytest.raises(RuntimeError):
        floor(str(tmp_path), chunks, 2)


def test_writers_of_zarr_agree(tmp_path):
    layout = LAYOUTS[0].shortened(1)
    found = writing.frames(layout, tmp_path, 1)
    assert list(found) == ["ordered", "shuffled"]
    assert all(0 < seconds < inf for _, best in found.values() for seconds in best.values())
    best = writing.best_times(writing.COPIES, str(tmp_path / "frames.zarr"), tmp_path, 1)
    assert list(best) == ["write_zarr", "xarray to_zarr"]


def test_calls_of_guarded_questions_repeat(tmp_path):
    path = str(tmp_path / "tiles.zarr")
    LAYOUTS[1].sized("tiny").write(path)
    with dask.config.set({"rainbear-dask.threads": 1}):
        lf = rd.scan_zarr(path)
        for question, ask in GUARDED.items():
            ask(path, lf)
            counts = [count_calls(lambda ask=ask: ask(path, lf)) for _ in range(2)]
            assert 100 < max(counts) < MAX_CALLS * min(counts), (question, counts)


def test_the_guard_reports_a_question_that_has_become_slower():
    known = {"figures": {"open": [1000, 1.0], "head": [1000, 1.0]}}
    _, worse = report_guard({"open": (1200, 1.0), "head": (1050, 1.1), "new": (1, 1.0)}, known)
    assert [line.partition(":")[0] for line in worse] == ["open"]
    assert not report_guard({"open": (1200, 1.0)}, {})[1]  # nothing is recorded yet


def test_memory_of_a_value_filter_is_that_of_a_process_of_its_own(tmp_path):
    path = str(tmp_path / "tiles.zarr")
    LAYOUTS[1].sized("tiny").write(path)
    assert 0 <= value_filter(f"rd.scan_zarr({path!r})", "64MiB") < 2**27


def test_questions_with_many_groups_and_in_row_space_run(tmp_path, client):
    write_groups(str(tmp_path / "a.zarr"), SMALL, (24, 61, 120), filled=True)
    check_groups(str(tmp_path / "a.zarr"), client)
    assert climatology(str(tmp_path / "a.zarr")) == 61 * 120 * 24


@pytest.fixture(scope="module")
def sql_stores(tmp_path_factory):
    paths = write_stores(tmp_path_factory.mktemp("sql"), 16)
    return paths, frames_of(paths)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_jobs_in_sql_give_the_answers_of_lazy_frames(sql_stores, job):
    best = measure_sql(job, *sql_stores, rounds=0)
    assert set(best) >= {"LazyFrame", "SQL"}
    assert job.name in report_sql({job.name: best})


def test_joins_and_orders(tmp_path):
    layout = replace(LAYOUTS[1].sized("tiny"), variables=("t2m",))
    layout.write(tmp_path / "era5.zarr")
    chunks = {name: kept for name, *_, kept in measure_queries(rd.scan_zarr(tmp_path / "era5.zarr"), 1)}
    assert len(QUERIES_HEADER) == 5
    assert chunks["top 10"] == "9 / 9"
    assert chunks["nearest of 3 steps"] == "1 / 1"
    for kept in chunks.values():
        ours, plain = map(int, kept.split(" / "))
        assert ours <= plain <= 9
