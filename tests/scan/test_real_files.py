"""Files of real models, satellites and profiles, written to Zarr as xarray writes them: a scan gives xarray's table.

The oracle is ``xarray.Dataset.to_dataframe``, with five differences that are meant: what is masked is null, times of
the 360-day calendar are ISO 8601 text, times of the 365-day calendar are ordinary ones of the same date, times stored as
floats are right to the nanosecond, and CF bounds and grid mappings are no columns unless they are named.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

import rainbear_dask as rd
from tests.support.oracle import assert_same_rows
from tests.support.stores import CountingStore

pytestmark = pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification")

c = pl.col


def folder(package: str) -> Path:
    """Where the files of a package are; it is not imported, since more than files may be needed for that."""
    return Path(find_spec(package).submodule_search_locations[0])


def real(name: str) -> xr.Dataset:
    return xr.open_dataset(folder("iris_sample_data") / "sample_data" / name, decode_timedelta=False)


def cmip6(pattern: str) -> list[xr.Dataset]:
    paths = sorted((folder("esmvaltool_sample_data") / "data").rglob(pattern))
    return [xr.open_dataset(path, decode_timedelta=False) for path in paths]


def joined(parts: list[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(parts, dim, data_vars="minimal", coords="minimal", compat="override", join="exact")


def nemo_months() -> xr.Dataset:
    """Three monthly files; time_counter is 0 in each."""
    return joined([real(f"NEMO/nemo_1m_2015{m:02}01-2015{m + 1:02}01_grid-T.nc") for m in (1, 2, 3)], "time_counter")


def packed_sst() -> xr.Dataset:
    """Sea surface temperature, packed as the OISST archive packs it."""
    ds = real("ostia_monthly.nc")
    packing = {"dtype": "int16", "scale_factor": np.float32(0.01), "add_offset": np.float32(273.15)}
    ds["surface_temperature"].encoding = packing | {"_FillValue": np.int16(-999)}
    return ds


def text_of_any_length() -> xr.Dataset:
    ds = real("vlstr_type.nc")
    return ds.assign_coords(expver=ds["expver"].astype(object))


@dataclass(frozen=True)
class Case:
    """A dataset, how one variable of it is chunked, and a question: where on its axes, and having what there."""

    open: Callable[[], xr.Dataset]
    variable: str
    chunks: tuple[int, ...]
    where: pl.Expr
    having: pl.Expr

    def dataset(self) -> xr.Dataset:
        ds = self.open()
        ds[self.variable].encoding["chunks"] = self.chunks
        return ds


CASES = {
    "HadCM3, 360-day calendar": Case(
        lambda: real("A1B_north_america.nc"),
        "air_temperature",
        (24, 10, 49),
        (c.time < "1890") & (c.latitude > 50),
        c.air_temperature < 273.15,
    ),
    "HadCM3, by forecast period": Case(
        lambda: real("E1_north_america.nc"),
        "air_temperature",
        (24, 37, 10),
        c.forecast_period > timedelta(days=80_000),
        c.air_temperature > 290,
    ),
    "NEMO, curvilinear, three months": Case(
        nemo_months,
        "tos",
        (1, 50, 60),
        (c.time_centered == "2015-02-16T00:00:00") & (c.y >= 250),
        (c.nav_lat > 75) & c.tos.is_not_null(),
    ),
    "ORCA2, curvilinear, one moment of year 1": Case(
        lambda: real("orca2_votemper.nc"),
        "votemper",
        (20, 30),
        c.dim0 > 100,
        c.nav_lat.is_between(30, 46) & c.nav_lon.is_between(-6, 36) & (c.votemper > 15),
    ),
    "OSTIA": Case(
        lambda: real("ostia_monthly.nc"),
        "surface_temperature",
        (6, 6, 108),
        (c.time.dt.year() == 2008) & (c.latitude.abs() < 1),
        c.surface_temperature.is_null(),
    ),
    "OSTIA, packed": Case(
        packed_sst,
        "surface_temperature",
        (6, 6, 108),
        c.longitude.is_between(190, 240),
        c.surface_temperature > 302,
    ),
    "Unified Model, hybrid height": Case(
        lambda: real("hybrid_height.nc"),
        "air_potential_temperature",
        (3, 50, 50),
        c.sigma > 0.98,
        c.level_height + c.sigma * c.surface_altitude < 400,
    ),
    "rotated pole": Case(
        lambda: real("rotated_pole.nc"),
        "air_pressure_at_sea_level",
        (11, 12),
        (c.grid_latitude > 0) & (c.grid_longitude < 350),
        c.air_pressure_at_sea_level > 101_000,
    ),
    "space weather": Case(
        lambda: real("space_weather.nc"), "Ne", (10, 31, 31), c.height > 700_000, (c.latitude > 70) & (c.TEC > 5)
    ),
    "satellite, stereographic": Case(
        lambda: real("toa_brightness_stereographic.nc"),
        "data",
        (40, 64),
        (c.y < -3e6) & (c.x > 0),
        (c.data < 250) & (c.lat > 40),
    ),
    "Atlantic profiles": Case(
        lambda: real("atlantic_profiles.nc"), "salinity", (10, 6, 8), c.depth < 50, c.salinity > 36
    ),
    "Darwin, series": Case(
        lambda: real("SOI_Darwin.nc"), "SOI_Darwin", (120,), c.time.dt.year() == 1983, c.SOI_Darwin < 0
    ),
    "text of any length": Case(text_of_any_length, "wind", (25, 1, 1), c.expver == "AB", c.time.dt.hour() == 12),
    "text of one length": Case(
        lambda: real("vlstr_type.nc"), "wind", (25, 1, 1), c.time < datetime(1970, 1, 3), c.expver == "ABC"
    ),
    "TaiESM1, daily, 365-day calendar": Case(
        lambda: cmip6("ta_day_TaiESM1*.nc")[0],
        "ta",
        (365, 1, 3, 2),
        (c.time.dt.month() == 2) & (c.time.dt.year() == 2004) & (c.plev > 90_000),
        c.ta > 240,
    ),
    "KACE, monthly, 360-day calendar": Case(
        lambda: cmip6("ta_Amon_KACE*.nc")[0],
        "ta",
        (120, 2, 3, 2),
        c.time.str.starts_with("1991-0"),
        c.ta.is_between(220, 260),
    ),
    "EC-Earth3, one file a year": Case(
        lambda: joined(cmip6("ta_Amon_EC-Earth3_*_gr_19[78]*.nc"), "time"),
        "ta",
        (12, 2, 3, 2),
        c.time.dt.year().is_between(1976, 1985),
        c.time.dt.month() == 1,
    ),
}


@pytest.fixture(scope="module", params=[2, 3], ids=["v2", "v3"])
def write(request, tmp_path_factory):
    """Write a dataset in one of the two formats, and tell where."""

    def written(ds: xr.Dataset) -> str:
        path = str(tmp_path_factory.mktemp("real") / "a.zarr")
        ds.to_zarr(path, zarr_format=request.param, consolidated=False)
        return path

    return written


def table_of_xarray(path: str, variables: list[str] | None = None) -> pl.DataFrame:
    """What xarray makes a table of: by default all variables but those that support others."""
    ds = xr.open_zarr(path, consolidated=False, chunks=None, decode_timedelta=True)
    support = {variable.attrs.get(key) for variable in ds.variables.values() for key in ("bounds", "grid_mapping")}
    stored = xr.open_zarr(path, consolidated=False, chunks=None, decode_cf=False)
    ds = ds[variables or [name for name in ds.data_vars if name not in support]].load()
    for name, variable in ds.variables.items():
        if variable.dtype == object and variable.encoding.get("calendar"):
            text = np.vectorize(lambda time: time.isoformat(), otypes=[object])(variable.values)
            as_text = variable.encoding["calendar"] == "360_day"
            ds = ds.assign_coords({name: (variable.dims, text if as_text else text.astype("datetime64[ns]"))})
        elif variable.dtype.kind == "M" and variable.encoding["dtype"].kind == "f":
            ds = ds.assign_coords({name: (variable.dims, exact_times(stored[name]))})
    dims = max((array.dims for array in ds.data_vars.values()), key=len)
    names = [*dims, *sorted(set(ds.coords) - set(dims)), *sorted(ds.data_vars)]
    frame = ds.to_dataframe(dim_order=dims).reset_index()
    masked = {name for name, variable in ds.variables.items() if "_FillValue" in variable.encoding}
    return pl.DataFrame([pl.from_pandas(frame[name], nan_to_null=name in masked).alias(name) for name in names])


def exact_times(stored: xr.DataArray) -> np.ndarray:
    """Times stored as floats; xarray's product of number and unit is a float64, which is 256 ns wide in our time."""
    unit, epoch = stored.attrs["units"].split(" since ")
    tick = pd.Timedelta(1, unit).as_unit("ns").value
    since = [round(Fraction(number) * tick) for number in stored.values.reshape(-1).tolist()]
    return pd.Timestamp(epoch).to_datetime64() + np.array(since, "m8[ns]").reshape(stored.shape)


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@each_case
def test_a_real_file_is_the_table_that_xarray_makes_of_it(case, write):
    path = write(case.dataset())
    assert_same_rows(rd.scan_zarr(path).collect(), table_of_xarray(path))


