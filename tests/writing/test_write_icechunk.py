"""`write_icechunk`: one step for readers, forks on workers, conflicts refused."""

from threading import Thread

import dask
import icechunk
import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    ConflictError,
    QueryError,
    RowsError,
    StoreError,
    StoreNotFoundError,
    TargetExistsError,
)
from rainbear_dask.writing import icechunk_target
from tests.support.stores import write_field

c = pl.col
icechunk.set_logs_filter("icechunk=error")  # it warns of local folders, which one process at a time may write
FRAME = pl.DataFrame({"x": [1, 2, 3], "v": [10.0, 20.0, 30.0]})


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("icechunk") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture
def repo():
    """An empty repository in memory."""
    return icechunk.Repository.create(icechunk.in_memory_storage())


@pytest.fixture
def folder_repo(tmp_path):
    """An empty repository in a folder, as workers can reach it."""
    return icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))


def rows(repo, **state) -> pl.DataFrame:
    """Read a state of a repository, by default the branch main."""
    return rd.scan_zarr(repo.readonly_session(**(state or {"branch": "main"})).store).collect()


def messages(repo) -> list[str]:
    """Return the messages of the commits of main, the latest first."""
    return [commit.message for commit in repo.ancestry(branch="main")]


def test_a_scan_is_one_commit(url, repo):
    snapshot = rd.write_icechunk(rd.scan_zarr(url), repo, message="all")
    assert snapshot == repo.lookup_branch("main")
    assert messages(repo) == ["all", "Repository initialized"]
    assert_frame_equal(rows(repo), rd.scan_zarr(url).collect())
    found = xr.open_zarr(repo.readonly_session("main").store, consolidated=False).load()
    xr.testing.assert_identical(found, xr.open_zarr(url, consolidated=False).load())


def test_parts_are_written_appended_and_replaced(repo):
    first = rd.write_icechunk(FRAME, repo, ["x"], message="first")
    rd.write_icechunk(FRAME.with_columns(c.x + 3), repo, message="more", append_dim="x")
    rd.write_icechunk(pl.DataFrame({"x": [2], "v": [-1.0]}), repo, message="one", mode="r+")
    rd.write_icechunk(pl.DataFrame({"x": range(1, 7), "n": range(6)}), repo, message="n", mode="a")
    assert rows(repo).sort("x").select("x", "v", "n").rows() == [
        (1, 10, 0),
        (2, -1, 1),
        (3, 30, 2),
        (4, 10, 3),
        (5, 20, 4),
        (6, 30, 5),
    ]
    assert_frame_equal(rows(repo, snapshot_id=first), FRAME)
    rd.write_icechunk(FRAME.rename({"v": "w"}), repo, ["x"], message="new", mode="w")
    assert rows(repo).columns == ["x", "w"]
    assert messages(repo) == ["new", "n", "one", "more", "first", "Repository initialized"]


def test_bad_input_commits_nothing(url, repo):
    rd.write_icechunk(FRAME, repo, ["x"], message="first")
    for data, options, error, text in (
        (FRAME, {"dims": ["x"]}, TargetExistsError, "mode='w'"),
        (FRAME, {"append_dim": "x"}, RowsError, "already"),
        (pl.DataFrame({"x": [9], "v": [0.0]}), {"mode": "r+"}, RowsError, "x=9"),
        (FRAME, {"branch": "no", "mode": "a"}, StoreError, "branch 'no'"),
        (FRAME, {"mode": "x"}, QueryError, "mode"),
        (
            rd.scan_zarr(repo.readonly_session("main").store).filter(c.v > 99),
            {"mode": "w", "missing": "error"},
            RowsError,
            "row",
        ),
    ):
        with pytest.raises(error, match=text):
            rd.write_icechunk(data, repo, message="bad", **options)
        assert messages(repo) == ["first", "Repository initialized"]
    assert_frame_equal(rows(repo), FRAME)
    with pytest.raises(QueryError, match="not an Icechunk repository"):
        rd.write_icechunk(FRAME, "folder", ["x"], message="bad")
    other = icechunk.Repository.create(icechunk.in_memory_storage())
    with pytest.raises(StoreNotFoundError, match="no arrays"):
        rd.write_icechunk(FRAME, other, message="bad", mode="r+")


def test_nothing_to_write_is_no_commit(repo):
    snapshot = rd.write_icechunk(FRAME, repo, ["x"], message="first")
    assert rd.write_icechunk(FRAME.clear(), repo, message="none", mode="r+") == snapshot


