"""Parquet exports: the rows of the scan, once each, whatever dies in between."""

import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import fsspec
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import xarray as xr
from distributed import LocalCluster
from hypothesis import given, settings
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import PlanTooLargeError, QueryError, TargetExistsError, UnknownOptionError, WriteError
from rainbear_dask.export.manifest import read_manifest
from rainbear_dask.export.parquet import row_group_length, task_name
from rainbear_dask.storage import targets
from rainbear_dask.storage.targets import Target, target_of
from tests.support.stores import write_field

c = pl.col
ROOT = str(Path(__file__).parents[2])
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
KILLS = 50 if LONG else 2
SMALL = {"rainbear-dask.task-bytes": 10_000}


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("export") / "field.zarr")
    write_field(path, chunks=(4, 12, 20))
    return path


def names_in(folder) -> list[str]:
    """Return the sorted names in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def check(folder, lf):
    """Check that a folder holds each row once, in order, and nothing but files of the export."""
    assert_frame_equal(pl.read_parquet(folder), lf.collect())
    names = names_in(folder)
    assert names[-1] == "_SUCCESS"
    assert all(name.endswith(".parquet") for name in names[:-1])
    listed = [json.loads(line) for line in Path(f"{folder}.manifest.jsonl").read_text().splitlines()][1:]
    assert sorted(name for line in listed for name in line["files"]) == names[:-1]
    assert len(listed) == len({line["task"] for line in listed})


def test_a_folder_has_the_rows_of_the_scan_in_order(url, tmp_path):
    lf = rd.scan_zarr(url).filter(c.t2m > 280).select("t2m", "time")
    with dask.config.set(SMALL):
        report = rd.write_parquet(lf, tmp_path / "a" / "out")
        check(tmp_path / "a" / "out", lf)
        assert (report.rows, report.tasks, report.files, report.skipped) == (lf.collect().height, 6, 6, 0)
        assert report.bytes == sum(f.stat().st_size for f in (tmp_path / "a" / "out").iterdir())
        assert str(report).startswith(f"{tmp_path}/a/out: {report.rows:,} rows in 6 files")
        again = rd.write_parquet(lf, tmp_path / "a" / "out")
    assert (again.rows, again.files, again.bytes, again.skipped) == (report.rows, 6, report.bytes, 6)


@pytest.mark.cluster
def test_workers_write_the_same_files(url, tmp_path, client):
    lf = rd.scan_zarr(url).filter(c.t2m > 280)
    with dask.config.set(SMALL):
        rd.write_parquet(lf, tmp_path / "there", client=client)
        with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
            rd.write_parquet(lf, tmp_path / "here")
    assert names_in(tmp_path / "there") == names_in(tmp_path / "here")
    check(tmp_path / "there", lf)


@pytest.mark.parametrize("make", [rd.plan, rd.scan_zarr, str, Path, rd.ZarrBackend.from_url])
def test_any_source_is_written(url, tmp_path, make):
    rd.write_parquet(make(url), tmp_path / "out")
    check(tmp_path / "out", rd.scan_zarr(url))


def test_names_sort_like_rows_that_come_in_blocks(tmp_path):
    values = np.arange(24 * 24 * 6.0).reshape(24, 24, 6)
    ds = xr.Dataset({"a": (("z", "y", "x"), values)})
    ds.to_zarr(tmp_path / "s.zarr", encoding={"a": {"chunks": (5, 7, 4)}}, consolidated=False)
    from rainbear_dask.table import order  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch, dask.config.set({"rainbear-dask.task-bytes": 1500}):
        patch.setattr(order, "BLOCK_BYTES", 4000)
        lf = rd.scan_zarr(tmp_path / "s.zarr")
        plan = rd.plan(tmp_path / "s.zarr").read_plan
        names = [task_name(task, plan.table.sizes) for task in plan.tasks()]
        starts = np.cumsum([0, *(task.num_rows for task in plan.tasks())])[:-1]
        assert [int(name[:16]) for name in names] == list(starts)
        rd.write_parquet(lf, tmp_path / "out")
        check(tmp_path / "out", lf)


def test_an_export_without_rows_has_the_columns(url, tmp_path):
    lf = rd.scan_zarr(url).filter(c.t2m > 1e6)
    report = rd.write_parquet(lf, tmp_path / "out", partition_by={"k": c.sst > 0})
    assert (report.rows, report.files) == (0, 0)
    assert pl.scan_parquet(tmp_path / "out").collect_schema() == lf.collect_schema()
    rd.write_parquet(rd.scan_zarr(url).filter(c.lat > 100), tmp_path / "none", geo=("lon", "lat"))
    assert pl.read_parquet(tmp_path / "none").height == 0
    assert rd.write_parquet(lf, tmp_path / "out", partition_by={"k": c.sst > 0}).rows == 0


def test_files_hold_the_attributes(tmp_path):
    ds = xr.Dataset({"a": ("x", [1.5, 2.5], {"units": "K"})}, attrs={"title": "made up"})
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    rd.write_parquet(tmp_path / "s.zarr", tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.parquet")
    found = json.loads(pq.read_metadata(file).metadata[b"rainbear_dask"])
    assert found["attributes"] == {"title": "made up"}
    assert found["columns"]["a"]["units"] == "K"
    assert found["source"] == str(tmp_path / "s.zarr")


def test_row_groups_end_at_whole_steps(url, tmp_path):
    rd.write_parquet(url, tmp_path / "out", row_group_rows=600, compression="snappy")
    (file,) = (tmp_path / "out").glob("*.parquet")
    metadata = pq.read_metadata(file)
    assert {metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)} == {480}  # two hours of 240 rows
    assert metadata.row_group(0).column(0).compression == "SNAPPY"


@pytest.mark.parametrize(
    ("lengths", "most", "rows", "expected"),
    [
        ((4, 12, 20), 600, 960, 480),
        ((4, 12, 20), 239, 960, 220),
        ((4, 12, 20), 7, 960, 7),
        ((4, 12, 20), 600, 959, 600),
    ],
)
def test_rows_of_a_row_group(lengths, most, rows, expected):
    task = SimpleNamespace(index=[range(n) for n in lengths])
    assert row_group_length(task, most, rows) == expected


# ---------------------------------------------------------------------- refusals


def test_a_foreign_folder_is_refused(url, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(TargetExistsError, match=r"thesis\.txt") as caught:
        rd.write_parquet(url, tmp_path / "out")
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), FileExistsError)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TargetExistsError, match="is a file"):
        rd.write_parquet(url, tmp_path / "file")
    assert names_in(tmp_path) == ["file", "out"]


def test_a_file_among_those_of_an_export_is_refused(url, tmp_path):
    rd.write_parquet(url, tmp_path / "out")
    (tmp_path / "out" / "more.parquet").write_text("mine")
    with pytest.raises(TargetExistsError, match=r"more\.parquet"):
        rd.write_parquet(url, tmp_path / "out")
    assert (tmp_path / "out" / "more.parquet").exists()


def test_files_without_their_manifest_are_refused(url, tmp_path):
    rd.write_parquet(url, tmp_path / "out")
    Path(f"{tmp_path}/out.manifest.jsonl").unlink()
    with pytest.raises(TargetExistsError, match="something else"):
        rd.write_parquet(url, tmp_path / "out")
    Path(f"{tmp_path}/out.manifest.jsonl").write_text("[1]\n")
    with pytest.raises(TargetExistsError, match="not the manifest"):
        rd.write_parquet(url, tmp_path / "out")


def test_another_plan_is_refused(url, tmp_path):
    rd.write_parquet(url, tmp_path / "out")
    before = Path(f"{tmp_path}/out.manifest.jsonl").read_bytes()
    lf = rd.scan_zarr(url)
    for other, options in (
        (lf.filter(c.lat > 0), {}),
        (lf.select("t2m"), {}),
        (lf, {"partition_by": "lat"}),
        (lf, {"compression": "lz4"}),
        (lf, {"geo": ("lon", "lat")}),
        (lf, {"row_group_rows": 10}),
    ):
        with pytest.raises(TargetExistsError, match="another plan"):
            rd.write_parquet(other, tmp_path / "out", **options)
    with dask.config.set(SMALL), pytest.raises(TargetExistsError, match="task size"):
        rd.write_parquet(lf, tmp_path / "out")
    with pytest.raises(TargetExistsError, match="resume=True"):
        rd.write_parquet(lf, tmp_path / "out", resume=False)
    assert Path(f"{tmp_path}/out.manifest.jsonl").read_bytes() == before


def test_another_source_or_state_is_refused(tmp_path):
    for name in "ab":
        write_field(tmp_path / f"{name}.zarr")
    rd.write_parquet(tmp_path / "a.zarr", tmp_path / "out")
    with pytest.raises(TargetExistsError, match=r"another source, .*a\.zarr"):
        rd.write_parquet(tmp_path / "b.zarr", tmp_path / "out")
    time.sleep(0.01)
    (tmp_path / "a.zarr" / "zarr.json").touch()
    with pytest.raises(TargetExistsError, match="another state"):
        rd.write_parquet(tmp_path / "a.zarr", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"compression": "zip"}, QueryError, "zip"),
        ({"row_group_rows": 0}, QueryError, "row_group_rows"),
        ({"row_group_rows": True}, QueryError, "row_group_rows"),
        ({"partition": "lat"}, UnknownOptionError, "partition_by"),
    ],
)
def test_wrong_options_are_refused(url, tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        rd.write_parquet(url, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (lambda lf: lf.group_by("lat").agg(c.t2m.mean()), r"does more than filter.*sink_parquet"),
        (lambda lf: lf.with_columns(k=c.t2m * 2), r"does more than filter.*sink_parquet"),
        (lambda lf: lf.filter(c.t2m > 280).head(5), r"does more than filter.*SLICE.*sink_parquet"),
        (lambda lf: lf.head(2).collect(), "in memory"),
    ],
    ids=["group_by", "with_columns", "head", "DataFrame"],
)
def test_queries_that_tasks_cannot_write_are_refused(url, tmp_path, query, text):
    with pytest.raises(QueryError, match=text):
        rd.write_parquet(query(rd.scan_zarr(url)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_plan_with_a_limit_is_refused(url, tmp_path):
    with pytest.raises(QueryError, match=r"limited to 5 rows.*sink_parquet"):
        rd.write_parquet(rd.plan(url, c.t2m > 280, n_rows=5), tmp_path / "out")


def test_the_first_rows_are_written(url, tmp_path):
    lf = rd.scan_zarr(url).head(1000)
    rd.write_parquet(lf, tmp_path / "out")
    check(tmp_path / "out", lf)


@pytest.mark.parametrize(
    "step", [lambda lf: lf.select("t2m"), lambda lf: lf.sql("SELECT t2m FROM self")], ids=["", "sql"]
)
def test_the_bounds_of_the_scan_hold(url, tmp_path, step):
    lf = step(rd.scan_zarr(url, max_chunks_to_read=3))
    with pytest.raises(PlanTooLargeError, match="12 chunks needed, limit is 3"):
        rd.write_parquet(lf, tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "text"),
    [("https://x.org/out", "https://"), ("s3://bucket", "folder of its own"), ("/", "folder of its own"), (3, "int")],
)
def test_what_cannot_be_written_to_is_refused(url, place, text):
    with pytest.raises(QueryError, match=text):
        rd.write_parquet(url, place)


def test_a_folder_inside_the_source_is_refused(url):
    with pytest.raises(QueryError, match="inside the store"):
        rd.write_parquet(url, f"{url}/out")


def test_a_target_shows_no_secret():
    target = target_of("s3://user:password@bucket/out", {"secret": "very-secret", "key": "also-secret"})
    assert not any(word in f"{target!r} {target.label} {target.sealed()!r}" for word in ("password", "secret"))


@pytest.mark.cluster
def test_workers_cannot_write_into_the_memory_of_the_client(url, client):
    with pytest.raises(rd.exceptions.StoreError, match="memory"):
        rd.write_parquet(url, "memory://exports/out", client=client)


def test_a_disk_of_the_worker_alone_is_an_error(url, tmp_path, monkeypatch):
    def write(self, name, fill):
        return write_here(
            Target(self.parent, f"{self.name}.elsewhere") if name.endswith(".parquet") else self, name, fill
        )

    write_here = Target.write
    monkeypatch.setattr(Target, "write", write)
    with pytest.raises(WriteError, match="all workers share"):
        rd.write_parquet(url, tmp_path / "out")


# ---------------------------------------------------------------------- object stores


def test_an_object_store_gets_the_same_files(url):
    fs = fsspec.filesystem("memory")
    lf = rd.scan_zarr(url).filter(c.t2m > 280)
    with dask.config.set(SMALL):
        report = rd.write_parquet(lf, "memory://exports/a/out")
        names = sorted(fs.find("/exports/a/out"))
        assert rd.write_parquet(lf, "memory://exports/a/out").skipped == 12
        fs.rm(names[2])
        assert rd.write_parquet(lf, "memory://exports/a/out").skipped == 11
        with pytest.raises(TargetExistsError, match="another plan"):
            rd.write_parquet(lf.select("t2m"), "memory://exports/a/out")
    assert report.files == 12
    assert names[-1] == "/exports/a/out/_SUCCESS"
    assert_frame_equal(pl.concat(pl.read_parquet(fs.cat(name)) for name in names[:-1]), lf.collect())
    fs.pipe("/exports/b/out/x.txt", b"mine")
    with pytest.raises(TargetExistsError, match=r"x\.txt"):
        rd.write_parquet(lf, "memory://exports/b/out")


# ---------------------------------------------------------------------- deaths


def lines_of(path) -> int:
    """Return the number of lines of a file that may not exist yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


