"""Icechunk: which state is read, that it is one state for all of a scan, and which sessions are refused."""

import asyncio
import pickle

import dask
import icechunk
import numpy as np
import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, StoreError, StoreFormatError, StoreNotFoundError
from rainbear_dask.execution.run import iter_frames
from tests.support.errors import caught

c = pl.col
TASKS, LENGTH = 8, 2**19  # a chunk of 4 MiB is a task of its own


@pytest.fixture
def repo(tmp_path):
    """A repository of one commit, ``v`` being 1 everywhere, in the folder "repo"."""
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    session = repo.writable_session("main")
    group = zarr.open_group(session.store, mode="w").create_group("inner")
    array = group.create_array(
        "v", shape=(TASKS, LENGTH), chunks=(1, LENGTH), dtype="f8", dimension_names=["x", "y"], fill_value=-1
    )
    array[:] = 1
    session.commit("ones")
    return repo


def fill(repo, value, branch="main") -> str:
    """Commit another value of all cells; its snapshot."""
    session = repo.writable_session(branch)
    zarr.open_array(session.store, path="inner/v")[:] = value
    return session.commit(f"all {value}")


def values(answer: pl.DataFrame) -> list[float]:
    assert answer.height == TASKS * LENGTH
    return answer["v"].unique().to_list()


def ask(backend, expr=c.v > -9):
    return asyncio.run(backend.scan_zarr_async(expr))


@pytest.fixture
def open_(tmp_path, repo):
    """Open the repository as a backend by ``from_filesystem``."""

    def open_backend(*args, **kwargs):
        return asyncio.run(rd.IcechunkBackend.from_filesystem(tmp_path / "repo", *args, root="inner", **kwargs))

    return open_backend


def test_readme_of_the_icechunk_backend(tmp_path, repo):
    repo.create_branch("experimental-branch", repo.lookup_branch("main"))
    fill(repo, 2, "experimental-branch")

    async def main():
        backend = await rd.IcechunkBackend.from_filesystem(path=str(tmp_path / "repo"), branch="main", root="inner")
        df1 = await backend.scan_zarr_async(pl.col("x") > 1)
        df2 = await backend.scan_zarr_async(pl.col("x") > 6)
        session = repo.readonly_session("experimental-branch")
        backend = await rd.IcechunkBackend.from_session(session, root="/inner")
        df = await backend.scan_zarr_async(pl.col("x") < 2)
        return df1, df2, df

    for answer, rows, value in zip(asyncio.run(main()), (6, 1, 2), (1, 1, 2), strict=True):
        assert answer.height == rows * LENGTH
        assert answer["v"].unique().to_list() == [value]


def test_branch_tag_and_snapshot(repo, open_):
    first = repo.lookup_branch("main")
    repo.create_tag("v1", first)
    second = fill(repo, 2)
    repo.create_branch("side", first)
    fill(repo, 3, "side")
    for named, value in [
        ({}, 2),
        ({"branch": "main"}, 2),
        ({"branch": "side"}, 3),
        ({"tag": "v1"}, 1),
        ({"snapshot_id": first}, 1),
        ({"snapshot_id": second}, 2),
    ]:
        assert values(ask(open_(**named))) == [value], named


