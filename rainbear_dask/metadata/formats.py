"""Other formats that users take for Zarr stores, told by first bytes or by names, each with the way to read it."""

from collections.abc import Collection

NUM_BYTES = 4096
"""Bytes of the start of a file that tell its format."""

_REFERENCES = (
    "a file of Zarr references, as kerchunk writes. Read them with scan_zarr('reference://', storage_options={'fo': path, "
    "'remote_protocol': 's3'}), with the protocol of the files to which they refer."
)
_NETCDF = (
    "Convert it (xarray.open_dataset(path).to_zarr('store.zarr')), or write references to it with VirtualiZarr or "
    "kerchunk."
)
_GEOTIFF = "a TIFF file. Convert it with rioxarray: rioxarray.open_rasterio(path).to_dataset(name='band').to_zarr('store.zarr')."

_SIGNATURES = [
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as NetCDF-4 is. {_NETCDF}"),
    (b"CDF\x01", f"a NetCDF-3 file. {_NETCDF}"),
    (b"CDF\x02", f"a NetCDF-3 file. {_NETCDF}"),
    (b"CDF\x05", f"a NetCDF-3 file. {_NETCDF}"),
    (b"II*\0", _GEOTIFF),
    (b"MM\0*", _GEOTIFF),
    (b"II+\0", _GEOTIFF),
    (b"MM\0+", _GEOTIFF),
    (b"GRIB", "a GRIB file. Convert it: xarray.open_dataset(path, engine='cfgrib').to_zarr('store.zarr')."),
    (b"PAR1", "a Parquet file. Read it with polars.scan_parquet(path)."),
]
_SUFFIXES = {
    (".nc", ".nc4", ".cdf", ".h5", ".hdf5"): f"a NetCDF or HDF5 file, judged by its name. {_NETCDF}",
    (".tif", ".tiff"): f"judged by its name, {_GEOTIFF}",
    (".grib", ".grib2", ".grb", ".grb2"): f"judged by its name, {_SIGNATURES[-2][1]}",
    (".parquet", ".pq"): f"judged by its name, {_SIGNATURES[-1][1]}",
    (".json",): f"judged by its name, {_REFERENCES}",
}


def format_of_file(start: bytes) -> str:
    """Return the format of a file and the way to read it, as the end of a sentence; "" if it is unknown.

    Parameters
    ----------
    start : bytes
        The first `NUM_BYTES` bytes of the file.
    """
    for signature, text in _SIGNATURES:
        if start.startswith(signature):
            return text
    document = start.lstrip()
    is_references = document.startswith(b"{") and any(key in document for key in (b'"refs"', b'.zgroup"', b'.zarray"'))
    return _REFERENCES if is_references else ""


def format_of_name(name: str) -> str:
    """Return the format that the suffix of a name tells, as `format_of_file` does."""
    lowered = name.lower()
    return next((text for suffixes, text in _SUFFIXES.items() if lowered.endswith(suffixes)), "")


def format_of_folder(names: Collection[str]) -> str:
    """Return the format of a folder with files of some names, as `format_of_file` does."""
    if {"refs", "snapshots"} <= set(names) or {"repo", "snapshots"} <= set(names):
        return (
            "an Icechunk repository. Scan a session of it, repo.readonly_session('main'), or open it with `await "
            "IcechunkBackend.from_filesystem(path)`."
        )
    if "_metadata" in names or any(name.endswith((".parquet", ".pq")) for name in names):
        return "a folder of Parquet files. Read it with polars.scan_parquet(path)."
    return ""
