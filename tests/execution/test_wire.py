"""Rows come back from the wire as they were, to the last bit, and are small on it."""

import pickle
from math import prod

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from dask.sizeof import sizeof
from distributed import LocalCluster
from distributed.protocol import deserialize, serialize
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.execution.wire import CompactColumn, CompactFrame, compact, pack, unpack
from rainbear_dask.execution.worker import run_task
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.table.tidy import CellMask

c = pl.col


def by_dask(value):
    header, frames = serialize(value, on_error="raise")
    return deserialize(header, frames)


def by_pickle(value):
    buffers = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=buffers)


def by_one_blob(value):
    return pickle.loads(pickle.dumps(value))


def misplaced(value):
    """Buffers that lie at odd addresses and cannot be written to, as those in the midst of a message."""
    shape, buffers = pack(value)
    moved = [np.frombuffer(b"x" + buffer.tobytes(), np.uint8, offset=1) for buffer in buffers]
    return unpack(shape, moved)


WAYS = [by_dask, by_pickle, by_one_blob, misplaced]

INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]

KINDS = {
    "Boolean": st.booleans(),
    "Float32": st.integers(0, 2**32 - 1) | st.sampled_from([0x7FC0_0000, 0xFFC0_1234, 0x8000_0000]),
    "Float64": st.integers(0, 2**64 - 1) | st.sampled_from([0x7FF8 << 48, (0xFFF8 << 48) + 0x1234, 1 << 63]),
    "String": st.text(max_size=20),
    "Binary": st.binary(max_size=20),
    **{
        f"Datetime {unit} {zone}": st.integers(-(2**63) + 1, 2**63 - 1)
        for unit in ("ns", "us", "ms")
        for zone in (None, "UTC")
    },
    **{f"Duration {unit}": st.integers(-(2**63) + 1, 2**63 - 1) for unit in ("ns", "us", "ms")},
    **{
        str(dtype): st.integers(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)
        if str(dtype).startswith("Int")
        else st.integers(0, 2 ** (8 * size) - 1)
        for dtype, size in zip(INTEGERS, [1, 2, 4, 8] * 2, strict=True)
    },
}


@st.composite
def series(draw, length: int, name: str = "v") -> pl.Series:
    """Values of any type that a table has, with or without nulls."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    values = draw(st.lists(KINDS[kind], min_size=length, max_size=length))
    family, *details = kind.split()
    if family in ("Float32", "Float64"):
        size = int(family[5:]) // 8
        made = pl.Series(np.array(values, dtype=f"u{size}").view(f"f{size}"))
    elif family in ("Datetime", "Duration"):
        made = pl.Series(values, dtype=pl.Int64).cast(getattr(pl, family)(details[0]))
        made = made.dt.replace_time_zone("UTC") if "UTC" in details else made
    else:
        made = pl.Series(values, dtype=getattr(pl, family))
    nulls = draw(st.lists(st.booleans(), min_size=length, max_size=length) | st.just([False] * length))
    return made.set(pl.Series(nulls, dtype=pl.Boolean), None).alias(name) if any(nulls) else made.alias(name)


@st.composite
def boxes_of_parts(draw) -> tuple[list[CompactColumn], CellMask]:
    """Columns over some dimensions of a box, or with a value for each wanted cell."""
    box = draw(st.dictionaries(st.sampled_from("tyx"), st.integers(0, 4)))
    mask = np.array(draw(st.lists(st.booleans(), min_size=prod(box.values()), max_size=prod(box.values()))), dtype=bool)
    cells = CellMask(box, draw(st.sampled_from([None, mask.reshape(tuple(box.values()))])))
    parts = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "child/a", "child/deep/b", "z"]), unique=True)):
        dims = draw(st.none() | st.lists(st.sampled_from(sorted(box)), unique=True).map(tuple) if box else st.none())
        length = cells.count if dims is None else prod(box[d] for d in dims)
        parts.append(CompactColumn(draw(series(length, name)), dims))
    return parts, cells


def tidied(parts: list[CompactColumn], cells: CellMask) -> pl.DataFrame:
    """The rows, made by looking every cell up in NumPy's indices."""
    places = [dict(zip(cells.box, place, strict=True)) for place in np.ndindex(*cells.box.values())]
    if cells.wanted is not None:
        places = [place for place, wanted in zip(places, cells.wanted.reshape(-1), strict=True) if wanted]
    columns = {}
    for values, dims in parts:
        columns[values.name] = values
        if dims is not None:
            cube = np.arange(len(values)).reshape([cells.box[d] for d in dims])
            columns[values.name] = values.gather([int(cube[tuple(place[d] for d in dims)]) for place in places])
    return nested(columns, cells.count)


