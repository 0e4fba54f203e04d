"""Metadata documents: found in a store, read in Zarr v2 and v3 alike, and understood as plain data.

zarr opens no group that holds one array it does not know, so the documents are read here, and each array is
given to zarr on its own.
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
from rainbear_dask.metadata.keys import V2_CONSOLIDATED, V2_DOCUMENTS, V3_DOCUMENT, Document, Nodes, join_path
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_VALUES, TooLargeError
from rainbear_dask.storage import requests as fetch
from rainbear_dask.storage.local_files import SpecialFileError, read_part

MAX_DEPTH = 32  # groups inside groups; a link that leads back to a group above it has no end
_DOCUMENTS_OF = ((3, V3_DOCUMENT), (2, ".zarray"), (2, ".zattrs"))  # of an array, by version
V2_GROUP: Document = {"zarr_format": 2, "node_type": "group"}


class Documents:
    """The metadata documents of one store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store, opened.
    label : str
        How messages name it.

    Attributes
    ----------
    digest
        Of all documents that were read.
    first_key : str
        Where the first of them is.
    """

    def __init__(self, store: Store, label: str) -> None:
        self.store = store
        self.label = label
        self.digest = blake2b(digest_size=16)
        self.first_key = ""
        self._members: Nodes | None = None  # what the store's root says of all groups

    async def below(self, group: str) -> Nodes:
        """Read the documents of a group and of all below it.

        Consolidated metadata is trusted, and asked for once. Without it the store is listed, one level of groups at a
        time.

        Parameters
        ----------
        group : str
            Path of the group; "" is the root.

        Returns
        -------
        dict of str to (dict or str)
            By path from the group, whose own is "", in the order of the consolidated document, or level by level, each
            sorted by path. In the manner of v3; of a document that is unusable, what is wrong with it.

        Raises
        ------
        StoreNotFoundError
            If no Zarr group is there.
        StoreFormatError
            If an array is there, or metadata that is not Zarr's.
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
            raise StoreNotFoundError(await self._what_is_there(group))
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
        """Read the documents that arrays of some dimensions' names may have in the groups above a group.

        Parameters
        ----------
        group : str
            Path of the group.
        levels : int
            How many groups above it to look in.
        dims : sequence of str
            The names.
        formats : collection of int
            Versions of Zarr that the arrays of the group have.
        is_absent : callable
            Whether an error says that a document is not there.

        Returns
        -------
        dict of str to (dict or str)
            By path from the group, such as ``../x``, nearest group first. No request is made where the store's root holds
            the documents.
        """
        names = [dim for dim in dims if dim.strip(".") and "/" not in dim]
        places = ["../" * level + name for level in range(1, levels + 1) for name in names]
        if self._members is not None:
            members = {place: self._members.get(join_path(group, place)) for place in places}
            return {place: document for place, document in members.items() if document is not None}
        files = [name for version, name in _DOCUMENTS_OF if version in formats]
        entries = {f"{place}/{name}": join_path(group, place, name) for place in places for name in files}
        requests = (fetch.get(self.store, key) for key in entries.values())
        asked = await asyncio.gather(*requests, return_exceptions=True)
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
        """Read the document of one array or group; None if neither is there."""
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
        """Documents of all below a group, by listing it: level by level, each sorted by path."""
        names = (V3_DOCUMENT,) if node["zarr_format"] == 3 else V2_DOCUMENTS
        nodes: Nodes = {}
        level = [""]
        for _ in range(MAX_DEPTH):
            listings = await self._list(*(join_path(group, path) for path in level))
            # the group was found, so it holds at least its own document; further down web servers may hide that of v2
            if level == [""] and not any(listings):
                raise StoreFormatError(
                    f"{self.label} cannot be listed and has no consolidated metadata, so nobody can tell what it "
                    "holds. Consolidate it (zarr.consolidate_metadata) where it can be written."
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
            f"{self.label} nests groups more than {MAX_DEPTH} deep; a link in it may lead back. "
            "Name a group below it with group=."
        )

    async def _without_group(self, group: str) -> Nodes | None:
        """Documents below a folder that holds arrays and no document of a group, as some writers leave it."""
        if any(await self._list(group)):
            for version in (3, 2):
                nodes = await self._listed(group, {"zarr_format": version})
                if any("/" not in path and not is_group(document) for path, document in nodes.items()):
                    return {"": {}} | nodes
        return None

    async def _get(self, *keys: str) -> list[bytes | str | None]:
        """Read documents at the same time; None for one that is not there, and why one cannot be read."""
        if type(self.store) is LocalStore and len(keys) <= _FEW:
            contents = [_file(self.store.root / key) for key in keys]
        else:
            contents = list(await asyncio.gather(*map(self._get_one, keys)))
        for key, content in zip(keys, contents, strict=True):
            if isinstance(content, bytes):
                self._note(key, content)
        return contents

    async def _get_one(self, key: str) -> bytes | str | None:
        try:
            buffer = await fetch.get(self.store, key)
        except (TooLargeError, SpecialFileError) as err:
            return str(err)
        return None if buffer is None else buffer.to_bytes()

    def _note(self, key: str, content: bytes) -> None:
        self.first_key = self.first_key or key
        self.digest.update(f"{key}\0{len(content)}\0".encode(errors="surrogatepass") + content)

    async def _list(self, *paths: str) -> list[list[str]]:
        """Names in folders, sorted; none where the store cannot tell."""
        if type(self.store) is LocalStore and len(paths) <= _FEW:
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
        """Pass on a v3 document of a group or an array."""
        where = f"{self.label}: {join_path(path, V3_DOCUMENT)}"
        version = document.get("zarr_format")
        if isinstance(version, str) and version.startswith("http"):
            raise StoreFormatError(
                f"{where} is of a draft of Zarr v3 from 2020 (zarr_format {version!r}), which GDAL once wrote and zarr "
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
            f"{array} is an array, not a group. Scan its group, {holder}{group}, and pass variables=[{name!r}]."
        )

    async def _what_is_there(self, group: str) -> str:
        """Say what was found where a group was looked for."""
        root = await self._node("") if group else None
        if root is not None:
            members = _consolidated(root)
            if members is None and is_group(root):
                members = await self._listed("", root)
            groups = [path for path, document in (members or {}).items() if is_group(document)]
            return f"no group {group!r} in {self.label}. {_some('Its groups are', groups) or 'It has no groups.'}"
        text = f"no Zarr store at {self.label}: "
        if isinstance(self.store, LocalStore) and self.store.root.is_file():
            return text + "it is a file, not a Zarr store. Check the path."
        (names,) = await self._list(group)
        found = _some("What is there:", names) or "Nothing is there."
        return text + f"no zarr.json, .zgroup or .zmetadata. {found} Check the path."


