"""Where in a store metadata documents are."""

from typing import Any, TypeAlias

from rainbear_dask.metadata.model import ArrayMeta

Document: TypeAlias = dict[str, Any]
Nodes: TypeAlias = dict[str, Document | str]  # by path: the document of an array or group, or what is wrong with it

V3_DOCUMENT = "zarr.json"
V2_CONSOLIDATED = ".zmetadata"
V2_DOCUMENTS = (".zarray", ".zgroup", ".zattrs")


def documents_of(array: ArrayMeta, group: str) -> list[str]:
    """Keys at which an array of a group may have its document: its own, and those where documents are consolidated."""
    if array.zarr_format == 3:
        return [join_path(group, array.path, V3_DOCUMENT), join_path(group, V3_DOCUMENT)]
    return [join_path(group, array.path, ".zarray"), join_path(group, V2_CONSOLIDATED), V2_CONSOLIDATED]


def join_path(*parts: str) -> str:
    """Join paths inside a store, of which any may be empty, and one may lead up by leading ``../``."""
    joined = ""
    for part in parts:
        while part.startswith("../"):
            joined, part = joined.rpartition("/")[0], part.removeprefix("../")  # noqa: PLW2901
        joined = f"{joined}/{part}" if joined and part else joined or part
    return joined
