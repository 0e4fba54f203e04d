"""What Polars calls to read a table: plans, runs, and hands on the frames."""

import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask import coords
from rainbear_dask.execute import active_client, iter_frames
from rainbear_dask.metadata import StoreMeta
from rainbear_dask.planner import Limits, ScanPlan, build_plan
from rainbear_dask.predicate import compile_predicate
from rainbear_dask.table import Table, build_table
from rainbear_dask.tidy import nest

if TYPE_CHECKING:
    from distributed import Client


def understand(
    meta: StoreMeta, *, variables: Collection[str] | None = None, decode: bool = True, mask: bool = True
) -> Table:
    """Understand an opened group as a table, and warn of what is left out; parameters as in `table.build_table`."""
    table = build_table(
        meta,
        read=lambda array: coords.whole(meta.spec, array),
        sample=lambda array: coords.ends(meta.spec, array),
        variables=variables,
        decode=decode,
        mask=mask,
    )
    for path, reason in table.left_out.items():
        warnings.warn(f"array {path!r} of {table.spec.label} is left out: {reason}", stacklevel=4)
    return table


def lazy_table(table: Table, client: "Client | None" = None, limits: Limits | None = None) -> pl.LazyFrame:
    """A table as Polars sees it; nothing is read for it."""
    return register_io_source(
        ZarrReader(table, client, limits or Limits()),
        schema=table.schema,
        is_pure=True,
        explain_name="SCAN ZARR",
        explain_detail=table.spec.label,
    )


class ZarrReader:
    """A source in the sense of ``polars.io.plugins.register_io_source``.

    It pickles without its client; in another process it uses the one that is active there.
    """

    def __init__(self, table: Table, client: "Client | None" = None, limits: Limits | None = None) -> None:
        self.table = table
        self.client = client
        self.limits = limits or Limits()
        self._record: list[ScanPlan] | None = None

    def __getstate__(self) -> tuple[Table, Limits]:
        return self.table, self.limits

    def __setstate__(self, state: tuple[Table, Limits]) -> None:
        self.__init__(state[0], None, state[1])  # type: ignore[misc]
        self._record = _recording.plans

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # a hint; frames are as large as tasks
    ) -> Iterator[pl.DataFrame]:
        todo = plan_scan(self.table, columns=with_columns, predicate=predicate, n_rows=n_rows)
        names = list(self.table.schema) if with_columns is None else list(with_columns)
        yield pl.DataFrame(schema={name: self.table.schema[name] for name in names})
        if self._record is not None:
            self._record.append(todo)
            return
        todo.check(self.limits)
        client = self.client or active_client()
        for frame in iter_frames(todo.tasks(), client, limit=n_rows):
            yield nest(frame)


def plan_scan(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
) -> ScanPlan:
    """Plan a scan; reads the coordinates that the predicate names, and nothing else."""
    leaves = table.leaves(columns)
    if predicate is None:
        return build_plan(table, columns=leaves, limit=n_rows)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    conjuncts = compile_predicate(
        predicate,
        {name: column.dims for name, column in known.items()},
        table.sizes,
        lambda name: coords.whole_column(table.spec, known[name], prod(table.sizes[d] for d in known[name].dims)),
    )
    return build_plan(table, columns=leaves, conjuncts=conjuncts, limit=n_rows)


def plans_of(lf: pl.LazyFrame) -> list[ScanPlan]:
    """Plan of each Zarr scan in a query, in the order in which Polars starts them."""
    recorded: list[ScanPlan] = []
    _recording.plans = recorded
    try:
        # a copy of the query, whose readers are made on this thread and so know that they are to record
        copy = pl.LazyFrame.deserialize(lf.serialize())
    finally:
        _recording.plans = None
    copy.collect()
    return recorded


class _Recording(threading.local):
    plans: list[ScanPlan] | None = None


_recording = _Recording()
