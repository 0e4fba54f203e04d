"""Partial states of groups, how they merge, and the results that they finish to.

The kinds of states are ``n``: values that are not null; ``missing``: cells of the group without a value; ``sum``: in the
widest type of the values' kind; ``fsum``: in float64; ``min``; ``max``; ``m2``: squared deviations from the group's
mean, which needs ``n`` and ``fsum``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Key: TypeAlias = tuple[int, str]
"""Number of an operand, or `CELLS`, and the kind of a state."""

CELLS = -1
"""Stands in a key for the cells themselves."""


class GroupStates:
    """States of several operands over the same groups.

    Parameters
    ----------
    shape : tuple of int
        Number of groups of each block.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.arrays: dict[Key, Array] = {}

    def add(self, operand: int, at: Any, parts: Mapping[str, Array], *, adopt: bool = False) -> None:
        """Merge states of one operand into some groups.

        Parameters
        ----------
        operand : int
            Number of the operand, or `CELLS`.
        at : tuple
            Index of the groups in an array of the shape of all groups.
        parts : mapping of str to ndarray
            Arrays over these groups, by kind.
        adopt : bool
            Whether the arrays may become states themselves, because the caller drops them.
        """
        if "m2" in parts:
            self._add_squares(operand, at, parts)
        for kind, part in parts.items():
            if kind == "m2":
                continue
            if part.shape == self.shape and (operand, kind) not in self.arrays:  # all groups, for the first time
                self.arrays[operand, kind] = part if adopt and _is_state(kind, part) else widened(kind, part)
                continue
            state = self._array((operand, kind), part.dtype)
            if kind in _MERGES:
                merge = _MERGES[kind]
                state[at] = merge(state[at], part)
            else:
                state[at] += part

    def _add_squares(self, operand: int, at: Any, parts: Mapping[str, Array]) -> None:
        """Merge squared deviations by the formula of Chan, Golub and LeVeque."""
        squares = self._array((operand, "m2"), np.dtype(np.float64))
        n, total = (self._array((operand, kind), np.dtype(kind_type))[at] for kind, kind_type in _MOMENTS)
        more_n, more_total = parts["n"], parts["fsum"]
        with np.errstate(all="ignore"):
            apart = more_total / more_n - total / n
            between = apart * apart * (n * (more_n / (n + more_n)))
        squares[at] += parts["m2"] + np.where((n > 0) & (more_n > 0), between, 0.0)

    def _array(self, key: Key, dtype: np.dtype[Any]) -> Array:
        if key not in self.arrays:
            self.arrays[key] = np.full(self.shape, *_initial(key[1], dtype))
        return self.arrays[key]


def widened(kind: str, part: Array) -> Array:
    """Return a copy of a part of some states, in the type of the states."""
    return np.array(part, dtype=_initial(kind, part.dtype)[1], order="C")


def _is_state(kind: str, part: Array) -> bool:
    return part.flags.writeable and part.flags.c_contiguous and part.dtype == _initial(kind, part.dtype)[1]


def by_operand(arrays: Mapping[Key, Array]) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield the states of each operand, by kind."""
    for operand in dict.fromkeys(operand for operand, _ in arrays):
        yield operand, {kind: part for (owner, kind), part in arrays.items() if owner == operand}


_MERGES: dict[str, Any] = {"min": np.fmin, "max": np.fmax}
_MOMENTS = (("n", np.int64), ("fsum", np.float64))


def _initial(kind: str, dtype: np.dtype[Any]) -> tuple[Any, np.dtype[Any]]:
    """Return the value of a state of no cell, and the type of the state."""
    if kind in _MERGES:
        return neutral(kind, dtype), dtype
    if kind in {"n", "missing"}:
        return 0, np.dtype(np.int64)
    return 0, wide_type(dtype) if kind == "sum" else np.dtype(np.float64)


def wide_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which values are summed up."""
    return np.dtype({"f": np.float64, "u": np.uint64}.get(dtype.kind, np.int64))


def neutral(kind: str, dtype: np.dtype[Any]) -> Any:
    """Return the value that changes no minimum, or no maximum."""
    if dtype.kind == "f":
        return np.nan
    return np.iinfo(dtype).max if kind == "min" else np.iinfo(dtype).min
