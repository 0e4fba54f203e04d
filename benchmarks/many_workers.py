"""Many workers: how busy tasks of a second keep them, beside plain Dask: ``python -m benchmarks.many_workers``.

The scheduler has a process of its own, and so have all workers together, which sleep more than they compute. The share is
the time of all tasks over the time of all workers. Plain Dask is ``client.map`` of as many sleeping functions.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import numpy as np
import polars as pl
import psutil
import zarr
from distributed import Client, Worker

import rainbear_dask as rd
from benchmarks.run import as_markdown, conditions

SECONDS = 1.0
"""Duration of a task."""

TASKS_PER_WORKER = 6
WORKERS = (16, 64, 128, 256)
CELLS = 100
"""Values of a chunk, which is a task."""


def write(path: str, num_tasks: int) -> None:
    """Write a store of one chunk for each task."""
    group = zarr.create_group(path)
    array = group.create_array("v", shape=(num_tasks, CELLS), chunks=(1, CELLS), dtype="f4", dimension_names=("t", "x"))
    array[:] = np.arange(num_tasks * CELLS, dtype="f4").reshape(num_tasks, CELLS)


@contextmanager
def processes(num_workers: int, folder: Path) -> Iterator[tuple[Client, list[psutil.Process]]]:
    """Start a scheduler and a process of many workers; yield a client, and both processes."""
    file = folder / f"scheduler-{num_workers}.json"
    scheduler = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0"]
    commands = [
        [*scheduler, "--scheduler-file", str(file), "--no-dashboard"],
        [sys.executable, "-m", "benchmarks.many_workers", "--serve", str(file), "--workers", str(num_workers)],
    ]
    with ExitStack() as stack:
        started = []
        for command in commands:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603  our own commands
            stack.callback(process.wait)
            stack.callback(process.terminate)
            started.append(psutil.Process(process.pid))
        while not file.exists():
            time.sleep(0.1)
        client = stack.enter_context(Client(scheduler_file=str(file), set_as_default=False))
        client.wait_for_workers(num_workers, timeout=120)
        yield client, started


async def serve(scheduler_file: str, num_workers: int) -> None:
    """Run workers until the scheduler is gone."""
    workers = [
        Worker(scheduler_file=scheduler_file, nthreads=1, host="127.0.0.1", dashboard=False, memory_limit=0)
        for _ in range(num_workers)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def sleep(_: object) -> int:
    """Take a second, and return little."""
    time.sleep(SECONDS)
    return 1


def rows(frame: pl.DataFrame) -> int:
    """Take a second, and return the number of rows."""
    time.sleep(SECONDS)
    return frame.height


def plain(client: Client, _: str, num_tasks: int) -> int:
    """Return the sum by plain Dask."""
    return CELLS * sum(client.gather(client.map(sleep, range(num_tasks), pure=False)))


def partitions(client: Client, path: str, _: int) -> int:
    """Return the number of rows, counted in each partition."""
    return sum(rd.plan(path).map_partitions(rows, client=client))


READERS: dict[str, Callable[[Client, str, int], int]] = {"plain Dask": plain, "map_partitions": partitions}


def measure(num_workers: int, folder: Path, tasks_per_worker: int = TASKS_PER_WORKER) -> list[list[str]]:
    """Return a line for each reader: share of the workers' time, and CPU milliseconds of a task in each process."""
    num_tasks, lines = num_workers * tasks_per_worker, []
    path, first = str(folder / f"{num_tasks}.zarr"), str(folder / f"first-{num_workers}.zarr")
    write(path, num_tasks)
    write(first, num_workers)
    with (
        dask.config.set({"rainbear-dask.task-bytes": CELLS * 4}),
        processes(num_workers, folder) as (client, others),
    ):
        watched = [psutil.Process(), *others]
        for name, reader in READERS.items():
            reader(client, first, num_workers)  # imports, connections
            before, start = [sum(each.cpu_times()[:2]) for each in watched], time.perf_counter()
            assert reader(client, path, num_tasks) == num_tasks * CELLS, name
            taken = time.perf_counter() - start
            used = [1e3 * (sum(p.cpu_times()[:2]) - b) / num_tasks for p, b in zip(watched, before, strict=True)]
            share = num_tasks * SECONDS / (num_workers * taken)
            lines.append([str(num_workers), name, f"{share:.0%}", *(f"{each:.1f} ms" for each in used)])
    return lines


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--serve", metavar="FILE", help="run workers for the scheduler of this file, and do nothing else"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve, *args.workers))
        return
    print(conditions(), flush=True)
    lines = [["workers", "tasks by", "busy", "client, of a task", "scheduler", "all workers"]]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for num_workers in args.workers:
            lines += measure(num_workers, Path(folder))
    print(as_markdown(lines))


if __name__ == "__main__":
    main()