_FEW = 16  # files or folders that are sooner read than handed to threads, which a slow disk needs for many


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
    """Parse a document, or say why it cannot be."""
    if isinstance(raw, str):
        return raw
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_DOCUMENT_VALUES:
        return f"it has more than {MAX_DOCUMENT_VALUES:,} values"
    try:
        return _document(json.loads(raw))
    except RecursionError:
        return "it nests too deep"
    except ValueError:  # perhaps of a number that Python takes for an attack
        try:
            return _document(json.loads(raw, parse_int=_integer))
        except (ValueError, RecursionError) as err:
            return f"it is not JSON ({reason(err)})"


def _integer(digits: str) -> float:
    """Read a whole number; as a float, mostly infinity, if it has more digits than Python converts."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


_MOST_DIGITS = 640  # fewer cannot be forbidden


def _document(entry: Any) -> Document | str:
    return entry if isinstance(entry, dict) else "it is not a JSON object"


def _some(title: str, names: Sequence[str]) -> str:
    """List a few names in a sentence; "" if there are none."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{title} {', '.join(map(repr, names[:20]))}{more}." if names else ""


def is_group(document: Document | str | None) -> bool:
    return isinstance(document, dict) and document.get("node_type") == "group"


def _consolidated(node: Document | None) -> Nodes | None:
    """Documents of what is below a group, by path from it, if the group's own document holds them."""
    consolidated = (node or {}).get("consolidated_metadata")
    entries = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(entries, dict):
        return None
    of_v2 = node is not None and node["zarr_format"] == 2  # there the entries are nodes already
    return entries if of_v2 else {path: _document(entry) for path, entry in entries.items()}


def _v3_nodes(entries: Nodes) -> Nodes:
    """Documents by path, from documents by key."""
    return {key.removesuffix(V3_DOCUMENT).rstrip("/"): document for key, document in entries.items()}


def _v2_nodes(entries: Nodes) -> Nodes:
    """Documents by path in the manner of v3, where v2 has two for each array or group."""
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
        elif document is not None:  # else they are attributes of nothing
            nodes[path] = document if isinstance(document, str) else str(attributes)
    return nodes
