"""Private parts of zarr's codecs that bounds are tied to: a release without one of them fails here, by name."""

import inspect

import numcodecs
import pytest
from zarr.abc.codec import ArrayArrayCodec
from zarr.codecs import BloscCodec, GzipCodec, VLenBytesCodec, VLenUTF8Codec, ZstdCodec
from zarr.registry import get_codec_class

from rainbear_dask.codecs import zarr_internals

ADVICE = "read the new release of zarr, and adapt rainbear_dask/codecs/zarr_internals.py"

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs:UserWarning")


@pytest.mark.parametrize("kind", [ZstdCodec, BloscCodec, GzipCodec, VLenUTF8Codec, VLenBytesCodec])
def test_a_codec_decodes_one_chunk_by_a_method_of_its_own(kind):
    names = {"_decode_sync", "_decode_single"} & set(dir(kind))
    assert names, f"{kind.__name__} has neither _decode_sync nor _decode_single: {ADVICE}"
    for name in names:
        parameters = list(inspect.signature(getattr(kind, name)).parameters)
        assert len(parameters) == 3, f"{kind.__name__}.{name} takes other arguments than a chunk and its spec: {ADVICE}"


@pytest.mark.parametrize("name", ["numcodecs.zlib", "numcodecs.delta"])
def test_a_codec_of_numcodecs_is_found_in_its_wrapper(name):
    kind = get_codec_class(name)
    codec = kind(dtype="i4") if issubclass(kind, ArrayArrayCodec) else kind()
    assert zarr_internals.is_wrapper(kind), f"{name} has no codec_name: {ADVICE}"
    wrapped = zarr_internals.wrapped_codec(codec)
    assert isinstance(wrapped, numcodecs.abc.Codec), f"{name} has no _codec: {ADVICE}"
    assert zarr_internals.wrapped_codec(ZstdCodec()) is None


def test_a_subclass_decodes_in_place_of_its_codec():
    kind = zarr_internals.subclass(ZstdCodec, lambda *arguments: arguments)
    codec = zarr_internals.with_class(ZstdCodec(level=3), kind, entries=7)
    assert (codec.level, codec.entries) == (3, 7), f"attributes of a codec are lost: {ADVICE}"
    assert codec._decode_sync("chunk", "spec") == (ZstdCodec, codec, "chunk", "spec")


def test_the_codec_of_v2_has_its_filters_and_compressor():
    codec = zarr_internals.V2Codec(filters=None, compressor=numcodecs.Zstd())
    assert (codec.filters, codec.compressor.codec_id) == (None, "zstd"), f"V2Codec has changed: {ADVICE}"
