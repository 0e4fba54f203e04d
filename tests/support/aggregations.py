"""Random aggregations, a store for them, and chunk groups cut in other ways than the reader cuts them."""

import numpy as np
import polars as pl
import xarray as xr
from hypothesis import note
from hypothesis import strategies as st

from rainbear_dask.chunks.read import read_regions
from rainbear_dask.engine import row_questions
from rainbear_dask.execution.groups import ChunkGroup
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.table.tidy import CellMask

c = pl.col

SIZES = {"time": 7, "lat": 5, "lon": 6}
CHUNKS = {"time": 3, "lat": 2, "lon": 4}


def write_mixed(store, sizes=SIZES, chunks=CHUNKS):
    """Write variables of several types, masked or with NaN, with all or some dimensions, and coordinates of all kinds."""
    rng = np.random.default_rng(3)
    shape, dims = tuple(sizes.values()), tuple(sizes)
    n_time, n_lat, n_lon = shape
    masked = (rng.standard_normal(shape) * 20).astype("f4")
    masked[rng.random(shape) < 0.2] = np.nan
    numbers = rng.standard_normal(shape) * 3 + 1
    numbers[rng.random(shape) < 0.1] = np.nan
    packed = rng.integers(-100, 100, shape).astype("f8") / 10
    packed[rng.random(shape) < 0.2] = np.nan
    short = rng.integers(-30000, 30000, shape).astype("i2")
    surface = (rng.standard_normal((n_lat, n_lon)) * 5).astype("f4")
    zones = rng.integers(0, 3, (n_lat, n_lon)).astype("f8")
    zones[rng.random(zones.shape) < 0.2] = np.nan
    data = xr.Dataset(
        {
            "masked": (dims, masked, {}, {"_FillValue": np.float32(np.nan)}),
            "plain": (dims, (rng.standard_normal(shape) + 5).astype("f4")),
            "numbers": (dims, numbers),
            "packed": (dims, packed, {}, {"dtype": "i2", "scale_factor": 0.1, "_FillValue": -32768}),
            "short": (dims, short),
            "filled": (dims, rng.integers(-3, 4, shape).astype("i4"), {"missing_value": np.int32(2)}),
            "byte": (dims, rng.integers(0, 256, shape).astype("u1")),
            "flag": (dims, rng.random(shape) < 0.3),
            "surface": (dims[1:], surface, {}, {"_FillValue": np.float32(np.nan)}),
            "turned": (dims[::-1], rng.integers(0, 50, shape[::-1]).astype("i8")),
            "level": ((), np.float32(2.5)),
        },
        {
            "time": np.datetime64("2020-01-30T06", "ns") + np.arange(n_time) * np.timedelta64(9, "h"),
            "lat": np.linspace(60, -60, n_lat),
            "lon": np.array([0.0, 10, 10, -0.0, 350, np.nan])[:n_lon] if n_lon == 6 else np.arange(float(n_lon)),
            "zone": (dims[1:], zones, {}, {"_FillValue": -1.0, "dtype": "f8"}),
            "kind": (dims[0], np.array(list("abcabca") * n_time, dtype=object)[:n_time]),
        },
    )
    for name, variable in data.data_vars.items():
        if name not in {"masked", "packed", "surface"}:
            variable.encoding["_FillValue"] = None
    encoding = {
        name: {**variable.encoding, "chunks": tuple(chunks.get(dim, sizes[dim]) for dim in variable.dims)}
        for name, variable in data.variables.items()
        if variable.dims and name not in sizes
    }
    encoding["lon"] = {"_FillValue": None}  # NaN is a label
    data.drop_encoding().to_zarr(store, zarr_format=2, consolidated=False, encoding=encoding)


PARTNERS = pl.LazyFrame({"lat": [60.0, 0.0, None, -60.0, 30.0], "height": [1.0, 2.0, 3.0, None, 0.5]})

