"""Fusing partitions of a scan: with few columns, one task of Dask reads several partitions."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Any

from rainbear_dask.dataframe.dask_nodes import (
    Blockwise,
    FusedIO,
    Repartition,
    Task,
    is_broadcast,
    partition_boundaries,
)
from rainbear_dask.dataframe.partitions import Divisions
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.table.model import Column

MIN_PARTITIONS = 16
"""Least partitions after fusing, so that all workers have work."""

WORK_BYTES_PER_ROW = 16
"""Bytes that pandas computes per row with any columns: a group number and a float64."""


class FusedZarr(FusedIO):
    """A scan of few columns that reads several partitions as one.

    Operands: the scan, and the number of partitions after fusing.
    """

    _parameters = ["_expr", "num_fused"]  # noqa: RUF012  dask's form

    @cached_property
    def _name(self) -> str:
        return f"read-zarr-fused-{self.deterministic_token}"

    @cached_property
    def _fusion_buckets(self) -> list[Sequence[int]]:
        partitions = self.operand("_expr")._partitions
        # with the boundaries of Repartition, this node stays aligned with repartitioned frames
        boundaries = partition_boundaries(self.num_fused, len(partitions))
        return [partitions[start:stop] for start, stop in pairwise(boundaries)]

    def _divisions(self) -> Divisions:
        divisions = self.operand("_expr").divisions
        return tuple(divisions[number] for number in partition_boundaries(self.num_fused, len(divisions) - 1))

    def _task(self, name: Any, index: int) -> Task:
        return self.operand("_expr").read_task(name, self._fusion_buckets[index])

    def _tree_repr_lines(self, indent: int = 0, recursive: bool = True) -> list[str]:
        (line,) = self.operand("_expr")._tree_repr_lines(indent, recursive)
        return [f"{line}, fused to {self.num_fused:,} partitions"]


def fused(scan: Any, parent: Any, share: float) -> Any:
    """Fuse the partitions of a scan below a node.

    Parameters
    ----------
    scan : ReadZarr
        The scan.
    parent : Expr
        A node above it.
    share : float
        Bytes of the scan's columns per byte of all columns; see `column_share`.

    Returns
    -------
    Expr or None
        The replacement of ``parent``; None if fusing would not help.
    """
    per_task = min(int(1 / share), scan.npartitions // MIN_PARTITIONS)
    if per_task < 2 or isinstance(parent, FusedIO):
        return None
    count = ceil(scan.npartitions / per_task)
    if isinstance(parent, Blockwise):
        for other in parent.dependencies():
            if other is not scan and not is_broadcast(other, parent):
                parent = parent.substitute(other, Repartition(other, new_partitions=count))
    return parent.substitute(scan, FusedZarr(scan, count))


def column_share(plan: ReadPlan, columns: Sequence[Column]) -> float:
    """Return the bytes of some columns per byte of all columns: the larger share of bytes read and of bytes made."""
    tested = {c.name for test in plan.filters for c in test.columns}

    def weights(columns: Sequence[Column]) -> tuple[int, int]:
        read = sum(c.array.itemsize for c in plan.columns if c.array and c.role == "data" and c.name in tested)
        read += sum(c.array.itemsize for c in columns if c.array and c.role == "data" and c.name not in tested)
        return read, sum(c.width for c in columns) + WORK_BYTES_PER_ROW

    return max(
        some / (everything or 1) for some, everything in zip(weights(columns), weights(plan.columns), strict=True)
    )
