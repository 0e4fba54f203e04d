"""Settings of this package on the workers of a cluster. Imported when asked for, as it needs ``distributed``."""

from typing import Any

import dask.config
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

import rainbear_dask.execution.graph
import rainbear_dask.execution.worker  # noqa: F401  what tasks need
from rainbear_dask.exceptions import SettingError
from rainbear_dask.resources import threads
from rainbear_dask.resources.settings import DEFAULTS, SECTION


class WorkerSettings(WorkerPlugin):
    """Set this package up on each worker that a cluster has or will have.

    ``client.register_plugin(WorkerSettings(cache_bytes="1GiB"))``. Workers import the package then, not with their first
    task. Registering other settings replaces these.

    Parameters
    ----------
    **settings
        Settings of the section ``rainbear-dask`` of Dask's configuration, with underscores: ``cache_bytes``. Those that
        are not named stay as the worker's own configuration has them.

    Raises
    ------
    SettingError
        If there is no such setting.
    """

    name = "rainbear-dask-settings"
    idempotent = False  # the settings registered last are meant

    def __init__(self, **settings: Any) -> None:
        self.settings = {name.replace("_", "-"): value for name, value in settings.items()}
        for name in self.settings:
            if name not in DEFAULTS:
                raise SettingError(f"there is no setting {name!r}. There are {', '.join(DEFAULTS)}.")

    def setup(self, worker: Worker) -> None:
        """Set a worker up."""
        threads.allow(worker.state.nthreads)
        dask.config.set({SECTION: {**dask.config.get(SECTION), **self.settings}})
