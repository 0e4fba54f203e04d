"""What Polars calls to read a table: plans, runs, and hands on the frames."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask import coords
from rainbear_dask.bars import shown
from rainbear_dask.clients import client_for
from rainbear_dask.configuration import num_bytes
from rainbear_dask.execute import iter_frames
from rainbear_dask.metadata import StoreMeta
from rainbear_dask.planner import Limits, ReadPlan, build_plan
from rainbear_dask.predicate import MAX_CELLS, compile_predicate
from rainbear_dask.redaction import warn
from rainbear_dask.table import Table, build_table

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
        warn(f"array {path!r} of {table.spec.label} is left out: {reason}", stacklevel=4)
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

    def __init__(
        self,
        table: Table,
        client: "Client | None" = None,
        limits: Limits | None = None,
        record: list[ReadPlan] | None = None,
    ) -> None:
        self.table = table
        self.client = client
        self.limits = limits or Limits()
        self.record = record
        """Where to put the plan instead of running it."""

    def __reduce__(self) -> tuple[Callable[..., "ZarrReader"], tuple[Any, ...]]:
        if _this_thread.recording is not None:
            return _twin, (_this_thread.recording.register(self.table),)
        return ZarrReader, (self.table, None, self.limits)

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # a hint; so many small frames would cost more than they save
    ) -> Iterator[pl.DataFrame]:
        todo = plan_scan(self.table, columns=with_columns, predicate=predicate, n_rows=n_rows)
        names = list(self.table.schema) if with_columns is None else list(with_columns)
        empty = pl.DataFrame(schema={name: self.table.schema[name] for name in names})
        if self.record is not None:
            self.record.append(todo)
            return iter([empty])
        todo.check(self.limits)
        # here, not when the first frame is asked for: Polars does that on a thread without the caller's annotations
        frames = shown(iter_frames(todo.tasks(), client_for(todo, self.client), limit=n_rows), todo)
        return chain([empty], chain.from_iterable(map(_pieces, frames)))


_LARGE_BYTES = 2**27
"""A frame that is larger..."""

_PIECE_BYTES = 2**25
"""...is handed on in pieces of at most so many bytes: Polars' writers hold several of what they are given, nine at times."""


def _pieces(frame: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """The same rows in the same order, in the same memory."""
    size = frame.estimated_size()
    return [frame] if size <= _LARGE_BYTES else frame.iter_slices(int(frame.height * _PIECE_BYTES // size) or 1)


def plan_scan(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
) -> ReadPlan:
    """Plan a scan; reads the coordinates that the predicate names, and nothing else."""
    leaves = table.leaves(columns)
    task_bytes = num_bytes("task-bytes")
    if predicate is None:
        return build_plan(table, columns=leaves, limit=n_rows, task_bytes=task_bytes)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    named = [known[name] for name in dict.fromkeys(predicate.meta.root_names()) if name in known]
    small = [c for c in named if len(c.dims) == 1 or prod(table.sizes[d] for d in c.dims) <= MAX_CELLS]
    coords.prefetch(table.spec, small)
    conjuncts = compile_predicate(
        predicate,
        {name: column.dims for name, column in known.items()},
        table.sizes,
        lambda name: coords.whole_column(table.spec, known[name], prod(table.sizes[d] for d in known[name].dims)),
    )
    return build_plan(table, columns=leaves, conjuncts=conjuncts, limit=n_rows, task_bytes=task_bytes)


def plans_of(lf: pl.LazyFrame) -> list[ReadPlan]:
    """Plan of each Zarr scan in a query, in the order in which Polars starts them; nothing is run."""
    recording = _this_thread.recording = _Recording([], [])
    try:
        # a copy of the query, in which each reader has a twin that records
        copy = pl.LazyFrame.deserialize(lf.serialize())
    finally:
        _this_thread.recording = None
    copy.collect()
    return recording.plans


@dataclass(frozen=True, slots=True)
class _Recording:
    tables: list[Table]
    plans: list[ReadPlan]

    def register(self, table: Table) -> int:
        self.tables.append(table)
        return len(self.tables) - 1


class _ThisThread(threading.local):
    recording: _Recording | None = None


_this_thread = _ThisThread()


def _twin(number: int) -> ZarrReader:
    """The copy of a reader in a query that is copied to record its plans: no store is pickled for it."""
    recording = cast(_Recording, _this_thread.recording)
    return ZarrReader(recording.tables[number], record=recording.plans)
