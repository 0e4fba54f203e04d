"""How typical questions to stores of public layouts are cut into tasks: decisions, pinned; and the memory of a task."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import zarr

from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta, StoreMeta
from rainbear_dask.planning.plan import TASK_BYTES, ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.build import build_table

MIB = 2**20

# dims, shape, shards, chunks of one float32 variable; lengths of time are some years
LAYOUTS = {
    "GFS analysis": (("time", "lat", "lon"), (40_320, 721, 1440), (1440, 400, 400), (1440, 50, 50)),
    "GEFS analysis": (("time", "lat", "lon"), (40_320, 721, 1440), (2880, 384, 384), (1440, 32, 32)),
    "HRRR analysis": (("time", "y", "x"), (86_400, 1059, 1799), (2160, 540, 450), (2160, 45, 45)),
    "GFS forecast": (("init", "lead", "lat", "lon"), (6_000, 209, 721, 1440), (1, 210, 726, 726), (1, 105, 121, 121)),
    "HRRR forecast": (("init", "lead", "y", "x"), (10_000, 49, 1059, 1799), (1, 49, 1060, 1800), (1, 49, 265, 300)),
    "NWM streamflow": (("time", "feature"), (367_439, 2_776_738), None, (672, 30_000)),
    "NWM grid": (("time", "y", "x"), (122_479, 15_360, 18_432), None, (224, 350, 350)),
    "ERA5": (("time", "lat", "lon"), (1_323_648, 721, 1440), None, (1, 721, 1440)),
}


def plan_of(layout: str, question: str) -> ReadPlan:
    """The plan of a question, by positions: a point, a map of one moment, a box of a tenth, every twelfth stretch of time."""
    dims, shape, shards, chunks = LAYOUTS[layout]
    sizes = dict(zip(dims, shape, strict=True))
    array = ArrayMeta("v", dims, shape, chunks, shards, np.dtype("f4"), None, {}, "")
    meta = StoreMeta(StoreSpec("a.zarr", None, "1"), {"v": array}, {"": {}}, {})
    table = build_table(meta, read=lambda _: np.zeros(0), sample=lambda _: np.zeros(0))
    first, *inner = sizes
    middle = {d: IndexSet.span(n // 2, n // 2 + 1) for d, n in sizes.items()}
    tenth = {d: IndexSet.span(n // 3, n // 3 + max(n // 10, 1)) for d, n in sizes.items()}
    month = IndexSet.from_mask(np.arange(sizes[first]) // 744 % 12 == 6)
    box = {
        "point": {d: index for d, index in middle.items() if d != first},
        "map": {first: middle[first]},
        "box": tenth,
        "month": {first: month, inner[-1]: tenth[inner[-1]]},
        "all": {},
    }[question]
    conjunct = Conjunct(pl.col(first) >= 0, Selection((box,), exact=True), "")
    return ReadPlan(table, table.leaves(None), (conjunct,))


def decided(plan: ReadPlan) -> tuple[int, int, int, float]:
    """Tasks, MiB of chunks that the largest of the first 200 reads, shards or chunks held, and openings for each."""
    (array,) = plan.arrays
    tasks = [task for task, _ in zip(plan.tasks(), range(200), strict=False)]
    units = array.shards or array.chunks
    opening_id = [[index.chunks(n).positions() for index, n in zip(t.index, units, strict=True)] for t in tasks]
    places = [
        place for along in opening_id for place in np.stack(np.meshgrid(*along), -1).reshape(-1, len(units)).tolist()
    ]
    held = len(set(map(tuple, places)))
    largest = max(t.num_chunks(array) * array.chunk_bytes for t in tasks)
    return plan.counts.num_tasks, round(largest / MIB), held, round(len(places) / held, 1)


DECISIONS = {
    ("GFS analysis", "point"): (14, 27, 28, 1.0),
    ("GFS analysis", "map"): (120, 55, 8, 15.0),
    ("GFS analysis", "box"): (36, 27, 4, 9.0),
    ("GFS analysis", "month"): (315, 27, 9, 22.2),
    ("GFS analysis", "all"): (6300, 27, 8, 25.0),
    ("GEFS analysis", "point"): (14, 11, 14, 1.0),
    ("GEFS analysis", "map"): (161, 51, 8, 20.1),
    ("GEFS analysis", "box"): (24, 17, 3, 8.0),
    ("GEFS analysis", "month"): (299, 28, 10, 20.0),
    ("GEFS analysis", "all"): (5152, 34, 8, 25.0),
    ("HRRR analysis", "point"): (14, 50, 40, 1.0),
    ("HRRR analysis", "map"): (480, 33, 4, 50.0),
    ("HRRR analysis", "box"): (60, 33, 5, 12.0),
    ("HRRR analysis", "month"): (864, 33, 6, 33.3),
    ("HRRR analysis", "all"): (19200, 33, 4, 50.0),
    ("GFS forecast", "point"): (600, 59, 2000, 1.0),
    ("GFS forecast", "map"): (48, 18, 2, 24.0),
    ("GFS forecast", "box"): (600, 35, 200, 1.0),
    ("GFS forecast", "month"): (8928, 18, 17, 11.8),
    ("GFS forecast", "all"): (288000, 18, 10, 20.0),
    ("HRRR forecast", "point"): (2500, 59, 800, 1.0),
    ("HRRR forecast", "map"): (24, 15, 1, 24.0),
    ("HRRR forecast", "box"): (500, 59, 400, 1.0),
    ("HRRR forecast", "month"): (5952, 15, 25, 8.0),
    ("HRRR forecast", "all"): (240000, 15, 9, 22.2),
    ("NWM streamflow", "point"): (547, 77, 200, 1.0),
    ("NWM streamflow", "map"): (93, 77, 93, 1.0),
    ("NWM streamflow", "box"): (605, 77, 200, 1.0),
    ("NWM streamflow", "month"): (968, 77, 200, 1.0),
    ("NWM streamflow", "all"): (50871, 77, 200, 1.0),
    ("NWM grid", "point"): (547, 105, 200, 1.0),
    ("NWM grid", "map"): (2332, 105, 200, 1.0),
    ("NWM grid", "box"): (1980, 105, 200, 1.0),
    ("NWM grid", "month"): (15840, 105, 200, 1.0),
    ("NWM grid", "all"): (1275604, 105, 200, 1.0),
    ("ERA5", "point"): (82728, 63, 3200, 1.0),
    ("ERA5", "map"): (1, 4, 1, 1.0),
    ("ERA5", "box"): (8273, 63, 3200, 1.0),
    ("ERA5", "month"): (6956, 63, 3168, 1.0),
    ("ERA5", "all"): (147072, 36, 1800, 1.0),
}


@pytest.mark.parametrize(("layout", "question"), DECISIONS)
def test_questions_are_cut_so(layout, question):
    plan = plan_of(layout, question)
    assert decided(plan) == DECISIONS[layout, question]
    assert plan.counts.amplification == 1  # no chunk is read for two tasks
    (array,) = plan.arrays
    for task, _ in zip(plan.tasks(), range(200), strict=False):
        assert task.num_chunks(array) * array.chunk_bytes <= max(TASK_BYTES, array.chunk_bytes)
        assert task.num_chunks(array) * array.chunk_bytes < task.memory_bytes <= plan.counts.task_bytes_at_most


MEASURE = """
import sys
from pathlib import Path
import polars as pl
import rainbear_dask as rd
from rainbear_dask.execution.worker import make_frame

