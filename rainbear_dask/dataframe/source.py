"""`FrameSource`: the table behind a Dask DataFrame, with its filters, dtypes and cached plans."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, reduce
from io import BytesIO
from operator import and_
from typing import Any

import pandas as pd
import polars as pl
from dask.base import tokenize

from rainbear_dask.convert.pandas import PandasSchema
from rainbear_dask.dataframe.filters import Condition, to_polars
from rainbear_dask.dataframe.partitions import home_of
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table


class FrameSource:
    """The table that a Dask DataFrame reads, before any pushdown of Dask.

    Parameters
    ----------
    table : Table
        If there is an index, its dimension comes first.
    columns : tuple of Column
        All columns of the frame; the index comes last.
    tests : sequence of (str, Expr)
        Filters that apply before the filters of Dask, each with its text. Two may have the same text.
    schema : PandasSchema
        Dtypes of the columns.
    """

    def __init__(
        self,
        table: Table,
        columns: tuple[Column, ...],
        tests: Sequence[tuple[str, pl.Expr]],
        schema: PandasSchema,
    ) -> None:
        self.table, self.columns, self.schema = table, columns, schema
        self.home = home_of(table.spec)
        self.tests = [(text, test.meta.serialize()) for text, test in tests]
        # dask shares expressions with equal tokens, and another opening may have read another state of the store
        self._token = tokenize(table.spec.opening_id, table, columns, self.tests, schema, ensure_deterministic=True)
        self._plans: dict[str, ReadPlan] = {}

    def __dask_tokenize__(self) -> str:
        return self._token

    def __repr__(self) -> str:
        return self.table.spec.label

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plans": {}}

    @cached_property
    def meta(self) -> Any:
        """An empty frame with the dtypes of all columns."""
        return self.schema.empty(self.columns)

    def plan(self, conditions: Sequence[Condition]) -> ReadPlan:
        """Plan all columns: the partitions must not depend on a projection."""
        key = tokenize(*conditions)
        if key not in self._plans:
            tests = [pl.Expr.deserialize(BytesIO(test)) for _, test in self.tests]
            tests += [to_polars(condition, self.table.columns, self.schema) for condition in conditions]
            found = plan_scan(self.table, predicate=reduce(and_, tests) if tests else None)
            self._plans[key] = replace(found, columns=self.columns)
        return self._plans[key]

    @cached_property
    def labels(self) -> Any:
        """Labels of the index along its dimension; None if there is no index, or it is unsorted, empty or has nulls."""
        if self.schema.index is None:
            return None
        column = self.table.columns[self.schema.index]
        values = whole_column(self.table.spec, column, self.table.sizes[column.dims[0]])
        labels = pd.Index(self.schema.series(column, values))
        is_sorted = labels.is_monotonic_increasing or labels.is_monotonic_decreasing
        return labels if is_sorted and len(labels) and not labels.hasnans else None
