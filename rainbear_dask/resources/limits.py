"""Bounds on the memory that stored bytes may take, because a store is untrusted input."""

CHUNK_SLACK_BYTES = 2**10
"""Bytes of headers and checksums that a stored chunk may have beyond one and a half times its values."""

INNER_CHUNK_SLACK_BYTES = 64
"""Bytes that a shard may have for each inner chunk, beyond one and a half times its values."""

TEXT_BYTES_PER_VALUE = 64
"""Bytes of UTF-8 for each text of variable length in a chunk, added to the setting ``text-chunk-bytes``."""

MAX_DOCUMENT_BYTES = 2**28
"""Bytes of a metadata document; a consolidated one of 100,000 arrays has half as many."""

MAX_DOCUMENT_VALUES = 2**24
"""Values in a metadata document; one value takes up to 150 bytes of memory."""

MAX_INDEX_BYTES = 2**26
"""Bytes of a shard's index, beyond twice the values of the shard."""

WHOLE_VALUES = 2**28
"""Values of the longest coordinate that is loaded whole. Workers apply filters on longer ones, which prune nothing."""

FILTERED_VALUES = 2**36
"""Upper bound on the labels of a coordinate, and on the positions of a filter; no known store has more."""

MAX_DIMENSIONS = 64
"""Dimensions of an array, as many as NumPy supports."""


class TooLargeError(ValueError):
    """Stored bytes need more memory than the array's document declares."""


def stored_limit(declared: int) -> int:
    """Return the upper bound on the bytes of a stored chunk, from the bytes of its values.

    No codec makes incompressible values half as long again, so a longer chunk is damaged or hostile.
    """
    return declared + declared // 2 + CHUNK_SLACK_BYTES


def shard_limit(declared: int, count: int) -> int:
    """Return the upper bound on the bytes of a shard that is read whole, from its values and its inner chunks."""
    return stored_limit(declared) + INNER_CHUNK_SLACK_BYTES * count


def check_size(size: int, limit: int, what: str = "the object") -> None:
    """Refuse a size above a limit, both in bytes.

    Raises
    ------
    TooLargeError
        If the size is above the limit.
    """
    if size > limit:
        raise TooLargeError(f"{what} has {size} bytes, but the array's document allows for at most {limit}")


def readable_bytes(count: float) -> str:
    """Return a number of bytes with three digits and its unit, such as "1.68 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