@pytest.mark.parametrize("appends", [True, False])
def test_a_conflicting_commit_is_refused_and_another_passes(repo, monkeypatch, appends):
    axes = {"x": np.arange(100)}
    rd.write_icechunk(pl.DataFrame({"x": [0], "v": [0.0]}), repo, axes, message="first", chunks={"x": 10})
    mine = pl.DataFrame({"x": [100], "v": [1.0]}) if appends else pl.DataFrame({"x": [3], "v": [1.0]})
    options = {"append_dim": "x"} if appends else {"mode": "r+"}
    write_documents = icechunk_target._write_documents

    def meanwhile(*arguments, **more):
        monkeypatch.setattr(icechunk_target, "_write_documents", write_documents)
        rd.write_icechunk(theirs, repo, message="theirs", **options)
        write_documents(*arguments, **more)

    theirs = mine.with_columns(v=c.v + 1)
    monkeypatch.setattr(icechunk_target, "_write_documents", meanwhile)
    with pytest.raises(ConflictError, match="Nothing was committed"):
        rd.write_icechunk(mine, repo, message="mine", **options)
    assert messages(repo)[0] == "theirs"
    assert rows(repo).filter(c.x.is_in(mine["x"].implode()))["v"].to_list() == [2.0]
    if not appends:
        theirs = pl.DataFrame({"x": [50], "v": [5.0]})
        monkeypatch.setattr(icechunk_target, "_write_documents", meanwhile)
        rd.write_icechunk(mine, repo, message="mine", **options)
        assert rows(repo).drop_nulls("v").rows() == [(0, 0.0), (3, 1.0), (50, 5.0)]


def test_writers_at_the_same_time_lose_nothing(repo):
    axes = {"x": np.arange(100)}
    rd.write_icechunk(pl.DataFrame({"x": [0], "v": [0.0]}), repo, axes, message="first", chunks={"x": 10})
    refused = []

    def write(number):
        part = pl.DataFrame({"x": range(10 * number, 10 * number + 10), "v": [float(number)] * 10})
        while True:
            try:
                rd.write_icechunk(part, repo, message=str(number), mode="r+")
            except ConflictError:
                refused.append(number)
            else:
                return

    threads = [Thread(target=write, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(repo)["v"].to_list() == [float(k // 10) for k in range(100)]
    assert len(messages(repo)) == 12


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:.*concurrent commits.*")
def test_workers_write_into_forks(url, folder_repo, client):
    lf = rd.scan_zarr(url)
    first, rest = lf.filter(c.time.dt.day() == 31), lf.filter(c.time.dt.day() < 31)
    with dask.config.set({"rainbear-dask.task-bytes": 20_000}):
        rd.write_icechunk(first, folder_repo, message="january", chunks={"time": 5}, client=client)
        assert_frame_equal(rows(folder_repo), first.collect())
        snapshot = rd.write_icechunk(rest, folder_repo, message="february", append_dim="time", client=client)
        assert snapshot == folder_repo.lookup_branch("main")
        assert_frame_equal(rows(folder_repo), lf.collect())
        again = rd.write_icechunk(lf.filter(c.lat < 0), folder_repo, message="south", mode="r+", client=client)
        assert_frame_equal(rows(folder_repo, snapshot_id=again), lf.collect())
    assert list(folder_repo.list_branches()) == ["main"]
    with pytest.raises(StoreError, match="memory"):
        rd.write_icechunk(lf, icechunk.Repository.create(icechunk.in_memory_storage()), message="no", client=client)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:.*concurrent commits.*")
def test_a_conflict_on_a_cluster_is_refused(url, folder_repo, client, monkeypatch):
    write_documents = icechunk_target._write_documents

    def meanwhile(*arguments, **more):
        monkeypatch.setattr(icechunk_target, "_write_documents", write_documents)
        rd.write_icechunk(FRAME, folder_repo, ["x"], message="theirs")
        write_documents(*arguments, **more)

    monkeypatch.setattr(icechunk_target, "_write_documents", meanwhile)
    with pytest.raises(ConflictError, match="Repeat the call"):
        rd.write_icechunk(rd.scan_zarr(url), folder_repo, message="mine", client=client)
    assert messages(folder_repo) == ["theirs", "Repository initialized"]
    assert list(folder_repo.list_branches()) == ["main"]