KEYS = [
    c("lat"),
    c("lon"),
    c("time"),
    c("time").dt.hour().alias("hour"),
    (c("time").dt.day() % 2 == 0).alias("even"),
    (c("lat") / 50).floor().alias("band"),
    c("zone"),
    (c("zone") + c("lat").sign()).alias("signed"),
    c("kind"),
    (c("lon") > 5).alias("east"),
    pl.when(c("lat") > 0).then(pl.lit("n")).otherwise(pl.lit("s")).alias("side"),
    (c("time").dt.hour() * 10 + (c("lat") > 0).cast(pl.Int64)).alias("mixed"),
]

FILTERS = [
    c("plain") > 5.25,
    c("masked") > 0,
    c("masked").is_not_null(),
    c("numbers") >= 1.5,
    c("numbers").is_nan(),
    c("lat") > 0,
    c("time").dt.hour() != 15,
    c("lon").is_not_nan(),
    (c("lat") + c("masked")) < 10,
    c("zone") == 1,
    c("flag"),
    c("surface") < 1,
    (c("kind") == "a") | (c("lat") < 0),
    c("short") > 31000,
    c("byte") > 300,
    c("packed") < 0,
    (c("plain") < 4.7) ^ (c("zone") == 2),
]

OPERANDS = [
    c("masked"),
    c("plain"),
    c("numbers"),
    c("packed"),
    c("short"),
    c("filled"),
    c("byte"),
    c("surface"),
    c("turned"),
    c("lat"),
    c("level"),
    c("zone"),
    c("plain") * c("lat").radians().cos(),
    c("masked") * c("lat").radians().cos(),
    c("surface") * c("lat").abs(),
    c("numbers") + c("plain"),
    c("masked").cast(pl.Float64),
    c("byte").cast(pl.Float32) * 1.5,
    pl.when(c("lat") > 0).then(c("masked")).otherwise(None),
    c("filled").fill_null(0),
    c("masked") - c("zone"),
]

BOOLEANS = [c("flag"), c("plain") > 5.25, c("masked") <= 0, c("lat") > 0, c("numbers") > 1.5, c("zone") == 1]

NUMERIC = {
    "sum": pl.Expr.sum,
    "mean": pl.Expr.mean,
    "min": pl.Expr.min,
    "max": pl.Expr.max,
    "count": pl.Expr.count,
    "null_count": pl.Expr.null_count,
    "len": pl.Expr.len,
    "std": pl.Expr.std,
    "var": pl.Expr.var,
}
LOGICAL = {
    "any": pl.Expr.any,
    "all": pl.Expr.all,
    "sum": pl.Expr.sum,
    "mean": pl.Expr.mean,
    "count": pl.Expr.count,
    "min": pl.Expr.min,
}
TEMPORAL = {"min": pl.Expr.min, "max": pl.Expr.max, "count": pl.Expr.count, "null_count": pl.Expr.null_count}


ANY_ORDER = {"n_unique": pl.Expr.n_unique, "min": pl.Expr.min, "max": pl.Expr.max, "count": pl.Expr.count}
TABLE_ORDER = {"first": pl.Expr.first, "last": pl.Expr.last}
FACTORS = [c("byte"), c("short"), c("plain").cast(pl.Float64) / 5, c("masked").is_null().cast(pl.Int32) + 1]

