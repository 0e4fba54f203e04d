"""Random trees of arrays with ugly coordinates, and ways to store them, written with zarr alone."""

import asyncio
import math
from base64 import b64encode
from dataclasses import dataclass, replace
from functools import cache, partial
from struct import pack

import hypothesis.strategies as st
import numcodecs
import numpy as np
from zarr.api.asynchronous import consolidate_metadata, create_array, create_group
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.core.sync import sync

DIMS = "xyzw"
TEXTS = ["", "a", "aa", "b", "zz", "é", "Ω1", "null", "a b"]
START = np.datetime64("1999-12-29T21:00", "ns")
STEP = np.timedelta64(5, "h").astype("timedelta64[ns]")
DAY = {"units": "days since 2000-02-27 06:00"}  # close to a date that only some calendars have


def unless(hidden, values, otherwise):
    """Return values, with another value in the hidden cells."""
    return np.where(hidden, np.array(otherwise, values.dtype), values)


# Each kind turns small integers, from -8 to 8, into stored values and their attributes.
KINDS = {
    "float64": lambda k: (k / 10, {}),
    "float32": lambda k: ((k / 10).astype("f4"), {}),
    "float16": lambda k: ((k / 10).astype("f2"), {}),
    "float with NaN": lambda k: (np.where(k > 6, np.nan, k / 10), {}),
    "float with NaN as fill": lambda k: (np.where(k > 6, np.nan, k / 10).astype("f4"), {"_FillValue": np.nan}),
    "float with fills and NaN": lambda k: (
        np.where(k > 6, np.nan, k / 10),
        {"_FillValue": 0.3, "missing_value": [-0.8, 0.7]},
    ),
    "float32 with a fill that is rounded": lambda k: (unless(k > 6, (k / 10).astype("f4"), 1e20), {"_FillValue": 1e20}),
    "int8": lambda k: (k.astype("i1"), {}),
    "int32": lambda k: (k.astype("i4"), {}),
    "int64": lambda k: (k.astype("i8"), {}),
    "uint8": lambda k: ((k + 8).astype("u1"), {}),
    "uint16": lambda k: ((k + 8).astype("u2"), {}),
    "uint64": lambda k: (np.uint64(2**63) + (k + 8).astype("u8"), {}),
    "int with fill": lambda k: (k.astype("i2"), {"_FillValue": 3}),
    "int with missing values": lambda k: (k.astype("i4"), {"missing_value": [3, -2]}),
    "unsigned": lambda k: (k.astype("i1"), {"_Unsigned": "true", "_FillValue": -1}),
    "signed": lambda k: (k.astype("i2").view("u2"), {"_Unsigned": "false"}),
    "with a valid range": lambda k: (k.astype("i2"), {"valid_range": [-2, 5], "valid_max": 4}),
    "packed": lambda k: (k.astype("i2"), {"scale_factor": 0.1, "add_offset": -2.0, "_FillValue": 7}),
    "packed without offset": lambda k: (k.astype("i1"), {"scale_factor": 0.1}),
    "packed float": lambda k: (k.astype("f4"), {"add_offset": 273.15, "missing_value": 4.0}),
    "packed unsigned": lambda k: (
        k.astype("i2"),
        {"_Unsigned": "true", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -1, "valid_range": [0, 100]},
    ),
    "bool": lambda k: (k % 2 == 0, {}),
    "flag": lambda k: ((k % 2).astype("i1"), {"dtype": "bool"}),
    "complex": lambda k: (k * (1 + 0.5j), {}),
    "string": lambda k: (np.array(TEXTS, dtype=object)[k % len(TEXTS)], {}),
    "string with missing value": lambda k: (np.array(TEXTS, dtype=object)[k % len(TEXTS)], {"missing_value": "b"}),
    "fixed string": lambda k: (np.array(TEXTS)[k % len(TEXTS)], {}),
    "bytes of text": lambda k: (np.array([text.encode() for text in TEXTS])[k % len(TEXTS)], {}),
    "bytes": lambda k: (np.array([b"\xff" + text.encode() for text in TEXTS])[k % len(TEXTS)], {}),
    "datetime64[ns]": lambda k: (unless(k > 6, START + k * STEP, "NaT"), {}),
    "datetime64[us]": lambda k: ((START + k * STEP).astype("M8[us]"), {}),
    "datetime64[s]": lambda k: (unless(k < -6, (START + k * STEP).astype("M8[s]"), "NaT"), {}),
    "datetime64[D]": lambda k: (START.astype("M8[D]") + k, {}),
    "timedelta64[ms]": lambda k: (unless(k > 6, (k * STEP).astype("m8[ms]"), "NaT"), {}),
    "timedelta64[h]": lambda k: ((k * STEP).astype("m8[h]"), {}),
    "hours since": lambda k: (k.astype("i4"), {"units": "hours since 2000-02-28 22:00"}),
    "hours since, with fill": lambda k: (
        k.astype("i2"),
        {"units": "hours since 2000-02-28 22:00", "_FillValue": 4, "calendar": "gregorian"},
    ),
    "seconds since, in a time zone": lambda k: (k * 5000, {"units": "seconds since 2000-01-01T00:00:00 +05:30"}),
    "minutes since, in a time zone": lambda k: (k.astype("f4") * 90, {"units": "minutes since 1999-12-31 20:15 -6:00"}),
    "float days since": lambda k: (k / 8, {"units": "days since 1970-01-01", "calendar": "standard"}),
    "float days since, with NaN": lambda k: (np.where(k > 6, np.nan, k / 8), {"units": "days since 1970-1-1 0:0:0"}),
    "nanoseconds since, with NaT": lambda k: (
        unless(k > 6, k * 1_000_000_007, np.iinfo("int64").min),
        {"units": "nanoseconds since 2000-01-01", "calendar": "proleptic_gregorian"},
    ),
    "far in the future": lambda k: (k.astype("i4"), {"units": "days since 3000-02-27"}),
    "long ago": lambda k: (k * 40_000, {"units": "seconds since 1066-10-14", "calendar": "proleptic_gregorian"}),
    "far and near": lambda k: (k * 36_525, {"units": "days since 2000-01-01", "calendar": "proleptic_gregorian"}),
    "before the reform": lambda k: (k.astype("i4"), {"units": "days since 1582-10-01", "calendar": "standard"}),
    "noleap": lambda k: (k.astype("i4"), DAY | {"calendar": "noleap"}),
    "365_day as float": lambda k: (k / 8, DAY | {"calendar": "365_day"}),
    "360_day": lambda k: (k.astype("i4"), DAY | {"calendar": "360_day", "_FillValue": 5}),
    "360_day as float": lambda k: (np.where(k > 6, np.nan, k / 64), DAY | {"calendar": "360_day"}),
    "360_day in milliseconds": lambda k: (k * 250, {"units": "milliseconds since 2000-02-30", "calendar": "360_day"}),
    "360_day in months": lambda k: (k.astype("i2"), {"units": "months since 2000-01-01", "calendar": "360_day"}),
    "julian": lambda k: (k.astype("i8"), DAY | {"calendar": "julian"}),
    "all_leap": lambda k: (k.astype("f4"), DAY | {"calendar": "all_leap"}),
    "duration": lambda k: (k * 300, {"units": "minutes", "dtype": "timedelta64[ns]"}),
    "duration in seconds": lambda k: (k.astype("i4") * 90, {"units": "seconds", "dtype": "timedelta64[s]"}),
    "hours": lambda k: (k.astype("i4"), {"units": "hours"}),
    "float days": lambda k: (k / 8, {"units": "days", "_FillValue": 0.5}),
    "metres": lambda k: (k.astype("i4"), {"units": "m"}),
}
kinds = st.sampled_from(sorted(KINDS))
index_kinds = st.sampled_from(sorted(KINDS.keys() - {"float16", "complex"}))  # xarray makes no index of these
FROM_VALUES = {"far and near", "before the reform", "360_day as float", "360_day in milliseconds", "all_leap"}
"""Kinds whose column type depends on the values, so that the ends of a long array may mislead."""