def test_two_snapshots_in_one_query(repo, open_):
    first = open_()
    fill(repo, 5)
    before, after = (rd.scan_zarr(backend) for backend in (first, open_()))
    change = after.join(before, on=["x", "y"], suffix="_before").select(c.v - c.v_before)
    assert change.filter(c.v != 4).collect().height == 0
    assert change.select(pl.len()).collect().item() == TASKS * LENGTH


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_a_commit_during_a_scan_is_not_seen_by_it(repo, open_, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    tasks = list(rd.plan(open_()).tasks())
    assert len(tasks) == TASKS
    frames = [*iter_frames(tasks[:1], client)]
    fill(repo, 2)
    frames += iter_frames(tasks[1:], client)
    assert values(pl.concat(frames)) == [1]


@pytest.mark.cluster
def test_every_worker_reads_the_snapshot_of_the_plan(repo, open_, client):
    plan = rd.plan(open_())
    fill(repo, 2)
    for worker in client.nthreads():
        with dask.annotate(workers=[worker]):
            assert values(pl.concat(client.gather(plan.to_futures(client)))) == [1]


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_branches_are_read_side_by_side_while_both_move(repo, open_, where, request):
    if where == "cluster":
        request.getfixturevalue("client")
    repo.create_branch("side", repo.lookup_branch("main"))
    fill(repo, 3, "side")
    main, side = open_(branch="main"), open_(branch="side")

    async def ask_all():
        questions = [asyncio.create_task(backend.scan_zarr_async(c.x >= 0)) for backend in (main, side) * 2]
        await asyncio.to_thread(fill, repo, 10)
        await asyncio.to_thread(fill, repo, 30, "side")
        return await asyncio.gather(*questions)

    assert [values(answer) for answer in asyncio.run(ask_all())] == [[1], [3]] * 2
    assert [values(ask(open_(branch=name))) for name in ("main", "side")] == [[10], [30]]


def test_a_backend_stays_at_its_snapshot_until_its_caches_are_cleared(repo, open_):
    backend = open_()  # here already, before anything is read
    fill(repo, 2)
    assert values(ask(backend)) == [1]
    assert values(pl.concat(pickle.loads(pickle.dumps(backend)).scan_zarr_streaming_sync())) == [1]
    asyncio.run(backend.clear_coord_cache())
    assert values(ask(backend)) == [1]
    asyncio.run(backend.clear_all_caches())
    assert values(ask(backend)) == [2]


def test_a_session_stays_at_its_snapshot(repo):
    session = repo.readonly_session("main")
    fill(repo, 2)
    for source in (session, pickle.dumps(session)):
        backend = asyncio.run(rd.IcechunkBackend.from_session(source, "inner"))
        assert values(ask(backend)) == [1]
        asyncio.run(backend.clear_all_caches())
        assert values(ask(pickle.loads(pickle.dumps(backend)))) == [1]
    for source in (session, session.store):
        assert values(rd.scan_zarr(source, group="inner").collect()) == [1]


def test_a_session_that_was_committed_can_be_read(repo):
    session = repo.writable_session("main")
    zarr.open_array(session.store, path="inner/v")[:] = 7
    session.commit("sevens")
    assert values(rd.scan_zarr(session, group="inner").collect()) == [7]


def test_a_session_that_can_be_written_to_is_refused(repo):
    session = repo.writable_session("main")
    for refused in (
        lambda: rd.scan_zarr(session),
        lambda: rd.scan_zarr(session.store),
        lambda: asyncio.run(rd.IcechunkBackend.from_session(session)),
    ):
        caught(StoreError, refused, "is writable", "readonly_session")


def test_what_is_not_there(tmp_path, open_):
    caught(StoreNotFoundError, lambda: open_(branch="none"), "none", "not found")
    caught(StoreNotFoundError, lambda: open_(tag="none"), "none", "not found")
    caught(StoreNotFoundError, lambda: open_(snapshot_id="none"), "none", "invalid")
    caught(
        StoreNotFoundError,
        lambda: asyncio.run(rd.IcechunkBackend.from_filesystem(tmp_path / "none")),
        "No Icechunk repository",
    )
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    caught(
        StoreNotFoundError,
        lambda: asyncio.run(rd.IcechunkBackend.from_filesystem(tmp_path / "empty")),
        "doesn't exist",
    )


def test_what_cannot_be_asked(repo, open_):
    caught(QueryError, lambda: open_(branch="main", tag="v1"), "`tag`")
    for nonsense in (b"no pickle", 3, "path", repo):
        caught(StoreFormatError, lambda it=nonsense: asyncio.run(rd.IcechunkBackend.from_session(it)), "session")


def test_faces_of_the_backend(open_):
    backend = open_(options=rd.BackendOptions(coord_cache_max_entries=1))
    assert backend.schema() == {"x": pl.Int64(), "y": pl.Int64(), "v": pl.Float64()}
    assert backend.root() == "/inner"
    assert "repo@main" in repr(backend)
    (grid,) = backend.selected_chunks_debug(c.x == 3)["grids"]
    assert [chunk["indices"] for chunk in grid["chunks"]] == [[3, 0]]
    assert asyncio.run(backend.cache_stats())["has_metadata"]
    frames = list(backend.scan_zarr_streaming_sync(c.x > 5, ["v"], None, 10, 4, 1))
    assert [frame.height for frame in frames] == [4, 4, 2]
    with pytest.raises(rd.exceptions.PlanTooLargeError):
        asyncio.run(backend.scan_zarr_async(c.x > 1, max_chunks_to_read=2))


@pytest.fixture
def in_memory():
    """A read-only session of a repository that only this process has."""
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="w").create_array("v", shape=(2,), dtype="i4", dimension_names=["x"])[:] = 1
    session.commit("ones")
    return repo.readonly_session("main")


