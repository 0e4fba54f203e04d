"""Limits on a plan, checked before anything is read."""

from dataclasses import dataclass

from rainbear_dask.exceptions import PlanTooLargeError
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