@dataclass(frozen=True)
class Stored:
    """A stored array: dimensions, values, and attributes as in Zarr v3."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict
    kind: str


@dataclass(frozen=True)
class Tree:
    """Arrays by path, and the attributes of each group by path."""

    arrays: dict[str, Stored]
    groups: dict[str, dict]

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension."""
        return {dim: n for array in self.arrays.values() for dim, n in zip(array.dims, array.values.shape, strict=True)}

    @property
    def readable(self) -> list[str]:
        """Paths of the arrays that have a column type."""
        return [path for path, array in self.arrays.items() if array.kind != "complex"]

    def without_coordinates(self) -> "Tree":
        """Return the tree without arrays named like their dimension."""
        kept = {p: a for p, a in self.arrays.items() if a.dims != (p.rpartition("/")[2],)}
        return replace(self, arrays=kept)


@st.composite
def small_integers(draw, shape: tuple[int, ...]) -> np.ndarray:
    """Draw unordered integers from -8 to 8, with repetitions.

    Bytes are quick to draw and shrink well. The integers differ even if Hypothesis draws the simplest example.
    """
    count = math.prod(shape)
    drawn = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype="uint8").astype("int64")
    return ((drawn + 5 * np.arange(count) + 8) % 17 - 8).reshape(shape)


