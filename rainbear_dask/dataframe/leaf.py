"""What a Dask DataFrame is read from, and how its rows are cut into partitions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, reduce
from io import BytesIO
from operator import and_
from typing import Any

import pandas as pd
import polars as pl
from dask.base import tokenize

from rainbear_dask.convert.pandas import Form
from rainbear_dask.dataframe.filters import Condition, to_polars
from rainbear_dask.dataframe.partitions import Partition, home_of
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table

Divisions = tuple[Any, ...]


class Source:
    """What a frame is read from, whatever the optimizer makes of it.

    Parameters
    ----------
    table : Table
        Its first dimension is that of the index, if there is one.
    columns : tuple of Column
        All columns of the frame; the index is the last.
    tests : sequence of (str, Expr)
        Filters that rows pass before any of Dask's, each with its text, which others may have too.
    form : Form
        How columns become pandas'.
    """

    def __init__(
        self, table: Table, columns: tuple[Column, ...], tests: Sequence[tuple[str, pl.Expr]], form: Form
    ) -> None:
        self.table, self.columns, self.form = table, columns, form
        self.home = home_of(table.spec)
        self.tests = [(text, test.meta.serialize()) for text, test in tests]
        # of this opening: dask takes expressions of one token for one, and an earlier one may have read another state
        self._token = tokenize(table.spec.opening_id, table, columns, self.tests, form, ensure_deterministic=True)
        self._plans: dict[str, ReadPlan] = {}

    def __dask_tokenize__(self) -> str:
        return self._token

    def __repr__(self) -> str:
        return self.table.spec.label

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plans": {}}

    @cached_property
    def meta(self) -> Any:
        """A frame without rows."""
        return self.form.empty(self.columns)

    def plan(self, conditions: Sequence[Condition]) -> ReadPlan:
        """What is read for all columns: how rows are cut into partitions does not depend on which columns are wanted."""
        key = tokenize(*conditions)
        if key not in self._plans:
            tests = [pl.Expr.deserialize(BytesIO(test)) for _, test in self.tests]
            tests += [to_polars(condition, self.table.columns, self.form) for condition in conditions]
            found = plan_scan(self.table, predicate=reduce(and_, tests) if tests else None)
            self._plans[key] = replace(found, columns=self.columns)
        return self._plans[key]

    @cached_property
    def labels(self) -> Any:
        """The index along its dimension; None if it is in no order."""
        column = self.table.columns[self.form.index or ""]
        values = whole_column(self.table.spec, column, self.table.sizes[column.dims[0]])
        labels = pd.Index(self.form.series(column, values))
        in_order = labels.is_monotonic_increasing or labels.is_monotonic_decreasing
        return labels if in_order and len(labels) and not labels.hasnans else None


def cut(source: Source, plan: ReadPlan, ends: tuple[Any, Any] | None) -> tuple[tuple[Partition, ...], Divisions]:
    """Cut a plan into partitions.

    Parameters
    ----------
    source : Source
        Whose plan it is.
    plan : ReadPlan
        Tasks are cut along the first dimension first.
    ends : (object, object) or None
        First and last division; by default those of the whole index.

    Returns
    -------
    tuple of Partition
        One for each task; with an ordered index, tasks that share labels are in one partition. At least one.
    tuple
        Divisions: the first label of each partition, and the last of all; None where the index has no order.
    """
    tasks = list(plan.tasks())
    labels = source.labels if source.form.index is not None else None
    if labels is None:
        partitions = tuple(Partition((task,)) for task in tasks) or (Partition(()),)
        return partitions, (None,) * (len(partitions) + 1)
    first, last = ends or (labels.min(), labels.max())
    groups = _apart(tasks, labels)
    descends = labels.is_monotonic_decreasing and not labels.is_monotonic_increasing
    if descends:
        groups.reverse()
    starts = [labels[(stop - 1) if descends else start] for start, stop, _ in groups[1:]]
    partitions = tuple(Partition(tuple(held), sort=descends or len(held) > 1) for *_, held in groups)
    return partitions if groups else (Partition(()),), (first, *starts, last)


def _apart(tasks: Sequence[ScanTask], labels: Any) -> list[tuple[int, int, list[ScanTask]]]:
    """Tasks together that share positions or labels of the index: from, up to, and the tasks in their order."""
    groups: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(tasks)), key=lambda i: tasks[i].index[0].hull):
        start, stop = tasks[number].index[0].hull
        if groups and (start < groups[-1][1] or labels[start] == labels[groups[-1][1] - 1]):
            begin, end, held = groups.pop()
            groups.append((begin, max(end, stop), [*held, number]))
        else:
            groups.append((start, stop, [number]))
    return [(start, stop, [tasks[i] for i in sorted(held)]) for start, stop, held in groups]
