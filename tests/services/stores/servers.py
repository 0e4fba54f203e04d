"""The services, as the scripts in cluster/stores start them."""

import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import icechunk
import obstore
from obstore.store import S3Store

SCRIPTS = Path(__file__).parents[3] / "cluster" / "stores"
ADMIN = {"key": "ADMINKEY", "secret": "adminsecret"}
READER = {"key": "READERKEY", "secret": "readersecret"}


@dataclass(frozen=True)
class Request:
    """A line of the proxy's log."""

    method: str
    path: str
    range: str
    fault: str
    key: str
    region: str
    payer: str

    @classmethod
    def of_line(cls, line: str) -> "Request":
        """Return the request of a line; names in its path are not quoted."""
        method, _, rest = line.partition(" ")
        path, *others = rest.split("\t")
        place, mark, query = path.partition("?")
        return cls(method, urllib.parse.unquote(place) + mark + query, *others)

    @property
    def is_of_chunk(self) -> bool:
        """Whether it is for values, not for a metadata document, a listing or a token."""
        path, _, query = self.path.partition("?")
        return (
            not path.endswith(("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"))
            and (not query or "sig=" in query)
            and "/computeMetadata/" not in path
        )


@dataclass(frozen=True)
class Services:
    """Addresses, and the knobs of the proxy and the web server; ports for the servers of Google and Azure."""

    direct: str
    control: str
    s3: str
    s3_tls: str
    gcs: str
    azure: str
    web: str
    web_tls: str
    ca: str
    www: Path
    folder: Path
    ports: tuple[int, int]

    def ask(self, what: str, **knobs) -> str:
        """Call the control port."""
        url = f"{self.control}/{what}?{urllib.parse.urlencode(knobs)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  it is our own
            return answer.read().decode()

    def set(self, **knobs) -> None:
        """Turn knobs, from a new log on; see faults.lua."""
        self.ask("reset")
        self.ask("set", **knobs)

    def log(self) -> list[Request]:
        """Requests since the knobs were turned."""
        return [Request.of_line(line) for line in self.ask("log").splitlines()]

    def injected(self) -> int:
        """Requests that were made to fail."""
        return sum(request.fault != "-" for request in self.log())

    def options(self, **more) -> dict:
        """Storage options by way of the proxy."""
        return {**ADMIN, "endpoint_url": self.s3, **more}

    def bucket(self, name: str = "private", prefix: str | None = None) -> S3Store:
        """A bucket, not by way of the proxy."""
        return S3Store(
            name,
            prefix=prefix,
            endpoint=self.direct,
            region="us-east-1",
            access_key_id=ADMIN["key"],
            secret_access_key=ADMIN["secret"],
            client_options={"allow_http": True},
        )

    def upload(self, folder: str | Path, bucket: str = "private") -> str:
        """Copy a folder into a bucket; its URL."""
        name = f"{uuid.uuid4().hex}.zarr"
        store = self.bucket(bucket, name)
        for file in Path(folder).rglob("*"):
            if file.is_file():
                obstore.put(store, file.relative_to(folder).as_posix(), file.read_bytes())
        return f"s3://{bucket}/{name}"

    def publish(self, folder: str | Path) -> str:
        """Copy a folder to the web server; its path there."""
        name = f"{uuid.uuid4().hex}.zarr"
        shutil.copytree(folder, self.www / name)
        return name


def icechunk_storage(endpoint: str, prefix: str) -> icechunk.Storage:
    """Where an Icechunk repository is in the bucket."""
    return icechunk.s3_storage(
        bucket="private",
        prefix=prefix,
        endpoint_url=endpoint,
        region="us-east-1",
        allow_http=True,
        force_path_style=True,
        access_key_id=ADMIN["key"],
        secret_access_key=ADMIN["secret"],
    )


def set_environment(variables: dict[str, str]) -> None:
    """Take over variables; for workers."""
    os.environ.update(variables)


def start(folder: Path) -> Services:
    """Start the S3 server, nginx, and the ports of the proxy, with all they write in a folder."""
    port = _free_ports(24)
    binaries = [Path(os.sys.executable).with_name("weed"), Path(__file__).parents[3] / ".venv" / "bin" / "weed"]
    env = dict(
        os.environ,
        S3_DIR=str(folder / "s3"),
        S3_PORT=str(port),
        NGINX_DIR=str(folder / "nginx"),
        NGINX_PORT=str(port + 10),
        GCS_PORT=str(port + 20),
        AZURE_PORT=str(port + 21),
        WEED=next((str(binary) for binary in binaries if binary.exists()), "weed"),
    )
    direct = run("s3_up.sh", env=env).strip()
    found = dict(line.split("=", 1) for line in run("nginx_up.sh", env=env).splitlines())
    services = Services(
        direct=direct, folder=folder, ports=(port + 20, port + 21), **{**found, "www": Path(found["www"])}
    )
    for name in ("private", "public"):
        _make_bucket(services, name)
    return services


def stop(folder: Path) -> None:
    """Stop them."""
    for part in ("nginx", "s3", "gcs", "azure"):
        run("stop.sh", str(folder / part))


def run(script: str, *args: str, env=None) -> str:
    """Run one of the scripts, and return its output."""
    command = ["bash", str(SCRIPTS / script), *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def _make_bucket(services: Services, name: str) -> None:
    import botocore.session  # noqa: PLC0415

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=services.direct,
        region_name="us-east-1",
        aws_access_key_id=ADMIN["key"],
        aws_secret_access_key=ADMIN["secret"],
    )
    for attempt in range(20):  # the server answers before all of its parts know each other
        try:
            client.create_bucket(Bucket=name)
        except client.exceptions.ClientError:
            if attempt == 19:
                raise
            time.sleep(0.25)
        else:
            client.close()
            return


def _free_ports(count: int) -> int:
    """First of some ports in a row that nobody listens at."""
    for first in range(20_000 + os.getpid() % 100 * 100, 32_000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for port, one in enumerate(sockets, first):
                one.bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return first
        finally:
            for one in sockets:
                one.close()
    raise OSError("no free ports")
