"""What the Dask operator and `KubeCluster` need on the Kubernetes of the tests, which is older than kr8s knows: import first.

Servers before 1.27 do not say the singular name of their own kinds, by which kr8s names its classes.
"""

from importlib import import_module

Api = import_module("kr8s._api").Api  # kr8s has a function of that name, too
_ask = Api.async_api_resources_uncached


async def _with_singular_names(self):
    found = await _ask(self)
    for kind in found:
        kind["singularName"] = kind.get("singularName") or kind["kind"].lower()
    return found


Api.async_api_resources_uncached = _with_singular_names
