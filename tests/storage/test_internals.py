"""Private parts of zarr, fsspec and Icechunk that storage is tied to: a release without one of them fails here, by name."""

import asyncio
import inspect

import fsspec
import pytest
import zarr
from fsspec.implementations.reference import ReferenceFileSystem
from zarr.storage import ZipStore

from rainbear_dask.storage import fsspec_internals, sources, zarr_internals


def gone(part, module):
    return f"{part} is gone or changed: read the new release, and adapt rainbear_dask/storage/{module.__name__.rpartition('.')[2]}.py"


def test_buffers_and_sync_of_zarr():
    async def answer():
        return 42

    assert zarr_internals.sync(answer()) == 42, gone("zarr's sync", zarr_internals)
    buffer = zarr_internals.default_buffer_prototype().buffer.from_bytes(b"abc")
    assert isinstance(buffer, zarr_internals.Buffer), gone("zarr's Buffer", zarr_internals)
    assert (buffer.to_bytes(), buffer.as_numpy_array().tobytes()) == (b"abc", b"abc"), gone("Buffer", zarr_internals)


@pytest.mark.parametrize("part", ["_is_open", "_sync_open", "_lock", "_zf"])
def test_a_zip_store_has_its_archive(tmp_path, part):
    with ZipStore(tmp_path / "s.zip", mode="w") as store:
        zarr.create_group(store)
    store = ZipStore(tmp_path / "s.zip", mode="r")
    with zarr_internals.open_archive(store) as archive:
        assert archive.namelist() == ["zarr.json"], gone("the archive of a ZipStore", zarr_internals)
    assert hasattr(store, part), gone(f"ZipStore.{part}", zarr_internals)


def test_a_reference_is_resolved_to_its_target():
    files = ReferenceFileSystem(fo={"a": "text", "b": ["memory://x", 2, 3], "c": ["memory://x"]}, fs=None)
    found = [fsspec_internals.resolve_reference(files, path) for path in "abc"]
    message = gone("ReferenceFileSystem._cat_common", fsspec_internals)
    assert found == [(b"text", None, None), ("memory://x", 2, 5), ("memory://x", None, None)], message


def test_files_are_read_by_coroutines():
    for protocol in ("http", "s3"):
        method = getattr(fsspec.get_filesystem_class(protocol), "_cat_file", None)
        message = gone(f"_cat_file of {protocol}", fsspec_internals)
        assert inspect.iscoroutinefunction(method), message
        assert {"start", "end"} <= set(inspect.signature(method).parameters), message
    memory = fsspec.filesystem("memory")
    memory.pipe("/canary", b"0123456789")
    wrapped = fsspec.get_filesystem_class("async_wrapper")(memory, asynchronous=True)
    assert asyncio.run(fsspec_internals.cat_file(wrapped, "/canary", 2, 5)) == b"234", gone(
        "_cat_file", fsspec_internals
    )
    memory.rm("/canary")


def test_the_error_of_a_response_is_raised():
    class Response:
        status = 404

    files = fsspec.filesystem("http")
    try:
        fsspec_internals.raise_for_status(files, Response(), "http://x")
    except FileNotFoundError:
        return
    pytest.fail(gone("HTTPFileSystem._raise_not_found_for_status", fsspec_internals))


def test_an_icechunk_session_has_bytes():
    from icechunk._icechunk_python import PySession  # noqa: PLC0415

    for part in ("as_bytes", "from_bytes"):
        assert hasattr(PySession, part), gone(f"icechunk's PySession.{part}", sources)
