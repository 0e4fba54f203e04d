"""Zarr stores: the metadata of a group, and the values of regions. The only module that knows zarr.

zarr opens no group that holds one array it does not know, so the documents are read here, and each array is
given to zarr on its own.
"""

import asyncio
import json
import os
import re
import threading
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from fsspec import FSMap
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath, ZipStore
from zarrs import ZarrsCodecPipeline

from rainbear_dask.exceptions import (
    ChunkReadError,
    RainbearError,
    StoreAccessError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
)
from rainbear_dask.metadata import ArrayMeta, Region, StoreMeta, StoreSpec

Document: TypeAlias = dict[str, Any]
Nodes: TypeAlias = dict[str, Document | str]  # by path: the document of an array or group, or what is wrong with it

MAX_DEPTH = 32  # groups inside groups; a link that leads back to a group above it has no end
MAX_TRIED = 10_000  # chunks read again to find a damaged one
LARGEST = 2**63 - 1
CHUNK_LIMIT = 2**31  # bytes; what blosc can hold

V3_DOCUMENT = "zarr.json"
V2_CONSOLIDATED = ".zmetadata"
V2_DOCUMENTS = (".zarray", ".zgroup", ".zattrs")
V2_GROUP: Document = {"zarr_format": 2, "node_type": "group"}

_parsing = threading.Lock()  # what silences warnings is not safe in threads


def open_store(source: Any, *, group: str | None = None, storage_options: Mapping[str, Any] | None = None) -> StoreMeta:
    """Read the metadata of a Zarr group and of all below it.

    Consolidated metadata is trusted, and asked for once. Without it the store is listed, one level of groups at a
    time. No chunk is read.

    Parameters
    ----------
    source : str, path, zarr.abc.store.Store or fsspec mapper
        A local folder or zip file, a URL that fsspec knows, or an object that zarr reads from.
    group : str, optional
        Path of a group inside the store.
    storage_options : mapping, optional
        What fsspec is to be told, with a URL.

    Returns
    -------
    StoreMeta
        Arrays in the order of the consolidated document; where there is none level by level, each sorted by path.
        An array that cannot be understood is in ``left_out``, with the reason.

    Raises
    ------
    StoreNotFoundError
        If no Zarr group is there.
    StoreAccessError
        If the store refuses.
    StoreFormatError
        If an array is there, or metadata that is not Zarr's.
    """
    options = dict(storage_options or {})
    source = _address(source)
    label = _without_secrets(str(source))
    path = _join(*(group or "").split("/"))
    with _translated(label, source, options):
        store = _connect(source, options)
        documents = _Documents(store, label)
        nodes = sync(documents.below(path))
        spec = StoreSpec(
            label=label,
            source=source,
            version=_version(store, documents),
            group=path,
            options=options,
            opened=uuid.uuid4().hex,
        )
        return _store_meta(spec, store, nodes)


