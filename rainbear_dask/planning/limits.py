"""Limits on a plan, checked before anything is read."""

from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

from rainbear_dask.exceptions import PlanTooLargeError, QueryError
from rainbear_dask.planning.plan import ReadPlan


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
