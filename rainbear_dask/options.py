"""Options of the public functions: a misspelt keyword is an error that names the nearest option."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast, get_args

from rainbear_dask.exceptions import UnknownOptionError

P = ParamSpec("P")
T = TypeVar("T")


def checks_options(func: Callable[P, T]) -> Callable[P, T]:
    """Make a function raise `UnknownOptionError` for a keyword that it does not have.

    Parameters
    ----------
    func : callable
        A function, method or coroutine function. Its options are its parameters, with the keys of
        ``**options: Unpack[...]`` if it has that.

    Returns
    -------
    callable
        The function with the same signature.
    """
    # a class is called by its own name
    name, known = func.__qualname__.removesuffix(".__init__").rpartition(".")[2], list(_options_of(func))

    if inspect.iscoroutinefunction(func):

        @wraps(func)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
            _check(name, known, kwargs)
            return await func(*args, **kwargs)

        return cast(Callable[P, T], awaited)

    @wraps(func)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        _check(name, known, kwargs)
        return func(*args, **kwargs)

    return checked


def _options_of(func: Callable[..., object]) -> Iterator[str]:
    for parameter in inspect.signature(func).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            (options,) = get_args(parameter.annotation)
            yield from options.__annotations__
        elif parameter.name != "self":
            yield parameter.name


_SYNONYMS = {
    "predicate": ("filter", "filters", "where", "condition"),
    "columns": ("select", "with_columns", "usecols", "projection"),
    "n_rows": ("head", "limit", "nrows"),
    "max_chunks_to_read": ("max_chunks", "chunk_limit"),
    "variables": ("data_vars", "variable", "var"),
    "storage_options": ("fs_options", "backend_kwargs", "options"),
}
"""Names of other functions and libraries for the same options."""

_ELSEWHERE = {
    ("plan", "client"): "A method of the plan takes it: plan(...).collect(client).",
    ("read_zarr", "client"): "Dask takes it: client.compute(frame), or the active client.",
    ("scan_zarr", "predicate"): "Filter the table: scan_zarr(...).filter(...).",
    ("scan_zarr", "columns"): "Select from the table: scan_zarr(...).select(...).",
    ("scan_zarr", "n_rows"): "Limit the table: scan_zarr(...).head(n).",
    ("scan_zarr", "chunks"): "Tasks follow the chunks of the store; the setting `task-bytes` sets their size.",
}
"""The way to an option that a function lacks, by function and option."""


def _check(function: str, known: list[str], given: Iterable[str]) -> None:
    for option in given:
        if option not in known:
            raise UnknownOptionError(f"{function}() has no option {option!r}. {_hint(function, option, known)}")


def _hint(function: str, option: str, known: list[str]) -> str:
    meant = next((name for name, others in _SYNONYMS.items() if option in others), option)
    if (function, meant) in _ELSEWHERE:
        return _ELSEWHERE[function, meant]
    near = [meant] if meant in known else get_close_matches(option, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"It has {', '.join(f'`{each}`' for each in known)}."
