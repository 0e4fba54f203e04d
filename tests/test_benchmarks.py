"""The benchmarks run, on stores of a day, and all readers agree."""

from dataclasses import replace
from math import inf

import pyarrow.parquet as pq
import pytest

from benchmarks.cluster import measure as measure_on_cluster
from benchmarks.dataframes import CHUNKS, QUESTIONS, to_parquet, write_matrix
from benchmarks.dataframes import measure as measure_dataframes
from benchmarks.planning import CASES, ERA5, MILLIONS, PROJECTED, measured_alone
from benchmarks.planning import measure as measure_planning
from benchmarks.planning import report as report_planning
from benchmarks.problems import HOT, LAYOUTS, QUERIES
from benchmarks.repeated import STORES as REPEATED
from benchmarks.repeated import measure as measure_repeated
from benchmarks.repeated import report as report_repeated
from benchmarks.run import READERS, Measure, measure, peak_memory, report


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def layout(request):
    return request.param.shortened(24)


@pytest.fixture(scope="module")
def path(layout, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("stores") / f"{layout.name}.zarr")
    layout.write(path)
    return path


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_all_readers_give_the_same_answer(layout, path, query):
    measures = measure(path, layout.name, query, rounds=1)
    assert {each.reader: each.right for each in measures} == dict.fromkeys(READERS, True)


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


def test_memory_of_a_full_scan_is_more_than_its_table(layout, path):
    rows = 24 * 181 * 360
    bytes_per_row = 8 * 3 + 4 * len(layout.variables)
    assert peak_memory(path, QUERIES[0], "rainbear_dask") > rows * bytes_per_row / 1e6


def test_a_wrong_answer_is_shown_as_wrong_and_not_as_fast():
    measures = [Measure("slabs", "box", reader, right=reader != "xarray", seconds=0.5) for reader in READERS]
    lines = report(measures).splitlines()
    assert "wrong" in lines[-1]
    assert lines[-1].count("0.500 s") == len(READERS) - 1


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


@pytest.mark.parametrize("store", REPEATED, ids=lambda store: store.name)
def test_repeated_questions_are_measured_and_their_answers_agree(store, tmp_path):
    path = str(tmp_path / "s.zarr")
    short = store.shortened(20)
    short.write(path)
    measures = measure_repeated(path, short, rounds=1, counts=(1, 3))
    assert all(0 < seconds < inf for each in measures for seconds in each.seconds.values())
    assert len(report_repeated(measures).splitlines()) == 2 + 3 * 2
