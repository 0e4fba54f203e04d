"""Other names of codecs in the metadata of Zarr v3 stores."""

from collections.abc import Mapping
from typing import Any

from zarr.registry import get_codec_class

from rainbear_dask.exceptions import QueryError

codec_names: dict[str, str] = {}  # by the name in a document, what zarr calls the codec


def configure_zarr_codecs(*, aliases: Mapping[str, str] | None = None) -> None:
    """Say under which other names codecs stand in the metadata of Zarr v3 stores.

    Parameters
    ----------
    aliases : mapping of str to str, optional
        By the name in the store, a name that zarr knows, such as ``"numcodecs.bitround"``, or its last part. It takes the
        place of what was said before; None takes that back.

    Raises
    ------
    QueryError
        If zarr knows no codec of that name.

    Notes
    -----
    It holds in this process, for stores that are opened from now on; workers need not be told.
    """
    names = {alias: _zarr_name(codec) for alias, codec in (aliases or {}).items()}
    codec_names.clear()
    codec_names.update(names)


def _zarr_name(codec: str) -> str:
    for name in (codec, f"numcodecs.{codec}"):
        try:
            get_codec_class(name)
        except (KeyError, ValueError):  # of zarr 3.1, and since
            continue
        return name
    raise QueryError(f"zarr knows no codec {codec!r}. Install the package that has it, or mend the name in aliases=.")


def with_zarr_names(codecs: Any, names: Mapping[str, str]) -> Any:
    """Codecs under the names that zarr knows, also those inside of shards."""
    if isinstance(codecs, list):
        return [with_zarr_names(codec, names) for codec in codecs]
    if not isinstance(codecs, dict):
        return codecs
    renamed = {key: with_zarr_names(value, names) for key, value in codecs.items()}
    if isinstance(name := codecs.get("name"), str):
        renamed["name"] = names.get(name, name)
    return renamed