def read_regions(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[npt.NDArray[Any]]:
    """Read regions of arrays of one store, all at the same time.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    requests : sequence of (ArrayMeta, Region)
        What to read: an array of that store, and a half-open index range along each of its dimensions.

    Returns
    -------
    list of numpy.ndarray
        Stored values, in the order of the requests: each of its region's shape and its array's dtype, in C order.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names it.
    StoreAccessError
        If the store refuses a chunk.
    """

    async def read_all() -> list[npt.NDArray[Any]]:
        return await asyncio.gather(
            *(_read(array, spec, *request) for array, request in zip(arrays, requests, strict=True))
        )

    with _translated(spec.label, spec.source, spec.options):
        arrays = [_array(spec, meta) for meta, _ in requests]
        return sync(read_all())


# Addresses


def _address(source: Any) -> str | Store:
    """What to keep of a source: an absolute path, a URL, or a store."""
    if isinstance(source, Store):
        return source
    if isinstance(source, FSMap):
        return FsspecStore.from_mapper(source, read_only=True)
    if not isinstance(source, str | os.PathLike):
        raise StoreFormatError(
            f"a {type(source).__name__} is not a Zarr store. Give a path, a URL, or a zarr.abc.store.Store."
        )
    address = os.fspath(source)
    if address.startswith(("file://", "local://")):
        address = address.partition("://")[2]
    if _is_url(address):
        return address.rstrip("/") if not address.endswith("://") else address
    return str(Path(address).expanduser().absolute())  # a worker may run in another folder


def _is_url(address: str) -> bool:
    return "://" in address or "::" in address


def _connect(source: str | Store, options: Mapping[str, Any]) -> Store:
    if isinstance(source, Store):
        store = source
    elif _is_url(source):
        store = FsspecStore.from_url(source, storage_options=dict(options), read_only=True)
    elif zipfile.is_zipfile(source):
        store = ZipStore(source, mode="r")
    else:
        store = LocalStore(source, read_only=True)
    return sync(StorePath.open(store, path="")).store  # some stores wait to be opened


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _version(store: Store, documents: "_Documents") -> str:
    """Tell one state of a store from another as far as that is cheap."""
    digest = documents.digest.copy()
    if isinstance(store, LocalStore):
        digest.update(str((store.root / documents.first_key).stat().st_mtime_ns).encode())
    session = getattr(store, "session", None)  # of Icechunk, where a snapshot is a state
    digest.update(str(getattr(session, "snapshot_id", "")).encode())
    return digest.hexdigest()


# Metadata documents


class _Documents:
    """The metadata documents of one store.

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

    async def below(self, group: str) -> Nodes:
        """Documents of a group (path "") and of all below it, by path from the group, in store order."""
        if group:
            members = _consolidated(await self._node("")) or {}
            below = {path: members[path] for path in members if path == group or path.startswith(f"{group}/")}
            if any(path != group for path in below) or _is_group(below.get(group)):
                return {"": {}} | {path[len(group) :].lstrip("/"): document for path, document in below.items()}
        node = await self._node(group)
        if node is None:
            raise StoreNotFoundError(await self._what_is_there(group))
        if not _is_group(node):
            raise self._not_a_group(group)
        nodes: Nodes = {"": node}
        held = _consolidated(node)
        return nodes | (await self._listed(group, node) if held is None else held)

    async def _node(self, path: str) -> Document | None:
        """Read the document of one array or group; None if neither is there."""
        (v3,) = await self._get(_join(path, V3_DOCUMENT))
        if v3 is not None:
            return self._checked(path, self._parsed(_join(path, V3_DOCUMENT), v3))
        (consolidated,) = await self._get(_join(path, V2_CONSOLIDATED))
        if consolidated is not None:
            entries = self._parsed(_join(path, V2_CONSOLIDATED), consolidated).get("metadata")
            if not isinstance(entries, dict):
                raise StoreFormatError(
                    f"{self.label}: {_join(path, V2_CONSOLIDATED)} holds no metadata. Consolidate the store again."
                )
            members = _v2_nodes({key: _document(entry) for key, entry in entries.items()})
            attributes = entries.get(".zattrs")
            return V2_GROUP | {"attributes": attributes, "consolidated_metadata": {"metadata": members}}
        keys = [_join(path, name) for name in V2_DOCUMENTS]
        found = [(key, raw) for key, raw in zip(keys, await self._get(*keys), strict=True) if raw is not None]
        node = _v2_nodes({key.rpartition("/")[2]: self._parsed(key, raw) for key, raw in found}).get("")
        return node if isinstance(node, dict) else None

    async def _listed(self, group: str, node: Document) -> Nodes:
        """Documents of all below a group, by listing it: level by level, each sorted by path."""
        names = (V3_DOCUMENT,) if node["zarr_format"] == 3 else V2_DOCUMENTS
        nodes: Nodes = {}
        level = [""]
        for _ in range(MAX_DEPTH):
            listings = await asyncio.gather(*(self._list(_join(group, path)) for path in level))
            if not any(listings):  # a group that was found would at least hold its own document
                raise StoreFormatError(
                    f"{self.label} cannot be listed and has no consolidated metadata, so nobody can tell what it "
                    "holds. Consolidate it (zarr.consolidate_metadata) where it can be written."
                )
            children = [_join(path, name) for path, found in zip(level, listings, strict=True) for name in found]
            keys = [_join(child, name) for child in sorted(children) for name in names]
            contents = zip(keys, await self._get(*(_join(group, key) for key in keys)), strict=True)
            entries = {key: _read_document(raw) for key, raw in contents if raw is not None}
            found = _v3_nodes(entries) if names == (V3_DOCUMENT,) else _v2_nodes(entries)
            nodes |= found
            level = [path for path, document in found.items() if _is_group(document)]
            if not level:
                return nodes
        raise StoreFormatError(
            f"{self.label} nests groups more than {MAX_DEPTH} deep; a link in it may lead back. "
            "Name a group below it with group=."
        )

    async def _get(self, *keys: str) -> list[bytes | None]:
        """Read documents at the same time; None for one that is not there."""
        buffers = await asyncio.gather(*(self.store.get(key, default_buffer_prototype()) for key in keys))
        contents = [None if buffer is None else buffer.to_bytes() for buffer in buffers]
        for key, content in zip(keys, contents, strict=True):
            if content is not None:
                self.first_key = self.first_key or key
                self.digest.update(f"{key}\0{len(content)}\0".encode(errors="surrogatepass") + content)
        return contents

    async def _list(self, path: str) -> list[str]:
        """Names in a folder; none where the store cannot tell."""
        if not self.store.supports_listing:
            return []
        return sorted({name.strip("/") async for name in self.store.list_dir(path)} - {""})

    def _parsed(self, key: str, raw: bytes) -> Document:
        document = _read_document(raw)
        if isinstance(document, str):
            raise StoreFormatError(f"{self.label}: {key} is unusable: {document}. Write the store's metadata again.")
        return document

    def _checked(self, path: str, document: Document) -> Document:
        """Pass on a v3 document of a group or an array."""
        where = f"{self.label}: {_join(path, V3_DOCUMENT)}"
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
            if members is None and _is_group(root):
                members = await self._listed("", root)
            groups = [path for path, document in (members or {}).items() if _is_group(document)]
            return f"no group {group!r} in {self.label}. {_some('Its groups are', groups) or 'It has no groups.'}"
        text = f"no Zarr store at {self.label}: "
        if isinstance(self.store, LocalStore) and self.store.root.is_file():
            return text + "it is a file, not a Zarr store. Check the path."
        names = await self._list(group)
        found = _some("What is there:", names) or "Nothing is there."
        return text + f"no zarr.json, .zgroup or .zmetadata. {found} Check the path."


def _read_document(raw: bytes) -> Document | str:
    """Parse a document, or say why it cannot be."""
    try:
        return _document(json.loads(raw))
    except (ValueError, RecursionError) as err:
        return f"it is not JSON ({_reason(err)})"


def _document(entry: Any) -> Document | str:
    return entry if isinstance(entry, dict) else "it is not a JSON object"


def _some(title: str, names: Sequence[str]) -> str:
    """List a few names in a sentence; "" if there are none."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{title} {', '.join(map(repr, names[:20]))}{more}." if names else ""


def _is_group(document: Document | str | None) -> bool:
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


# Documents to metadata


def _store_meta(spec: StoreSpec, store: Store, nodes: Nodes) -> StoreMeta:
    arrays: dict[str, ArrayMeta] = {}
    groups: dict[str, Mapping[str, Any]] = {"": {}}
    left_out: dict[str, str] = {}
    for path, document in nodes.items():
        above = [path[:i] for i, letter in enumerate(path) if letter == "/"]
        if path and not all(part.strip(".") for part in path.split("/")):
            left_out[path] = "its path has an empty part, or one of dots alone"
            continue
        if isinstance(document, str):
            left_out[path] = f"its metadata is unusable: {document}"
            continue
        if any(isinstance(nodes.get(other), dict) and not _is_group(nodes[other]) for other in above):
            left_out[path] = "it lies inside an array"
            continue
        for other in above:
            groups.setdefault(other, {})
        if not path or _is_group(document):
            attributes = document.get("attributes")
            groups[path] = attributes if isinstance(attributes, dict) else {}
            continue
        try:
            arrays[path] = _array_meta(store, path, document)
        except Exception as err:  # noqa: BLE001  whatever zarr or a codec makes of it, the others are readable
            left_out[path] = _reason(err)
    return StoreMeta(spec=spec, arrays=arrays, groups=groups, left_out=left_out)


def _array_meta(store: Store, path: str, document: Document) -> ArrayMeta:
    attributes = document.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise TypeError("its attributes are not a JSON object")
    codecs = [*(document.get("filters") or ()), document.get("compressor")]
    if any(isinstance(codec, dict) and codec.get("id") == "pickle" for codec in codecs):
        raise ValueError("its chunks are pickles, which run whatever code they hold")
    text = json.dumps(document | {"attributes": {}})  # attributes are no part of what it takes to read
    metadata = _parsed_array(store, path, text).metadata
    shape, chunks, shards = metadata.shape, metadata.chunks, metadata.shards
    dtype = metadata.dtype.to_native_dtype()
    grid = document.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape", document.get("chunks"))
    if any(size == 0 < length for length, size in zip(shape, grid, strict=True)):
        raise ValueError(f"its chunks have no length: {grid}")  # a release of zarr takes 0 for 1
    if min((*shape, *chunks, *(shards or ())), default=0) < 0:
        raise ValueError(f"its shape {shape} or its chunks {chunks} are negative")
    if max((*shape, *chunks, *(shards or ())), default=0) > LARGEST:
        raise ValueError("its shape or its chunks are longer than 2**63 - 1")
    return ArrayMeta(
        path=path,
        dims=_dims(document, attributes, getattr(metadata, "dimension_names", None), len(shape)),
        shape=shape,
        chunks=tuple(max(size, 1) for size in chunks),
        shards=shards,
        dtype=dtype if dtype.isnative else dtype.newbyteorder("="),
        fill_value=metadata.fill_value,
        attributes=attributes,
        document=text,
        zarr_format=metadata.zarr_format,
    )


def _dims(document: Document, attributes: Document, named: Sequence[str | None] | None, ndim: int) -> tuple[str, ...]:
    """Names of the dimensions: Zarr's own, xarray's or NCZarr's, or numbers."""
    names: Any = attributes.get("_ARRAY_DIMENSIONS") if named is None else named
    if names is None:
        netcdf = document.get("_NCZARR_ARRAY") or attributes.get("_nczarr_array") or {}
        references = netcdf.get("dimrefs", netcdf.get("dimension_references"))
        names = [None] * ndim if references is None else [str(name).rpartition("/")[2] for name in references]
    if not isinstance(names, list | tuple) or not all(name is None or isinstance(name, str) for name in names):
        raise TypeError(f"its dimension names are not a list of names: {names!r:.80}")
    if len(names) != ndim:
        raise ValueError(f"it has {ndim} dimensions and {len(names)} names for them")
    dims = tuple(f"dim_{i}" if name is None else name for i, name in enumerate(names))
    if len(set(dims)) < ndim:
        raise ValueError(f"a dimension is repeated: {dims}")
    return dims


# Values


@lru_cache(maxsize=64)
def _store(spec: StoreSpec) -> Store:
    return _connect(spec.source, spec.options)


@lru_cache(maxsize=4096)
def _array(spec: StoreSpec, meta: ArrayMeta) -> AsyncArray[Any]:
    """Open an array from its document; no request is made."""
    store = _store(spec)
    array = _parsed_array(store, _join(spec.group, meta.path), meta.document)
    if isinstance(store, LocalStore) and _suits_rust(array.metadata, meta):
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pipeline = ZarrsCodecPipeline.from_array_metadata_and_store(array.metadata, store)
            except Exception:  # noqa: BLE001  it says in many ways that it does not know a codec
                return array
        if pipeline.impl is not None:
            # zarr chooses the pipeline by a global setting, which is the user's
            object.__setattr__(array, "codec_pipeline", pipeline)
    return array


def _suits_rust(metadata: Any, meta: ArrayMeta) -> bool:
    """Tell the local arrays that zarrs reads faster, and no less carefully, than zarr's own pipeline.

    Of a part of a chunk (and the chunk at an edge is one) it decodes as little as it can: a checksum, or the length of
    a chunk that is not compressed, is then not checked. So only zstd and blosc are left to it; of blosc it does check
    the length, which numcodecs does not. Over HTTP it asks twice for each chunk and keeps fewer requests in flight:
    with 50 ms an answer, a sixth of the speed.
    """
    dtype = metadata.dtype.to_native_dtype()
    if dtype.kind not in "biuf" or not dtype.isnative or prod(meta.shards or meta.chunks) * meta.itemsize > CHUNK_LIMIT:
        return False
    if metadata.zarr_format == 2:
        codec = getattr(metadata.compressor, "codec_id", None)
        return not metadata.filters and metadata.order == "C" and codec in ("blosc", "zstd")
    codecs = [type(codec) for codec in metadata.inner_codecs if not isinstance(codec, TransposeCodec)]
    return codecs in ([BytesCodec, ZstdCodec], [BytesCodec, BloscCodec])


def _parsed_array(store: Store, path: str, text: str) -> AsyncArray[Any]:
    # zarr warns of what is not in the specification yet: a matter for who writes
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AsyncArray(metadata=json.loads(text), store_path=StorePath(store, path))


async def _read(array: AsyncArray[Any], spec: StoreSpec, meta: ArrayMeta, region: Region) -> npt.NDArray[Any]:
    shape = tuple(stop - start for start, stop in region)
    if 0 in shape:
        return np.empty(shape, meta.dtype)
    try:
        values = await array.getitem(tuple(slice(*span) for span in region))
    except Exception as err:  # noqa: BLE001  codecs and file systems have no common base
        raise await _chunk_error(array, spec, meta, region, err) from _shown(err, spec.source, spec.options)
    return np.asarray(values, dtype=meta.dtype, order="C")


async def _chunk_error(
    array: AsyncArray[Any], spec: StoreSpec, meta: ArrayMeta, region: Region, err: Exception
) -> StoreError:
    """Find the chunk at fault by reading the chunks of a region one by one."""
    stored = meta.shards or meta.chunks
    chunk = "one of the chunks"
    indices = product(*(range(a // size, -(-b // size)) for (a, b), size in zip(region, stored, strict=True)))
    for index in islice(indices, MAX_TRIED):
        spans = zip(region, index, stored, strict=True)
        part = tuple(slice(max(a, i * size), min(b, (i + 1) * size)) for (a, b), i, size in spans)
        try:
            await array.getitem(part)
        except Exception as one:  # noqa: BLE001  as above
            err = one
            key = _join(spec.group, meta.path, array.metadata.encode_chunk_key(index))
            chunk = f"{'shard' if meta.shards else 'chunk'} {index} (key {key!r})"
            break
    text = f"{chunk} of array {meta.path!r} in {spec.label} cannot be read: {_reason(err, spec.source, spec.options)}."
    if _is_refusal(err):
        return StoreAccessError(f"{text} {CHECK_CREDENTIALS}")
    return ChunkReadError(
        f"{text} It may be damaged or only half written: write it again, or leave the array out with variables=."
    )


# Errors


@contextmanager
def _translated(label: str, source: str | Store, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever a store or its file system raises into an error of ours, without secrets."""
    try:
        yield
    except RainbearError:
        raise
    except Exception as err:  # noqa: BLE001  codecs and file systems have no common base
        what, reason = f"the Zarr store at {label}", _reason(err, source, options)
        if _is_refusal(err):
            ours: StoreError = StoreAccessError(f"{what} refuses access: {reason}. {CHECK_CREDENTIALS}")
        elif isinstance(err, FileNotFoundError):
            ours = StoreNotFoundError(f"no Zarr store at {label}: {reason}. Check the path.")
        elif isinstance(err, ImportError):
            ours = StoreNotFoundError(f"{what} needs a package that is not installed: {reason}.")
        elif "Protocol not known" in str(err):
            ours = StoreNotFoundError(
                f"{what} has a protocol that fsspec does not know: {reason}. Mend the address, or install its package."
            )
        else:
            ours = StoreError(f"{what} cannot be read: {reason}. Check the address, and that the service answers.")
        raise ours from _shown(err, source, options)


CHECK_CREDENTIALS = "Check the credentials in storage_options or in the environment."
REFUSAL = re.compile("Credential|Unauth|PermissionDenied|Forbidden|Authenti|TokenRetrieval|RefreshError")


def _is_refusal(err: BaseException | None) -> bool:
    """Tell an error about credentials, by the names that botocore, google-auth, azure and obstore give theirs."""
    while err is not None:
        if isinstance(err, PermissionError) or getattr(err, "status", None) in (401, 403):
            return True
        if REFUSAL.search(type(err).__name__):
            return True
        err = err.__cause__
    return False


def _reason(err: Exception, source: str | Store = "", options: Mapping[str, Any] | None = None) -> str:
    """Say in one line what another library raised, without secrets."""
    text = " ".join(_without_secrets(str(err), _secrets(source, options or {})).split()).rstrip(".")
    return f"{type(err).__name__}: {text[:300]}" if text else type(err).__name__


def _shown(err: Exception, source: str | Store, options: Mapping[str, Any]) -> Exception | None:
    """Give an error as the cause of ours, unless it would show a secret with the traceback."""
    return err if _without_secrets(str(err), _secrets(source, options)) == str(err) else None


USER = re.compile(r"(?<=://)(?:[^/@\s]*@|[^/@\s:]+:(?!\d+/)[^@\s]*@)")
QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\")>]*")


def _without_secrets(text: str, secrets: Sequence[str] = ()) -> str:
    """Take user, query and fragment from the URLs in a text, and other secrets from anywhere."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return QUERY.sub(r"\1", USER.sub("", text))


def _secrets(source: str | Store, options: Mapping[str, Any]) -> list[str]:
    """Find what no message may show: all texts among the options but addresses, and what a URL carries."""
    users = USER.findall(source) if isinstance(source, str) else []
    found = {text for user in users for text in (user[:-1], *re.split("[:/@]", user))}

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if not re.search("url|endpoint|region|protocol", str(key)):
                    collect(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                collect(inner)
        elif isinstance(value, str | bytes):
            found.add(value if isinstance(value, str) else value.decode(errors="replace"))

    collect(options)
    collect(getattr(getattr(source, "fs", None), "storage_options", None))
    return sorted((text for text in found if len(text) > 3), key=len, reverse=True)
