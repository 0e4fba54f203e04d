"""The expected result of a scan, built plainly by xarray, cftime and NumPy, without this package."""

import cftime
import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

NANOSECONDS = {"days": 86_400 * 10**9, "hours": 3_600 * 10**9, "minutes": 60 * 10**9, "seconds": 10**9}
LABELLED = ("standard", "gregorian", "proleptic_gregorian", "noleap", "365_day")
"""Calendars whose dates are all valid in Polars."""

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
    """Read a whole group, and the groups below it, as a table.

    Parameters
    ----------
    store : str, Path or zarr Store
        A source for xarray.
    variables : collection of str, optional
        Paths of the variables whose dimensions make the rows; by default all data variables.
    group : str, optional
        Group of the store.

    Returns
    -------
    DataFrame
        One row per cell of the product of the variables' dimensions, in C order. Columns: dimensions, auxiliary
        coordinates, data variables, a struct for each child group. All but the dimensions are level by level and sorted by
        name, as in zarr's consolidated metadata. Masked values are null. Types that Polars lacks are omitted.
    """
    arrays, coordinates, support = {}, set(), set()
    for path, ds in datasets(store, group).items():
        below = f"{path}/" if path else ""
        arrays |= {below + name: variable for name, variable in ds.variables.items() if variable.dtype.kind != "c"}
        coordinates |= {below + name for name in ds.coords}
        support |= {below + name for name, variable in ds.variables.items() if "grid_mapping_name" in variable.attrs}
        support |= {below + name for variable in ds.variables.values() for name in supporting(variable.attrs)}
    arrays = {path: arrays[path] for path in sorted(arrays, key=lambda path: (path.count("/"), path))}
    if variables is None:
        data = [path for path in arrays if path not in coordinates | support]
    else:
        data = [path for path in arrays if path in variables]
    spanning = sorted(data or [path for path in arrays if path in coordinates], key=lambda path: -arrays[path].ndim)
    sizes = {dim: n for path in spanning for dim, n in arrays[path].sizes.items()}

    columns, above = {}, labels_above(store, group)
    labels = {
        dim: [labels_of(dim, path, arrays, above) for path in spanning if dim in arrays[path].dims] for dim in sizes
    }
    for dim, size in sizes.items():
        own = [found for found in labels[dim] if found is not None]
        array = own[0] if own else xr.Variable((dim,), np.arange(size, dtype="int64"))
        columns[dim] = column(array, sizes, coordinate=True)
    in_root = any("/" not in path for path in spanning)
    beside = [path for path in arrays if path in coordinates and "/" not in path and path not in data]
    for path, array in [(path, arrays[path]) for path in [*beside, *data]]:
        if path in beside and not in_root and not belongs(path, arrays, above, sizes, labels):
            continue
        if array.dims != (path.rpartition("/")[2],) and set(array.dims) <= sizes.keys():
            columns[path] = column(array, sizes, coordinate=path in coordinates)
    return nested(columns)


