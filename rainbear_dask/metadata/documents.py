"""Metadata documents of a store, of Zarr v2 and v3, as plain data in the form of v3.

zarr opens no group that holds an array it does not know. So the documents are read here, and zarr gets each array on
its own.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from rainbear_dask.exceptions import StoreFormatError, StoreNotFoundError
from rainbear_dask.metadata.formats import NUM_BYTES, format_of_file, format_of_folder, format_of_name
from rainbear_dask.metadata.keys import V2_CONSOLIDATED, V2_DOCUMENTS, V3_DOCUMENT, Document, Nodes, join_path
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_VALUES, TooLargeError
from rainbear_dask.storage import requests
from rainbear_dask.storage.local_files import SpecialFileError, is_regular, read_part

MAX_DEPTH = 32
"""Levels of nested groups; a link back to a group above would nest them without end."""

MAX_DIRECT_READS = 16
"""Files or folders that are read on this thread. More of them are left to other threads, because a disk may be slow."""

MAX_DIGITS = 640
"""Digits of the longest number that Python always converts to an integer."""

_DOCUMENT_NAMES = ((3, V3_DOCUMENT), (2, ".zarray"), (2, ".zattrs"))  # of an array, by version of Zarr
V2_GROUP: Document = {"zarr_format": 2, "node_type": "group"}


class Documents:
    """The metadata documents of one store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store, opened for reading.
    label : str
        Name of the store in messages.

    Attributes
    ----------
    digest
        Digest of all documents that were read.
    first_key : str
        Key of the first document.
    """

    def __init__(self, store: Store, label: str) -> None:
        self.store = store
        self.label = label
        self.digest = blake2b(digest_size=16)
        self.first_key = ""
        self._members: Nodes | None = None  # all groups and arrays, if the store's root lists them

    async def below(self, group: str) -> Nodes:
        """Read the documents of a group, and of all groups and arrays below it.

        Consolidated metadata is trusted, and requested once. Without it the store is listed, one level of groups at a
        time.

        Parameters
        ----------
        group : str
            Path of the group; "" is the root.

        Returns
        -------
        dict of str to (dict or str)
            Documents in the form of v3, by path from the group, whose own path is "". An unusable document is replaced
            by the reason. They are in the order of the consolidated document, or level by level, each sorted by path.

        Raises
        ------
        StoreNotFoundError
            If there is no Zarr group.
        StoreFormatError
            If there is an array instead, or metadata of another kind.
        """
        if group:
            self._members = _consolidated(await self._node(""))
            members = self._members or {}
            below = {path: members[path] for path in members if path == group or path.startswith(f"{group}/")}
            if any(path != group for path in below) or is_group(below.get(group)):
                return {"": {}} | {path[len(group) :].lstrip("/"): document for path, document in below.items()}
        node = await self._node(group)
        if node is None:
            if (arrays := await self._without_group(group)) is not None:
                return arrays
            raise StoreNotFoundError(await self._absence(group))
        if not is_group(node):
            raise self._not_a_group(group)
        nodes: Nodes = {"": node}
        held = _consolidated(node)
        return nodes | (await self._listed(group, node) if held is None else held)

    async def above(
        self,
        group: str,
        levels: int,
        dims: Sequence[str],
        formats: Collection[int],
        is_absent: Callable[[BaseException], bool],
    ) -> Nodes:
        """Read the documents that arrays with the names of some dimensions may have in the groups above a group.

        Parameters
        ----------
        group : str
            Path of the group.
        levels : int
            Number of groups above it.
        dims : sequence of str
            Names of the dimensions.
        formats : collection of int
            Versions of Zarr of the group's arrays.
        is_absent : callable
            Whether an error means that there is no such document.

        Returns
        -------
        dict of str to (dict or str)
            Documents by path from the group, such as ``../x``, nearest group first. If the store's root holds all
            documents, no request is made.
        """
        names = [dim for dim in dims if dim.strip(".") and "/" not in dim]
        places = ["../" * level + name for level in range(1, levels + 1) for name in names]
        if self._members is not None:
            members = {place: self._members.get(join_path(group, place)) for place in places}
            return {place: document for place, document in members.items() if document is not None}
        files = [name for version, name in _DOCUMENT_NAMES if version in formats]
        entries = {f"{place}/{name}": join_path(group, place, name) for place in places for name in files}
        gets = (requests.get(self.store, key) for key in entries.values())
        asked = await asyncio.gather(*gets, return_exceptions=True)
        found: Nodes = {}
        for key, answer in zip(entries, asked, strict=True):
            if isinstance(answer, BaseException):
                if not is_absent(answer):
                    raise answer
            elif answer is not None:
                self._note(entries[key], content := answer.to_bytes())
                found[key] = _read_document(content)
        of_v3 = {key: document for key, document in found.items() if key.endswith(f"/{V3_DOCUMENT}")}
        return _v2_nodes({key: document for key, document in found.items() if key not in of_v3}) | _v3_nodes(of_v3)

    async def _node(self, path: str) -> Document | None:
        """Read the document of one array or group; None if there is neither."""
        (v3,) = await self._get(join_path(path, V3_DOCUMENT))
        if v3 is not None:
            return self._checked(path, self._parsed(join_path(path, V3_DOCUMENT), v3))
        (consolidated,) = await self._get(join_path(path, V2_CONSOLIDATED))
        if consolidated is not None:
            entries = self._parsed(join_path(path, V2_CONSOLIDATED), consolidated).get("metadata")
            if not isinstance(entries, dict):
                raise StoreFormatError(
                    f"{self.label}: {join_path(path, V2_CONSOLIDATED)} holds no metadata. Consolidate the store again."
                )
            members = _v2_nodes({key: _document(entry) for key, entry in entries.items()})
            attributes = entries.get(".zattrs")
            return V2_GROUP | {"attributes": attributes, "consolidated_metadata": {"metadata": members}}
        keys = [join_path(path, name) for name in V2_DOCUMENTS]
        found = [(key, raw) for key, raw in zip(keys, await self._get(*keys), strict=True) if raw is not None]
        node = _v2_nodes({key.rpartition("/")[2]: self._parsed(key, raw) for key, raw in found}).get("")
        return node if isinstance(node, dict) else None

    async def _listed(self, group: str, node: Document) -> Nodes:
        """List a group, and read all documents below it: level by level, each sorted by path."""
        names = (V3_DOCUMENT,) if node["zarr_format"] == 3 else V2_DOCUMENTS
        nodes: Nodes = {}
        level = [""]
        for _ in range(MAX_DEPTH):
            listings = await self._list(*(join_path(group, path) for path in level))
            # a listing shows at least the document of the group; further down, web servers may hide documents of v2
            if level == [""] and not any(listings):
                raise StoreFormatError(
                    f"{self.label} cannot be listed and has no consolidated metadata, so its arrays are unknown. "
                    "Consolidate it (zarr.consolidate_metadata) from an account that may write to it."
                )
            children = [join_path(path, name) for path, found in zip(level, listings, strict=True) for name in found]
            keys = [join_path(child, name) for child in sorted(children) for name in names]
            contents = zip(keys, await self._get(*(join_path(group, key) for key in keys)), strict=True)
            entries = {key: _read_document(raw) for key, raw in contents if raw is not None}
            found = _v3_nodes(entries) if names == (V3_DOCUMENT,) else _v2_nodes(entries)
            nodes |= found
            level = [path for path, document in found.items() if is_group(document)]
            if not level:
                return nodes
        raise StoreFormatError(
            f"{self.label} nests groups more than {MAX_DEPTH} deep; one of its links may lead back. "
            "Name a group below it with `group=`."
        )

    async def _without_group(self, group: str) -> Nodes | None:
        """Read the documents below a folder of arrays that has no document of its own, as some writers leave it."""
        if any(await self._list(group)):
            for version in (3, 2):
                nodes = await self._listed(group, {"zarr_format": version})
                if any("/" not in path and not is_group(document) for path, document in nodes.items()):
                    return {"": {}} | nodes
        return None

    async def _get(self, *keys: str) -> list[bytes | str | None]:
        """Read documents together. A missing one is None, and an unreadable one the reason as a str."""
        if type(self.store) is LocalStore and len(keys) <= MAX_DIRECT_READS:
            contents = [_file(self.store.root / key) for key in keys]
        else:
            contents = list(await asyncio.gather(*map(self._get_one, keys)))
        for key, content in zip(keys, contents, strict=True):
            if isinstance(content, bytes):
                self._note(key, content)
        return contents

    async def _get_one(self, key: str) -> bytes | str | None:
        try:
            buffer = await requests.get(self.store, key)
        except (TooLargeError, SpecialFileError) as err:
            return str(err)
        return None if buffer is None else buffer.to_bytes()

    def _note(self, key: str, content: bytes) -> None:
        self.first_key = self.first_key or key
        self.digest.update(f"{key}\0{len(content)}\0".encode(errors="surrogatepass") + content)

    async def _list(self, *paths: str) -> list[list[str]]:
        """Return the sorted names in folders; none if the store cannot list."""
        if type(self.store) is LocalStore and len(paths) <= MAX_DIRECT_READS:
            return [_names(self.store.root / path) for path in paths]
        return list(await asyncio.gather(*map(self._list_one, paths)))

    async def _list_one(self, path: str) -> list[str]:
        if not self.store.supports_listing:
            return []
        return sorted({name.strip("/") async for name in self.store.list_dir(path)} - {""})

    def _parsed(self, key: str, raw: bytes | str) -> Document:
        document = _read_document(raw)
        if isinstance(document, str):
            raise StoreFormatError(f"{self.label}: {key} is unusable: {document}. Write the store's metadata again.")
        return document

    def _checked(self, path: str, document: Document) -> Document:
        """Return a v3 document of a group or an array, or raise."""
        where = f"{self.label}: {join_path(path, V3_DOCUMENT)}"
        version = document.get("zarr_format")
        if isinstance(version, str) and version.startswith("http"):
            raise StoreFormatError(
                f"{where} has a draft of Zarr v3 from 2020 (zarr_format {version!r}), which GDAL once wrote and zarr "
                "does not read. Write the store again with a current release."
            )
        if version != 3 or document.get("node_type") not in ("array", "group"):
            raise StoreFormatError(
                f"{where} is not a document of Zarr v3: zarr_format is {version!r:.40} and node_type "
                f"{document.get('node_type')!r:.40}. Write the store's metadata again."
            )
        return document

    def _not_a_group(self, path: str) -> StoreFormatError:
        parent, _, name = (path or self.label).rpartition("/")
        array, holder = (f"{self.label}/{path}", self.label) if path else (self.label, parent)
        group = f" with group={parent!r}" if path and parent else ""
        return StoreFormatError(
            f"{array} is an array, not a group. Scan its group, {holder}{group}, and pass `variables=[{name!r}]`."
        )

    async def _absence(self, group: str) -> str:
        """Return the message about a missing group, with a list of the names that are there."""
        root = await self._node("") if group else None
        if root is not None:
            members = _consolidated(root)
            if members is None and is_group(root):
                members = await self._listed("", root)
            groups = [path for path, document in (members or {}).items() if is_group(document)]
            return f"No group {group!r} in {self.label}. {_some('Its groups are', groups) or 'It has no groups.'}"
        text = f"No Zarr store at {self.label}: "
        if isinstance(self.store, LocalStore) and is_regular(self.store.root):
            start = read_part(self.store.root, NUM_BYTES, 0, NUM_BYTES) or b""
            return text + f"it is {format_of_file(start) or 'a file, not a Zarr store. Check the path.'}"
        (names,) = await self._list(group)
        if other := format_of_folder(names) or ("" if names else format_of_name(self.label)):
            return text + f"it is {other}"
        found = _some("It holds", names) or "Nothing is there."
        return text + f"no zarr.json, .zgroup or .zmetadata. {found} Check the path."


def _file(path: Path) -> bytes | str | None:
    try:
        return read_part(path, MAX_DOCUMENT_BYTES)
    except (TooLargeError, SpecialFileError) as err:
        return str(err)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_document(raw: bytes | str) -> Document | str:
    """Parse a document, or return the reason why it cannot be parsed."""
    if isinstance(raw, str):
        return raw
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_DOCUMENT_VALUES:
        return f"it has more than {MAX_DOCUMENT_VALUES:,} values"
    try:
        return _document(json.loads(raw))
    except RecursionError:
        return "it nests too deep"
    except ValueError:  # perhaps because of a number with more digits than Python converts
        try:
            return _document(json.loads(raw, parse_int=_integer))
        except (ValueError, RecursionError) as err:
            return f"it is not JSON ({reason(err)})"


def _integer(digits: str) -> float:
    """Parse an integer; one with too many digits for Python becomes a float, mostly infinity."""
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _document(entry: Any) -> Document | str:
    return entry if isinstance(entry, dict) else "it is not a JSON object"


def _some(title: str, names: Sequence[str]) -> str:
    """Return a sentence that lists some names; "" without names."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{title} {', '.join(map(repr, names[:20]))}{more}." if names else ""


