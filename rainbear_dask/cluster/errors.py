"""Reasons that Dask's packages give, and what a user can do."""

from importlib import import_module
from typing import Any

from rainbear_dask.exceptions import ClusterError


def import_extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as err:
        raise ClusterError(f"{err}. Install it: pip install 'rainbear-dask[{extra}]'.") from err


def reason(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__


WHERE_TO_SET = "Set it in section jobqueue.{} of Dask's configuration."
