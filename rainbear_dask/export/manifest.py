"""The manifest of an export: a JSON line for the plan, then one for each finished task."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

from rainbear_dask.exceptions import TargetExistsError
from rainbear_dask.storage.targets import Target

SUFFIX = ".manifest.jsonl"

_SAVE_SECONDS = 10
"""Time between two copies of the manifest on an object store, which cannot append. Later tasks would run again."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A finished task.

    Parameters
    ----------
    task : str
        Name of the task, and the stem of its files.
    rows : int
        Rows that it wrote.
    files : mapping of str to int
        Bytes of each of its files, by path below the folder.
    """

    task: str
    rows: int
    files: Mapping[str, int]


class Manifest:
    """The finished tasks of one export.

    Parameters
    ----------
    target : Target
        The folder of the export; the manifest lies beside it.
    header : mapping
        JSON that identifies the plan.
    records : mapping of str to TaskRecord
        Finished tasks by name.
    """

    def __init__(self, target: Target, header: Mapping[str, Any], records: Mapping[str, TaskRecord]) -> None:
        self.records = dict(records)
        self._file, self.header = target.beside(SUFFIX), header
        self._saved, self._is_saved = time.monotonic(), False
        self.save()

    def add(self, record: TaskRecord) -> None:
        """Record a finished task: at once in a local file, now and then on an object store."""
        self.records[record.task] = record
        self._is_saved = False
        if self._file.path is not None:
            with self._file.path.open("a", encoding="utf-8") as file:
                file.write(_line(asdict(record)))
        elif time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the manifest as a whole, unless all of it is written."""
        if not self._is_saved:
            self._file.write("", self._fill)
            self._saved, self._is_saved = time.monotonic(), True

    def _fill(self, file: IO[bytes]) -> None:
        for line in (self.header, *map(asdict, self.records.values())):
            file.write(_line(line).encode())


def read_manifest(target: Target) -> tuple[Mapping[str, Any], dict[str, TaskRecord]] | None:
    """Read the manifest beside a folder; None if there is none.

    Returns
    -------
    header : mapping
        JSON that identifies the plan.
    records : dict of str to TaskRecord
        Finished tasks by name. A line that was cut when its writer died is ignored: its task runs again.

    Raises
    ------
    TargetExistsError
        If the file is not a manifest.
    """
    file = target.beside(SUFFIX)
    content = file.read("")
    if content is None:
        return None
    lines = [found for line in content.splitlines() if isinstance(found := _parsed(line), dict)]
    if not lines or "plan" not in lines[0]:
        raise TargetExistsError(f"{file.label} is not the manifest of an export. Name another folder, or remove it.")
    records = [TaskRecord(**line) for line in lines[1:] if line.keys() == {"task", "rows", "files"}]
    return lines[0], {record.task: record for record in records}


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
