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


def _check(function: str, known: list[str], given: Iterable[str]) -> None:
    for option in given:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"It has {', '.join(f'`{each}`' for each in known)}."
            raise UnknownOptionError(f"{function}() has no option {option!r}. {hint}")