def is_group(document: Document | str | None) -> bool:
    """Whether a document is that of a group."""
    return isinstance(document, dict) and document.get("node_type") == "group"


def _consolidated(node: Document | None) -> Nodes | None:
    """Return the consolidated documents in a group's own document by path from the group; None if it has none."""
    consolidated = (node or {}).get("consolidated_metadata")
    entries = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(entries, dict):
        return None
    of_v2 = node is not None and node["zarr_format"] == 2  # its entries are nodes already
    return entries if of_v2 else {path: _document(entry) for path, entry in entries.items()}


def _v3_nodes(entries: Nodes) -> Nodes:
    """Return documents by path, from documents by key."""
    return {key.removesuffix(V3_DOCUMENT).rstrip("/"): document for key, document in entries.items()}


def _v2_nodes(entries: Nodes) -> Nodes:
    """Return documents by path in the form of v3; v2 has two for each array or group."""
    parts: dict[str, Nodes] = {}
    for key, entry in entries.items():
        path, _, name = key.rpartition("/")
        parts.setdefault(path, {})[name] = entry
    nodes: Nodes = {}
    for path, part in parts.items():
        kind = "array" if ".zarray" in part else "group"
        document, attributes = part.get(f".z{kind}"), part.get(".zattrs", {})
        if isinstance(document, dict) and isinstance(attributes, dict):
            nodes[path] = {**document, "node_type": kind, "attributes": attributes}
        elif document is not None:  # attributes alone belong to no node
            nodes[path] = document if isinstance(document, str) else str(attributes)
    return nodes
