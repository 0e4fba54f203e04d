"""Settings of this package on the workers of a cluster. Import it lazily: ``distributed`` is slow."""

from typing import Any

import dask.config
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

import rainbear_dask.execution.graph
import rainbear_dask.execution.worker  # noqa: F401  tasks need both
from rainbear_dask.exceptions import SettingError
from rainbear_dask.execution.distributed_internals import num_worker_threads
from rainbear_dask.resources import threads
from rainbear_dask.resources.settings import DEFAULTS, SECTION


class WorkerSettings(WorkerPlugin):
    """Configure this package on each present and future worker of a cluster.

    Register it with ``client.register_plugin(WorkerSettings(cache_bytes="1GiB"))``. Workers then import the package at
    once, instead of with their first task. Registering it again replaces the earlier settings.

    Parameters
    ----------
    **settings
        Settings from the ``rainbear-dask`` section of Dask's configuration, written with underscores: ``cache_bytes``.
        Settings that are left out keep the values of the worker's own configuration.

    Raises
    ------
    SettingError
        If no setting has that name.
    """

    name = "rainbear-dask-settings"
    idempotent = False  # the last registration wins

    def __init__(self, **settings: Any) -> None:
        self.settings = {name.replace("_", "-"): value for name, value in settings.items()}
        for name in self.settings:
            if name not in DEFAULTS:
                raise SettingError(f"There is no setting {name!r}. Use one of {', '.join(DEFAULTS)}.")

    def setup(self, worker: Worker) -> None:
        """Apply the settings on one worker."""
        threads.allow(num_worker_threads(worker))
        dask.config.set({SECTION: {**dask.config.get(SECTION, default={}), **self.settings}})
