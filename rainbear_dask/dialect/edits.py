"""A text with some spans replaced, and where each place of the new text was in the old one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rainbear_dask.dialect.tokens import place_of


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """A span of a text, and its replacement."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class EditedText:
    """A text with edits.

    Parameters
    ----------
    original : str
        The text before.
    edits : tuple of Edit
        In order, without overlaps.
    """

    original: str
    edits: tuple[Edit, ...]

    @classmethod
    def of(cls, original: str, edits: Iterable[Edit]) -> "EditedText":
        """Return a text with edits in any order."""
        return cls(original, tuple(sorted(edits)))

    def __str__(self) -> str:
        parts, place = [], 0
        for edit in self.edits:
            parts += [self.original[place : edit.start], edit.text]
            place = edit.end
        return "".join([*parts, self.original[place:]])

    def original_offset(self, offset: int) -> int:
        """Return where a place of the new text was in the original; inside of a replacement, where its span begins."""
        shift = 0
        for edit in self.edits:
            begin = edit.start + shift
            if offset < begin:
                break
            if offset < begin + len(edit.text):
                return edit.start
            shift += len(edit.text) - (edit.end - edit.start)
        return offset - shift

    def in_original(self, message: str) -> str:
        """Return a message of Polars with the places that it names moved to the original text."""
        return _PLACE.sub(self._moved, message)

    def _moved(self, place: re.Match[str]) -> str:
        lines = str(self).split("\n")
        line, column = int(place["line"]), int(place["column"])
        offset = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
        return place_of(self.original, self.original_offset(offset))


_PLACE = re.compile(r"Line: (?P<line>\d+), Column: (?P<column>\d+)")
