"""Zarr stores: addresses, opening, and the values of regions."""

import asyncio
import os
import re
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fsspec import FSMap
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, TransposeCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath, ZipStore
from zarrs import ZarrsCodecPipeline

from rainbear_dask.documents import Documents, join_path, open_array, silence, store_meta
from rainbear_dask.exceptions import (
    ChunkReadError,
    RainbearError,
    StoreAccessError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
)
from rainbear_dask.metadata import ArrayMeta, Region, StoreMeta, StoreSpec
from rainbear_dask.redaction import reason, secrets_of, shown, without_secrets

MAX_TRIED = 10_000  # chunks read again to find a damaged one
CHUNK_LIMIT = 2**31  # bytes; what blosc can hold
CHECK_CREDENTIALS = "Check the credentials in storage_options or in the environment."
REFUSAL = re.compile("Credential|Unauth|PermissionDenied|Forbidden|Authenti|TokenRetrieval|RefreshError")


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
    label = without_secrets(str(source))
    path = join_path(*(group or "").split("/"))
    with _translated(label, secrets_of(source, options)):
        store = _connect(source, options)
        documents = Documents(store, label)
        nodes = sync(documents.below(path))
        spec = StoreSpec(
            label=label,
            source=source,
            version=_version(store, documents),
            group=path,
            options=options,
            opened=uuid.uuid4().hex,
        )
        return store_meta(spec, store, nodes)


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

    with _translated(spec.label, secrets_of(spec.source, spec.options)):
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


def _version(store: Store, documents: Documents) -> str:
    """Tell one state of a store from another as far as that is cheap."""
    digest = documents.digest.copy()
    if isinstance(store, LocalStore):
        digest.update(str((store.root / documents.first_key).stat().st_mtime_ns).encode())
    session = getattr(store, "session", None)  # of Icechunk, where a snapshot is a state
    digest.update(str(getattr(session, "snapshot_id", "")).encode())
    return digest.hexdigest()


# Values


@lru_cache(maxsize=64)
def _store(spec: StoreSpec) -> Store:
    return _connect(spec.source, spec.options)


@lru_cache(maxsize=4096)
def _array(spec: StoreSpec, meta: ArrayMeta) -> AsyncArray[Any]:
    """Open an array from its document; no request is made."""
    store = _store(spec)
    array = open_array(store, join_path(spec.group, meta.path), meta.document)
    if isinstance(store, LocalStore) and _suits_rust(array.metadata, meta):
        with silence():
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


async def _read(array: AsyncArray[Any], spec: StoreSpec, meta: ArrayMeta, region: Region) -> npt.NDArray[Any]:
    shape = tuple(stop - start for start, stop in region)
    if 0 in shape:
        return np.empty(shape, meta.dtype)
    try:
        values = await array.getitem(tuple(slice(*span) for span in region))
    except Exception as err:  # noqa: BLE001  codecs and file systems have no common base
        raise await _chunk_error(array, spec, meta, region, err) from shown(err, secrets_of(spec.source, spec.options))
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
            key = join_path(spec.group, meta.path, array.metadata.encode_chunk_key(index))
            chunk = f"{'shard' if meta.shards else 'chunk'} {index} (key {key!r})"
            break
    why = reason(err, secrets_of(spec.source, spec.options))
    text = f"{chunk} of array {meta.path!r} in {spec.label} cannot be read: {why}."
    if _is_refusal(err):
        return StoreAccessError(f"{text} {CHECK_CREDENTIALS}")
    return ChunkReadError(
        f"{text} It may be damaged or only half written: write it again, or leave the array out with variables=."
    )


# Errors


@contextmanager
def _translated(label: str, secrets: Sequence[str]) -> Iterator[None]:
    """Turn whatever a store or its file system raises into an error of ours, without secrets."""
    try:
        yield
    except RainbearError:
        raise
    except Exception as err:  # noqa: BLE001  codecs and file systems have no common base
        what, why = f"the Zarr store at {label}", reason(err, secrets)
        if _is_refusal(err):
            ours: StoreError = StoreAccessError(f"{what} refuses access: {why}. {CHECK_CREDENTIALS}")
        elif isinstance(err, FileNotFoundError):
            ours = StoreNotFoundError(f"no Zarr store at {label}: {why}. Check the path.")
        elif isinstance(err, ImportError):
            ours = StoreNotFoundError(f"{what} needs a package that is not installed: {why}.")
        elif "Protocol not known" in str(err):
            ours = StoreNotFoundError(
                f"{what} has a protocol that fsspec does not know: {why}. Mend the address, or install its package."
            )
        else:
            ours = StoreError(f"{what} cannot be read: {why}. Check the address, and that the service answers.")
        raise ours from shown(err, secrets)


def _is_refusal(err: BaseException | None) -> bool:
    """Tell an error about credentials, by the names that botocore, google-auth, azure and obstore give theirs."""
    while err is not None:
        if isinstance(err, PermissionError) or getattr(err, "status", None) in (401, 403):
            return True
        if REFUSAL.search(type(err).__name__):
            return True
        err = err.__cause__
    return False