def memory(kind):
    return 1024 * int(Path("/proc/self/status").read_text().split(f"Vm{kind}:")[1].split()[0])

plan = rd.plan(sys.argv[1], eval(sys.argv[2]))
tasks = list(plan.tasks())
make_frame(tasks[0].head(1))
before = memory("RSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
make_frame(tasks[0])
print(memory("HWM") - before, tasks[0].memory_bytes, plan.task_bytes_at_most)
"""


@pytest.mark.parametrize(
    "predicate", ["None", "pl.col('a') > 0.5", "pl.col('y') > 100", "(pl.col('a') > pl.col('b')) & (pl.col('x') < 300)"]
)
@pytest.mark.parametrize("chunks", [(10, 400, 400), (100, 50, 400)])
def test_the_memory_of_a_task_is_known_beforehand(tmp_path, predicate, chunks):
    """Within a factor of two, plus 24 MiB of unused buffers; measured peaks lie below the estimate."""
    group = zarr.open_group(tmp_path, mode="w")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        values = rng.random((100, 400, 400), dtype="f4")
        group.create_array(name, data=values, chunks=chunks, dimension_names=("t", "y", "x"), compressors=None)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), predicate]
    found = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  our own words
    peak, said, at_most = map(int, found.stdout.split())
    assert peak <= 2 * said + 24 * MIB
    assert said <= 4 * peak + 24 * MIB
    assert said <= at_most
