"""Memory of a process; ``python -m benchmarks.memory`` measures value filters: buffers and survivors, for tasks of any size.

Each measurement runs in a process of its own. A first question on a small part brings in all imports. Then the peak of the
process begins anew, and the question is asked of the whole store.
"""

import argparse
import tempfile

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, Size
from benchmarks.processes import added_peak
from benchmarks.run import as_markdown, conditions

TASK_BYTES = ("16MiB", "64MiB", "256MiB", "1GiB")


def value_filter(opened: str, task_bytes: str) -> int:
    """Return the bytes that a value filter adds at its peak; ``opened`` is the code of a lazy table."""
    first = (
        "import dask, polars as pl, rainbear_dask as rd\nfrom benchmarks.problems import HOT\n"
        f"dask.config.set({{'rainbear-dask.task-bytes': {task_bytes!r}}})\n"
        f"lf = {opened}\nhot = lf.filter(pl.col('t2m') > HOT)\nhot.filter(pl.col('lat') > 89).collect()"
    )
    return added_peak(first, "hot.collect()")


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a store of two days")
    args = parser.parse_args()
    size: Size = "quick" if args.quick else "full"
    print(conditions(), flush=True)
    lines = [["layout", *(f"tasks of {each}" for each in TASK_BYTES), "Polars, Parquet"]]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for layout in [layout.sized(size) for layout in LAYOUTS]:
            path, table = f"{folder}/{layout.name}.zarr", f"{folder}/{layout.name}.parquet"
            layout.write(path)
            rd.scan_zarr(path).sink_parquet(table)
            ours = [value_filter(f"rd.scan_zarr({path!r})", task_bytes) for task_bytes in TASK_BYTES]
            parquet = value_filter(f"pl.scan_parquet({table!r})", TASK_BYTES[0])
            lines.append([layout.name, *(f"{peak / 1e6:,.0f} MB" for peak in (*ours, parquet))])
    print(as_markdown(lines))


if __name__ == "__main__":
    main()