ROW_KEYS = [
    c("flag"),
    (c("plain") > 5.25).alias("hot"),
    c("filled"),
    (c("masked") / 10).round().alias("rounded"),
    (c("numbers").floor() + c("lat").sign()).alias("floors"),
    pl.struct(c("flag"), c("kind")).alias("pair"),
    pl.struct(c("filled"), c("zone")).alias("place"),
    (c("turned") // 20).alias("turns"),
    pl.when(c("masked") > 0).then(c("kind")).alias("warm"),
]


@st.composite
def aggregates(draw, *, in_rows=False, ordered=False):
    """An aggregate, perhaps of filtered values, or arithmetic over several."""
    kinds = ["numbers"] * 6 + ["booleans", "time", "rows", "ratio"]
    if in_rows:
        kinds += ["any", "any", "text", "product"] + ["ends"] * 3 * ordered
    kind = draw(st.sampled_from(kinds))
    if kind == "rows":
        return pl.len()
    operand, table = {
        "numbers": (OPERANDS, NUMERIC),
        "ratio": (OPERANDS, {"sum": pl.Expr.sum, "mean": pl.Expr.mean}),
        "booleans": (BOOLEANS, LOGICAL),
        "time": ([c("time")], TEMPORAL),
        "any": (OPERANDS + BOOLEANS, ANY_ORDER),
        "text": ([c("kind")], ANY_ORDER),
        "product": (FACTORS, {"product": pl.Expr.product}),
        "ends": ([*OPERANDS, *BOOLEANS, c("kind"), c("time")], TABLE_ORDER),
    }[kind]
    values, name = draw(st.sampled_from(operand)), draw(st.sampled_from(sorted(table)))
    if draw(st.integers(0, 3)) == 0:
        values = values.filter(draw(st.sampled_from(FILTERS + BOOLEANS)))
    found = table[name](values)
    return found.cast(pl.Float64) / (pl.len() + 1) if kind == "ratio" else found


def _stepped(table, steps, filters):
    for number, (step, predicate) in enumerate(zip(steps, filters, strict=True)):
        if step == "filter":
            table = table.filter(predicate)
        elif step == "column":
            table = table.with_columns(masked=c("masked") * 2 + c("lat"))
        elif step == "join":
            how = ["left", "inner", "semi", "anti"][len(str(predicate)) % 4]
            table = table.join(PARTNERS, left_on="lat", right_on="lat", how=how)
            if how in {"left", "inner"}:
                table = table.with_columns(numbers=c("numbers") * c("height")).drop("height")
        else:
            table = table.rename({"plain": f"was{number}"}).with_columns(plain=c(f"was{number}"))
    return table


@st.composite
def queries(draw):
    """A function from a table to an aggregation of it."""
    steps = draw(st.lists(st.sampled_from(["filter", "filter", "column", "rename", "join"]), max_size=2))
    filters = [draw(st.sampled_from(FILTERS)) for _ in steps]
    window = draw(st.sampled_from([None, None, None, "12h", "1d", "1mo"]))
    closed, label = draw(st.sampled_from(["left", "right"])), draw(st.sampled_from(["left", "right"]))
    keys = draw(st.lists(st.sampled_from(range(len(KEYS))), max_size=3, unique=True))
    found = [each.alias(f"x{i}") for i, each in enumerate(draw(st.lists(aggregates(), min_size=1, max_size=4)))]

    def ask(table):
        table = _stepped(table, steps, filters)
        if window is not None:
            return table.sort("time").group_by_dynamic("time", every=window, closed=closed, label=label).agg(found)
        if not keys:
            return table.select(found)
        return table.group_by([KEYS[i] for i in keys]).agg(found)

    return ask


@st.composite
def row_queries(draw):
    """A function from a table to an aggregation of it that needs rows, and whether groups are in their order.

    The function also takes further aggregates.
    """
    kinds, all_keys = ["filter", "filter", "column", "rename"], KEYS + ROW_KEYS
    in_order = draw(st.booleans())
    steps = draw(st.lists(st.sampled_from(kinds if in_order else [*kinds, "join"]), max_size=2))
    filters = [draw(st.sampled_from(FILTERS)) for _ in steps]
    keys = draw(st.lists(st.sampled_from(range(len(all_keys))), max_size=3, unique=True))
    some = st.lists(aggregates(in_rows=True, ordered=in_order), min_size=1, max_size=4)
    found = [each.alias(f"x{i}") for i, each in enumerate(draw(some))]
    note(f"{steps}, {list(map(str, filters))}, {[str(all_keys[i]) for i in keys]}, {list(map(str, found))}")

    def ask(table, *more):
        table = _stepped(table, steps, filters)
        if not keys:
            return table.select(*found, *more)
        return table.group_by([all_keys[i] for i in keys], maintain_order=in_order).agg(*found, *more)

    return ask, in_order


WHOLE = [
    c("plain").median(),
    c("masked").median(),
    c("numbers").quantile(0.3, "linear"),
    c("masked").filter(c("plain") > 5).quantile(0.9),
    c("short").mode().sort().first(),
    c("plain").std(ddof=0),
    c("masked"),
    c("byte").implode(),
    c("plain").sort().head(3),
    c("masked").sort_by("plain").last(),
    c("turned").top_k(2).sum(),
    c("short").cum_sum().max(),
    c("plain").diff().abs().max(),
    c("time").median(),
    c("kind").unique().sort(),
    c("lat").n_unique() + c("plain").arg_max(),
    (c("plain") - c("plain").mean()).abs().median(),
    pl.corr("plain", "numbers").is_nan(),
    pl.struct("plain", "byte").first(),
]


@st.composite
def whole_queries(draw):
    """A function from a table to an aggregation by coordinates that needs whole groups."""
    steps = draw(st.lists(st.sampled_from(["filter", "filter", "column", "rename"]), max_size=2))
    filters = [draw(st.sampled_from(FILTERS)) for _ in steps]
    keys = draw(st.lists(st.sampled_from(range(len(KEYS))), min_size=1, max_size=3, unique=True))
    found = draw(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=3))
    note(f"{steps}, {list(map(str, filters))}, {[str(KEYS[i]) for i in keys]}, {list(map(str, found))}")

    def ask(table):
        table = _stepped(table, steps, filters)
        return table.group_by([KEYS[i] for i in keys]).agg(each.alias(f"x{i}") for i, each in enumerate(found))

    return ask


