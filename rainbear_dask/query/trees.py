"""An expression as plain data: Polars' own serialized form, read and edited."""

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgpack
import polars as pl

Tree: TypeAlias = Any
"""An expression, or a node of a plan, as nested dicts, lists and scalars."""


def tree_of(expr: pl.Expr) -> Tree:
    """Return an expression as a tree."""
    return msgpack.unpackb(expr.meta.serialize(), strict_map_key=False)


def expr_of(tree: Tree) -> pl.Expr:
    """Return the expression of a tree."""
    return pl.Expr.deserialize(io.BytesIO(msgpack.packb(tree)))


def mapped(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """Return a tree with each part replaced by ``change(part)``, from the root on; no replacement is searched."""
    changed = change(tree)
    if changed is not tree:
        return changed
    if isinstance(tree, dict):
        return {name: mapped(part, change) for name, part in tree.items()}
    return [mapped(part, change) for part in tree] if isinstance(tree, list) else tree


def with_inputs(function: Tree, inputs: Sequence[pl.Expr]) -> Tree:
    """Return a function of other inputs."""
    return {"Function": {**function["Function"], "input": [tree_of(each) for each in inputs]}}