def ranked(shape, lengths) -> np.ndarray:
    """Return the numbers of a table's cells in C order, arranged in C order of blocks, and in C order inside them."""
    places = [axis.reshape(-1) for axis in np.indices(shape)]
    keys = [*places[::-1], *[i // n for i, n in zip(places, lengths, strict=True)][::-1]]
    return np.lexsort(keys) if keys else np.zeros(1, dtype=int)


def labels_above(store, group) -> list[dict[str, xr.Variable]]:
    """Return the coordinates of dimensions in each group above a group, nearest first."""
    names = (group or "").strip("/").split("/") if group else []
    found = []
    for count in range(len(names) - 1, -1, -1):
        holder = zarr.open_group(store, path="/".join(names[:count]), mode="r")
        arrays = [name for name, node in holder.members() if isinstance(node, zarr.Array)]
        ds = xr.open_zarr(
            store, group="/".join(names[:count]) or None, consolidated=False, chunks=None, decode_cf=False
        )
        found.append({name: ds.variables[name] for name in arrays if ds.variables[name].dims == (name,)})
    return found


def labels_of(dim, path, arrays, above) -> xr.Variable | None:
    """Return the coordinate of a dimension in the scope of an array: its own group, then the groups above."""
    length, names = arrays[path].sizes[dim], path.split("/")[:-1]
    for count in range(len(names), -1, -1):
        found = arrays.get("/".join([*names[:count], dim]))
        if found is not None and found.dims == (dim,) and found.sizes[dim] == length:
            return found
    return next((held[dim] for held in above if dim in held and held[dim].sizes[dim] == length), None)


def belongs(path, arrays, above, sizes, labels) -> bool:
    """Whether a coordinate of the root lies on the grid of variables of groups below."""
    if not set(arrays[path].dims) <= sizes.keys():
        return False
    own = {dim: labels_of(dim, path, arrays, above) for dim in arrays[path].dims}
    fits = all(arrays[path].sizes[dim] == sizes[dim] for dim in own)
    return fits and all(found is None or any(found is held for held in labels[dim]) for dim, found in own.items())


def datasets(store, group=None) -> dict[str, xr.Dataset]:
    """Return a group and each group below, by path, with stored values and separate coordinates."""
    nodes = zarr.open_group(store, path=group, mode="r").members(max_depth=None)
    found = {}
    for path in sorted({path.rpartition("/")[0] for path, node in nodes if isinstance(node, zarr.Array)}):
        found[path] = xr.open_zarr(
            store,
            group="/".join(part for part in (group, path) if part),
            consolidated=False,
            chunks=None,
            mask_and_scale=False,
            decode_times=False,
            decode_timedelta=False,
        ).load()
        add_times_of_bounds(found[path])
    return found


def add_times_of_bounds(ds: xr.Dataset) -> None:
    """Give bounds the unit and calendar of the times that they bound, as xarray does when it decodes."""
    for variable in ds.variables.values():
        bounds = variable.attrs.get("bounds")
        if " since " in variable.attrs.get("units", "") and bounds in ds:
            time = {key: variable.attrs[key] for key in ("units", "calendar") if key in variable.attrs}
            ds[bounds].attrs = time | ds[bounds].attrs


def supporting(attrs) -> list[str]:
    """Return the bounds and grid mappings that an array names. ``crs: x y`` names ``crs``."""
    return [attrs[key].split()[0].rstrip(":") for key in ("bounds", "grid_mapping") if key in attrs]


def nested(columns: dict[str, pl.Series]) -> pl.DataFrame:
    """Nest columns named ``child/variable`` as structs, level by level."""
    frame = {}
    for head in dict.fromkeys(path.partition("/")[0] for path in columns):
        below = {path.partition("/")[2]: values for path, values in columns.items() if path.startswith(f"{head}/")}
        frame[head] = nested(below).to_struct() if below else columns[head]
    return pl.DataFrame(frame)


def column(array: xr.Variable, sizes: dict[str, int], *, coordinate: bool) -> pl.Series:
    """Return one array as a column, repeated along the dimensions that it lacks."""
    values, masked, dtype = decoded(array, coordinate=coordinate)
    values, masked = (repeated(each, array.dims, sizes).tolist() for each in (values, masked))
    cells = [None if hidden else value for value, hidden in zip(values, masked, strict=True)]
    return pl.Series(cells, dtype=dtype)


def decoded(array: xr.Variable, *, coordinate: bool):
    """Return decoded values and their mask, both in the array's shape, and the Polars type."""
    values, attrs, masked = array.values, array.attrs, filled(array)
    units, declared = attrs.get("units", ""), attrs.get("dtype", "")
    if values.dtype.kind in "Mm":
        return numpy_times(values)
    if values.dtype.kind in "SOTU":
        return text(values, masked)
    if "_Unsigned" in attrs:
        values = values.view(("u" if attrs["_Unsigned"] == "true" else "i") + values.dtype.str[2:])
    if " since " in units:
        return cf_times(values, masked, units, attrs.get("calendar", "standard"))
    if declared.startswith("timedelta64") or (coordinate and units in NANOSECONDS):
        return cf_durations(values, masked, units, declared or "timedelta64[ns]")
    if "scale_factor" in attrs or "add_offset" in attrs:
        scaled = values.astype("float64") * attrs.get("scale_factor", 1.0) + attrs.get("add_offset", 0.0)
        return scaled, masked, pl.Float64
    return values, masked, POLARS[values.dtype.name]


def filled(array: xr.Variable) -> np.ndarray:
    """Return the mask of values that the attributes declare missing. A stored bool has no value to spare."""
    values, masked = array.values, np.zeros(array.shape, dtype=bool)
    for key in ("_FillValue", "missing_value") if values.dtype.kind not in "bMm" else ():
        for fill in np.atleast_1d(array.attrs.get(key, [])).astype(values.dtype):
            masked |= np.isnan(values) if pd.isna(fill) else values == fill
    return masked


def text(values: np.ndarray, masked: np.ndarray):
    """Return text unchanged, and bytes as text if all of them are UTF-8."""
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            return values.astype(object), masked, pl.Binary
    return values.astype(object), masked, pl.String


def numpy_times(values: np.ndarray):
    """Return times and durations of NumPy's types, in Polars' finest unit that is not finer than theirs, or ms."""
    unit = np.datetime_data(values.dtype)[0]
    unit = unit if unit in ("ns", "us") else "ms"
    dtype = pl.Datetime(unit) if values.dtype.kind == "M" else pl.Duration(unit)
    return values.astype(f"{values.dtype.kind}8[{unit}]").astype("int64"), np.isnat(values), dtype


def cf_durations(values: np.ndarray, masked: np.ndarray, units: str, declared: str):
    """Return durations in the unit that the attribute ``dtype`` declares."""
    missing = values == np.iinfo("int64").min if values.dtype == "int64" else np.isnan(values)
    unit, step = ("ns", 1) if declared == "timedelta64[ns]" else ("ms", 10**6)
    values = np.where(missing, 0, values).astype("float64" if values.dtype.kind == "f" else "int64")
    counts = values * NANOSECONDS[units] // step
    return counts.astype("int64"), masked | missing, pl.Duration(unit)


def cf_times(values: np.ndarray, masked: np.ndarray, units: str, calendar: str):
    """Return times: Datetime in ns, else in us, else ISO 8601 text, with a fraction only if one is needed."""
    masked = masked | (np.isnan(values) if values.dtype.kind == "f" else values == np.iinfo("int64").min)
    numbers = values[~masked]
    if not numbers.size:
        year = int(units.partition(" since ")[2].partition("-")[0])
        dtype = pl.Datetime("ns" if 1678 <= year <= 2261 else "us") if calendar in LABELLED else pl.String
        return np.zeros(values.shape), masked, dtype
    times, dtype = datetimes(numbers, units, calendar) or texts(numbers, units, calendar)
    counts = np.zeros(values.shape, dtype=times.dtype)
    counts[~masked] = times
    return counts, masked, dtype


def datetimes(numbers: np.ndarray, units: str, calendar: str):
    """Return times as numbers by xarray, in the finest unit that holds them, with their type, or None."""
    if calendar in ("noleap", "365_day"):
        labels, _ = texts(numbers, units, calendar)
        return labels.astype("M8[ns]").astype("int64"), pl.Datetime("ns")
    stored = xr.Variable("n", numbers, {"units": units, "calendar": calendar})
    for unit in ("ns", "us"):
        coder = xr.coders.CFDatetimeCoder(time_unit=unit)
        times = xr.conventions.decode_cf_variable("t", stored, decode_times=coder).values
        if times.dtype == f"M8[{unit}]":
            return times.astype("int64"), pl.Datetime(unit)
    return None


def texts(numbers: np.ndarray, units: str, calendar: str):
    """Return times as text by cftime."""
    dates = cftime.num2date(numbers, units, calendar, only_use_cftime_datetimes=True)
    labels = [
        f"{t.year:04}-{t.month:02}-{t.day:02}T{t.hour:02}:{t.minute:02}:{t.second:02}.{t.microsecond:06}" for t in dates
    ]
    whole = all(label.endswith(".000000") for label in labels)
    return np.array([label[:19] if whole else label for label in labels], dtype=object), pl.String


def repeated(values: np.ndarray, dims: tuple[str, ...], sizes: dict[str, int]) -> np.ndarray:
    """Return the values of every cell of the table, flat, by index position."""
    ordered = [dim for dim in sizes if dim in dims]
    values = values.transpose([dims.index(dim) for dim in ordered])
    values = values[tuple(slice(None) if dim in dims else np.newaxis for dim in sizes)]
    return np.broadcast_to(values, tuple(sizes.values())).reshape(-1)


def assert_same_rows(actual: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Check that two frames have equal columns, types and rows, in the same order, to the last bit."""
    assert_frame_equal(actual, expected, check_exact=True)
