"""A plan that Polars made of SQL as a plan of steps, which engines can read.

Polars keeps a statement as one step, and resolves it when it optimizes. This module asks Polars for the resolved steps,
by the interface that Polars has for other engines, and builds the same steps by public calls. Then it asks again, about
its own query. Unless every field of every step and of every expression is equal, the statement stays one step.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import getclosurevars
from typing import Any, Literal

import polars as pl
from polars.io.plugins import register_io_source

Dump = tuple[Any, ...]
"""A step or an expression: its kind, its fields by name, and its parts."""


class _NotKnownError(Exception):
    """A step or an expression that this module does not build."""


class _Table:
    """Stands for a table; nobody reads it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: Any) -> Any:
        raise _NotKnownError(self.name)


def lowered(statement: str, frames: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame | None:
    """Return a statement as a query of plain steps.

    Parameters
    ----------
    statement : str
        One statement of Polars' SQL.
    frames : mapping of str to LazyFrame
        Its tables.

    Returns
    -------
    LazyFrame or None
        None if a step is not known, or if Polars would not resolve both to equal steps.
    """
    if re.search(r"\.\d{7}", statement):  # Polars shows times with microseconds only
        return None
    try:
        blanks = {name: _blank(name, frame) for name, frame in frames.items()}
        query = pl.SQLContext(frames=blanks).execute(statement, eager=False)
        steps = _steps_of(query)
        rebuilt = _frame(steps, blanks)
        return _frame(steps, frames) if _steps_of(rebuilt) == steps else None
    except Exception:  # noqa: BLE001  the interface is not public, and the statement is right as it is
        return None


def _blank(name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    return register_io_source(_Table(name), schema=frame.collect_schema(), is_pure=True)


# ---------------------------------------------------------------------- what Polars resolves


def _steps_of(query: pl.LazyFrame) -> Dump:
    plain = query._ldf.with_optimizations(pl.QueryOptFlags.none()._pyoptflags)  # noqa: SLF001
    return _step(plain.visit())


def _step(visitor: Any) -> Dump:
    node, inputs = visitor.view_current_node(), visitor.get_inputs()
    kind = type(node).__name__
    if kind == "PythonScan":
        return ("PythonScan", (("name", getclosurevars(node.options[0]).nonlocals["io_source"].name),), ())
    left_out = {"input", "input_left", "input_right"} | ({"options"} if kind == "GroupBy" else set())
    fields = tuple((name, _field(visitor, getattr(node, name))) for name in _names(node) if name not in left_out)
    below = []
    for each in inputs:
        visitor.set_node(each)
        below.append(_step(visitor))
    return (kind, fields, tuple(below))


def _field(visitor: Any, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_field(visitor, each) for each in value)
    if hasattr(value, "output_name"):
        return ("named", value.output_name, _expression(visitor, value.node))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise _NotKnownError(type(value).__name__)


_PARTS = {
    "Column": (),
    "Literal": (),
    "Len": (),
    "BinaryExpr": ("left", "right"),
    "Cast": ("expr",),
    "Agg": ("arguments",),
    "Function": ("input",),
    "Ternary": ("predicate", "truthy", "falsy"),
}
"""The fields of each kind of expression that hold other expressions, in order."""


def _expression(visitor: Any, number: int) -> Dump:
    found = visitor.view_expression(number)
    kind = type(found).__name__
    if kind not in _PARTS:
        raise _NotKnownError(kind)
    numbers = [getattr(found, name) for name in _PARTS[kind]]
    flat = [each for part in numbers for each in (part if isinstance(part, list) else [part])]
    fields = tuple((name, _plain(getattr(found, name))) for name in _names(found) if name not in _PARTS[kind])
    return (kind, fields, tuple(_expression(visitor, each) for each in flat))


def _plain(value: Any) -> Any:
    if type(value).__name__ == "PySeries":
        series = pl.Series._from_pyseries(value)  # noqa: SLF001
        return ("series", series.dtype, tuple(series.to_list()))
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return str(value) if type(value).__module__ in ("builtins", "polars._plr") and _is_name(value) else value


def _is_name(value: Any) -> bool:
    """Whether a value is one of Polars' own names: ``Operator.Gt``, ``TemporalFunction.Month``."""
    return re.fullmatch(r"\w+\.\w+", str(value)) is not None and not isinstance(value, str | int | float)


def _names(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_") and not callable(getattr(value, name))]


# ---------------------------------------------------------------------- the same by public calls


def _frame(step: Dump, tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    kind, fields, below = step
    found = dict(fields)
    if kind == "PythonScan":
        return tables[found["name"]]
    frame, *others = (_frame(each, tables) for each in below)
    match kind:
        case "Join" if len(others) == 1 and found["options"][0] in _JOINS and found["left_on"]:
            how, nulls_equal, _, suffix, coalesce, order = found["options"]
            return frame.join(
                others[0],
                left_on=[_expr(tree) for _, _, tree in found["left_on"]],
                right_on=[_expr(tree) for _, _, tree in found["right_on"]],
                how=_JOINS[how],
                suffix=suffix,
                nulls_equal=nulls_equal,
                coalesce=coalesce,
                maintain_order=order,
            )
        case "Select":
            return frame.select(_exprs(found["expr"]))
        case "HStack":
            return frame.with_columns(_exprs(found["exprs"]))
        case "Filter":
            return frame.filter(_expr(found["predicate"][2]))
        case "GroupBy":
            return frame.group_by(_exprs(found["keys"])).agg(_exprs(found["aggs"]))
        case "Slice":
            return frame.slice(found["offset"], found["len"])
        case "Sort":
            stable, nulls_last, descending = found["sort_options"]
            keys = [_expr(tree) for _, _, tree in found["by_column"]]
            return frame.sort(keys, descending=descending, nulls_last=nulls_last, maintain_order=stable)
    raise _NotKnownError(kind)


_JOINS: Mapping[str, Literal["inner", "left", "right", "full", "semi", "anti"]] = {
    "Inner": "inner",
    "Left": "left",
    "Right": "right",
    "Full": "full",
    "Semi": "semi",
    "Anti": "anti",
}


def _exprs(named: Sequence[Any]) -> list[pl.Expr]:
    return [_expr(tree) if _name_of(tree) == name else _expr(tree).alias(name) for _, name, tree in named]


def _name_of(tree: Dump) -> str | None:
    return dict(tree[1])["name"] if tree[0] == "Column" else None


_OPERATORS: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "Gt": operator.gt,
    "GtEq": operator.ge,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "And": operator.and_,
    "Or": operator.or_,
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
    "TrueDivide": operator.truediv,
}
_AGGREGATES = {"mean": pl.Expr.mean, "sum": pl.Expr.sum, "min": pl.Expr.min, "max": pl.Expr.max, "count": pl.Expr.count}
_FUNCTIONS: Mapping[str, Callable[..., pl.Expr]] = {
    "BooleanFunction.IsNull": pl.Expr.is_null,
    "BooleanFunction.IsNotNull": pl.Expr.is_not_null,
    "BooleanFunction.Not": operator.invert,
    "BooleanFunction.IsIn": pl.Expr.is_in,
    "abs": pl.Expr.abs,
    **{
        f"TemporalFunction.{name.title()}": partial(lambda name, expr: getattr(expr.dt, name)(), name)
        for name in ("year", "month", "day", "hour", "minute", "second", "quarter", "week", "weekday")
    },
}


def _expr(tree: Dump) -> pl.Expr:
    kind, fields, parts = tree
    found = dict(fields)
    match kind:
        case "Column" if not found["name"].startswith("^") and found["name"] != "*":
            return pl.col(found["name"])
        case "Len":
            return pl.len()
        case "Literal":
            return _literal(found["value"], found["dtype"])
        case "BinaryExpr":
            return _OPERATORS[found["op"].removeprefix("Operator.")](*map(_expr, parts))
        case "Cast":
            strict, wraps = found["options"] == 0, found["options"] == 2
            return _expr(parts[0]).cast(found["dtype"], strict=strict, wrap_numerical=wraps)
        case "Agg" if len(parts) == 1:
            return _AGGREGATES[found["name"]](_expr(parts[0]))
        case "Function":
            return _FUNCTIONS[found["function_data"][0]](*map(_expr, parts))
        case "Ternary":
            predicate, truthy, falsy = map(_expr, parts)
            return pl.when(predicate).then(truthy).otherwise(falsy)
    raise _NotKnownError(kind)


def _literal(value: Any, dtype: pl.DataType) -> pl.Expr:
    if dtype in (pl.Duration, pl.Time):  # the value may have lost its nanoseconds
        raise _NotKnownError("Literal")
    if isinstance(value, tuple):
        return pl.lit(pl.Series(value[2], dtype=value[1]))
    # Polars makes the literal a Float32 beside Float32. `engine.serialized` does not read one of that type.
    return pl.lit(value, dtype=None if dtype in (pl.Null, pl.Float32) else dtype)
