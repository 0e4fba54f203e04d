"""`ReadZarr`: a scan as an expression of dask.dataframe, which takes filters, projections and lengths into its plan."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from operator import ge, le
from typing import Any

from dask.base import tokenize

from rainbear_dask.dataframe.dask_nodes import (
    BlockwiseIO,
    Filter,
    Head,
    Index,
    Len,
    Lengths,
    Literal,
    LocElement,
    LocSlice,
    Max,
    Min,
    PartitionsFiltered,
    Projection,
    Task,
    determine_column_projection,
)
from rainbear_dask.dataframe.filters import Call, ColumnRef, Condition, conditions_of, distinct, join, rebase, split
from rainbear_dask.dataframe.fusion import column_share, fused
from rainbear_dask.dataframe.partitions import Divisions, Partition, partition_tasks, read_partitions
from rainbear_dask.dataframe.pushdown import ROW_SELECTIONS, may_push_down, pushed_down
from rainbear_dask.execution.clients import active_client, bring_at_once
from rainbear_dask.table.model import Column


class ReadZarr(PartitionsFiltered, BlockwiseIO):
    """The leaf of an expression of dask.dataframe that reads a scan.

    Operands, in order:

    - the source
    - the columns; None for all
    - the conditions that Dask has pushed down
    - first and last division; None for the whole table
    - the upper bound of rows per partition; None for no bound
    - whether the partitions are fixed, because other nodes count on them
    - the numbers of the partitions; None for all
    """

    _parameters = ["source", "columns", "conditions", "ends", "n_rows", "fixed", "_partitions"]  # noqa: RUF012
    _defaults = {  # noqa: RUF012  as in dask
        "columns": None,
        "conditions": (),
        "ends": None,
        "n_rows": None,
        "fixed": False,
        "_partitions": None,
    }
    _absorb_projections = True
    _filter_passthrough = True

    # ------------------------------------------------------------------ rows, columns and partitions

    @cached_property
    def _name(self) -> str:
        return f"read-zarr-{self.deterministic_token}"

    @property
    def columns(self) -> list[str]:
        names = self.operand("columns")
        return list(self.source.meta.columns if names is None else names)

    @cached_property
    def _meta(self) -> Any:
        return self.source.meta[self.columns]

    @cached_property
    def _layout(self) -> tuple[tuple[Partition, ...], Divisions]:
        """All partitions and their divisions. They pickle with the expression, so that no scheduler has to plan."""
        return partition_tasks(list(self.source.plan(self.conditions).tasks()), self.source.labels, self.ends)

    def _divisions(self) -> Divisions:
        return self._layout[1]

    @property
    def _read_columns(self) -> tuple[Column, ...]:
        return tuple(c for c in self.source.columns if c.name in {*self.columns, self.source.schema.index})

    def _filtered_task(self, name: Any, index: int) -> Task:
        return self.read_task(name, [index])

    def read_task(self, name: Any, indices: Sequence[int]) -> Task:
        """Return the task of Dask that reads some partitions as one."""
        partitions = tuple(self._layout[0][i] for i in indices)
        source = self.source
        return Task(
            name,
            read_partitions,
            partitions,
            self._read_columns,
            source.schema,
            self.n_rows,
            source.home,
            _data_producer=True,
        )

    @property
    def scan(self) -> "ReadZarr":
        """The scan itself; see `pushdown.pushed_down`."""
        return self

    def has_same_rows(self, other: Any) -> bool:
        """Whether a node is the same scan, perhaps with other columns."""
        return isinstance(other, ReadZarr) and self._rows_token == other._rows_token

    @cached_property
    def _rows_token(self) -> str:
        return tokenize(
            *(operand for name, operand in zip(self._parameters, self.operands, strict=True) if name != "columns")
        )

    @property
    def label_range(self) -> tuple[Any, Any] | None:
        """Lowest and highest label of the index; None if only reading can tell."""
        rows = self.num_rows
        if not self.known_divisions or not rows or 0 in rows:
            return None
        hulls = [task.index[0].hull for i in self._partitions for task in self._layout[0][i].tasks]
        labels = self.source.labels
        ends = labels[[min(start for start, _ in hulls), max(stop for _, stop in hulls) - 1]]
        return ends.min(), ends.max()

    @property
    def num_rows(self) -> list[int] | None:
        """Rows of each partition; None if only reading can tell."""
        partitions = [self._layout[0][i] for i in self._partitions]
        if self.n_rows is not None or any(task.scan.filters for part in partitions for task in part.tasks):
            return None
        return [part.num_rows for part in partitions]

    def _tree_repr_lines(self, indent: int = 0, recursive: bool = True) -> list[str]:
        plan = replace(self.source.plan(self.conditions), columns=self._read_columns)
        shown = {"columns": self.columns, "index": self.source.schema.index, "rows": self.n_rows}
        facts = [f"{name}={value!r}" for name, value in shown.items() if value is not None]
        filters = " & ".join(f"({test})" for test in [*(text for text, _ in self.source.tests), *self.conditions])
        facts += [f"filters={filters!r}"] if filters else []
        chunks = f"{plan.counts.num_chunks_kept:,} of {plan.counts.num_chunks:,} chunks"
        return [f"{' ' * indent}ReadZarr: {self.source!r} {' '.join(facts)} ({chunks})"]

    # ------------------------------------------------------------------ rules of the optimizer

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, Filter | LocSlice | LocElement):
            return pushed_down(self, parent, dependents)
        if isinstance(parent, Projection):
            narrow = super()._simplify_up(parent, dependents)
            return Columns(*parent.operands) if narrow is None and type(parent) is Projection else narrow
        if isinstance(parent, Index):
            found: Any = determine_column_projection(self, parent, dependents)
            narrow = Labels(self.substitute_parameters({"columns": [c for c in self.columns if c in found]}))
            return None if narrow._name == parent._name else narrow
        if isinstance(parent, Lengths | Len):
            return self.counted(parent)
        if type(parent) is Head and self.n_rows is None and not self._filtered:
            return Head(self.substitute_parameters({"n_rows": parent.n}), *parent.operands[1:])
        return None

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_push_down(self, parent, dependents)

    def _lower(self) -> Any:
        if self.fixed:
            return None
        if (client := active_client(awaited=True)) is not None:
            bring_at_once(client, self.source.table.spec)
        return self.substitute_parameters({"fixed": True})

    def _tune_up(self, parent: Any) -> Any:
        if self.n_rows is not None:
            return None
        return fused(self, parent, column_share(self.source.plan(self.conditions), self._read_columns))

    # ------------------------------------------------------------------ conditions and counts

    @property
    def accepts_conditions(self) -> bool:
        """Whether conditions may be pushed down: not once rows are counted or partitions numbered."""
        return not self.fixed and self.n_rows is None and not self._filtered

    def conditions_of(self, top: Any) -> list[Condition]:
        """Return the row-by-row conditions of a filter or a label selection."""
        if isinstance(top, Filter):
            return distinct(each for part in split(top.predicate) for each in self._conditions_of_part(part))
        if self.source.schema.index is None or not self.known_divisions:
            return []
        bounds = top.iindexer if isinstance(top, LocSlice) else slice(top.iindexer, top.iindexer)
        label = ColumnRef(self.source.schema.index)
        return [
            Call(compare, (label, end), {})
            for compare, end in ((ge, bounds.start), (le, bounds.stop))
            if end is not None
        ]

    def _conditions_of_part(self, part: Any) -> list[Condition]:
        return conditions_of(part, self.has_same_rows, self.source.schema.index)

    def filtered(self, predicate: Any, count: int) -> Any:
        """Push the first ``count`` conditions of a filter into the scan; return None if it takes none.

        The conjuncts that remain filter the new scan. Their single values, like the mean in ``t2m > t2m.mean()``,
        still derive from all rows.
        """
        taken: list[Condition] = []
        left = []
        for part in split(predicate):
            conditions = self._conditions_of_part(part)
            together = distinct([*taken, *conditions])
            if conditions and len(together) <= count:
                taken = together
            else:
                left.append(part)
        if not taken:
            return None
        fewer = self.substitute_parameters({"conditions": (*self.conditions, *taken)})
        if not left:
            return fewer

        def with_fewer_rows(scan: Any) -> Any:
            return fewer.substitute_parameters({"columns": scan.operand("columns")})

        rest = rebase(join(left), self.has_same_rows, with_fewer_rows)
        return None if rest is None else Filter(fewer, rest)

    def located(self, loc: Any) -> Any:
        """Return the scan of the rows between two labels."""
        ends = loc.divisions[0], loc.divisions[-1]
        conditions = (*self.conditions, *self.conditions_of(loc))
        found: Any = self.substitute_parameters({"conditions": conditions, "ends": ends})
        return found if loc.cindexer is None else found[loc.cindexer]

    def counted(self, parent: Any) -> Any:
        """Return the number of rows from the plan. If only reading can tell, read the columns of the filter alone."""
        if (rows := self.num_rows) is not None:
            return Literal(sum(rows) if isinstance(parent, Len) else tuple(rows))
        return type(parent)(self.substitute_parameters({"columns": []})) if self.columns else None


def _scan_below(node: Any) -> ReadZarr | None:
    return node.frame if isinstance(node.frame, ReadZarr) else None


class Columns(Projection):
    """A projection of a scan, through which row selections reach the scan."""

    @property
    def scan(self) -> ReadZarr | None:
        """The scan below; see `pushdown.pushed_down`."""
        return _scan_below(self)

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, ROW_SELECTIONS):
            return pushed_down(self, parent, dependents)
        if isinstance(parent, Index):
            return Index(self.frame)
        return super()._simplify_up(parent, dependents)

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_push_down(self, parent, dependents)


class Labels(Index):
    """The index of a scan, through which row selections reach the scan. The plan tells its minimum and maximum."""

    @property
    def scan(self) -> ReadZarr | None:
        """The scan below; see `pushdown.pushed_down`."""
        return _scan_below(self)

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if (scan := self.scan) is not None:
            if isinstance(parent, Len):
                return scan.counted(parent)
            if isinstance(parent, Min | Max) and (ends := scan.label_range) is not None:
                return Literal(ends[not isinstance(parent, Min)])  # in dask, Min is a subclass of Max
        if isinstance(parent, ROW_SELECTIONS):
            return pushed_down(self, parent, dependents)
        return super()._simplify_up(parent, dependents)

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_push_down(self, parent, dependents)