class DiedError(Exception):
    """Stands for the end of a process."""


@settings(max_examples=1000 if LONG else 12)
@given(
    st.lists(
        st.tuples(st.integers(0, 13), st.sampled_from(["before", "in the middle", "after", "cut line"])), max_size=3
    )
)
def test_whatever_dies_the_rows_are_there_once(tmp_path_factory, url, deaths):
    folder = tmp_path_factory.mktemp("deaths")
    lf = rd.scan_zarr(url)
    write = Target.write
    with dask.config.set(SMALL | {"rainbear-dask.threads": 2}):
        for count, moment in deaths:
            calls = iter(range(10**6))

            def dying(self, name, fill, count=count, moment=moment, calls=calls):
                if not name.endswith(".parquet") or next(calls) < count:
                    return write(self, name, fill)
                if moment == "in the middle":
                    (self.path / f".{name}.abc{targets._UNFINISHED}").write_bytes(b"PAR1")
                if moment == "after":
                    write(self, name, fill)
                raise DiedError

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Target, "write", dying)
                try:
                    rd.write_parquet(lf, folder / "out")
                except DiedError:
                    assert not (folder / "out" / "_SUCCESS").exists()
            if moment == "cut line":
                manifest = folder / "out.manifest.jsonl"
                first, *lines = manifest.read_bytes().splitlines(keepends=True)  # the first is written as a whole
                manifest.write_bytes(first + b"".join(lines)[:-7])
        report = rd.write_parquet(lf, folder / "out")
        assert (report.rows, report.tasks) == (48 * 12 * 20, 12)
        check(folder / "out", lf)


