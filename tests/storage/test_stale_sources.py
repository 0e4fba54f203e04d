"""A new scan reads the current state of a source: archives, references, copied files, listings."""

import asyncio
import base64
import gc
import json
import os
import shutil
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import icechunk
import numpy as np
import polars as pl
import pytest
import zarr
from fsspec.implementations.reference import ReferenceFileSystem
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

import rainbear_dask as rd
from rainbear_dask.storage import connect as connections
from rainbear_dask.storage.stores import connected_store

LENGTHS = (4, 8, 6, 4)


def values(length: int) -> list[int]:
    return [10 * i + length for i in range(length)]


def write_group(store, length):
    """One array, of chunks that keep their names while their values change; at one length another array beside it."""
    group = zarr.open_group(store, mode="w", zarr_format=3)
    group.create_array("v", data=np.array(values(length), "i4"), chunks=(2,), dimension_names=["x"])
    if length == 6:
        group.create_array("w", data=np.ones(length, "i4"), chunks=(2,), dimension_names=["x"])


def write_folder(path, length):
    shutil.rmtree(path, ignore_errors=True)
    write_group(path, length)


def files_of(path):
    return sorted(each for each in Path(path).rglob("*") if each.is_file())


def write_zip(path, length):
    write_folder(f"{path}.d", length)
    with zipfile.ZipFile(path, "w") as archive:
        for each in files_of(f"{path}.d"):
            archive.write(each, each.relative_to(f"{path}.d"))


def write_tar(path, length):
    write_folder(f"{path}.d", length)
    with tarfile.open(path, "w") as archive:
        for each in files_of(f"{path}.d"):
            archive.add(each, each.relative_to(f"{path}.d"))


def write_link(path, length):
    write_folder(f"{path}.{length}", length)
    Path(path).unlink(missing_ok=True)
    Path(path).symlink_to(f"{path}.{length}")


