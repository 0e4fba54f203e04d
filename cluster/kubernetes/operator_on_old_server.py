"""Adapt kr8s to the old Kubernetes of the tests, for the Dask operator and `KubeCluster`. Import this module first.

kr8s names its classes by the singular name of a kind, which servers before 1.27 do not report for built-in kinds.
"""

from importlib import import_module

Api = import_module("kr8s._api").Api  # kr8s also has a function of that name
_ask = Api.async_api_resources_uncached


async def _with_singular_names(self):
    found = await _ask(self)
    for kind in found:
        kind["singularName"] = kind.get("singularName") or kind["kind"].lower()
    return found


Api.async_api_resources_uncached = _with_singular_names
