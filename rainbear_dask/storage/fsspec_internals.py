"""Methods of fsspec's file systems below its public API, as of fsspec 2026.9.0.

zarr's event loop needs the coroutines of asynchronous file systems. Their public forms block, and read without a bound.
"""

from typing import Any

from fsspec.implementations.reference import ReferenceFileSystem


async def cat_file(files: Any, path: str, start: int | None, stop: int | None) -> bytes:
    """Read a range of a file of an asynchronous file system."""
    found: bytes = await files._cat_file(path, start=start, end=stop)
    return found


async def find_files(files: Any, path: str) -> dict[str, dict[str, Any]]:
    """List all files below a path, each with its properties."""
    found: dict[str, dict[str, Any]] = await files._find(path, detail=True)
    return found


def resolve_reference(files: ReferenceFileSystem, path: str) -> tuple[Any, int | None, int | None]:
    """Return the target of a reference: bytes, or a file with the range of the reference in it, if it has one."""
    target, start, stop = files._cat_common(path)
    return target, start, stop


def raise_for_status(files: Any, response: Any, url: str) -> None:
    """Raise the error of an HTTP response, as fsspec's HTTP file system does."""
    files._raise_not_found_for_status(response, url)