def test_a_file_that_vanishes_while_the_folder_is_listed_is_passed_over(url, tmp_path, monkeypatch):
    """A task of an earlier call, which failed, may still rename its file."""
    lf, walk = rd.scan_zarr(url), os.walk
    with dask.config.set(SMALL):
        rd.write_parquet(lf, tmp_path / "out")
        monkeypatch.setattr(os, "walk", lambda top: [(a, b, [*c, ".gone.part"]) for a, b, c in walk(top)])
        assert rd.write_parquet(lf, tmp_path / "out").skipped == 12


EXPORT = """
import sys, dask
import rainbear_dask as rd
with dask.config.set({"rainbear-dask.task-bytes": 10_000}):
    rd.write_parquet(sys.argv[1], sys.argv[2], row_group_rows=5)
"""


@pytest.mark.parametrize("ends_by", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_process_is_continued(tmp_path, ends_by):
    write_field(tmp_path / "s.zarr", chunks=(1, 12, 20))
    manifest, folder = tmp_path / "out.manifest.jsonl", tmp_path / "out"
    for _ in range(KILLS // 2):
        command = [sys.executable, "-c", EXPORT, str(tmp_path / "s.zarr"), str(folder)]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": ROOT}, cwd=ROOT)
        began = lines_of(manifest)
        while process.poll() is None and lines_of(manifest) <= began:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(ends_by)
        process.wait()
    with dask.config.set(SMALL):
        rd.write_parquet(tmp_path / "s.zarr", folder, row_group_rows=5)
    check(folder, rd.scan_zarr(tmp_path / "s.zarr"))


FULL = """
import resource, signal, sys
import rainbear_dask as rd
from rainbear_dask.exceptions import WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    rd.write_parquet(sys.argv[1], sys.argv[2])
except WriteError as err:
    sys.exit(f"refused: {err}")
"""


def test_a_full_disk_leaves_no_part_of_a_file(url, tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", FULL, url, str(tmp_path / "out")]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True, text=True, check=False)
    assert "refused: Cannot write" in ended.stderr, ended.stderr
    assert not list((tmp_path / "out").iterdir())
    rd.write_parquet(url, tmp_path / "out")
    check(tmp_path / "out", rd.scan_zarr(url))


@pytest.mark.cluster
def test_a_killed_worker_loses_nothing(tmp_path):
    write_field(tmp_path / "s.zarr", chunks=(1, 12, 20))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        cluster.get_client() as client,
        dask.config.set(SMALL),
    ):
        pid = next(iter(client.run(os.getpid).values()))
        write = rd.export.manifest.Manifest.add
        with pytest.MonkeyPatch.context() as patch:

            def add(self, record):
                if len(self.records) == 1:
                    os.kill(pid, signal.SIGKILL)
                write(self, record)

            patch.setattr(rd.export.manifest.Manifest, "add", add)
            rd.write_parquet(tmp_path / "s.zarr", tmp_path / "out", client=client, row_group_rows=5)
    check(tmp_path / "out", rd.scan_zarr(tmp_path / "s.zarr"))


def test_a_manifest_is_read_back(url, tmp_path):
    assert read_manifest(target_of(tmp_path / "out")) is None
    report = rd.write_parquet(url, tmp_path / "out")
    header, records = read_manifest(target_of(tmp_path / "out"))
    assert header["source"] == url
    assert sum(record.rows for record in records.values()) == report.rows
