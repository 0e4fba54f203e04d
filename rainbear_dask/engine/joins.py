"""Joins with a small table that gives each row at most one partner, as expressions of the key."""

import polars as pl

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.serialized import LogicalPlan, column_name, fields_of, kind_of
from rainbear_dask.query.trees import Tree, expr_of, tree_of

_MAX_ROWS = 10_000
"""Rows of the small table, at most: workers get its columns as literals."""

_HOW = {"Inner": "inner", "Left": "left", "Semi": "semi", "Anti": "anti"}

Schema = dict[str, pl.DataType]


def joined(
    plan: LogicalPlan, node: Tree, schema: Schema, meanings: dict[str, Tree]
) -> tuple[Schema, dict[str, Tree], list[Tree]]:
    """Return the columns after a join, and the conditions that it adds.

    Parameters
    ----------
    plan : LogicalPlan
        The plan of the node.
    node : Tree
        The join; its left input is the scan's.
    schema : dict of str to DataType
        Columns of the left input.
    meanings : dict of str to Tree
        These columns as expressions of the scan's columns.

    Returns
    -------
    dict of str to DataType
        Columns of the result.
    dict of str to Tree
        These as expressions of the scan's columns.
    list of Tree
        Conditions of the rows, as such expressions.

    Raises
    ------
    Unsplit
        If the join multiplies rows, has several keys, or is of a kind that needs the rows.
    """
    fields = fields_of(node)
    on, arguments = fields["condition"]["Equi"], fields["options"]["args"]
    how = _HOW.get(arguments["how"]) if isinstance(arguments["how"], str) else None
    if how is None or len(on["left_on"]) != 1:
        raise Unsplit("the join has several keys, or is of another kind than inner, left, semi and anti")
    left_name, right_name = column_name(on["left_on"][0]), column_name(on["right_on"][0])
    if left_name is None or right_name is None:
        raise Unsplit("the key of the join is no plain column")
    small = _small(plan, node, right_name)
    suffix = arguments["suffix"] or "_right"
    made = pl.LazyFrame(schema=schema).join(
        pl.LazyFrame(schema=small.schema),
        left_on=left_name,
        right_on=right_name,
        how=how,  # type: ignore[arg-type]
        suffix=suffix,
    )
    plan.check_join(node, made)
    key, known = expr_of(meanings[left_name]), small[right_name]
    if known.dtype != schema[left_name]:
        raise Unsplit("the keys of the join have two types")
    found = dict(made.collect_schema())
    partner = key.is_in(known.implode())
    if how in {"semi", "anti"}:
        return found, meanings, [tree_of(partner if how == "semi" else ~partner.fill_null(value=False))]
    columns = dict(meanings)
    for name in small.columns:
        new = name + suffix if name in schema else name
        if name != right_name and new in found:
            values = small[name]
            columns[new] = tree_of(key.replace_strict(known, values, default=None, return_dtype=values.dtype))
    if set(columns) != set(found):
        raise Unsplit("the join names its columns in an unknown way")
    return found, {name: columns[name] for name in found}, [tree_of(partner)] if how == "inner" else []


def _small(plan: LogicalPlan, node: Tree, key: str) -> pl.DataFrame:
    """Return the right table of a join, without null keys, which have no partner."""
    right = plan.inputs(node)[1]
    if not all(kind_of(each) in _IN_MEMORY for each in plan.nodes(right)):
        raise Unsplit("the other table of the join is not in memory")
    table = plan.frame_of(right).collect(engine="in-memory")
    if table.height > _MAX_ROWS:
        raise Unsplit(f"the other table of the join has more than {_MAX_ROWS:,} rows")
    table = table.drop_nulls(key)
    keys = table[key]
    if keys.dtype.is_nested() or (keys.dtype.is_float() and keys.is_nan().any()):
        raise Unsplit("a key of the join is NaN or nested")
    if keys.n_unique() != len(keys):
        raise Unsplit("a row has several partners in the join")
    return table


_IN_MEMORY = {"DataFrameScan", "Filter", "Select", "HStack"}
