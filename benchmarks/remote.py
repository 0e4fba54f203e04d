"""Object stores with added latency: seconds, requests, and share of the ideal: ``python -m benchmarks.remote``.

``--cloud gcs`` or ``--cloud azure`` selects another server than that of S3; ``--quick`` measures one layout. The server, and the proxy that adds the latency, are the ones of the tests (`cluster/stores`), on this machine. All
readers run in turns, and each opens the store anew. The ideal is a lower bound for any reader. It is the longer of two
times: the fastest reader without delay, and the chunks with the maximum of requests in flight at every moment.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from obstore.store import from_url
from zarr.storage import ObjectStore

import rainbear_dask as rd
from benchmarks.run import conditions
from rainbear_dask.resources.settings import requests_in_flight
from rainbear_dask.storage.services import SERVICES
from tests.services.stores import clouds, servers

DELAY = 50
"""Milliseconds that the proxy adds to each request."""

LAYOUTS: dict[str, dict[str, Any]] = {
    "480 chunks of 86 kB": {"chunks": (1, 120, 180)},
    "24 chunks of 1.7 MB": {"chunks": (20, 120, 180)},
    "4 shards of 10 MB, inner chunks of 36 kB": {"chunks": (10, 30, 30), "shards": (120, 120, 180)},
}
Reader = Callable[[], float]


def write(folder: Path) -> None:
    """Write a compressed field of 41 MB in each layout."""
    values = np.random.default_rng(0).normal(280, 10, (480, 120, 180)).round(2).astype("f4")
    data = xr.Dataset({"v": (("time", "lat", "lon"), values)})
    for name, encoding in LAYOUTS.items():
        data.to_zarr(folder / name, encoding={"v": encoding}, zarr_format=3, consolidated=True)


def readers(cloud: clouds.Cloud, url: str, layout: str, client: Client | None) -> dict[str, Reader]:
    """Return functions that sum the field. A task of xarray is a stored object."""
    encoding = LAYOUTS[layout]
    stored = dict(zip(("time", "lat", "lon"), encoding.get("shards", encoding["chunks"]), strict=True))

    def ours(library: str) -> float:
        options = cloud.for_library(library)
        return rd.scan_zarr(url, storage_options=options, client=client).select("v").sum().collect().item()

    def xarray(source: Any, **options: Any) -> float:
        with xr.open_zarr(source, chunks=stored, consolidated=True, **options) as data:
            return float(data["v"].sum(dtype="f8").compute())

    def by_obstore() -> float:
        store = from_url(url, client_options={"allow_http": True}, **cloud.obstore)
        return xarray(ObjectStore(store, read_only=True))

    package = SERVICES[cloud.scheme].package
    return {
        "rainbear_dask, obstore": lambda: ours("obstore"),
        f"rainbear_dask, {package}": lambda: ours("fsspec"),
        "xarray + dask, obstore": by_obstore,
        f"xarray + dask, {package}": lambda: xarray(url, storage_options=cloud.fsspec),
    }


def measure(
    services: servers.Services, ways: dict[str, Reader], delay: int, rounds: int
) -> dict[str, tuple[float, int, int]]:
    """Return seconds (best of some rounds, after one that does not count), requests, and their maximum in flight."""
    found: dict[str, tuple[float, int, int]] = {}
    sums = set()
    for number in range(rounds + 1):
        for name, way in ways.items():
            services.set(latency_ms=delay)
            begun = time.perf_counter()
            sums.add(round(way(), -4))
            seconds = time.perf_counter() - begun
            if number and (name not in found or seconds < found[name][0]):
                found[name] = seconds, len(services.log()), int(services.ask("busiest"))
    assert max(sums) - min(sums) <= 1e-4 * max(sums), sums
    return found


def report(cloud: clouds.Cloud, folder: Path, layouts: list[str], rounds: int, client: Client | None) -> None:
    """Print a table."""
    most = requests_in_flight() * (2 if client else 1)
    where = "two processes of Dask" if client else "one process"
    print(f"\n{cloud.scheme}://, {DELAY} ms added to each request, {where}:\n")
    print("| layout | reader | no delay | delayed | requests | at a time | share of ideal |")
    print("|---|---|---|---|---|---|---|")
    for layout in layouts:
        ways = readers(cloud, cloud.upload(folder / layout), layout, client)
        clean = measure(cloud.services, ways, 0, rounds)
        late = measure(cloud.services, ways, DELAY, rounds)
        fewest = min(requests for _, requests, _ in late.values())
        ideal = max(min(seconds for seconds, *_ in clean.values()), -(-fewest // most) * DELAY / 1000)
        for name, (seconds, requests, busiest) in late.items():
            share = f"{ideal / seconds:.0%}"
            print(
                f"| {layout} | {name} | {clean[name][0]:.2f} s | {seconds:.2f} s | {requests} | {busiest} | {share} |",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cloud", choices=list(clouds.START), default="s3")
    parser.add_argument("--quick", action="store_true", help="one layout, one round, one process")
    options = parser.parse_args()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ |= clouds.FOR_GCSFS
    layouts, rounds = (list(LAYOUTS)[1:2], 1) if options.quick else (list(LAYOUTS), options.rounds)
    print(conditions())
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        write(folder)
        try:
            cloud = clouds.START[options.cloud](servers.start(folder / "services"))
            report(cloud, folder, layouts, rounds, None)
            if options.quick:
                return
            with (
                LocalCluster(2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as site,
                Client(site) as client,
            ):
                report(cloud, folder, layouts, rounds, client)
        finally:
            servers.stop(folder / "services")


if __name__ == "__main__":
    main()
