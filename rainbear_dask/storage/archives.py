"""Members of zip archives, read into bounded memory even if the archive's directory is wrong."""

import copy
import lzma
import zipfile
import zlib
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ZipStore

from rainbear_dask.codecs.decompress import INFLATERS, MAX_LZMA_DICTIONARY
from rainbear_dask.resources.limits import check_size
from rainbear_dask.storage.zarr_internals import open_archive


def read_member(store: ZipStore, key: str, byte_range: ByteRequest | None, limit: int) -> bytes | None:
    """Read a member of an archive, or a part of it.

    Parameters
    ----------
    store : ZipStore
        The archive.
    key : str
        Name of the member.
    byte_range : RangeByteRequest or SuffixByteRequest, optional
        The part.
    limit : int
        Upper bound on the bytes to read.

    Returns
    -------
    bytes or None
        The bytes; None if there is no such member.

    Raises
    ------
    TooLargeError
        If the member, or the part, has more bytes.
    """
    with open_archive(store) as archive:
        try:
            member = archive.getinfo(key)
        except KeyError:
            return None
        start, stop = _span(byte_range, member.file_size)
        check_size(stop - start, limit)
        if member.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # zipfile inflates them without a bound
            check_size(max(member.file_size, member.compress_size), limit)
            return _inflated(archive, member)[start:stop]
        with archive.open(member) as file:
            if start:
                file.seek(start)
            return file.read(stop - start)


def _span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    match byte_range:
        case RangeByteRequest(start, end):
            return min(start, size), max(min(end, size), min(start, size))
        case SuffixByteRequest(length):
            return max(size - length, 0), size
    return 0, size


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Inflate a member that bzip2 or LZMA compressed."""
    stored = copy.copy(member)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, member.compress_size
    del stored.CRC  # it is the checksum of the inflated bytes
    raw = archive.read(stored)
    if member.compress_type == zipfile.ZIP_BZIP2:
        found = bytes(INFLATERS["bz2"](np.frombuffer(raw, np.uint8), member.file_size))
    else:
        found = lzma.LZMADecompressor(lzma.FORMAT_RAW, None, [_lzma_filter(raw)]).decompress(
            raw[4 + int.from_bytes(raw[2:4], "little") :], member.file_size
        )
    if len(found) != member.file_size or zlib.crc32(found) != member.CRC:
        raise zipfile.BadZipFile("the member does not match its checksum")
    return found


def _lzma_filter(raw: bytes) -> dict[str, Any]:
    """Parse the properties of LZMA in a zip archive."""
    rest, size = raw[4], int.from_bytes(raw[5:9], "little")
    check_size(size, MAX_LZMA_DICTIONARY, "its dictionary")
    rest, lc = divmod(rest, 9)
    pb, lp = divmod(rest, 5)
    return {"id": lzma.FILTER_LZMA1, "dict_size": size, "lc": lc, "lp": lp, "pb": pb}
