"""Limits on a plan and on its result in memory, checked before anything is read."""

from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

from rainbear_dask.exceptions import LargeResultWarning, PlanTooLargeError, QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.redaction import warn
from rainbear_dask.resources.limits import readable_bytes
from rainbear_dask.resources.memory import machine_bytes
from rainbear_dask.resources.settings import memory_share

MIN_CHECKED_BYTES = 2**28
"""Every machine has more bytes of memory, so smaller results need no look at it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a plan may need; None for no limit.

    Parameters
    ----------
    chunks : int or None
        Chunks of the data variables; variables on one grid count once.
    rows : int or None
        Rows before any filter that workers apply.
    bytes : int or None
        Decoded bytes of chunks.
    """

    chunks: int | None = None
    rows: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        check_count("max_chunks_to_read", self.chunks)
        check_count("max_rows", self.rows)
        check_count("max_bytes", self.bytes)


def check_count(option: str, value: object) -> None:
    """Refuse an upper bound that is no whole number, 0 or more; None passes.

    Raises
    ------
    QueryError
        If the value is something else.
    """
    if value is not None and (not isinstance(value, SupportsIndex) or index(value) < 0):
        raise QueryError(f"The option `{option}` is {value!r}. Give a whole number, 0 or more, or None for no bound.")


def check_limits(plan: ReadPlan, limits: Limits) -> None:
    """Refuse a plan that exceeds a limit.

    Parameters
    ----------
    plan : ReadPlan
        The plan; nothing is counted if there is no limit.
    limits : Limits
        The limits.

    Raises
    ------
    PlanTooLargeError
        If the plan needs more chunks, rows or bytes than its limit.
    """
    if limits == Limits():  # most scans have none
        return
    counts = plan.counts
    chunks = sum({array.grid: counts.chunks_kept[array.path] for array in plan.arrays}.values())
    for option, needed, limit, unit in (
        ("max_chunks_to_read", chunks, limits.chunks, "chunks"),
        ("max_rows", counts.max_rows, limits.rows, "rows"),
        ("max_bytes", counts.bytes_kept, limits.bytes, "decoded bytes"),
    ):
        if limit is not None and needed > limit:
            raise PlanTooLargeError(
                f"{option} exceeded: {needed} {unit} needed, limit is {limit}. "
                f"Narrow the filter on {', '.join(plan.table.sizes)} of {plan.table.spec.label}, or raise the limit."
            )


def check_memory(plan: ReadPlan, limits: Limits) -> None:
    """Refuse a result in memory that is certainly too large for this machine, and warn if it may be.

    Parameters
    ----------
    plan : ReadPlan
        The plan, whose rows one process will hold.
    limits : Limits
        The caller's limits. If there is one, the caller has considered the size, and nothing is checked.

    Raises
    ------
    PlanTooLargeError
        If the size is certain and exceeds the setting ``memory-share`` of this machine's memory.

    Warns
    -----
    LargeResultWarning
        If the size is an upper bound, because workers filter rows.
    """
    if limits != Limits() or not may_exceed_memory(plan.table.num_rows, sum(c.width for c in plan.columns)):
        return
    rows, row_bytes = plan.counts.max_rows, sum(column.width for column in plan.columns)
    if not may_exceed_memory(rows, row_bytes):
        return
    is_certain = not plan.filters and plan.selection.exact
    text = (
        f"The result of {plan.table.spec.label} has {rows:,} rows{'' if is_certain else ' at most'}, which need "
        f"{readable_bytes(rows * row_bytes)}. This machine has {readable_bytes(machine_bytes() or 0)} of memory, and "
        f"the setting `memory-share` allows {memory_share():.4g} of it. Filter, select or aggregate the table, or write "
        "it with sink_parquet(). To read it all the same, set a limit of your own: scan_zarr(..., max_bytes=...)."
    )
    if is_certain:
        raise PlanTooLargeError(text)
    warn(text, LargeResultWarning)


def may_exceed_memory(rows: int, row_bytes: int) -> bool:
    """Whether rows of some size take more than the setting ``memory-share`` of this machine's memory."""
    share = memory_share()
    if share is None or rows * row_bytes <= MIN_CHECKED_BYTES * share:
        return False
    machine = machine_bytes()
    return machine is not None and rows * row_bytes > share * machine
