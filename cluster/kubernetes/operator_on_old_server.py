"""What the Dask operator and `KubeCluster` need on the Kubernetes of the tests, which is older than kr8s knows: import first.

Servers before 1.27 do not say the singular name of their own kinds, by which kr8s names its classes.
"""

import kr8s._api

_ask = kr8s._api.Api.async_api_resources_uncached


async def _with_singular_names(self):
    found = await _ask(self)
    for kind in found:
        kind["singularName"] = kind.get("singularName") or kind["kind"].lower()
    return found


kr8s._api.Api.async_api_resources_uncached = _with_singular_names
