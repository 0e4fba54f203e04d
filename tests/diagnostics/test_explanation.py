"""An explanation has attributes for programs, and hints where a filter keeps nothing."""

from datetime import datetime
from xml.etree import ElementTree as ET

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr

import rainbear_dask as rd
from rainbear_dask.diagnostics.explanation import Explanation

c = pl.col


def write(path, longitude) -> str:
    time = np.arange("2006-01", "2008-01", dtype="M8[M]").astype("M8[ns]")
    axes = {
        "time": time,
        "latitude": ("latitude", np.linspace(-85, 85, 18), {"units": "degrees_north"}),
        "longitude": ("longitude", longitude.astype("f4"), {"units": "degrees_east"}),
        "x": ("x", np.array([0.0, 1, 5])),
    }
    shape = (24, 18, len(longitude), 3)
    data = xr.Dataset({"sst": (list(axes), np.zeros(shape, "f4"))}, axes)
    data.to_zarr(path, consolidated=False, encoding={"sst": {"chunks": (6, 9, 12, 3)}})
    return str(path)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("explanation") / "east.zarr", np.arange(36) * 10)


@pytest.fixture(scope="module")
def west(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("explanation") / "west.zarr", np.arange(36) * 10 - 175)


def test_its_attributes_are_the_counts_of_all_scans(url, west):
    plans = [rd.plan(url, c.latitude > 0), rd.plan(west, c.time < datetime(2006, 7, 1), ["sst"])]
    found = rd.explain(
        pl.concat([rd.scan_zarr(url).filter(c.latitude > 0), rd.scan_zarr(west).filter(c.time < datetime(2006, 7, 1))])
    )
    assert isinstance(found, Explanation)
    assert (found.chunks_kept, found.chunks_total) == (12 + 6, 24 + 24)
    assert found.bytes == sum(plan.bytes_kept for plan in plans)
    assert found.rows == sum(plan.max_rows for plan in plans)
    assert found.tasks == sum(plan.num_tasks for plan in plans)
    assert found.memory >= max(plan.task_bytes_at_most for plan in plans)
    assert (found.runs_on, found.split, found.kept_by_polars) == ("threads", (), ())
    assert repr(found) == str(found)
    assert str(found).count("SCAN ") == 2
    assert "chunks   12 of 24" in found
    assert "chunks   13 of 24" not in found


def test_a_query_without_a_scan_says_so():
    found = rd.explain(pl.LazyFrame({"a": [1]}))
    assert (found.chunks_kept, found.tasks, found.memory, found.runs_on) == (0, 0, 0, "")
    assert "has no scan of scan_zarr()" in str(found)
    assert "has no scan of scan_zarr()" in found._repr_html_()


@pytest.mark.parametrize("other", [pl.DataFrame({"a": [1]}), "sst.zarr", None])
def test_something_else_than_a_lazy_frame_is_refused(other):
    with pytest.raises(rd.exceptions.QueryError, match="takes a LazyFrame"):
        rd.explain(other)


def test_a_plan_has_the_same_report(url):
    plan = rd.plan(url, c.latitude > 0)
    assert str(plan.explain()) == str(rd.explain(rd.scan_zarr(url).filter(c.latitude > 0)))
    assert repr(plan) == f"ScanPlan({url}: 12 of 24 chunks, 23,328 rows at most, 1 tasks)"


@pytest.mark.cluster
def test_it_says_where_a_query_runs_and_why(url, cluster):
    lf = rd.scan_zarr(url)
    assert "threads of this process, because no Dask client is active" in rd.explain(lf)
    with cluster.get_client() as client:
        small = rd.explain(lf)
        assert small.runs_on == "threads"
        assert "because the plan reads 16.8 MB at most" in small
        named = rd.explain(rd.scan_zarr(url, client=client))
        assert named.runs_on == "cluster"
        assert "because the caller named its client" in named
        assert rd.explain(pl.concat([lf, rd.scan_zarr(url, client=client)])).runs_on == "threads and cluster"
        with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
            assert rd.explain(lf).runs_on == "cluster"
        with dask.annotate(priority=1):
            assert rd.explain(lf).runs_on == "cluster"


# ---------------------------------------------------------------------- filters that Polars keeps


def positive(values: pl.Series) -> pl.Series:
    return values.struct.field("latitude") > 0


@pytest.mark.parametrize("elementwise", [False, True])
def test_a_filter_that_polars_keeps_is_named_with_its_remedy(url, elementwise):
    shape = pl.struct("latitude", "longitude").map_batches(
        positive, return_dtype=pl.Boolean, is_elementwise=elementwise
    )
    found = rd.explain(rd.scan_zarr(url).filter(shape))
    assert len(found.kept_by_polars) == (not elementwise)
    assert ("Declare is_elementwise=True" in found) is not elementwise
    assert ("Declare is_elementwise=True" in found._repr_html_()) is not elementwise
    assert found.chunks_kept == (12 if elementwise else 24)