@each_case
def test_a_question_to_a_real_file_reads_only_its_chunks(case, write):
    path = write(case.dataset())
    table = table_of_xarray(path)
    needed = chunks_with(path, case.variable, table, case.where)
    counted = CountingStore(LocalStore(path, read_only=True))
    assert_same_rows(rd.scan_zarr(counted).filter(case.where).collect(), table.filter(case.where))
    assert (
        0 < len(counted.chunks(case.variable)) == needed < zarr.open_array(path, path=case.variable, mode="r").nchunks
    )

    both = case.where & case.having
    assert 0 < table.filter(both).height < table.filter(case.where).height
    assert_same_rows(rd.scan_zarr(path).filter(both).collect(), table.filter(both))


def chunks_with(path: str, variable: str, table: pl.DataFrame, question: pl.Expr) -> int:
    """How many chunks of a variable have a row that answers a question; rows are its cells in C order."""
    array = zarr.open_array(path, path=variable, mode="r")
    rows = table.select(pl.arg_where(question)).to_series().to_numpy()
    cells = np.stack(np.unravel_index(rows, array.shape), axis=1)
    return len(np.unique(cells // array.chunks, axis=0))


def test_a_filter_on_curvilinear_coordinates_reads_only_its_chunks(write):
    case = CASES["ORCA2, curvilinear, one moment of year 1"]
    path = write(case.dataset())
    mediterranean = c.nav_lat.is_between(30, 46) & c.nav_lon.is_between(-6, 36)
    counted = CountingStore(LocalStore(path, read_only=True))
    rd.scan_zarr(counted).filter(mediterranean).collect()
    assert len(counted.chunks("votemper")) == chunks_with(path, "votemper", table_of_xarray(path), mediterranean)


@pytest.mark.parametrize("variables", [["nav_lat_bnds"], ["nav_lat_bnds", "nav_lon_bnds", "votemper"], ["deptht_bnds"]])
def test_bounds_that_are_named_are_columns(variables, write):
    path = write(real("orca2_votemper.nc"))
    actual = rd.scan_zarr(path, variables=variables).collect()
    assert_same_rows(actual, table_of_xarray(path, variables))


def test_a_mesh_is_one_table_for_each_set_of_dimensions(write):
    path = write(real("mesh_C4_synthetic_float.nc"))
    tables = {key.dims: table for key, table in rd.tables(path).items()}
    kinds: dict[frozenset[str], list[str]] = {}
    ds = xr.open_zarr(path, consolidated=False, chunks=None)
    for name, array in ds.data_vars.items():
        kinds.setdefault(frozenset(array.dims), []).append(name)
    assert {frozenset(dims) for dims in tables} == kinds.keys()
    assert tables.pop(()).collect().to_dicts() == [{"example_C4": ds["example_C4"].item()}]
    for dims, table in tables.items():
        assert_same_rows(table.collect(), table_of_xarray(path, kinds[frozenset(dims)]))


def test_a_mesh_as_one_table_is_warned_of(write):
    path = write(real("mesh_C4_synthetic_float.nc"))
    with pytest.warns(UserWarning, match="tables()"):
        table = rd.scan_zarr(path)
    ds = xr.open_zarr(path, consolidated=False, chunks=None)
    assert table.select(pl.len()).collect().item() == math.prod(ds.sizes.values())
    box = (c.nexample_C4_face == 5) & (c.nexample_C4_node < 3) & (c.nexample_C4_edge == 191) & (c.Two == 1)
    corners = table.filter(box).select("Four", "nexample_C4_node", "synthetic", "example_C4_face_nodes").collect()
    expected = pd.MultiIndex.from_product([range(3), range(4)], names=["nexample_C4_node", "Four"]).to_frame(
        index=False
    )
    expected["synthetic"] = ds["synthetic"].values[5]
    expected["example_C4_face_nodes"] = ds["example_C4_face_nodes"].values[5][expected["Four"]]
    rows = ["nexample_C4_node", "Four"]  # in the order of the table's blocks, which are small as its rows are so many
    assert_same_rows(corners.sort(rows), pl.from_pandas(expected).select(corners.columns))