def test_a_repository_in_memory(in_memory):
    assert rd.scan_zarr(in_memory).collect()["v"].to_list() == [1, 1]


@pytest.mark.cluster
def test_a_repository_in_memory_is_not_taken_for_empty_by_workers(in_memory, client):
    with pytest.raises(StoreError):
        rd.scan_zarr(in_memory).collect()


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_virtual_chunks_are_read_where_the_session_may(tmp_path, where, request):
    (tmp_path / "files").mkdir()
    numbers = np.arange(6, dtype="<i4")
    (tmp_path / "files" / "raw.bin").write_bytes(numbers.tobytes())
    prefix = f"file://{tmp_path}/files/"
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(tmp_path / "files")))
    )
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repo"))
    access = getattr(icechunk.credentials, "LocalFileSystemAccess", None)  # release 1 has no name for it
    repo = icechunk.Repository.create(storage, config, authorize_virtual_chunk_access={prefix: access})
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="w").create_array(
        "v", shape=(6,), chunks=(6,), dtype="i4", dimension_names=["x"], compressors=None
    )
    session.store.set_virtual_ref("v/c/0", f"{prefix}raw.bin", offset=0, length=24)
    session.commit("virtual")
    if where == "cluster":
        request.getfixturevalue("client")
    backend = asyncio.run(rd.IcechunkBackend.from_session(repo.readonly_session("main")))
    assert_frame_equal(ask(pickle.loads(pickle.dumps(backend)), pl.col("v")), pl.DataFrame({"v": numbers}))


# ---------------------------------------------------------------------- sessions as bytes


FORMS = {
    "a pickled session": pickle.dumps,
    "a pickled store": lambda session: pickle.dumps(session.store),
    "its own": lambda session: session._session.as_bytes(),
    "its own, that can be changed": lambda session: bytearray(session._session.as_bytes()),
    "a view": lambda session: memoryview(pickle.dumps(session)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_session_may_be_given_as_bytes_of_any_form(repo, form):
    content = FORMS[form](repo.readonly_session("main"))
    fill(repo, 2)  # it stays where it was
    backend = asyncio.run(rd.IcechunkBackend.from_session(content, root="inner"))
    assert values(ask(backend)) == [1]


NO_SESSIONS = {
    "nothing": b"",
    "text": b"a session",
    "a pickled number": pickle.dumps(5),
    "a pickle cut short": pickle.dumps("text" * 9)[:-5],
    "a pickle of what is not there": b"\x80\x05cnowhere\nat_all\n.",
    "a pickle that raises": b"\x80\x05cbuiltins\nint\nX\x01\x00\x00\x00a\x85R.",
}


@pytest.mark.parametrize("kind", NO_SESSIONS)
def test_bytes_that_are_no_session_are_an_error_of_ours(kind):
    caught(StoreFormatError, lambda: asyncio.run(rd.IcechunkBackend.from_session(NO_SESSIONS[kind])), "session")


def test_damaged_bytes_of_a_session_are_an_error_of_ours(repo):
    content, chance = repo.readonly_session("main")._session.as_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for place in chance.integers(0, len(content), 3):
            damaged[place] = chance.integers(256)
        try:
            asyncio.run(rd.IcechunkBackend.from_session(bytes(damaged)))
        except StoreError:
            refused += 1
    assert refused > 100


def test_bytes_of_a_session_that_can_be_written_to_are_refused(repo):
    content = repo.writable_session("main")._session.as_bytes()
    caught(StoreError, lambda: asyncio.run(rd.IcechunkBackend.from_session(content)), "writable")


def test_icechunks_own_bytes_are_never_unpickled(repo, monkeypatch):
    content = repo.readonly_session("main")._session.as_bytes()
    monkeypatch.setattr(pickle, "loads", lambda _: pytest.fail("unpickled"))
    asyncio.run(rd.IcechunkBackend.from_session(content))
