"""The benchmarks run, on stores of a day, and all readers agree."""

import pytest

from benchmarks.problems import HOT, LAYOUTS, QUERIES
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
