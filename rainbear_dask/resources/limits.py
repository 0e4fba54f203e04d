"""Bounds on the memory that stored bytes may take: a store is untrusted input."""

CHUNK_SLACK = 2**10
"""Bytes that a stored chunk may have beyond one and a half times its values: headers, checksums."""

INNER_CHUNK_SLACK = 64
"""Bytes that a shard may have for each inner chunk, beyond one and a half times its values."""

TEXT_BYTES_PER_VALUE = 64
"""Bytes of UTF-8 that a text of variable length may have, beside what the setting ``text-chunk-bytes`` allows a chunk."""

DOCUMENT_BYTES = 2**28
"""Bytes of a metadata document; a consolidated one of 100,000 arrays has half of that."""

DOCUMENT_VALUES = 2**24
"""Values in a metadata document, each of which takes up to 150 bytes of memory."""

INDEX_BYTES = 2**26
"""Bytes of a shard's index, beyond twice the values of the shard."""


WHOLE_VALUES = 2**28
"""Values of a coordinate that are read as a whole: a filter on a longer one is left to the workers, and prunes nothing."""

FILTERED_VALUES = 2**36
"""Labels of a coordinate, and positions that a filter may name: no store is known that has more, and to read them has no end."""

MAX_DIMENSIONS = 64
"""Dimensions of an array, as many as NumPy knows."""


class TooLargeError(ValueError):
    """Stored bytes need more memory than the array's document declares."""


def stored_limit(declared: int) -> int:
    """Return the largest number of bytes that a chunk of so many bytes of values may have as it is stored.

    No codec makes incompressible values as much as half longer, so a longer chunk is damaged or hostile.
    """
    return declared + declared // 2 + CHUNK_SLACK


def shard_limit(declared: int, count: int) -> int:
    """Return the largest number of bytes that a shard of so many inner chunks may have and still be read as a whole."""
    return stored_limit(declared) + INNER_CHUNK_SLACK * count


def check_size(size: int, limit: int, what: str = "it") -> None:
    """Refuse what is larger than a bound.

    Raises
    ------
    TooLargeError
        If it is.
    """
    if size > limit:
        raise TooLargeError(f"{what} has {size} bytes, and the array's document allows for {limit} at most")
