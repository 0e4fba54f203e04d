"""Progress bars for scans."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import IO, TypeVar

import polars as pl

from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.resources.limits import readable_bytes

T = TypeVar("T")

_shown_on: list[IO[str] | None] = []


@contextmanager
def progress(file: IO[str] | None = None) -> Iterator[None]:
    """Show a bar for each scan that runs inside the block, on any thread: finished tasks, all tasks, rows and bytes.

    Bytes are the size of the rows in memory.

    `sample` shows one for each batch of points, and `zonal` one for each query, without rows.

    Parameters
    ----------
    file : text file, optional
        Destination; by default standard error, or a widget in a notebook that has ipywidgets.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> with rd.progress():
    ...     frame = rd.scan_zarr("sst.zarr").collect()
    """
    _shown_on.append(file)
    try:
        yield
    finally:
        _shown_on.remove(file)


def shown(values: Iterator[T], plan: ReadPlan, *, one_a_task: bool = True) -> Iterator[T]:
    """Pass on the results of the tasks of a plan, with a bar if `progress` is active.

    Parameters
    ----------
    values : iterator
        Results of the tasks; closed together with the returned iterator.
    plan : ReadPlan
        The plan of the tasks.
    one_a_task : bool
        Whether each task has a result of its own. Otherwise the bar has no end, because their number is unknown.

    Returns
    -------
    iterator
        The same results.
    """
    return counted(values, _title(plan), lambda: _num_tasks(plan) if one_a_task else None)


def counted(values: Iterator[T], title: str, total: Callable[[], int | None]) -> Iterator[T]:
    """Pass on the results of tasks as `shown` does; a bar calls ``total`` for their number, which may be unknown."""
    return _counted(values, title, total) if _shown_on else values


def _counted(values: Iterator[T], title: str, total: Callable[[], int | None]) -> Iterator[T]:
    with closing(values), _bar(title, total) as advance:  # type: ignore[type-var]  # a generator
        for value in values:
            advance(value)
            yield value


def bar(plan: ReadPlan) -> AbstractContextManager[Callable[[object], None]]:
    """Show a bar for a plan if `progress` is active; yield the function to call with the result of each task."""
    return _bar(_title(plan), lambda: _num_tasks(plan))


def _title(plan: ReadPlan) -> str:
    return f"scan {plan.table.spec.label}"


def _num_tasks(plan: ReadPlan) -> int | None:
    """Return the number of tasks; None if a limit of rows may spare some."""
    return plan.counts.num_tasks if plan.limit is None else None


@contextmanager
def _bar(title: str, total: Callable[[], int | None]) -> Iterator[Callable[[object], None]]:
    if not _shown_on:
        yield lambda _: None
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # a notebook without ipywidgets shows text
        from tqdm.auto import tqdm  # noqa: PLC0415  only scans with a bar need it

    rows = size = 0

    def advance(value: object) -> None:
        nonlocal rows, size
        if isinstance(value, pl.DataFrame):
            rows, size = rows + value.height, size + int(value.estimated_size())
            line.set_postfix_str(f"{rows:,} rows, {readable_bytes(size)}", refresh=False)
        line.update()

    with tqdm(total=total(), file=_shown_on[-1], desc=title[-50:], unit=" tasks") as line:
        yield advance
