"""Chunks that each form of query reads, beside the minimum: ``python -m benchmarks.predicate_forms``."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import polars as pl
import zarr
from zarr.abc.store import Store, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

import rainbear_dask as rd
from benchmarks.problems import CHUNKED, FORMS, SHARDED, Form, write_noleap, write_stations

STORES: dict[str, Callable[[Path], None]] = {
    "grid": CHUNKED.write,
    "sharded": SHARDED.write,
    "stations": write_stations,
    "noleap": write_noleap,
}
"""The function that writes the store of each name."""

NOT_CHUNKS = (".json", ".zarray", ".zattrs")


class CountingStore(WrapperStore[LocalStore]):
    """A folder that counts the requested bytes of chunks of ``t2m``.

    Bytes tell more than calls, because several chunks of a shard may come in one call. The index of a shard does not
    count.
    """

    _supports_sync_io = False  # so that zarr calls only `get`

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.bytes_read = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if (
            value is not None
            and key.startswith("t2m/")
            and not key.endswith(NOT_CHUNKS)
            and not isinstance(byte_range, SuffixByteRequest)
        ):
            self.bytes_read += len(value)
        return value

    def get_ranges(self, *args: Any, **kwargs: Any) -> Any:
        return Store.get_ranges(self, *args, **kwargs)  # which calls `get`, unlike the wrapper's


@contextmanager
def written_stores() -> Iterator[dict[str, Path]]:
    """Write all stores (400 MB) for the duration of a context. Return their paths by name."""
    with tempfile.TemporaryDirectory(prefix="predicate-forms-") as folder:
        paths = {name: Path(folder) / f"{name}.zarr" for name in STORES}
        for name, write in STORES.items():
            write(paths[name])
        yield paths


def chunks_read(form: Form, path: Path) -> int:
    """Run one query on a store without compression. Return the number of fetched chunks of ``t2m``."""
    store = CountingStore(LocalStore(path, read_only=True))
    query = form.query(rd.scan_zarr(store))
    store.bytes_read = 0
    query.collect(engine=form.engine)
    return round(store.bytes_read / chunk_bytes(path))


def chunks_planned(form: Form, path: Path) -> int:
    """Return the chunks that the plan of a query keeps, from `rd.explain`."""
    return planned(form.query(rd.scan_zarr(path)))[0]


def planned(query: pl.LazyFrame) -> tuple[int, int]:
    """Return the chunks that the plans of a query keep, and all chunks."""
    report = rd.explain(query)
    return report.chunks_kept, report.chunks_total


def chunk_bytes(path: Path) -> int:
    """Return the stored size of a chunk, which is the same for all."""
    array = zarr.open_array(path / "t2m", mode="r")
    return prod(array.chunks) * array.dtype.itemsize


def main() -> None:
    """Print a row for each form."""
    with written_stores() as paths:
        print(f"{'form':32}{'need':>6}{'planned':>9}{'read':>6}{'of shards':>11}")
        for form in FORMS:
            path = paths[form.store]
            counts = f"{form.need:6}{chunks_planned(form, path):9}{chunks_read(form, path):6}"
            sharded = f"{chunks_read(form, paths['sharded']):11}" if form.store == "grid" else " " * 11
            print(f"{form.name:32}{counts}{sharded}  {form.gap}")


if __name__ == "__main__":
    main()