def references(length):
    array = {"zarr_format": 2, "shape": [length], "chunks": [2], "dtype": "<i4", "compressor": None, "filters": None}
    array |= {"fill_value": None, "order": "C"}
    found = {".zgroup": '{"zarr_format": 2}', "v/.zarray": json.dumps(array)}
    found["v/.zattrs"] = json.dumps({"_ARRAY_DIMENSIONS": ["x"]})
    for i in range(length // 2):
        chunk = np.array(values(length)[2 * i : 2 * i + 2], "<i4").tobytes()
        found[f"v/{i}"] = "base64:" + base64.b64encode(chunk).decode()
    return {"version": 1, "refs": found}


def write_references(path, length):
    Path(path).write_text(json.dumps(references(length)))


def write_nothing(path, length):
    pass


def local(**options):
    return {"remote_protocol": "file", **options}


# by name: how it is written, and source and storage options at a path, its URL, and with a length
SOURCES = {
    "folder": (write_folder, lambda p, u, n: (p, {})),
    "folder of another name": (write_link, lambda p, u, n: (p, {})),
    "folder by fsspec": (write_folder, lambda p, u, n: (u, {"library": "fsspec", "use_listings_cache": True})),
    "folder by obstore": (write_folder, lambda p, u, n: (u, {})),
    "folder inside": (write_folder, lambda p, u, n: (f"dir://{Path(p).name}::file://{Path(p).parent}", {})),
    "references": (write_references, lambda p, u, n: ("reference://", local(fo=p))),
    "references on a server": (write_references, lambda p, u, n: ("reference://", local(fo=u))),
    "references by a chain": (write_references, lambda p, u, n: (f"reference::{u}", {"reference": local()})),
    "references in a copy": (write_references, lambda p, u, n: ("reference://", local(fo=f"simplecache::{u}"))),
    "references in the options": (write_nothing, lambda p, u, n: ("reference://", {"fo": references(n)})),
    "zip": (write_zip, lambda p, u, n: (p, {})),
    "zip by fsspec": (write_zip, lambda p, u, n: (f"zip://::file://{p}", {})),
    "zip of fsspec's option": (write_zip, lambda p, u, n: ("zip://", {"fo": p})),
    "zip on a server": (write_zip, lambda p, u, n: (f"zip://::{u}", {})),
    "zip in a copy": (write_zip, lambda p, u, n: (f"zip://::simplecache::{u}", {})),
    "zip in a checked copy": (write_zip, lambda p, u, n: (f"zip://::filecache::{u}", {})),
    "tar": (write_tar, lambda p, u, n: (f"tar://::file://{p}", {})),
    "tar on a server": (write_tar, lambda p, u, n: (f"tar://::{u}", {})),
    "copies": (write_folder, lambda p, u, n: (f"simplecache::file://{p}", {})),
    "copies from a server": (write_folder, lambda p, u, n: (f"simplecache::{u}", {})),
    "checked copies": (write_folder, lambda p, u, n: (f"filecache::file://{p}", {})),
    "checked copies in a folder": (write_folder, lambda p, u, n: (f"filecache::file://{p}", kept(p, "filecache"))),
}


def kept(path, protocol):
    return {protocol: {"cache_storage": f"{path}.copies"}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder, and where a web server gives it with ranges."""
    folder = tmp_path_factory.mktemp("served")

    class Quiet(SimpleHTTPRequestHandler):
        """Serves files and parts of files."""

        def do_GET(self):
            """Answer one request."""
            path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range")
            if not wanted or not path.is_file():
                return super().do_GET()
            content, (start, _, stop) = path.read_bytes(), wanted.partition("=")[2].partition("-")
            first = int(start) if start else max(len(content) - int(stop), 0)
            part = content[first : int(stop) + 1 if start and stop else None]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
            self.end_headers()
            return self.wfile.write(part)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(source, options=None, client=None):
    return rd.scan_zarr(source, storage_options=options, client=client).collect()


def assert_current(frame, length):
    assert frame["v"].to_list() == values(length)
    assert ("w" in frame.columns) == (length == 6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec leaves files of blocks open
def test_a_new_scan_by_copies_of_blocks_sees_what_was_written_since(tmp_path):
    for length in LENGTHS:
        write_folder(tmp_path / "s", length)
        assert_current(read(f"blockcache::file://{tmp_path}/s"), length)
    gc.collect()


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_new_scan_sees_what_was_written_since(kind, where, served, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    folder, url = served
    write, source = SOURCES[kind]
    name = f"{where}-{kind.replace(' ', '-')}"
    earlier = []
    for length in LENGTHS:
        write(str(folder / name), length)
        address, options = source(str(folder / name), f"{url}/{name}", length)
        lf = rd.scan_zarr(address, storage_options=options, client=client)
        frame = lf.collect()
        assert frame["v"].to_list() == values(length)
        assert ("w" in frame.columns) == (length == 6 and "references" not in kind)
        earlier.append(lf)  # as a service may hold them


OBJECTS = {
    "zip": (write_zip, lambda p: ZipStore(p, mode="r")),
    "mapper of a zip": (write_zip, lambda p: fsspec.get_mapper(f"zip://::file://{p}")),
    "mapper of copies": (write_folder, lambda p: fsspec.get_mapper(f"simplecache::file://{p}")),
    "mapper of a folder": (write_folder, fsspec.get_mapper),
    "store of a folder": (write_folder, LocalStore),
    "mapper of references": (write_references, lambda p: fsspec.get_mapper("reference://", **local(fo=p))),
    "store of references": (
        write_references,
        lambda p: FsspecStore(ReferenceFileSystem(**local(fo=p, asynchronous=True)), read_only=True, path=""),
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_new_scan_of_the_same_object_sees_it_too(kind, tmp_path):
    write, open_ = OBJECTS[kind]
    path = str(tmp_path / "source")
    write(path, LENGTHS[0])
    source = open_(path)
    for length in LENGTHS:
        write(path, length)
        assert read(source)["v"].to_list() == values(length)


def test_stores_in_memory_are_read_as_they_are():
    memory, of_obstore = MemoryStore(), rd.store.MemoryStore()
    for length in LENGTHS:
        for source, store in [(memory, memory), (of_obstore, zarr.storage.ObjectStore(of_obstore))]:
            write_group(store, length)
            assert read(source)["v"].to_list() == values(length)


def test_a_new_backend_of_a_repository_is_at_the_newest_snapshot(tmp_path):
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    for length in LENGTHS:
        session = repo.writable_session("main")
        write_group(session.store, length)
        session.commit(str(length))
        backend = asyncio.run(rd.IcechunkBackend.from_filesystem(tmp_path / "repo"))
        assert_current(rd.scan_zarr(backend).collect(), length)


def test_files_of_a_tar_archive_are_not_mixed_up_by_threads(tmp_path):
    """All of them are read by one handle of fsspec."""
    group = zarr.open_group(tmp_path / "t.d", mode="w", zarr_format=3)
    numbers = np.arange(400, dtype="i4")
    group.create_array("v", data=numbers, chunks=(2,), compressors=None, dimension_names=["x"])
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for each in files_of(tmp_path / "t.d"):
            archive.add(each, each.relative_to(tmp_path / "t.d"))
    for _ in range(3):
        assert read(f"tar://::file://{tmp_path}/t.tar")["v"].to_list() == numbers.tolist()


def test_an_index_is_read_once_for_an_opening_in_a_process(tmp_path, monkeypatch):
    made = []
    new = connections._new
    monkeypatch.setattr(connections, "_new", lambda url, options: made.append(url) or new(url, options))
    write_references(tmp_path / "r.json", 8)
    lf = rd.scan_zarr("reference://", storage_options=local(fo=str(tmp_path / "r.json")))
    for _ in range(3):
        assert lf.filter(pl.col("v") > 20).collect().height == 6
    assert made == ["reference://"]


def test_a_connection_without_an_index_is_shared_by_openings(served):
    folder, url = served
    write_folder(folder / "shared", 4)
    stores = [connected_store(rd.plan(f"{url}/shared").table.spec) for _ in range(2)]
    assert stores[0] is stores[1]


def test_a_plan_of_an_archive_has_dask_keys_of_its_opening(tmp_path):
    """Without them a result that another plan keeps on the cluster would be taken, though chunks have changed since."""
    write_references(tmp_path / "r.json", 4)
    plans = [rd.plan("reference://", storage_options=local(fo=str(tmp_path / "r.json"))) for _ in range(2)]
    first, second = ({frame.key for frame in plan.to_delayed()} for plan in plans)
    assert not first & second


def test_temporary_copies_go_with_their_opening(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_folder(tmp_path / "s", 4)
    for _ in range(3):
        assert read(f"simplecache::file://{tmp_path}/s")["v"].to_list() == values(4)
    gc.collect()  # file systems of fsspec refer to themselves
    assert os.listdir(tmp_path / "temporary") == []  # noqa: PTH208
