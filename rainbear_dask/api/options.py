"""Options of the public functions: a misspelt one is an error that names the nearest."""

import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar, get_args

from rainbear_dask.exceptions import UnknownOptionError

P = ParamSpec("P")
T = TypeVar("T")


def checks_options(func: Callable[P, T]) -> Callable[P, T]:
    """Make a function raise `UnknownOptionError` for a keyword that it does not have.

    Parameters
    ----------
    func : callable
        Its options are its parameters, and the keys of ``**options: Unpack[...]`` if it has that.

    Returns
    -------
    callable
        The function with the same signature.
    """
    known = dict.fromkeys(_options_of(func))

    @wraps(func)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else f"It has {', '.join(f'`{each}`' for each in known)}."
                raise UnknownOptionError(f"{func.__name__}() has no option {name!r}. {hint}")
        return func(*args, **kwargs)

    return checked


def _options_of(func: Callable[..., object]) -> Iterator[str]:
    for parameter in inspect.signature(func).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            (options,) = get_args(parameter.annotation)
            yield from options.__annotations__
        else:
            yield parameter.name
