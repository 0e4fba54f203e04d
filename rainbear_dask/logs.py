"""Loggers below ``rainbear_dask``: scans, stores and the cache. No record holds a secret or a control character.

``logging.getLogger("rainbear_dask").setLevel("INFO")`` shows each scan, each opening and each retry; DEBUG adds every
request, and what the cache lacks.
"""

import logging

from rainbear_dask.redaction import presentable


def logger(name: str) -> logging.Logger:
    """Return the logger ``rainbear_dask.<name>``, whose records are safe to show."""
    found = logging.getLogger(f"rainbear_dask.{name}")
    if _SAFE not in found.filters:
        found.addFilter(_SAFE)
    return found


class _Safe(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the text of a record."""
        record.msg, record.args = presentable(record.getMessage()), ()
        return True


_SAFE = _Safe()
logging.getLogger("rainbear_dask").addHandler(logging.NullHandler())
