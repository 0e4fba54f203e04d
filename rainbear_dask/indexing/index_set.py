"""Sets of positions along one dimension, as spans in NumPy arrays."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class IndexSet:
    """Positions along one dimension, as sorted, disjoint, non-adjacent half-open spans.

    The normal form is unique: two sets are equal if their spans are.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (n,)
        Span ``i`` is ``starts[i] <= position < stops[i]``.

    Raises
    ------
    ValueError
        If the spans are not in that normal form.
    """

    starts: Positions
    stops: Positions

    def __post_init__(self) -> None:
        if len(self.starts) == 1:  # most sets; the general case takes ten times as long, here and below
            normal = self.starts.item() < self.stops.item()
        else:
            normal = bool((self.starts < self.stops).all() and (self.stops[:-1] < self.starts[1:]).all())
        if not normal:
            raise ValueError("Spans must be non-empty, sorted, disjoint and not adjacent.")

    @classmethod
    def from_spans(cls, spans: npt.ArrayLike) -> Self:
        """Return the union of half-open spans, in any order; spans may be empty."""
        pairs = np.array(spans, dtype=np.int64).reshape(-1, 2)
        return cls._union(pairs[:, 0], pairs[:, 1])

    @classmethod
    def from_mask(cls, mask: npt.NDArray[np.bool_]) -> Self:
        """Return the positions at which ``mask``, of shape (n,), is true."""
        first, count = int(mask.argmax()) if mask.size else 0, int(np.count_nonzero(mask))
        if mask[first : first + count].all():  # most masks; the general case takes ten times as long
            return cls.span(first, first + count)
        edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).astype(np.int64)
        return cls(edges[::2], edges[1::2])

    @classmethod
    def from_positions(cls, positions: Positions) -> Self:
        """Return the set of some positions, in any order; positions may repeat."""
        return cls._union(positions, positions + 1)

    @classmethod
    def span(cls, start: int, stop: int) -> Self:
        """Return the positions from ``start`` up to but not including ``stop``."""
        return cls._union(np.array([start], dtype=np.int64), np.array([stop], dtype=np.int64))

    @classmethod
    def union(cls, sets: Iterable[Self]) -> Self:
        """Return the positions that any of some sets holds; at least one set is given."""
        starts, stops = zip(*((one.starts, one.stops) for one in sets), strict=True)
        return cls._union(np.concatenate(starts), np.concatenate(stops))

    @classmethod
    def _union(cls, starts: Positions, stops: Positions) -> Self:
        some = starts < stops
        if len(starts) == 1 and some.item():
            return cls(starts, stops)
        starts, stops = starts[some], stops[some]
        order = np.argsort(starts, kind="stable")
        starts, reach = starts[order], np.maximum.accumulate(stops[order])
        fresh = np.ones(len(starts), dtype=bool)
        fresh[1:] = starts[1:] > reach[:-1]  # adjacent spans join: start == reach is not fresh
        last = np.append(fresh[1:], True) if len(starts) else fresh
        return cls(starts[fresh], reach[last])

    def __reduce__(self) -> tuple[Any, ...]:
        ends = np.concatenate([self.starts, self.stops])
        narrow = np.uint32 if self.hull[1] < 2**32 else np.int64  # a task may hold hundreds of boxes
        return _from_bytes, (ends.astype(narrow).tobytes(), np.dtype(narrow).str)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexSet):
            return NotImplemented
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.stops, other.stops)

    def __hash__(self) -> int:
        if len(self.starts) == 1:
            return hash((1, self.starts.item(), self.stops.item()))
        return hash((len(self.starts), int(self.starts.sum()), int(self.stops.sum())))  # without a copy of the spans

    def __len__(self) -> int:
        if len(self.starts) == 1:
            return self.stops.item() - self.starts.item()
        return int((self.stops - self.starts).sum())

    def __bool__(self) -> bool:
        return len(self.starts) > 0

    def __or__(self, other: Self) -> Self:
        return self.union([self, other])

    def __and__(self, other: Self) -> Self:
        if len(self.starts) == len(other.starts) == 1:
            return self._union(np.maximum(self.starts, other.starts), np.minimum(self.stops, other.stops))
        if len(self.starts) > len(other.starts):
            return other & self  # look few spans up among many
        # spans first..last-1 of other overlap each span of self
        first = np.searchsorted(other.stops, self.starts, side="right")
        last = np.searchsorted(other.starts, self.stops, side="left")
        mine = np.repeat(np.arange(len(self.starts)), last - first)
        offset = np.arange(len(mine)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
        theirs = first[mine] + offset
        return type(self)(
            np.maximum(self.starts[mine], other.starts[theirs]),
            np.minimum(self.stops[mine], other.stops[theirs]),
        )

    @property
    def hull(self) -> tuple[int, int]:
        """Smallest span that holds every position; (0, 0) if the set is empty."""
        return (int(self.starts[0]), int(self.stops[-1])) if self else (0, 0)

    def whole_chunks(self, size: int, length: int) -> Self:
        """Return all positions of the chunks that hold a position, clipped to the length of the dimension."""
        chunks = self.chunks(size)
        return type(self)(chunks.starts * size, np.minimum(chunks.stops * size, length))

    def within_chunks(self, chunks: Self, size: int) -> Self:
        """Return the positions that lie in some chunks of ``size`` positions; ``chunks`` holds chunk indices."""
        return self & type(self)(chunks.starts * size, chunks.stops * size)

    def first(self, count: int) -> Self:
        """Return the ``count`` lowest positions, or all if there are fewer."""
        (lowest,) = self.split([0, max(count, 0)])
        return lowest

    def split(self, cuts: Sequence[int] | Positions) -> Iterator[Self]:
        """Split by rank: for each consecutive pair in ``cuts``, yield the positions whose rank lies in that half-open range."""
        before = self._before()
        firsts = np.searchsorted(before, cuts, side="right") - 1
        lasts = np.searchsorted(before, cuts, side="left")
        for start, stop, first, last in zip(cuts[:-1], cuts[1:], firsts[:-1], lasts[1:], strict=True):
            some = slice(max(first, 0), last)
            shift = self.starts[some] - before[some]
            yield self._union(np.maximum(self.starts[some], shift + start), np.minimum(self.stops[some], shift + stop))

    def count_below(self, bounds: Positions) -> Positions:
        """Return, for each bound, the number of lower positions."""
        begun = np.searchsorted(self.starts, bounds, side="left")
        beyond = np.maximum(
            np.append(0, self.stops)[begun] - bounds, 0
        )  # positions of the last begun span at or above the bound
        counts: Positions = np.append(0, np.cumsum(self.stops - self.starts))[begun] - beyond
        return counts

    def at(self, ranks: Positions) -> Positions:
        """Return the position of each rank; a rank is less than ``len(self)``."""
        before = self._before()
        span = np.searchsorted(before, ranks, side="right") - 1
        positions: Positions = self.starts[span] + ranks - before[span]
        return positions

    def _before(self) -> Positions:
        """Return the number of positions before each span."""
        lengths = self.stops - self.starts
        before: Positions = np.cumsum(lengths) - lengths
        return before

    def positions(self) -> Positions:
        """Return all positions, ascending, shape (len(self),)."""
        if len(self.starts) == 1:
            return np.arange(self.starts.item(), self.stops.item(), dtype=np.int64)
        skipped = np.repeat(self.starts - self._before(), self.stops - self.starts)
        positions: Positions = np.arange(len(skipped), dtype=np.int64) + skipped
        return positions

    def chunks(self, size: int) -> Self:
        """Return the indices of the chunks of ``size`` positions that hold a position of the set."""
        return self._union(self.starts // size, -(-self.stops // size))

    def runs(self, size: int) -> list[tuple[int, int]]:
        """Return the spans to read: one for each run of adjacent chunks of ``size``, no wider than the set needs.

        Every position of the set lies in one span. Each chunk that holds a position meets exactly one span.
        """
        if len(self.starts) == 1:
            return [self.hull]
        touched = self.chunks(size)
        first = np.searchsorted(self.starts, touched.starts * size, side="left")
        last = np.searchsorted(self.stops, touched.stops * size, side="right") - 1
        return list(zip(self.starts[first].tolist(), self.stops[last].tolist(), strict=True))


def _from_bytes(ends: bytes, dtype: str) -> IndexSet:
    starts, stops = np.frombuffer(ends, dtype).astype(np.int64).reshape(2, -1)
    return IndexSet(starts, stops)
