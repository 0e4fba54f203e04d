"""Random datasets with ugly coordinates, ways to store them, and questions to ask of them."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from operator import and_, or_, xor

import hypothesis.strategies as st
import numpy as np
import polars as pl
import xarray as xr

DIMS = "xyz"
TEXTS = ["", "a", "aa", "b", "zz", "é", "Ω1", "null", "a b"]
START = np.datetime64("1999-12-29T21:00", "ns")
STEP = np.timedelta64(5, "h").astype("timedelta64[ns]")

# Each kind turns small integers, from -8 to 8, into stored values and their CF attributes.
KINDS = {
    "float64": lambda k: (k / 10, {}),
    "float32": lambda k: ((k / 10).astype("f4"), {}),
    "float16": lambda k: ((k / 10).astype("f2"), {}),
    "float with NaN": lambda k: (np.where(k > 6, np.nan, k / 10), {}),
    "float32 with NaN as fill": lambda k: (
        np.where(k > 6, np.nan, k / 10).astype("f4"),
        {"_FillValue": np.float32("nan")},
    ),
    "float with fill and NaN": lambda k: (np.where(k > 6, np.nan, k / 10), {"_FillValue": 0.3, "missing_value": -0.8}),
    "int8": lambda k: (k.astype("i1"), {}),
    "int32": lambda k: (k.astype("i4"), {}),
    "int64": lambda k: (k.astype("i8"), {}),
    "uint8": lambda k: ((k + 8).astype("u1"), {}),
    "uint16": lambda k: ((k + 8).astype("u2"), {}),
    "uint64": lambda k: (np.uint64(2**63) + (k + 8).astype("u8"), {}),
    "int with fill": lambda k: (k.astype("i2"), {"_FillValue": np.int16(3)}),
    "packed": lambda k: (k.astype("i2"), {"scale_factor": 0.1, "add_offset": -2.0, "_FillValue": np.int16(7)}),
    "bool": lambda k: (k % 2 == 0, {}),
    "string": lambda k: (np.array(TEXTS, dtype=object)[k % len(TEXTS)], {}),
    "fixed string": lambda k: (np.array(TEXTS)[k % len(TEXTS)], {}),
    "datetime": lambda k: (START + k * STEP, {}),
    "datetime with NaT": lambda k: (np.where(k > 6, np.datetime64("NaT", "ns"), START + k * STEP), {}),
    "int32 hours since": lambda k: (k.astype("i4"), {"units": "hours since 2000-02-28 22:00"}),
    "float days since": lambda k: (k / 8, {"units": "days since 1970-01-01", "calendar": "standard"}),
    "timedelta": lambda k: (k * STEP, {}),
    "hours": lambda k: (k.astype("i4"), {"units": "hours"}),
}


@st.composite
def small_integers(draw, shape: tuple[int, ...]) -> np.ndarray:
    """Integers from -8 to 8 in no order, repeated sooner or later.

    They are drawn as bytes, which is quick and shrinks well, and differ even where Hypothesis draws what is simplest.
    """
    count = math.prod(shape)
    drawn = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype="uint8").astype("int64")
    return ((drawn + 5 * np.arange(count) + 8) % 17 - 8).reshape(shape)


@st.composite
def arrays(draw, dims: tuple[str, ...], shape: tuple[int, ...]) -> xr.Variable:
    """An array of any kind."""
    return stored(dims, draw(small_integers(shape)), draw(st.sampled_from(sorted(KINDS))))


@st.composite
def coordinates(draw, dim: str, size: int) -> xr.Variable:
    """A coordinate of one dimension: regular, ascending, descending, or anyhow (unsorted and repeated)."""
    small = draw(small_integers((size,)))
    arrangement = draw(st.sampled_from(["regular", "ascending", "descending", "anyhow"]))
    if arrangement == "regular":
        small = np.arange(size) - 3
    elif arrangement != "anyhow":
        small = np.sort(small)[:: 1 if arrangement == "ascending" else -1]
    return stored((dim,), small, draw(st.sampled_from(sorted(KINDS.keys() - {"float16"}))))  # no index of that type


def stored(dims: tuple[str, ...], small: np.ndarray, kind: str) -> xr.Variable:
    """The stored form of an array of some kind: xarray writes it as it is."""
    values, attrs = KINDS[kind](small.reshape(-1))
    variable = xr.Variable(dims, values.reshape(small.shape), attrs)
    if values.dtype.kind == "f" and "_FillValue" not in attrs:
        variable.encoding["_FillValue"] = None  # else xarray declares NaN as fill
    return variable


@st.composite
def datasets(draw) -> xr.Dataset:
    """A dataset of 1 to 3 variables over up to 3 dimensions, with index, auxiliary and scalar coordinates."""
    sizes = {
        dim: draw(st.sampled_from([3, 1, 2, 4, 5, 6, 7, 8, 9])) for dim in DIMS[: draw(st.sampled_from([2, 1, 3]))]
    }
    if draw(st.integers(0, 15)) == 15:
        sizes[draw(st.sampled_from(sorted(sizes)))] = 0
    some_dims = st.lists(st.sampled_from(sorted(sizes)), unique=True).map(tuple)

    def array_on(dims):
        return draw(arrays(dims, tuple(sizes[dim] for dim in dims)))

    whole = tuple(draw(st.permutations(sorted(sizes))))
    variables = {"a": array_on(whole)}
    for name in "bc"[: draw(st.integers(0, 2))]:
        variables[name] = array_on(draw(st.one_of(st.just(whole), some_dims)))
    coords = {dim: draw(coordinates(dim, n)) for dim, n in sizes.items() if draw(st.integers(0, 3))}
    for name in draw(st.sets(st.sampled_from(["aux1", "aux2"]))):
        coords[name] = array_on(draw(some_dims))
    ds = xr.Dataset(variables, coords)
    if "x" in coords and draw(st.integers(0, 7)) == 7:
        ds["x"].attrs["bounds"] = "x_bounds"
        ds["x_bounds"] = (("x", "side"), np.zeros((sizes["x"], 2)))
    return ds


@dataclass(frozen=True)
class Layout:
    """How a dataset lies in a Zarr store."""

    zarr_format: int
    consolidated: bool
    encoding: dict[str, dict[str, tuple[int, ...]]] = field(hash=False)

    def write(self, ds: xr.Dataset, store, group: str | None = None) -> None:
        ds.to_zarr(
            store, group=group, zarr_format=self.zarr_format, consolidated=self.consolidated, encoding=self.encoding
        )

    def splits_only(self, dim: str, ds: xr.Dataset) -> bool:
        """Whether each array is one chunk along every dimension but ``dim``."""
        return all(
            d == dim or n <= chunk
            for name, encoding in self.encoding.items()
            for d, n, chunk in zip(ds[name].dims, ds[name].shape, encoding["chunks"], strict=True)
        )


@st.composite
def layouts(draw, ds: xr.Dataset) -> Layout:
    """Zarr v2, v3, or v3 sharded, each array with chunks of its own."""
    kind = draw(st.sampled_from(["v2", "v3", "v3 sharded"]))
    encoding = {}
    for name, variable in ds.variables.items():
        if not variable.dims:
            continue
        chunks = tuple(draw(st.integers(1, max(n, 1)) | st.integers(1, min(max(n, 1), 3))) for n in variable.shape)
        encoding[name] = {"chunks": chunks}
        if kind == "v3 sharded" and variable.size and draw(st.booleans()):
            encoding[name]["shards"] = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    return Layout(2 if kind == "v2" else 3, draw(st.booleans()), encoding)


JOINS = {
    "and": lambda parts: reduce(and_, parts),
    "or": lambda parts: reduce(or_, parts),
    "xor": lambda parts: reduce(xor, parts),
    "not and": lambda parts: ~reduce(and_, parts),
    "not or": lambda parts: ~reduce(or_, parts),
    "all": pl.all_horizontal,
    "any": pl.any_horizontal,
}


@st.composite
def predicates(draw, frame: pl.DataFrame, depth: int = 2) -> pl.Expr:
    """A filter on any columns of a table, dimensions more often than others."""
    if depth == 0 or draw(st.integers(0, 2)) == 2:
        dims = [name for name in frame.columns if name in DIMS] or frame.columns
        name = draw(st.sampled_from(dims) | st.sampled_from(dims) | st.sampled_from(frame.columns))
        leaf = draw(leaves(frame[name]))
        return ~leaf if draw(st.integers(0, 4)) == 4 else leaf
    parts = draw(st.lists(predicates(frame, depth - 1), min_size=2, max_size=3))
    return JOINS[draw(st.sampled_from(sorted(JOINS)))](parts)


COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
compare = st.sampled_from(sorted(COMPARE)).map(COMPARE.__getitem__)


@st.composite
def leaves(draw, values: pl.Series) -> pl.Expr:
    """A Boolean expression of one column."""
    column, dtype = pl.col(values.name), values.dtype
    there = st.sampled_from(values.drop_nulls().to_list() or [None])
    known = there.map(lambda value: pl.lit(value, dtype))
    bounds = st.lists(there, min_size=2, max_size=2).map(
        lambda pair: [pl.lit(v, dtype) for v in sorted(pair, key=in_order)]
    )
    general = [
        st.builds(lambda f, v: f(column, v), compare, known),
        st.builds(lambda f, v: f(v, column), compare, known),
        st.builds(
            lambda ends, closed: column.is_between(*ends, closed),
            bounds,
            st.sampled_from(["both", "left", "right", "none"]),
        ),
        st.builds(
            lambda vs, nulls: column.is_in(pl.Series(vs, dtype=dtype).implode(), nulls_equal=nulls),
            st.lists(st.sampled_from([*values.to_list(), None]), max_size=6),
            st.booleans(),
        ),
        st.integers(1, 3).map(lambda step: column.is_in(values[::step].implode())),
        st.sampled_from([column.is_not_null(), column.is_null(), column.eq_missing(pl.lit(None, dtype))]),
        st.builds(lambda f: f(column, column.max()), compare),  # not elementwise: never reaches a reader
        st.builds(
            lambda vs: column.map_elements(vs.__contains__, return_dtype=pl.Boolean), st.just(values.to_list()[:3])
        ),
    ]
    return draw(st.one_of(general + special(column, dtype)))


def in_order(value) -> tuple:
    """Sort key that puts None first."""
    return (value is not None, value)


def special(column: pl.Expr, dtype: pl.DataType) -> list[st.SearchStrategy[pl.Expr]]:
    """Boolean expressions that only some types have."""
    if dtype == pl.Boolean:
        return [st.sampled_from([column, ~column, column.not_()])]
    if dtype == pl.String:
        return [
            st.sampled_from(TEXTS).map(column.str.starts_with),
            st.sampled_from(TEXTS).map(lambda text: column.str.contains(text, literal=True)),
            st.builds(lambda f, n: f(column.str.len_chars(), n), compare, st.integers(0, 3)),
            st.builds(lambda f, text: f(column, text), compare, st.sampled_from(TEXTS)),
        ]
    if dtype == pl.Datetime:
        return [
            st.builds(lambda f, n: f(column.dt.hour(), n), compare, st.integers(0, 23)),
            st.builds(lambda f, n: f(column.dt.month(), n), compare, st.integers(1, 12)),
            st.builds(
                lambda f, n: f(column, START.astype("M8[us]").item() + timedelta(hours=n)),
                compare,
                st.integers(-50, 50),
            ),
            st.builds(lambda f: f(column.dt.truncate("1d"), column), compare),
            st.builds(lambda f: f(column.dt.offset_by("1mo").dt.date(), START.astype("M8[D]").item()), compare),
        ]
    if dtype == pl.Duration:
        return [
            st.builds(lambda f, n: f(column, timedelta(hours=n)), compare, st.integers(-50, 50)),
            st.builds(lambda f, n: f(column.dt.total_hours() % 7, n), compare, st.integers(0, 7)),
        ]
    numbers = st.one_of(
        st.integers(-9, 20),
        st.integers(-90, 90).map(lambda k: k / 10),
        st.sampled_from([float("nan"), float("inf"), 2**63 + 3, -(2**40)]),
    )
    numeric = [
        st.builds(lambda f, n: f(column, n), compare, numbers),
        st.builds(lambda f, n: f(n, column), compare, numbers),
        st.builds(lambda f, n, m: f(column.cast(pl.Float64) * 3 - n, m), compare, numbers, numbers),
        st.builds(lambda f, n: f((column.cast(pl.Float64) + 180) % 7 - 3, n), compare, st.integers(-5, 5)),
        st.builds(lambda f, n: f((column.cast(pl.Float64) * 10) % 3, n), compare, st.integers(0, 2)),
        st.builds(lambda f, n: f(column.cast(pl.Float64).abs(), n), compare, numbers),
        st.builds(lambda f, n: f(column.cast(pl.Int8, strict=False), n), compare, st.integers(-9, 9)),
        st.builds(lambda f, n: f(column.cast(pl.String).str.len_chars(), n), compare, st.integers(1, 5)),
        st.builds(lambda low, width: column.is_between(low, low + width), st.integers(-9, 9), st.integers(-1, 9)),
        st.builds(column.is_in, st.lists(st.integers(0, 9), min_size=1)),
        st.builds(lambda n: pl.when(column > n).then(True).otherwise(column < -n), st.integers(-9, 9)),
    ]
    if dtype.is_float():
        numeric.append(
            st.sampled_from([column.is_nan(), column.is_not_nan(), column.is_finite(), column.is_infinite()])
        )
    return numeric


@st.composite
def projections(draw, frame: pl.DataFrame) -> list[pl.Expr]:
    """Some columns in any order, now and then one that is computed."""
    names = draw(st.lists(st.sampled_from(frame.columns), unique=True, min_size=1))
    computed = (
        [pl.col(draw(st.sampled_from(frame.columns))).is_null().alias("computed")]
        if draw(st.integers(0, 3)) == 3
        else []
    )
    return [pl.col(name) for name in names] + computed
