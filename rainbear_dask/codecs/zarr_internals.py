"""Private parts of zarr's codecs, as of zarr 3.1.6.

`V2Codec` has no public name. A codec of v3 decodes one chunk by ``_decode_sync``, or by the coroutine
``_decode_single`` if it has no such method. A codec of v3 that wraps one of numcodecs has that one as ``_codec``.
"""

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from zarr.abc.codec import Codec
from zarr.codecs._v2 import V2Codec

__all__ = ["V2Codec", "decode", "is_wrapper", "subclass", "with_class", "wrapped_codec"]


def is_wrapper(kind: type[Any]) -> bool:
    """Whether codecs of a class wrap codecs of numcodecs."""
    return hasattr(kind, "codec_name")


def wrapped_codec(codec: Any) -> Any:
    """Return the codec of numcodecs that a codec of v3 wraps; None if it wraps none."""
    return codec._codec if hasattr(codec, "codec_config") else None


def subclass(kind: type[Any], decode: Callable[[type[Any], Any, Any, Any], Any]) -> type[Any]:
    """Return a subclass whose codecs decode by a function of the original class, the codec, a chunk and its spec."""

    def decode_sync(self: Any, chunk: Any, spec: Any) -> Any:
        return decode(kind, self, chunk, spec)

    async def decode_single(self: Any, chunk: Any, spec: Any) -> Any:
        return await asyncio.to_thread(decode, kind, self, chunk, spec)

    return type(f"Bounded{kind.__name__}", (kind,), {"_decode_sync": decode_sync, "_decode_single": decode_single})


def with_class(codec: Codec, kind: type[Any], **attributes: Any) -> Codec:
    """Return a copy of a frozen codec as one of a subclass, with more attributes."""
    found = copy.copy(codec)
    for name, value in {"__class__": kind, **attributes}.items():
        object.__setattr__(found, name, value)
    return found


def decode(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    """Decode a chunk on this thread as the given class does."""
    if hasattr(kind, "_decode_sync"):
        return kind._decode_sync(codec, chunk, spec)
    return asyncio.run(kind._decode_single(codec, chunk, spec))
