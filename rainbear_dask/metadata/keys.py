"""Keys of metadata documents in a store."""

from typing import Any, TypeAlias

from rainbear_dask.metadata.model import ArrayMeta

Document: TypeAlias = dict[str, Any]
Nodes: TypeAlias = dict[str, Document | str]
"""Documents of arrays and groups by path, or the reason why one is unusable."""

V3_DOCUMENT = "zarr.json"
V2_CONSOLIDATED = ".zmetadata"
V2_DOCUMENTS = (".zarray", ".zgroup", ".zattrs")


def documents_of(array: ArrayMeta, group: str) -> list[str]:
    """Return the keys at which an array may have its document: its own key, and the keys of consolidated metadata."""
    if array.zarr_format == 3:
        return [join_path(group, array.path, V3_DOCUMENT), join_path(group, V3_DOCUMENT)]
    return [join_path(group, array.path, ".zarray"), join_path(group, V2_CONSOLIDATED), V2_CONSOLIDATED]


def join_path(*parts: str) -> str:
    """Join paths inside a store. Any of them may be empty, or lead up by a leading ``../``."""
    joined = ""
    for part in parts:
        while part.startswith("../"):
            joined, part = joined.rpartition("/")[0], part.removeprefix("../")  # noqa: PLW2901
        joined = f"{joined}/{part}" if joined and part else joined or part
    return joined
