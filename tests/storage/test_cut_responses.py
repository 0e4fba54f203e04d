"""Web servers whose responses are truncated, too long, endless, or not the requested range."""

import base64
import http.server
import json
import threading
from contextlib import contextmanager, suppress

import numpy as np
import polars as pl
import pytest
import xarray as xr

import rainbear_dask as rd
from rainbear_dask.exceptions import ChunkReadError, RainbearError
from rainbear_dask.storage import requests as fetch
from tests.support.errors import caught

VALUES = np.random.default_rng(0).random((4, 2_000))
LIBRARIES = ["obstore", "fsspec"]


class Web:
    """Serves a folder; ``fault`` says what is done to responses for paths that hold ``part``, so many of each path."""

    def __init__(self, folder):
        self.folder, self.fault, self.part, self.times, self.etag = folder, None, "", 1, False
        self.done, self.url = {}, ""

    def fault_for(self, path):
        if self.fault is None or self.part not in path:
            return None
        self.done[path] = self.done.get(path, 0) + 1
        return self.fault if self.done[path] <= self.times else None


def span(asked, size):
    """Where a range starts and stops."""
    if not asked:
        return 0, size
    first, last = asked.removeprefix("bytes=").split("-")
    start = int(first) if first else max(size - int(last), 0)
    return start, min(int(last) + 1, size) if first and last else size


