"""A scan as a source of dask.dataframe: an expression of its optimizer that takes filters, columns and lengths into the plan."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from operator import ge, le
from typing import Any

from dask._task_spec import Task
from dask.base import tokenize
from dask.dataframe.dask_expr._expr import (
    Blockwise,
    Filter,
    Head,
    Index,
    Lengths,
    Literal,
    PartitionsFiltered,
    Projection,
    determine_column_projection,
)
from dask.dataframe.dask_expr._indexing import LocElement, LocSlice
from dask.dataframe.dask_expr._reductions import Len, Max, Min
from dask.dataframe.dask_expr._repartition import Repartition, RepartitionToFewer
from dask.dataframe.dask_expr.io.io import BlockwiseIO, FusedIO

from rainbear_dask.dataframe.filters import Condition, Named, Step, all_of, conditions_of, distinct, moved, split
from rainbear_dask.dataframe.leaf import Divisions, cut
from rainbear_dask.dataframe.partitions import Partition, read_partitions
from rainbear_dask.dataframe.pushdown import CUTS, is_complete, num_shared
from rainbear_dask.execution.clients import active_client, bring_at_once
from rainbear_dask.table.model import Column

_FEW = 16
"""Partitions are not joined to fewer than so many, so that there is work for all."""

_WORKED = 16
"""Bytes that pandas makes of a row, whatever its columns: the number of its group, and a float64."""


class ReadZarr(PartitionsFiltered, BlockwiseIO):
    """The leaf of an expression of dask.dataframe that reads a scan.

    Operands: the source; the columns wanted, None for all; conditions that rows pass; first and last division, where it
    is not that of the whole table; rows wanted of each partition at most; whether other nodes count on the partitions; and which partitions, None for all.
    """

    _parameters = ["source", "columns", "conditions", "ends", "most", "fixed", "_partitions"]  # noqa: RUF012  as dask has it
    _defaults = {  # noqa: RUF012  as above
        "columns": None,
        "conditions": (),
        "ends": None,
        "most": None,
        "fixed": False,
        "_partitions": None,
    }
    _absorb_projections = True
    _filter_passthrough = True

    # ------------------------------------------------------------------ what it is

    @cached_property
    def _name(self) -> str:
        return f"read-zarr-{self.deterministic_token}"

    @property
    def columns(self) -> list[str]:
        wanted = self.operand("columns")
        return list(self.source.meta.columns if wanted is None else wanted)

    @cached_property
    def _meta(self) -> Any:
        return self.source.meta[self.columns]

    @cached_property
    def _cut(self) -> tuple[tuple[Partition, ...], Divisions]:
        """All partitions and their divisions. It pickles with the expression, so that no scheduler has to plan."""
        return cut(self.source, self.source.plan(self.conditions), self.ends)

    def _divisions(self) -> Divisions:
        return self._cut[1]

    @property
    def _read_columns(self) -> tuple[Column, ...]:
        return tuple(c for c in self.source.columns if c.name in {*self.columns, self.source.form.index})

    def _filtered_task(self, name: Any, index: int) -> Task:
        return self.read(name, [index])

    def read(self, name: Any, indices: Sequence[int]) -> Task:
        """Task that reads some partitions as one."""
        partitions = tuple(self._cut[0][i] for i in indices)
        columns = self._read_columns
        return Task(
            name,
            read_partitions,
            partitions,
            columns,
            self.source.form,
            self.most,
            self.source.home,
            _data_producer=True,
        )

    def same_rows(self, other: Any) -> bool:
        """Whether a node is the same frame, perhaps with other columns."""
        return isinstance(other, ReadZarr) and self._rows == other._rows

    @cached_property
    def _rows(self) -> str:
        return tokenize(
            *(operand for name, operand in zip(self._parameters, self.operands, strict=True) if name != "columns")
        )

    @property
    def outermost(self) -> tuple[Any, Any] | None:
        """Lowest and highest label; None if only reading can tell."""
        rows = self.num_rows
        if not self.known_divisions or not rows or 0 in rows:
            return None
        hulls = [task.index[0].hull for i in self._partitions for task in self._cut[0][i].tasks]
        labels = self.source.labels
        ends = labels[[min(start for start, _ in hulls), max(stop for _, stop in hulls) - 1]]
        return ends.min(), ends.max()

    @property
    def num_rows(self) -> list[int] | None:
        """Rows of each partition; None if only reading can tell."""
        partitions = [self._cut[0][i] for i in self._partitions]
        if self.most is not None or any(task.scan.filters for part in partitions for task in part.tasks):
            return None
        return [part.num_rows for part in partitions]

    def _tree_repr_lines(self, indent: int = 0, recursive: bool = True) -> list[str]:
        plan = replace(self.source.plan(self.conditions), columns=self._read_columns)
        shown = {"columns": self.columns, "index": self.source.form.index, "rows": self.most}
        facts = [f"{name}={value!r}" for name, value in shown.items() if value is not None]
        filters = " & ".join(f"({test})" for test in [*(text for text, _ in self.source.tests), *self.conditions])
        facts += [f"filters={filters!r}"] if filters else []
        chunks = f"{plan.counts.num_chunks_kept:,} of {plan.counts.num_chunks:,} chunks"
        return [f"{' ' * indent}ReadZarr: {self.source!r} {' '.join(facts)} ({chunks})"]

    # ------------------------------------------------------------------ what it takes from the nodes above

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, Filter | LocSlice | LocElement):
            return cut_down(self, parent, dependents)
        if isinstance(parent, Projection):
            narrow = super()._simplify_up(parent, dependents)
            return Columns(*parent.operands) if narrow is None and type(parent) is Projection else narrow
        if isinstance(parent, Index):
            found: Any = determine_column_projection(self, parent, dependents)
            narrow = Labels(self.substitute_parameters({"columns": [c for c in self.columns if c in found]}))
            return None if narrow._name == parent._name else narrow
        if isinstance(parent, Lengths | Len):
            return self.counted(parent)
        if type(parent) is Head and self.most is None and not self._filtered:
            return Head(self.substitute_parameters({"most": parent.n}), *parent.operands[1:])
        return None

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_be_cut(self, parent, dependents)

    def _lower(self) -> Any:
        if self.fixed:
            return None
        if (client := active_client(awaited=True)) is not None:
            bring_at_once(client, self.source.table.spec)
        return self.substitute_parameters({"fixed": True})

    def conditions_of(self, top: Any) -> list[Condition]:
        """What a filter, or a choice of labels, asks of each row of the scan by itself."""
        if isinstance(top, Filter):
            return distinct(each for part in split(top.predicate) for each in self._asked_by(part))
        if self.source.form.index is None or not self.known_divisions:
            return []
        wanted = top.iindexer if isinstance(top, LocSlice) else slice(top.iindexer, top.iindexer)
        label = Named(self.source.form.index)
        return [
            Step(test, (label, end), {}) for test, end in ((ge, wanted.start), (le, wanted.stop)) if end is not None
        ]

    def _asked_by(self, part: Any) -> list[Condition]:
        return conditions_of(part, self.same_rows, self.source.form.index)

    def filtered(self, predicate: Any, count: int) -> Any:
        """The rows that pass a filter, of which the plan takes so many of `conditions_of`; None if it can take none.

        Other parts filter what these leave, as ``t2m > t2m.mean()`` does, where the mean is still of all rows.
        """
        taken: list[Condition] = []
        left = []
        for part in split(predicate):
            asked = self._asked_by(part)
            together = distinct([*taken, *asked])
            if asked and len(together) <= count:
                taken = together
            else:
                left.append(part)
        if not taken:
            return None
        fewer = self.substitute_parameters({"conditions": (*self.conditions, *taken)})
        if not left:
            return fewer

        def among_fewer(table: Any) -> Any:
            return fewer.substitute_parameters({"columns": table.operand("columns")})

        rest = moved(all_of(left), self.same_rows, among_fewer)
        return None if rest is None else Filter(fewer, rest)

    def located(self, loc: Any) -> Any:
        """The rows between two labels."""
        ends = loc.divisions[0], loc.divisions[-1]
        conditions = (*self.conditions, *self.conditions_of(loc))
        found: Any = self.substitute_parameters({"conditions": conditions, "ends": ends})
        return found if loc.cindexer is None else found[loc.cindexer]

    def counted(self, parent: Any) -> Any:
        """How many rows there are, from the plan; or else from what the filter needs alone."""
        if (rows := self.num_rows) is not None:
            return Literal(sum(rows) if isinstance(parent, Len) else tuple(rows))
        return type(parent)(self.substitute_parameters({"columns": []})) if self.columns else None

    # ------------------------------------------------------------------ fewer partitions for fewer columns

    def _tune_up(self, parent: Any) -> Any:
        together = min(int(1 / self._share), self.npartitions // _FEW)
        if self.most is not None or together < 2 or isinstance(parent, FusedIO):
            return None
        count = ceil(self.npartitions / together)
        joined = JoinedZarr(self, count)
        if isinstance(parent, Blockwise):
            for other in parent.dependencies():
                if other is not self and not parent._broadcast_dep(other):
                    parent = parent.substitute(other, Repartition(other, new_partitions=count))
        return parent.substitute(self, joined)

    @property
    def _share(self) -> float:
        """What is read and made, of what it would be with all columns."""
        plan = self.source.plan(self.conditions)
        tested = {c.name for test in plan.filters for c in test.columns}

        def weights(columns: Sequence[Column]) -> tuple[int, int]:
            read = sum(c.array.itemsize for c in plan.columns if c.array and c.role == "data" and c.name in tested)
            read += sum(c.array.itemsize for c in columns if c.array and c.role == "data" and c.name not in tested)
            return read, sum(c.width for c in columns) + _WORKED

        return max(
            mine / (everything or 1)
            for mine, everything in zip(weights(self._read_columns), weights(plan.columns), strict=True)
        )


class Columns(Projection):
    """Some columns of a scan: what filters them filters the scan."""

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, CUTS):
            return cut_down(self, parent, dependents)
        if isinstance(parent, Index):
            return Index(self.frame)
        return super()._simplify_up(parent, dependents)

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_be_cut(self, parent, dependents)


class Labels(Index):
    """The index of a scan: what filters it filters the scan, and its ends are those of the plan."""

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(self.frame, ReadZarr):
            if isinstance(parent, Len):
                return self.frame.counted(parent)
            if isinstance(parent, Min | Max) and (ends := self.frame.outermost) is not None:
                return Literal(ends[not isinstance(parent, Min)])  # to dask, Min is a kind of Max
        if isinstance(parent, CUTS):
            return cut_down(self, parent, dependents)
        return super()._simplify_up(parent, dependents)

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return may_be_cut(self, parent, dependents)


def cut_down(node: Any, top: Any, dependents: Any) -> Any:
    """A filter, or a choice of labels, of a scan, its columns or its index, as that of a scan of fewer rows.

    Returns
    -------
    Expr or None
        None if it is no such thing, or may not be yet, or never.
    """
    if not may_be_cut(node, top, dependents) or not is_complete(dependents, node, top):
        return None
    table = table_of(node)
    count = num_shared(table, top, dependents)
    found = table.filtered(top.predicate, count) if isinstance(top, Filter) else table.located(top)
    if found is None or node is table:
        return found
    if isinstance(found, Filter):
        return Filter(type(node)(found.frame, *node.operands[1:]), found.predicate)
    return type(node)(found, *node.operands[1:])


def may_be_cut(node: Any, top: Any, dependents: Any) -> bool:
    """Whether `cut_down` may give something, if not now then after other rules have been applied."""
    table = table_of(node)
    if table is None or not isinstance(top, CUTS) or top.frame is not node:
        return False
    if table.fixed or table.most is not None or table._filtered:  # their rows are counted, their partitions numbered
        return False
    asked = len(table.conditions_of(top))
    if not is_complete(dependents, node, top):
        return asked > 0
    count = num_shared(table, top, dependents)
    return count > 0 and (isinstance(top, Filter) or count == asked)


def table_of(node: Any) -> Any:
    """The scan of which a node is the whole, columns or the index; None for other nodes."""
    below = node if isinstance(node, ReadZarr) else node.frame
    return below if isinstance(below, ReadZarr) else None


class JoinedZarr(FusedIO):
    """A scan of few columns, several partitions of which are read as one."""

    _parameters = ["_expr", "num_joined"]  # noqa: RUF012  as dask has it

    @cached_property
    def _name(self) -> str:
        return f"read-zarr-joined-{self.deterministic_token}"

    @cached_property
    def _fusion_buckets(self) -> list[Sequence[int]]:
        wanted = self.operand("_expr")._partitions
        # as Repartition joins them, so that what goes row by row with them stays beside them
        cuts = RepartitionToFewer._compute_partition_boundaries(self.num_joined, len(wanted))
        return [wanted[start:stop] for start, stop in pairwise(cuts)]

    def _divisions(self) -> Divisions:
        divisions = self.operand("_expr").divisions
        cuts = RepartitionToFewer._compute_partition_boundaries(self.num_joined, len(divisions) - 1)
        return tuple(divisions[cut] for cut in cuts)

    def _task(self, name: Any, index: int) -> Task:
        return self.operand("_expr").read(name, self._fusion_buckets[index])

    def _tree_repr_lines(self, indent: int = 0, recursive: bool = True) -> list[str]:
        (line,) = self.operand("_expr")._tree_repr_lines(indent, recursive)
        return [f"{line}, joined to {self.num_joined:,} partitions"]