@st.composite
def arrays(draw, dims: tuple[str, ...], sizes: dict[str, int]) -> Stored:
    """Draw an array of any kind."""
    small = draw(small_integers(tuple(sizes[dim] for dim in dims)))
    return stored(dims, small, draw(kinds))


@st.composite
def coordinates(draw, dim: str, size: int) -> Stored:
    """Draw a coordinate of one dimension: regular, ascending, descending, or unsorted and repeated."""
    small = draw(small_integers((size,)))
    arrangement = draw(st.sampled_from(["regular", "ascending", "descending", "anyhow"]))
    if arrangement == "regular":
        small = np.arange(size) - 3
    elif arrangement != "anyhow":
        small = np.sort(small)[:: 1 if arrangement == "ascending" else -1]
    return stored((dim,), small, draw(index_kinds))


def stored(dims: tuple[str, ...], small: np.ndarray, kind: str) -> Stored:
    """Build an array of some kind from small integers."""
    values, attrs = KINDS[kind](small.reshape(-1))
    return Stored(dims, values.reshape(small.shape), attrs, kind)


@cache
def now_and_then(one_in: int) -> st.SearchStrategy[bool]:
    """Draw True with this frequency, and never in the simplest example of Hypothesis."""
    return st.integers(1, one_in).map(lambda k: k == one_in)


@st.composite
def trees(draw) -> Tree:
    """Draw a group of 1 to 3 variables over up to 3 dimensions, with index, auxiliary and scalar coordinates.

    It sometimes has bounds and a grid mapping, and child groups with another dimension.
    """
    lengths = st.sampled_from([3, 1, 2, 4, 5, 6, 7, 8, 9])
    sizes = {dim: draw(lengths) for dim in DIMS[: draw(st.sampled_from([2, 1, 3]))]}
    if draw(now_and_then(16)):
        sizes[draw(st.sampled_from(sorted(sizes)))] = 0
    outer = dict(sizes)
    groups: dict[str, dict] = {"": {}}
    found = draw(variables(sizes))
    if draw(now_and_then(4)):
        groups |= {"b2": {}, "g": {"title": "child"}, "g/h": {}, "nothing": {}}
        sizes["w"] = draw(st.integers(1, 3))
        found |= draw(variables_below(sizes))
        if len(found) > 1 and draw(now_and_then(3)):
            del found["a"]
    for dim in sorted({dim for array in found.values() for dim in array.dims}):
        if draw(st.integers(0, 3)):
            holders = ["g/", "g/h/"] if dim == "w" else ["", "", "g/"] if "g" in groups else [""]
            found[draw(st.sampled_from(holders)) + dim] = draw(coordinates(dim, sizes[dim]))
    if beside := draw(st.sets(st.sampled_from(["aux1", "aux2"]))):
        any_order = st.permutations(sorted(outer)).map(tuple)
        found |= {name: draw(arrays(draw(any_order | some_of(outer)), sizes)) for name in sorted(beside)}
        holder = draw(st.sampled_from(["a", ""]))
        (found[holder].attrs if holder in found else groups[""])["coordinates"] = " ".join(sorted(beside))
    if draw(now_and_then(6)):
        add_support(found, sizes)
    order = sorted(found, key=lambda path: (path.count("/"), path))
    return Tree({path: found[path] for path in order}, groups)