def test_filters_of_other_steps_are_not_named(url):
    lf = rd.scan_zarr(url).filter(c.latitude > 0)
    grouped = lf.group_by("latitude").agg(c.sst.mean()).filter(c.sst > 0)
    assert rd.explain(grouped).kept_by_polars == ()
    mean = rd.explain(lf.filter(c.sst > c.sst.mean()))
    assert len(mean.kept_by_polars) == 1
    assert "Polars applies this filter itself" in mean
    assert "is_elementwise" not in mean


# ---------------------------------------------------------------------- hints


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (
            c.longitude.is_between(-170, -120),
            "longitude is 0° to 350°, step 10°. These longitudes are 0° to 360°: add 360 to negative ones (190° to 240°).",
        ),
        (c.longitude < -5, "add 360 to negative ones (355°)"),
        (c.latitude.is_between(5, -5), "The lower bound 5° is above the upper bound -5°. Swap them."),
        (c.latitude.is_between(5, -5, closed="left"), "Swap them."),
        (c.longitude == 0.8333, "No label of Float32 equals 0.833299994°. The nearest: 0° and 10°."),
        (c.latitude == 84, "latitude is -85° to 85°, step 10°. No label equals 84°. The nearest: 75° and 85°."),
        (c.latitude == 99, "The nearest: 85°."),
        (c.latitude > 90, "latitude is -85° to 85°, step 10°."),
        (c.x > 90, "x is 0 to 5."),
        (c.time > datetime(2020, 1, 1), "time is 2006-01-01 to 2007-12-01."),
        (c.time.dt.year() == 2020, "time is 2006-01-01 to 2007-12-01."),
        ((c.latitude > 90) & (c.longitude < -5), "latitude is -85° to 85°"),
    ],
)
def test_a_filter_that_keeps_nothing_shows_the_range_and_the_mistake(url, predicate, words):
    found = rd.explain(rd.scan_zarr(url).filter(predicate))
    assert found.chunks_kept == 0
    assert words in found
    assert words.replace("&", "&amp;") in rd.plan(url, predicate)._repr_html_()


def test_the_other_convention_is_told_too(west):
    found = rd.explain(rd.scan_zarr(west).filter(c.longitude.is_between(190, 240)))
    assert "These longitudes are -180° to 180°: subtract 360 from those above 180 (-170° to -120°)." in found


def test_filters_that_exclude_each_other_are_told(url):
    found = rd.explain(rd.scan_zarr(url).filter(c.latitude > 0, c.latitude < 0))
    assert "Each filter keeps rows, but no row passes all of them." in found


@pytest.mark.parametrize(
    "predicate",
    [c.latitude > 0, c.longitude > -5, c.latitude.is_between(-5, 5), c.longitude == 10, c.sst > 1, c.longitude != -5],
)
def test_a_filter_that_keeps_rows_has_no_hint(url, predicate):
    assert "hint" not in rd.explain(rd.scan_zarr(url).filter(predicate))


@pytest.mark.filterwarnings("ignore:The filter compares the times")
def test_times_beside_a_number_are_a_hint(url):
    assert (
        "hint     The filter compares the times of 'time' with the number 2008" in rd.plan(url, c.time > 2008).explain()
    )


# ---------------------------------------------------------------------- HTML


def test_the_picture_has_dates_and_degrees_and_words(url):
    html = rd.plan(url, c.latitude > 0)._repr_html_()
    report = ET.fromstring(html)  # noqa: S314  our own text
    labels = [label.text for label in report.iter("{http://www.w3.org/2000/svg}text")]
    assert "2006-01-01 to 2007-12-01" in labels
    assert "-85° to 85°, step 10°" in labels
    assert "0° to 350°, step 10°" in labels
    (picture,) = report.iter("{http://www.w3.org/2000/svg}svg")
    assert picture.get("role") == "img"
    assert picture.get("aria-label").startswith("The chunks that the plan reads are coloured: time: 24 in 4 chunks")


def test_no_colour_of_text_is_fixed_so_that_light_and_dark_pages_show_it(url):
    html = rd.plan(url, c.latitude > 0)._repr_html_()
    report = ET.fromstring(html)  # noqa: S314  our own text
    assert {label.get("fill") for label in report.iter("{http://www.w3.org/2000/svg}text")} == {"currentColor"}
    assert "background" not in html
    assert "color:" not in html


def test_columns_have_their_units_and_long_names(tmp_path):
    rd.open_sample(tmp_path / "sst.zarr")
    html = rd.plan(tmp_path / "sst.zarr")._repr_html_()
    assert "longitude, sst (sea surface temperature, degC)" in html
    root = zarr.open_group(tmp_path / "sst.zarr")
    root["sst"].attrs["units"] = "<script>"
    zarr.consolidate_metadata(tmp_path / "sst.zarr")
    html = rd.plan(tmp_path / "sst.zarr")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
