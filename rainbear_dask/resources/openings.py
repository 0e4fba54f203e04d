"""Openings of stores: names under which caches keep values, and the end of each opening in a process."""

import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_ARRIVED = 32
"""Openings of unpickled recipes that a process keeps alive between the tasks of their scans."""

_arrived: OrderedDict[str, "Opening"] = OrderedDict()
_openings: weakref.WeakValueDictionary[str, "Opening"] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_forgetters: list[Callable[[str], None]] = []


class Opening:
    """One opening of a store. A process has one object for each name, while anything refers to it.

    Cache keys contain the name. When the object is gone, no scan, plan or backend of this process can look up the
    values under its name, and all caches drop them. A pickle contains no opening, because a scheduler that holds and
    logs tasks looks up nothing.

    Parameters
    ----------
    name : str
        Name of the opening.
    """

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def new_opening() -> Opening:
    """Return a new opening with a name of its own."""
    return opening(uuid.uuid4().hex)


def opening(name: str) -> Opening:
    """Return the opening of a name in this process."""
    with _lock:
        found = _openings.get(name)
        if found is None:
            found = _openings[name] = Opening(name)
            weakref.finalize(found, _end, name).atexit = False
        return found


def arrived_opening(name: str) -> Opening:
    """Return the opening of an unpickled recipe, and keep it alive for later tasks of the same scan.

    A worker has only tasks, and nothing refers to the opening between two of them. So the process keeps the
    `MAX_ARRIVED` most recently used ones.
    """
    found = opening(name)
    with _lock:
        _arrived[name] = found
        _arrived.move_to_end(name)
        oldest = _arrived.popitem(last=False) if len(_arrived) > MAX_ARRIVED else None
    del oldest  # after the lock is released, because caches drop its values now
    return found


def when_gone(forget: Callable[[str], None]) -> None:
    """Register a function that is called with the name of each opening that is gone, on any thread, at any moment."""
    _forgetters.append(forget)


def _end(name: str) -> None:
    for forget in _forgetters:
        forget(name)
