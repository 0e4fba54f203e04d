"""Progress bars for scans."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import IO, TypeVar

import polars as pl

from rainbear_dask.planning.plan import ReadPlan

T = TypeVar("T")

_shown_on: list[IO[str] | None] = []


@contextmanager
def progress(file: IO[str] | None = None) -> Iterator[None]:
    """Show a bar for each scan that runs inside the block, on any thread: finished tasks, all tasks, and rows.

    `sample` shows one for each batch of points, and `zonal` one for each query, without rows.

    Parameters
    ----------
    file : text file, optional
        Destination; by default standard error, which a notebook shows as text, without widgets.

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


def shown(values: Iterator[T], plan: ReadPlan) -> Iterator[T]:
    """Pass on the results of the tasks of a plan, with a bar if `progress` is active.

    Parameters
    ----------
    values : iterator
        One result for each task; closed together with the returned iterator.
    plan : ReadPlan
        The plan of the tasks.

    Returns
    -------
    iterator
        The same results.
    """
    return counted(values, *_title_and_total(plan))


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
    return _bar(*_title_and_total(plan))


def _title_and_total(plan: ReadPlan) -> tuple[str, Callable[[], int | None]]:
    return f"scan {plan.table.spec.label}", lambda: plan.counts.num_tasks if plan.limit is None else None


@contextmanager
def _bar(title: str, total: Callable[[], int | None]) -> Iterator[Callable[[object], None]]:
    if not _shown_on:
        yield lambda _: None
        return
    from tqdm import tqdm  # noqa: PLC0415  only scans with a bar need it

    rows = 0

    def advance(value: object) -> None:
        nonlocal rows
        if isinstance(value, pl.DataFrame):
            rows += value.height
            line.set_postfix_str(f"{rows:,} rows", refresh=False)
        line.update()

    with tqdm(total=total(), file=_shown_on[-1], desc=title[-50:], unit=" tasks") as line:
        yield advance
