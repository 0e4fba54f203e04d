"""An S3 server with added latency: seconds, requests, and share of the ideal: ``python -m benchmarks.remote``.

The server, and the proxy that adds the latency, are the ones of the tests (`cluster/stores`), on this machine. All
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

import dask
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from obstore.store import S3Store
from zarr.storage import ObjectStore

import rainbear_dask as rd
from benchmarks.run import conditions
from tests.services.stores import servers

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


def readers(services: servers.Services, url: str, layout: str, client: Client | None) -> dict[str, Reader]:
    """Return functions that sum the field. A task of xarray is a stored object."""
    encoding = LAYOUTS[layout]
    stored = dict(zip(("time", "lat", "lon"), encoding.get("shards", encoding["chunks"]), strict=True))

    def ours(library: str) -> float:
        options = services.options(library=library)
        return rd.scan_zarr(url, storage_options=options, client=client).select("v").sum().collect().item()

    def xarray(source: Any, **options: Any) -> float:
        with xr.open_zarr(source, chunks=stored, consolidated=True, **options) as data:
            return float(data["v"].sum(dtype="f8").compute())

    def by_obstore() -> float:
        store = S3Store(
            "private",
            prefix=url.rpartition("/")[2],
            endpoint=services.s3,
            region="us-east-1",
            access_key_id=servers.ADMIN["key"],
            secret_access_key=servers.ADMIN["secret"],
            client_options={"allow_http": True},
        )
        return xarray(ObjectStore(store, read_only=True))

    return {
        "rainbear_dask, obstore": lambda: ours("obstore"),
        "rainbear_dask, s3fs": lambda: ours("fsspec"),
        "xarray + dask, obstore": by_obstore,
        "xarray + dask, s3fs": lambda: xarray(url, storage_options=services.options()),
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


def report(services: servers.Services, folder: Path, rounds: int, client: Client | None) -> None:
    """Print a table."""
    most = int(dask.config.get("rainbear-dask.requests-in-flight")) * (2 if client else 1)
    where = "two processes of Dask" if client else "one process"
    print(f"\n{DELAY} ms added to each request, {where}:\n")
    print("| layout | reader | no delay | delayed | requests | at a time | share of ideal |")
    print("|---|---|---|---|---|---|---|")
    for layout in LAYOUTS:
        ways = readers(services, services.upload(folder / layout), layout, client)
        clean = measure(services, ways, 0, rounds)
        late = measure(services, ways, DELAY, rounds)
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
    options = parser.parse_args()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    print(conditions())
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        write(folder)
        try:
            services = servers.start(folder / "services")
            report(services, folder, options.rounds, None)
            with (
                LocalCluster(2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as site,
                Client(site) as client,
            ):
                report(services, folder, options.rounds, client)
        finally:
            servers.stop(folder / "services")


if __name__ == "__main__":
    main()