def split_on_threads(patch):
    """Let threads split questions in row space, as a cluster does."""
    patch.setattr(row_questions, "MAX_BYTES_FOR_POLARS", -1)
    patch.setattr(row_questions, "MIN_ROWS_FOR_EACH_GROUP", 0)


def consume_in_pieces(cuts, num_strips=2):
    """Return a stand-in for `consume_groups` that cuts each task's box in groups, at other places than the chunks."""

    def consume(spec, columns, index, cells, make):
        whole = {}
        for column in columns:
            along = [index[dim] for dim in column.dims]
            (values,) = read_regions(spec, [(column.array, tuple(one.hull for one in along))])
            whole[column.name] = values[np.ix_(*(one.positions() - one.hull[0] for one in along))] if along else values
        dims = list(index)
        axes = [np.unique([0, *(cut % (len(index[dim]) + 1) for cut in cuts), len(index[dim])]) for dim in dims]
        states, used = [], 0
        consumer = make()
        for corner in np.ndindex(*(len(axis) - 1 for axis in axes)):
            place = tuple(slice(int(axis[i]), int(axis[i + 1])) for axis, i in zip(axes, corner, strict=True))
            box = {dim: one.stop - one.start for dim, one in zip(dims, place, strict=True)}
            wanted = None if cells.wanted is None else cells.wanted[place]
            if wanted is not None and not wanted.any():
                continue
            part = {
                dim: IndexSet.from_positions(index[dim].positions()[one]) for dim, one in zip(dims, place, strict=True)
            }
            stored = {
                column.name: whole[column.name][tuple(place[dims.index(dim)] for dim in column.dims)].copy()
                for column in columns
            }
            consumer.use(ChunkGroup(part, place, CellMask(box, wanted), stored))
            for values in stored.values():
                values.fill(values.dtype.type(99))  # buffers are used again
            used += 1
            if used % num_strips == 0:
                states.append(consumer.done())
                consumer = make()
        return [*states, consumer.done()]

    return consume
