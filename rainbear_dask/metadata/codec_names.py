"""Alternative names of codecs in the metadata of Zarr v3 stores."""

from collections.abc import Mapping
from typing import Any

from zarr.registry import get_codec_class

from rainbear_dask.exceptions import QueryError

codec_names: dict[str, str] = {}  # zarr's name of a codec, by the name in a document


def configure_zarr_codecs(*, aliases: Mapping[str, str] | None = None) -> None:
    """Set alternative names of codecs in the metadata of Zarr v3 stores.

    Parameters
    ----------
    aliases : mapping of str to str, optional
        zarr's name of a codec by the name in the store. zarr's name is that of its registry, such as
        ``"numcodecs.bitround"``, or the last part of it. Each call replaces all earlier aliases; None removes them.

    Raises
    ------
    QueryError
        If zarr knows no codec of a name.

    Notes
    -----
    The aliases apply to stores that this process opens from now on. Workers need no call of their own.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> rd.configure_zarr_codecs(aliases={"keepbits": "numcodecs.bitround"})
    >>> rd.configure_zarr_codecs()
    """
    names = {alias: _zarr_name(codec) for alias, codec in (aliases or {}).items()}
    codec_names.clear()
    codec_names.update(names)


def _zarr_name(codec: str) -> str:
    for name in (codec, f"numcodecs.{codec}"):
        try:
            get_codec_class(name)
        except (KeyError, ValueError):  # the former is raised by zarr 3.1, the latter by later releases
            continue
        return name
    raise QueryError(f"zarr knows no codec {codec!r}. Install its package, or correct the name in `aliases=`.")


def with_zarr_names(codecs: Any, names: Mapping[str, str]) -> Any:
    """Return codecs under the names that zarr knows, also inside of shards."""
    if isinstance(codecs, list):
        return [with_zarr_names(codec, names) for codec in codecs]
    if not isinstance(codecs, dict):
        return codecs
    renamed = {key: with_zarr_names(value, names) for key, value in codecs.items()}
    if isinstance(name := codecs.get("name"), str):
        renamed["name"] = names.get(name, name)
    return renamed
