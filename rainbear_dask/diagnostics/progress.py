"""A progress bar for scans, where one is asked for."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import IO, TypeVar

import polars as pl

from rainbear_dask.planning.plan import ReadPlan

T = TypeVar("T")

_shown_on: list[IO[str] | None] = []


@contextmanager
def progress(file: IO[str] | None = None) -> Iterator[None]:
    """Show a bar for each scan that runs meanwhile, on whichever thread: its tasks, how many are done, and their rows.

    Parameters
    ----------
    file : text file, optional
        Where to; by default standard error, which a notebook shows as text, without widgets.

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
    """Pass on what the tasks of a plan give, and show it on a bar if bars are wanted now.

    Parameters
    ----------
    values : iterator
        One value for each task; closed with this one.
    plan : ReadPlan
        Whose tasks they are.

    Returns
    -------
    iterator
        The same values.
    """
    return _counted(values, plan) if _shown_on else values


def _counted(values: Iterator[T], plan: ReadPlan) -> Iterator[T]:
    with closing(values), bar(plan) as advance:  # type: ignore[type-var]  # a generator
        for value in values:
            advance(value)
            yield value


@contextmanager
def bar(plan: ReadPlan) -> Iterator[Callable[[object], None]]:
    """Show a bar for a plan, if bars are wanted now; what it gives is to be called with what each task gives."""
    if not _shown_on:
        yield lambda _: None
        return
    from tqdm import tqdm  # noqa: PLC0415  only where it is wanted

    rows = 0

    def advance(value: object) -> None:
        nonlocal rows
        if isinstance(value, pl.DataFrame):
            rows += value.height
            line.set_postfix_str(f"{rows:,} rows", refresh=False)
        line.update()

    total = plan.num_tasks if plan.limit is None else None
    with tqdm(total=total, file=_shown_on[-1], desc=f"scan {plan.table.spec.label}"[-50:], unit=" tasks") as line:
        yield advance