def some_of(sizes: dict[str, int], most: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    """Draw some dimensions, in any order."""
    return st.lists(st.sampled_from(sorted(sizes)), unique=True, max_size=most).map(tuple)


@st.composite
def variables(draw, sizes: dict[str, int]) -> dict[str, Stored]:
    """Draw one variable on all dimensions, and up to two on all or some of them."""
    whole = tuple(draw(st.permutations(sorted(sizes))))
    dims = [whole, *(draw(st.just(whole) | some_of(sizes)) for _ in range(draw(st.integers(0, 2))))]
    return {name: draw(arrays(its, sizes)) for name, its in zip("abc", dims, strict=False)}


@st.composite
def variables_below(draw, sizes: dict[str, int]) -> dict[str, Stored]:
    """Draw variables of child groups, perhaps with a coordinate. Rows are a product, so dimensions are few."""
    paths = draw(st.sets(st.sampled_from(["g/u", "g/v", "g/h/u", "b2/u"])))
    found = {path: draw(arrays(draw(some_of(sizes, 2)), sizes)) for path in sorted(paths)}
    if "g/u" in found and draw(now_and_then(3)):
        found["g/aux3"] = draw(arrays(found["g/u"].dims, sizes))
        found["g/u"].attrs["coordinates"] = "aux3"
    return found


def add_support(found: dict[str, Stored], sizes: dict[str, int]) -> None:
    """Draw a grid mapping and bounds of a coordinate, which become columns only on request."""
    found["crs"] = Stored((), np.array(0, "i4"), {"grid_mapping_name": "latitude_longitude"}, "int32")
    if "a" in found:
        found["a"].attrs["grid_mapping"] = "crs" if len(sizes) == 1 else "crs: x y"
    if "x" in found:
        x = found["x"]
        x.attrs["bounds"] = "x_bounds"
        found["x_bounds"] = Stored(("x", "side"), np.stack([x.values, x.values], axis=1), {}, x.kind)


V2_CODECS = {
    "blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=1)},
    "zlib": {"compressors": numcodecs.Zlib()},
    "gzip": {"compressors": numcodecs.GZip()},
    "zstd": {"compressors": numcodecs.Zstd()},
    "none": {"compressors": None},
    "fletcher": {"filters": [numcodecs.Fletcher32()]},
}
V3_CODECS = {
    "gzip": {"compressors": [GzipCodec()]},
    "zstd": {"compressors": [ZstdCodec()]},
    "blosc": {"compressors": [BloscCodec(cname="lz4")]},
    "crc": {"compressors": [Crc32cCodec()]},
    "zstd and crc": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "none": {"compressors": None},
}


v2_codecs, v3_codecs = st.sampled_from(sorted(V2_CODECS)), st.sampled_from(sorted(V3_CODECS))


def numeric_filters(values: np.ndarray) -> dict[str, list]:
    """Draw filters of Zarr v2 for numbers. Their loss is the same for every reader."""
    dtype = values.dtype
    filters = {"shuffle": [numcodecs.Shuffle(dtype.itemsize)]}
    if dtype.kind in "iu":
        filters["delta"] = [numcodecs.Delta(dtype)]
        filters["delta and shuffle"] = [numcodecs.Delta(dtype), numcodecs.Shuffle(dtype.itemsize)]
    if dtype.kind == "i" or (dtype in ("f4", "f8") and np.isfinite(values).all()):
        filters["scale"] = [numcodecs.FixedScaleOffset(offset=0, scale=10, dtype=dtype, astype="i8")]
    return filters


@dataclass(frozen=True)
class Placing:
    """Storage of one array: ``written`` rows of it, with these options of ``zarr.create_array``."""

    written: int
    options: dict


@dataclass(frozen=True)
class Layout:
    """Storage of a tree in a Zarr store."""

    zarr_format: int
    consolidated: bool
    placings: dict[str, Placing]

    def write(self, tree: Tree, store, group: str = "") -> None:
        """Write a tree into an empty store, below a group of it."""
        sync(self._write(tree, store, f"{group}/" if group else ""))

    async def _write(self, tree: Tree, store, below: str) -> None:
        """Write all arrays at the same time, because sequential writes mostly wait for zarr's thread."""

        async def write(path: str, array: Stored) -> None:
            placing, shape = self.placings[path], array.values.shape
            target = await create_array(
                store, name=below + path, shape=shape, zarr_format=self.zarr_format, **placing.options
            )
            rows = slice(0, placing.written) if shape else ...
            if placing.written and array.values[rows].size:
                await target.setitem(rows, array.values[rows])

        for path, attrs in tree.groups.items():
            where = f"{below}{path}".strip("/")
            await create_group(store=store, path=where, attributes=attrs, zarr_format=self.zarr_format)
        await asyncio.gather(*(write(path, array) for path, array in tree.arrays.items()))
        if self.consolidated:
            await consolidate_metadata(store, zarr_format=self.zarr_format)

    def splits_only(self, dim: str, tree: Tree) -> bool:
        """Whether each array is one chunk along every dimension but ``dim``."""
        return all(
            d == dim or n <= chunk
            for path, array in tree.arrays.items()
            for d, n, chunk in zip(array.dims, array.values.shape, self.placings[path].options["chunks"], strict=True)
        )


@st.composite
def layouts(draw, tree: Tree, formats=("v3", "v2", "v3 sharded"), *, may_consolidate: bool = True) -> Layout:
    """Draw Zarr v2, v3 or sharded v3, with chunks and codecs per array, and some missing chunks."""
    kind = draw(st.sampled_from(formats))
    placing = {"v2": in_v2, "v3": in_v3, "v3 sharded": partial(in_v3, sharded=True)}[kind]
    placings = {path: draw(placing(array)) for path, array in tree.arrays.items()}
    return Layout(2 if kind == "v2" else 3, may_consolidate and draw(st.booleans()), placings)


@cache
def chunk_lengths(size: int) -> st.SearchStrategy[int]:
    """Draw any length up to a dimension's, mostly a short one."""
    return st.sampled_from([*range(1, size + 1), *range(1, min(size, 3) + 1)])


@st.composite
def chunks_of(draw, array: Stored) -> tuple[int, ...]:
    """Draw chunk lengths, for few enough chunks to be quick and to show an array's type at its ends."""
    shape = array.values.shape
    chunks = [draw(chunk_lengths(max(n, 1))) for n in shape]
    most = 16 if array.kind in FROM_VALUES else 40
    while math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > most:
        chunks = [2 * c for c in chunks]
    return tuple(chunks)


@st.composite
def written_rows(draw, array: Stored) -> int:
    """Draw the number of written rows. The chunks after them are missing."""
    rows = array.values.shape[0] if array.dims else 1
    return draw(st.integers(0, rows)) if draw(now_and_then(4)) else rows


def a_value(array: Stored) -> st.SearchStrategy:
    """Draw one of the values as a fill value without a declared meaning."""
    flat = array.values.reshape(-1)
    return st.sampled_from(range(len(flat))).map(flat.__getitem__) if len(flat) else st.none()


@st.composite
def in_v2(draw, array: Stored) -> Placing:
    """Draw Zarr v2, in which ``fill_value`` is CF's ``_FillValue``."""
    dtype = array.values.dtype
    options = dict(V2_CODECS[draw(v2_codecs)])
    if dtype.kind in "iuf" and draw(st.booleans()):
        filters = numeric_filters(array.values)
        options["filters"] = filters[draw(st.sampled_from(sorted(filters)))]
    elif dtype.kind in "iufMmU" and draw(st.booleans()):
        dtype = dtype.newbyteorder(">")
    if dtype.kind == "O":
        options.pop("filters", None)  # the first must be the one of strings
    attrs = {name: value for name, value in array.attrs.items() if name != "_FillValue"}
    fill = array.attrs.get("_FillValue")
    if fill is None and array.kind not in ("flag", "bool") and draw(now_and_then(3)):
        fill = draw(a_value(array))
    options |= {"order": draw(st.sampled_from("CF")), "dtype": str if dtype.kind == "O" else dtype}
    options["chunk_key_encoding"] = {"name": "v2", "separator": draw(st.sampled_from("./"))}
    options |= {"chunks": draw(chunks_of(array)), "fill_value": fill if fill is None else array.values.dtype.type(fill)}
    return Placing(draw(written_rows(array)), options | {"attributes": attrs | {"_ARRAY_DIMENSIONS": array.dims}})


@st.composite
def in_v3(draw, array: Stored, *, sharded: bool = False) -> Placing:
    """Draw Zarr v3, in which a fill value in the attributes of floats is text, as xarray writes it."""
    dtype, ndim = array.values.dtype, array.values.ndim
    options = dict(V3_CODECS[draw(v3_codecs)])
    if ndim and draw(now_and_then(3)):
        options["filters"] = [TransposeCodec(order=tuple(draw(st.permutations(range(ndim)))))]
    if dtype.kind in "iufMm" and dtype.itemsize > 1 and draw(now_and_then(3)):
        options["serializer"] = BytesCodec(endian="big")
    chunks = draw(chunks_of(array))
    if sharded and array.values.size and ndim and draw(st.booleans()):
        options["shards"] = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    attrs = dict(array.attrs)
    if "_FillValue" in attrs and dtype.kind == "f":
        attrs["_FillValue"] = b64encode(pack("<d", attrs["_FillValue"])).decode()
    if draw(now_and_then(3)):
        options["fill_value"] = draw(a_value(array))
    options |= {"chunks": chunks, "dtype": str if dtype.kind == "O" else dtype}
    return Placing(draw(written_rows(array)), options | {"attributes": attrs, "dimension_names": array.dims})