def changed(fault, whole, start, stop):
    """What a response says that it is, and what it holds."""
    middle = start + (stop - start) // 2
    if fault == "less":
        return (start, middle), whole[start:middle]
    if fault == "lie":
        return (start, stop), whole[start:middle]
    if fault == "more":
        return (max(start - 7, 0), len(whole)), whole[max(start - 7, 0) :]
    return (start, stop), whole[start:stop]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_):
        pass

    def do_GET(self):
        file, asked = self.web.folder / self.path.strip("/"), self.headers.get("Range")
        if not file.is_file():
            self.send_error(404)
            return
        whole, fault = file.read_bytes(), self.web.fault_for(self.path)
        if fault == "no ranges":
            asked = None
        said, body = changed(fault if asked else None, whole, *span(asked, len(whole)))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {said[0]}-{said[1] - 1}/{len(whole)}")
        if self.web.etag:
            self.send_header("ETag", '"1"')
        self.send_header(*("Transfer-Encoding", "chunked") if fault in PIECES else ("Content-Length", str(len(body))))
        self.end_headers()
        if fault in PIECES:
            self.send_pieces(body[: len(body) // 2], fault)
        else:
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = fault is not None

    do_HEAD = do_GET  # noqa: N815  as it is called

    def send_pieces(self, piece, fault):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        with suppress(OSError):  # when the client has had enough
            while fault == "endless":
                self.wfile.write(b"100000\r\n" + bytes(2**20) + b"\r\n")


PIECES = {"cut in pieces", "endless"}


@contextmanager
def serving(folder):
    web = Web(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Serving", (Handler,), {"web": web}))
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three stores of the same values: in chunks, in shards, and of v2 in chunks."""
    folder = tmp_path_factory.mktemp("web")
    data = xr.Dataset({"v": (("t", "x"), VALUES)})
    plain, shards = {"v": {"chunks": (1, 2_000)}}, {"v": {"chunks": (1, 100), "shards": (1, 2_000)}}
    data.to_zarr(folder / "chunks", consolidated=True, zarr_format=3, encoding=plain)
    data.to_zarr(folder / "shards", consolidated=True, zarr_format=3, encoding=shards)
    data.to_zarr(folder / "v2", consolidated=True, zarr_format=2, encoding=plain)
    data.assign(v=data["v"].astype(str)).to_zarr(folder / "text", consolidated=True, zarr_format=2, encoding=plain)
    return folder


@pytest.fixture
def web(folder, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT_SECONDS", 0.01)
    with serving(folder) as web:
        yield web


def scan(web, store, library):
    retries = {"retry_config": {"max_retries": 2}} if library == "obstore" else {}
    return rd.scan_zarr(f"{web.url}/{store}", storage_options={"library": library} | retries)


def check(web, store, library, *, columns=2_000):
    """The whole, or few columns: of a shard a part."""
    lf = scan(web, store, library)
    actual = lf.filter(pl.col("x") < columns) if columns < 2_000 else lf
    found = actual.collect()["v"].to_numpy()
    expected = VALUES[:, :columns].ravel()
    np.testing.assert_array_equal(found.astype(float) if store == "text" else found, expected)


READS = {
    "chunks": ("chunks", "/c/", 2_000),
    "v2": ("v2", "/v/", 2_000),
    "shards": ("shards", "/c/", 2_000),
    "parts of shards": ("shards", "/c/", 50),
    "text": ("text", "/v/", 2_000),
    "documents": ("chunks", "zarr.json", 2_000),
    "documents of v2": ("v2", ".zmetadata", 2_000),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("etag", [False, True], ids=["no ETag", "ETag"])
@pytest.mark.parametrize("read", READS)
def test_a_response_that_is_cut_short_is_asked_for_again(web, library, etag, read):
    store, web.part, columns = READS[read]
    web.fault, web.etag = "cut", etag
    check(web, store, library, columns=columns)
    assert max(web.done.values()) > 1


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("read", ["chunks", "shards", "parts of shards", "text"])
def test_a_response_that_is_cut_short_each_time_is_an_error_that_names_the_chunk(web, library, read):
    store, web.part, columns = READS[read]
    web.fault, web.times = "cut", 100
    stored = "shard" if "shards" in read else "chunk"
    caught(ChunkReadError, lambda: check(web, store, library, columns=columns), f"{stored} (", "key 'v/", "'v'")
    assert fetch.MAX_ATTEMPTS <= max(web.done.values()) <= 2 * fetch.MAX_ATTEMPTS + 2


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_document_that_is_cut_short_each_time_is_an_error(web, library):
    web.part, web.fault, web.times = "zarr.json", "cut", 100
    caught(RainbearError, lambda: check(web, "chunks", library), web.url)


def test_pieces_that_end_too_early_are_asked_for_again(web):
    web.part, web.fault = "/c/", "cut in pieces"
    check(web, "chunks", "fsspec")
    assert set(web.done.values()) == {2}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("fault", ["less", "lie", "more", "no ranges"])
@pytest.mark.parametrize("times", [1, 100], ids=["once", "always"])
def test_of_a_range_that_was_not_asked_for_come_true_values_or_an_error(web, library, fault, times):
    web.part, web.fault, web.times = "/c/", fault, times
    try:
        check(web, "shards", library, columns=50)
    except ChunkReadError as error:
        assert times > 1
        assert "shard (" in str(error)  # noqa: PT017


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("fault", ["more", "no ranges"])
def test_a_server_that_sends_more_than_was_asked_for_is_read_right(web, library, fault):
    web.part, web.fault, web.times = "/c/", fault, 100
    check(web, "shards", library, columns=50)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("store", ["chunks", "text"])
def test_a_response_without_an_end_is_not_read_to_it(web, library, store):
    web.part, web.fault, web.times = "/c/" if store == "chunks" else "/v/", "endless", 100
    caught(ChunkReadError, lambda: check(web, store, library), "'v'")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_document_without_an_end_is_not_read_to_it(web, library, monkeypatch):
    monkeypatch.setattr("rainbear_dask.storage.requests.get.__kwdefaults__", {"limit": 2**22})
    web.part, web.fault, web.times = "zarr.json", "endless", 100
    caught(RainbearError, lambda: check(web, "chunks", library), web.url)


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_object_larger_than_its_chunk_can_be_is_refused_before_it_is_read(tmp_path, folder, library, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT_SECONDS", 0.01)
    (tmp_path / "s").symlink_to(folder / "chunks")
    xr.Dataset({"v": (("t", "x"), VALUES)}).to_zarr(
        tmp_path / "large", consolidated=True, zarr_format=3, encoding={"v": {"chunks": (1, 2_000)}}
    )
    (tmp_path / "large/v/c/2/0").write_bytes(bytes(2**24))
    with serving(tmp_path) as web:
        caught(ChunkReadError, lambda: check(web, "large", library), "chunk (2, 0)", "allow")


@pytest.fixture
def references(tmp_path, web, folder):
    """References to parts of one file on the server: chunk 0 and 1 as parts, 2 as a file, 3 in the references themselves."""
    rows = [row.tobytes() for row in VALUES]
    (folder / "archive.bin").write_bytes(b"before" + rows[0] + rows[1] + b"behind" * 5_000)
    (folder / "third.bin").write_bytes(rows[2])
    document = {"zarr_format": 2, "shape": [4, 2_000], "chunks": [1, 2_000], "dtype": "<f8", "order": "C"}
    document |= {"compressor": None, "filters": None, "fill_value": None}
    url, size = f"{web.url}/archive.bin", len(rows[0])
    found = {
        ".zgroup": '{"zarr_format": 2}',
        "v/.zarray": json.dumps(document),
        "v/.zattrs": '{"_ARRAY_DIMENSIONS": ["t", "x"]}',
        "v/0.0": [url, 6, size],
        "v/1.0": [url, 6 + size, size],
        "v/2.0": [f"{web.url}/third.bin"],
        "v/3.0": "base64:" + base64.b64encode(rows[3]).decode(),
    }
    path = tmp_path / "references.json"

    def scan(**more):
        path.write_text(json.dumps({"version": 1, "refs": found | more}))
        return rd.scan_zarr("reference://", storage_options={"fo": str(path), "remote_protocol": "http"})

    return scan


@pytest.mark.parametrize("fault", [None, "cut", "more", "no ranges", "cut in pieces"])
def test_references_are_read_within_what_they_name(web, references, fault):
    web.part, web.fault = ".bin", fault
    found = references().collect()["v"].to_numpy()
    np.testing.assert_array_equal(found, VALUES.ravel())


def test_a_reference_to_more_than_a_chunk_is_an_error(web, references):
    lf = references(**{"v/1.0": [f"{web.url}/archive.bin", 0, 10**12]})
    caught(ChunkReadError, lf.collect, "chunk (1, 0)", "allow")


def test_a_reference_to_nothing_is_no_missing_chunk(web, references):
    lf = references(**{"v/1.0": [f"{web.url}/nothing.bin", 0, 16_000]})
    caught(ChunkReadError, lf.collect, "chunk (1, 0)", "nothing.bin")
