"""What a scan has to give, built by xarray and NumPy in the plainest way; nothing here comes from the package."""

import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
from polars.testing import assert_frame_equal

NANOSECONDS = {"days": 86_400 * 10**9, "hours": 3_600 * 10**9, "minutes": 60 * 10**9, "seconds": 10**9}

POLARS = {
    "bool": pl.Boolean,
    "int8": pl.Int8,
    "int16": pl.Int16,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "uint8": pl.UInt8,
    "uint16": pl.UInt16,
    "uint32": pl.UInt32,
    "uint64": pl.UInt64,
    "float16": pl.Float32,
    "float32": pl.Float32,
    "float64": pl.Float64,
}


def expected_frame(store, variables=None, group=None) -> pl.DataFrame:
    """Read a whole group as a table.

    Parameters
    ----------
    store : str, Path or zarr Store
        What xarray opens.
    variables : collection of str, optional
        Those whose dimensions make the rows; by default all data variables.
    group : str, optional
        Which group of the store.

    Returns
    -------
    DataFrame
        One row per cell of the product of the variables' dimensions, in C order. Columns: dimensions, auxiliary
        coordinates, data variables, both sorted by name, as zarr consolidates metadata. Masked values are null. Times
        are ns, of a standard calendar.
    """
    stored = xr.open_zarr(store, group=group, consolidated=False, decode_cf=False, chunks=None).load()
    ds = xr.decode_cf(
        stored[sorted(stored.variables)], mask_and_scale=False, decode_times=False, decode_timedelta=False
    )
    supporting = {ds[v].attrs.get(key) for v in ds.variables for key in ("bounds", "grid_mapping")}
    data = [v for v in ds.data_vars if (v in variables if variables is not None else v not in supporting)]
    sizes = {dim: ds.sizes[dim] for v in data or ds.coords for dim in ds[v].dims}
    auxiliary = [c for c in ds.coords if c not in ds.dims and set(ds[c].dims) <= set(sizes)]
    return pl.DataFrame([column(ds, name, sizes) for name in [*sizes, *auxiliary, *data]])


def column(ds: xr.Dataset, name: str, sizes: dict[str, int]) -> pl.Series:
    """One array as a column, repeated along the dimensions that it lacks; positions for a dimension without array."""
    array = ds.variables[name] if name in ds.variables else xr.Variable((name,), np.arange(sizes[name], dtype="int64"))
    values, masked, dtype = decoded(array, coordinate=name not in ds.data_vars)
    values, masked = (repeated(each, array.dims, sizes).tolist() for each in (values, masked))
    cells = [None if hidden else value for value, hidden in zip(values, masked, strict=True)]
    return pl.Series(name, cells, dtype=dtype)


def decoded(array: xr.Variable, *, coordinate: bool):
    """Decoded values and where they are masked, both of the array's shape, and the Polars type."""
    values, attrs = array.values, array.attrs
    masked = np.zeros(values.shape, dtype=bool)
    for key in ("_FillValue", "missing_value"):
        for fill in np.atleast_1d(attrs.get(key, [])).astype(values.dtype):
            masked |= np.isnan(values) if pd.isna(fill) else values == fill
    units = attrs.get("units", "")
    if " since " in units:
        times = xr.conventions.decode_cf_variable("t", array, decode_times=xr.coders.CFDatetimeCoder(time_unit="ns"))
        return times.values.astype("int64"), masked | np.isnat(times.values), pl.Datetime("ns")
    if attrs.get("dtype", "").startswith("timedelta64") or (coordinate and units in NANOSECONDS):
        missing = values == np.iinfo("int64").min if values.dtype == "int64" else False
        return np.where(missing, 0, values).astype("int64") * NANOSECONDS[units], masked | missing, pl.Duration("ns")
    if "scale_factor" in attrs or "add_offset" in attrs:
        scaled = values.astype("float64") * attrs.get("scale_factor", 1.0) + attrs.get("add_offset", 0.0)
        return scaled, masked, pl.Float64
    if values.dtype.kind in "OTU":
        return values.astype(object), masked, pl.String
    return values, masked, POLARS[values.dtype.name]


def repeated(values: np.ndarray, dims: tuple[str, ...], sizes: dict[str, int]) -> np.ndarray:
    """Values of every cell of the table, flat, by index position."""
    ordered = [dim for dim in sizes if dim in dims]
    values = values.transpose([dims.index(dim) for dim in ordered])
    values = values[tuple(slice(None) if dim in dims else np.newaxis for dim in sizes)]
    return np.broadcast_to(values, tuple(sizes.values())).reshape(-1)


def assert_same_rows(actual: pl.DataFrame, expected: pl.DataFrame, *, in_order: bool = False) -> None:
    """Check that two frames have the same columns, types and rows, each as often, to the last bit."""
    assert_frame_equal(actual, expected, check_exact=True, check_row_order=in_order)