def nested(columns, height) -> pl.DataFrame:
    groups: dict[str, dict[str, pl.Series]] = {}
    for name, values in columns.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = values
    made = {head: fields[""] if "" in fields else nested(fields, height).to_struct() for head, fields in groups.items()}
    return pl.DataFrame([values.alias(head) for head, values in made.items()] or None, height=height)


def bits(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame in which NaNs of other bits differ."""
    views = {pl.Float32: "u4", pl.Float64: "u8"}
    return pl.DataFrame(
        [
            bits(one.struct.unnest()).to_struct(one.name)
            if one.dtype == pl.Struct
            else pl.Series(one.name, one.fill_null(0).to_numpy().view(views[type(one.dtype)])).set(one.is_null(), None)
            if type(one.dtype) in views
            else one
            for one in frame.iter_columns()
        ]
        or None,
        height=frame.height,
    )


@pytest.mark.parametrize("way", WAYS)
@given(boxes_of_parts())
def test_rows_come_back_as_they_were(way, made):
    parts, cells = made
    expected = bits(tidied(parts, cells))
    sent = compact(parts, cells)
    assert_frame_equal(bits(sent.to_polars()), expected)
    assert_frame_equal(bits(way(sent).to_polars()), expected)
    assert_frame_equal(bits(way(way(sent)).to_polars()), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("places", "bytes_each"),
    [
        (range(7, 90_000, 200), 1),
        (range(7, 90_000, 1_000), 2),
        ([0, 1, 89_999], 4),
        (range(0, 90_000, 3), 3 / 8),
        ([*range(80_000), 89_999], 1 / 7),
    ],
    ids=lambda value: f"{len(value)} rows" if isinstance(value, range | list) else "",
)
def test_rows_are_known_by_the_steps_between_them_or_by_a_bit_for_each_cell(way, places, bytes_each):
    wanted = np.zeros((300, 300), dtype=bool)
    wanted.reshape(-1)[list(places)] = True
    sent = CompactFrame(
        len(places), (CompactColumn(pl.Series("x", [*range(300)]), ("x",)),), CellMask({"y": 300, "x": 300}, wanted)
    )
    assert way(sent).to_polars()["x"].to_list() == [place % 300 for place in places]
    _, (first, *_) = pack(sent)
    assert first.nbytes <= bytes_each * len(places) + 1


@given(st.integers(1, 90_000), st.integers(1, 300))
def test_no_form_is_larger_than_the_plain_one(count, length):
    wanted = np.zeros((90_000 // length, length), dtype=bool)
    count = min(count, wanted.size)
    wanted.reshape(-1)[np.linspace(0, wanted.size - 1, count).astype(int)] = True
    cells = CellMask({"y": wanted.shape[0], "x": length}, wanted)
    sent = compact([CompactColumn(pl.Series("x", [*range(length)]), ("x",))], cells)
    _, buffers = pack(sent)
    assert sum(buffer.nbytes for buffer in buffers) <= 8 * cells.count + 100


def test_in_one_process_values_are_not_copied():
    values = np.arange(12.0)
    sent = compact([CompactColumn(pl.Series("v", values), ("y", "x"))], CellMask({"y": 3, "x": 4}))
    assert np.shares_memory(sent.to_polars()["v"].to_numpy(), values)


@pytest.mark.parametrize("way", [by_dask, by_pickle])
def test_numbers_are_not_copied_on_the_way(way):
    values = np.arange(12.0)
    arrived = way(compact([CompactColumn(pl.Series("v", values), ("x",))], CellMask({"x": 12})))
    assert np.shares_memory(arrived.to_polars()["v"].to_numpy(), values)


def test_dask_counts_the_bytes_held():
    sent = compact([CompactColumn(pl.Series("v", np.zeros(100_000)), ("x",))], CellMask({"x": 100_000}))
    assert 800_000 <= sizeof(sent) < 802_000
    assert 800_000 <= sizeof(by_dask(sent)) < 802_000


def test_taking_rows_in_asks_nothing_of_polars(monkeypatch):
    """Dask does it on its event loop, which would die of Ctrl-C in Polars."""
    cells = CellMask({"x": 3}, np.array([True, False, True]))
    columns = [(pl.Series("x", [1, 2, 3]), ("x",)), (pl.Series("v", [1.0, None]),), (pl.Series("text", ["a", "b"]),)]
    sent = CompactFrame(2, tuple(CompactColumn(*column) for column in columns), cells)
    message = serialize(sent)
    with monkeypatch.context() as patch:
        patch.setattr("rainbear_dask.execution.wire.pl", None)
        arrived = deserialize(*message)
        again = deserialize(*serialize(arrived))
    assert_frame_equal(arrived.to_polars(), sent.to_polars())
    assert_frame_equal(again.to_polars(), sent.to_polars())


# ---------------------------------------------------------------------- sizes


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    """Two days of two variables on a coarse grid: a chunk for each day, with a few masked cells in one variable."""
    path = str(tmp_path_factory.mktemp("wire") / "field.zarr")
    rng = np.random.default_rng(0)
    sizes = {"time": 48, "lat": 40, "lon": 60}
    data = {name: (tuple(sizes), rng.normal(280, 10, tuple(sizes.values())).astype("f4")) for name in ("t2m", "sst")}
    data["sst"][1][:, :3] = -999
    ds = xr.Dataset(
        data,
        {
            "time": np.datetime64("2020-01-31", "ns") + np.arange(48) * np.timedelta64(1, "h"),
            "lat": np.linspace(90, -90, 40),
            "lon": np.arange(60) * 6.0,
        },
    )
    ds["sst"].attrs["missing_value"] = np.float32(-999)
    ds.to_zarr(path, encoding={name: {"chunks": (24, 40, 60)} for name in ds.data_vars}, consolidated=False)
    return path


QUESTIONS = {
    "all": (pl.lit(value=True), 0.35),
    "half of the rows": (c.t2m > 280, 0.35),
    "one in fifty": (c.t2m > 300, 0.35),
    "one in a thousand": (c.t2m > 311, 0.4),
    "a coordinate and a value": ((c.lat > 0) & (c.t2m > 285), 0.35),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_are_small_on_the_wire(url, name):
    predicate, most = QUESTIONS[name]
    (plan,) = plans_of(rd.scan_zarr(url).filter(predicate))
    sent = tidy = 0
    for task in plan.tasks():
        rows = run_task(task)
        header, frames = serialize(rows)
        pickled = len(pickle.dumps(rows))
        here = sum(memoryview(frame).nbytes for frame in frames) + len(pickle.dumps(header))
        assert abs(pickled - here) < 1000  # the other way is as small
        sent += here
        tidy += rows.to_polars().height * 32
    assert tidy > 0
    assert sent <= most * tidy + 4000


# ---------------------------------------------------------------------- on a cluster


@pytest.mark.cluster
def test_rows_are_gathered_persisted_and_sent_on_as_they_were(url, client):
    (plan,) = plans_of(rd.scan_zarr(url).filter(c.t2m > 285))
    tasks = list(plan.tasks())
    expected = [run_task(task).to_polars() for task in tasks]
    rows = client.map(run_task, tasks)
    heights = client.map(lambda parts: parts.to_polars().height, rows, workers=list(client.nthreads())[:1])
    assert client.gather(heights) == [frame.height for frame in expected]
    for answers in (client.gather(rows), client.gather(rows, direct=True), [future.result() for future in rows]):
        for answer, frame in zip(answers, expected, strict=True):
            assert isinstance(answer, CompactFrame)
            assert_frame_equal(answer.to_polars(), frame)


@pytest.mark.cluster
@pytest.mark.slow
def test_rows_that_were_spilled_are_as_they_were(url, tmp_path):
    (plan,) = plans_of(rd.scan_zarr(url).filter(c.t2m > 270))
    tasks = list(plan.tasks()) * 2
    spilling = {
        "distributed.worker.memory.target": 1e-6,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(spilling),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",
            memory_limit="1GB",
            local_directory=str(tmp_path),
        ) as cluster,
        cluster.get_client() as client,
    ):
        rows = client.map(run_task, tasks, pure=False)
        client.gather(client.submit(len, rows))
        (worker,) = cluster.workers.values()
        assert len(worker.data.slow) > 0
        for answer, task in zip(client.gather(rows), tasks, strict=True):
            assert_frame_equal(answer.to_polars(), run_task(task).to_polars())
