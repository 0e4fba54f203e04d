"""STAC items and assets as sources: objects of pystac or their JSON, known by their fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.redaction import presentable

_MEDIA_TYPES = ("application/vnd+zarr", "application/vnd.zarr", "application/x-zarr", "application/zarr")


@dataclass(frozen=True, slots=True)
class StacSource:
    """The store of an asset.

    Parameters
    ----------
    address : str
        Path or URL.
    group : str
        Path of a group inside the store; "" for its root.
    options : dict
        Storage options.
    """

    address: str
    group: str = ""
    options: dict[str, Any] = field(default_factory=dict, repr=False)


def is_stac(source: Any) -> bool:
    """Whether an object is a STAC item, collection or asset."""
    if isinstance(source, dict):
        return isinstance(source.get("assets"), Mapping) or isinstance(source.get("href"), str)
    return isinstance(getattr(source, "href", None), str) or isinstance(getattr(source, "assets", None), Mapping)


def source_of_stac(source: Any) -> StacSource:
    """Return the store of a STAC item or asset.

    Parameters
    ----------
    source
        An asset with a ``href``, or an item or a collection with exactly one asset of a media type of Zarr.

    Returns
    -------
    StacSource
        With ``xarray:storage_options`` and the group and storage options in ``xarray:open_kwargs``.

    Raises
    ------
    StoreFormatError
        If the item has no asset of Zarr, or several, or if the asset opens with another engine of xarray.
    """
    assets = source.get("assets") if isinstance(source, dict) else getattr(source, "assets", None)
    return _of_asset(source if assets is None else _zarr_asset(source, assets))


def _zarr_asset(item: Any, assets: Mapping[str, Any]) -> Any:
    found = {name: asset for name, asset in assets.items() if _media_type(asset) in _MEDIA_TYPES}
    if len(found) == 1:
        return next(iter(found.values()))
    name = presentable(str(item.get("id") if isinstance(item, dict) else getattr(item, "id", "")))
    listed = ", ".join(
        f"{presentable(key)} ({presentable(_media_type(each)) or 'no type'})" for key, each in assets.items()
    )
    problem = f"{len(found)} assets of Zarr" if found else "no asset whose media type is Zarr"
    raise StoreFormatError(
        f"The STAC item {name!r} has {problem}: {listed or 'it has no assets'}. Pass one asset: item.assets['name']."
    )


def _media_type(asset: Any) -> str:
    """Return the media type without parameters, such as the version of Zarr."""
    found = asset.get("type") if isinstance(asset, dict) else _first(asset, "media_type", "type")
    return str(found or "").partition(";")[0].strip().lower()


def _of_asset(asset: Any) -> StacSource:
    extra = asset if isinstance(asset, dict) else _first(asset, "extra_fields", "model_extra") or {}
    opening = extra.get("xarray:open_kwargs") or {}
    if opening.get("engine", "zarr") != "zarr":
        raise StoreFormatError(
            f"The STAC asset opens with the engine {presentable(str(opening['engine']))!r} of xarray, which is not Zarr. "
            "Pass an asset of Zarr."
        )
    backend = opening.get("backend_kwargs") or {}
    options: dict[str, Any] = {}
    for given in (backend.get("storage_options"), opening.get("storage_options"), extra.get("xarray:storage_options")):
        options |= given or {}
    group = opening.get("group") or backend.get("group") or ""
    return StacSource(_address(asset), str(group).strip("/"), options)


def _address(asset: Any) -> str:
    if isinstance(asset, dict):
        return str(asset["href"])
    absolute = getattr(asset, "get_absolute_href", lambda: None)()  # relative to the file of the item
    return str(absolute or asset.href)


def _first(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)
