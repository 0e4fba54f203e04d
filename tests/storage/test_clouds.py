"""Options of Google's and Azure's URLs: the spelling of gcsfs and adlfs, with a service that records its requests."""

import base64
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pytest
import zarr
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, StoreAccessError, StoreNotFoundError, UnknownOptionError
from rainbear_dask.redaction import holds_secrets, presentable, secrets_of
from rainbear_dask.storage import azure, gcs
from rainbear_dask.storage.connect import connect, disconnect_all
from rainbear_dask.storage.obstore import OPENERS
from rainbear_dask.storage.obstore_settings import NotForObstoreError
from rainbear_dask.storage.services import AZURE, GCS, HTTP, S3, SERVICES
from rainbear_dask.storage.url_options import check_options
from tests.support.errors import caught

SERVICE = pytest.mark.parametrize("service", [S3, HTTP, GCS, AZURE], ids=lambda service: service.extra)
CLOUD = pytest.mark.parametrize("service", [GCS, AZURE], ids=lambda service: service.extra)
KEY = base64.b64encode(b"a key of the account").decode()
ONCE = {"retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=2)}}


class Handler(BaseHTTPRequestHandler):
    """A bucket with one object for each key, a metadata service, and a service of tokens."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.seen.append((path, parse_qs(query), dict(self.headers)))
        if path.endswith(("/token", "/msi")):
            content = {"access_token": "issued", "expires_in": 3600, "expires_on": "4102444800", "token_type": "Bearer"}
        elif path.startswith("/computeMetadata"):
            content = {}
        else:
            content = self.server.documents.get(path.rpartition("/")[2].replace("%2E", ".").rpartition("%2F")[2])
        body = json.dumps(content).encode()
        self.send_response(404 if content is None else 200)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "ETag": '"e"',
            "Last-Modified": "Sat, 28 Nov 2026 09:00:00 GMT",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("f")
    zarr.open_group(folder, mode="w").create_array("a", data=np.arange(3), dimension_names=("x",))
    zarr.consolidate_metadata(folder)
    return json.loads((folder / "zarr.json").read_text())


@pytest.fixture
def server(document, monkeypatch, tmp_path):
    """A service for both clouds, and an environment without credentials."""
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "GCE_", "AZURE_", "IDENTITY_", "STORAGE_", "CLOUDSDK_", "GCSFS_")):
            monkeypatch.delenv(name)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen, made.documents = [], {"zarr.json": document}
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(azure, "_METADATA_HOST", "127.0.0.1:9")
    disconnect_all()
    yield made
    made.shutdown()
    made.server_close()


def asked(server, url, options, **more):
    """Open a store, and return the headers and the query of the request for its document."""
    rd.scan_zarr(url, storage_options={**options, **ONCE, **more})
    ((_, query, headers),) = [each for each in server.seen if "zarr" in each[0]]
    return {name.lower(): value for name, value in headers.items()}, query


def of_gcs(server, **options):
    return asked(server, "gs://bucket/f.zarr", {"endpoint_url": server.url, **options})


def of_azure(server, url="az://box/f.zarr", **options):
    return asked(server, url, {"endpoint": f"{server.url}/acc", "account_name": "acc", **options})


# Tables


@SERVICE
def test_each_option_has_one_kind_and_each_scheme_an_opener(service):
    kinds = [service.translated, service.ignored, service.fsspec_only, service.obstore_only]
    assert sum(map(len, kinds)) + 1 == len(service.options)
    assert OPENERS.keys() == SERVICES.keys()


@SERVICE
@given(data=st.data())
def test_a_misspelt_option_is_refused_and_all_others_pass(service, data):
    scheme = data.draw(st.sampled_from(service.schemes))
    known = data.draw(st.sets(st.sampled_from(sorted(service.options)), max_size=4))
    check_options(f"{scheme}://b/f.zarr", dict.fromkeys(known, 1))
    name = data.draw(st.sampled_from(sorted(service.options)))
    at = data.draw(st.integers(0, len(name) - 1))
    wrong = name[:at] + "q" + name[at:]
    with pytest.raises(UnknownOptionError, match=f"{scheme}:// has no storage option '{wrong}'"):
        check_options(f"{scheme}://b/f.zarr", {wrong: 1})


@pytest.mark.parametrize(
    ("url", "option", "meant"),
    [
        ("gs://b/f.zarr", "tokn", "token"),
        ("gcs://b/f.zarr", "endpoint", "endpoint_url"),
        ("az://b/f.zarr", "acount_key", "account_key"),
        ("abfss://b/f.zarr", "sas", "sas_key"),
        ("abfs://b/f.zarr", "conection_string", "connection_string"),
    ],
)
def test_a_misspelt_option_names_the_nearest(url, option, meant):
    with pytest.raises(UnknownOptionError, match=f"Did you mean '{meant}'"):
        rd.scan_zarr(url, storage_options={option: "x"})


@CLOUD
def test_options_that_only_fsspec_has_leave_obstore_and_buffers_do_not(server, service):
    scheme = service.schemes[0]
    basic = {"token": "anon"} if service is GCS else {"account_name": "acc", "anon": True}
    for name in service.fsspec_only:
        with pytest.raises(NotForObstoreError, match=name):
            OPENERS[scheme](f"{scheme}://b/f.zarr", basic | {name: 1})
    OPENERS[scheme](f"{scheme}://b/f.zarr", basic | dict.fromkeys(service.ignored, 1))


@CLOUD
def test_a_required_library_says_which_option_it_lacks(server, service):
    scheme = service.schemes[0]
    options = {"library": "obstore", "version_aware": True}
    caught(QueryError, lambda: rd.scan_zarr(f"{scheme}://b/f.zarr", storage_options=options), "version_aware")
    options = {"library": "fsspec", "skip_signature": True}
    caught(QueryError, lambda: rd.scan_zarr(f"{scheme}://b/f.zarr", storage_options=options), "`skip_signature`")


# Google Cloud Storage


@pytest.mark.parametrize(
    "options", [{}, {"token": "anon"}, {"anon": True}, {"skip_signature": True, "bearer_token": "x"}]
)
def test_without_a_token_requests_are_anonymous_as_with_gcsfs(server, options):
    headers, _ = of_gcs(server, **options)
    assert "authorization" not in headers
    assert [path for path, *_ in server.seen] == ["/bucket/f%2Ezarr%2Fzarr%2Ejson"]


@pytest.mark.parametrize("value", ["{url}", "{host}"])
def test_an_emulator_in_the_environment_gets_no_credentials(server, monkeypatch, tmp_path, value):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", value.format(url=server.url, host=server.url[7:]))
    write_account(tmp_path / "account.json", monkeypatch)
    headers, _ = asked(server, "gcs://bucket/f.zarr", {})
    assert "authorization" not in headers


def test_a_token_is_sent_as_it_is_whatever_the_environment_has(server, monkeypatch):
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "of the environment")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert of_gcs(server, token="mine")[0]["authorization"] == "Bearer mine"  # noqa: S106


def write_account(path, monkeypatch=None, **more):
    key = rsa.generate_private_key(65537, 2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "a@b.c", "private_key": text, "private_key_id": "id", **more}
    path.write_text(json.dumps(account))
    if monkeypatch is not None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return account


@pytest.mark.parametrize("named", ["path", "mapping", "environment", "google_default", "gcloud"])
def test_a_service_account(server, tmp_path, monkeypatch, named):
    account = write_account(
        tmp_path / "account.json", monkeypatch if named in ("environment", "google_default") else None
    )
    if named == "gcloud":
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        (tmp_path / "account.json").rename(tmp_path / "application_default_credentials.json")
    given = {"path": str(tmp_path / "account.json"), "mapping": account, "google_default": "google_default"}
    headers, _ = of_gcs(server, **({"token": given[named]} if named in given else {}))
    assert headers["authorization"].startswith("Bearer eyJ")


def test_a_service_account_among_the_options_is_not_mixed_with_the_environment(server, tmp_path, monkeypatch):
    """It would be the token of the environment with obstore, so gcsfs reads."""
    account = write_account(tmp_path / "account.json")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "of the environment")
    for token in (account, str(tmp_path / "account.json")):
        with pytest.raises(NotForObstoreError, match="environment"):
            gcs.open_gcs("gs://bucket/f.zarr", {"token": token})


@pytest.mark.parametrize("kind", ["external_account", "impersonated_service_account", None])
def test_credentials_that_only_google_auth_knows_leave_obstore(server, tmp_path, monkeypatch, kind):
    write_account(tmp_path / "account.json", monkeypatch, type=kind)
    for options in ({}, {"token": str(tmp_path / "account.json")}):
        with pytest.raises(NotForObstoreError, match=str(kind)):
            gcs.open_gcs("gs://bucket/f.zarr", options)


@pytest.mark.parametrize("token", ["cache", "browser", object(), 5])
def test_tokens_that_only_gcsfs_knows_leave_obstore(server, token):
    with pytest.raises(NotForObstoreError, match="token"):
        gcs.open_gcs("gs://bucket/f.zarr", {"token": token})


def test_a_file_of_credentials_that_is_not_there_or_no_json(server, tmp_path, monkeypatch):
    (tmp_path / "text.json").write_text("no json")
    for path, words in [(tmp_path / "none.json", "Cannot read"), (tmp_path / "text.json", "is not JSON")]:
        caught(StoreAccessError, lambda path=path: of_gcs(server, token=str(path)), words, "`token`")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        caught(StoreAccessError, lambda: of_gcs(server), words, "GOOGLE_APPLICATION_CREDENTIALS")
    assert server.seen == []


@pytest.mark.parametrize("token", [None, "google_default", "cloud"])
def test_a_machine_in_googles_cloud_gives_one_token(server, monkeypatch, token):
    monkeypatch.setenv("GCE_METADATA_HOST", server.url[7:])
    headers, _ = of_gcs(server, token=token)
    assert headers["authorization"] == "Bearer issued"
    rd.scan_zarr("gs://bucket/f.zarr", storage_options={"endpoint_url": server.url, "token": token, **ONCE})
    assert sum(path.endswith("/token") for path, *_ in server.seen) == 1


def test_no_check_for_a_machine_if_the_environment_forbids_it(server, monkeypatch):
    monkeypatch.setenv("GCE_METADATA_HOST", server.url[7:])
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert "authorization" not in of_gcs(server)[0]


def test_default_credentials_that_are_demanded_and_do_not_exist(server):
    options = {"token": "google_default"}
    caught(StoreAccessError, lambda: of_gcs(server, **options), "gcloud auth", "'anon'")
    assert server.seen == []


class GoogleCredentials:
    """Credentials of google-auth, as far as they are used."""

    def __init__(self, token, valid):
        self.token, self.valid, self.expiry, self.renewed = token, valid, None, 0

    def refresh(self, _):
        self.token, self.valid, self.renewed = "new", True, self.renewed + 1
        self.expiry = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)


def test_credentials_of_google_auth_are_renewed_if_they_are_not_valid(server, monkeypatch):
    modules = dict.fromkeys(["google.auth", "google.auth.transport"], SimpleNamespace())
    modules["google.auth.transport.requests"] = SimpleNamespace(Request=object)
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    credentials = GoogleCredentials("old", valid=False)
    assert of_gcs(server, token=credentials)[0]["authorization"] == "Bearer new"
    assert credentials.renewed == 1
    server.seen.clear()
    assert of_gcs(server, token=GoogleCredentials("valid", valid=True))[0]["authorization"] == "Bearer valid"


def test_a_project_pays(server, monkeypatch):
    assert of_gcs(server, requester_pays=True, project="mine")[0]["x-goog-user-project"] == "mine"
    server.seen.clear()
    assert of_gcs(server, requester_pays="other", project="mine")[0]["x-goog-user-project"] == "other"
    server.seen.clear()
    caught(QueryError, lambda: of_gcs(server, requester_pays=True), "`requester_pays` needs a project")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of the environment")
    assert of_gcs(server, requester_pays=True)[0]["x-goog-user-project"] == "of the environment"
    server.seen.clear()
    assert "x-goog-user-project" not in of_gcs(server, project="mine")[0]


# Azure Blob Storage


@pytest.mark.parametrize(
    "options",
    [{"account_key": KEY}, {"credential": KEY}, {"account_key": KEY, "sas_token": "sig=abc"}],
)
def test_a_key_of_the_account_whatever_the_environment_has(server, monkeypatch, options):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=other")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    headers, query = of_azure(server, **options)
    assert headers["authorization"].startswith("SharedKey acc:")
    assert query == {}


@pytest.mark.parametrize("text", ["sv=1&sig=ab%2Fc", "?sv=1&sig=ab%2Fc"])
@pytest.mark.parametrize("name", ["sas_token", "credential"])
def test_a_signature_whatever_the_environment_has(server, monkeypatch, text, name):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    headers, query = of_azure(server, **{name: text})
    assert query == {"sv": ["1"], "sig": ["ab/c"]}
    assert "authorization" not in headers


def test_a_service_principal_gets_one_token_whatever_the_environment_has(server, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    named = {"client_id": "id", "client_secret": "secret", "tenant_id": "tenant", "authority_host": server.url}
    assert of_azure(server, **named)[0]["authorization"] == "Bearer issued"
    of_azure_again = {"endpoint": f"{server.url}/acc", "account_name": "acc", **named, **ONCE}
    rd.scan_zarr("az://box/f.zarr", storage_options=of_azure_again)
    assert [path for path, *_ in server.seen if "token" in path] == ["/tenant/oauth2/v2.0/token"]


def test_a_managed_identity(server, monkeypatch):
    monkeypatch.setenv("AZURE_IDENTITY_ENDPOINT", f"{server.url}/msi")
    assert of_azure(server)[0]["authorization"] == "Bearer issued"


class Credential:
    """A credential of azure-identity."""

    def get_token(self, scope):
        assert scope == "https://storage.azure.com/.default"
        return SimpleNamespace(token="of a credential", expires_on=4102444800)  # noqa: S106


class AwaitedCredential:
    """A credential of azure-identity.aio."""

    async def get_token(self, scope):
        return Credential().get_token(scope)


@pytest.mark.parametrize("credential", [Credential(), AwaitedCredential()], ids=["plain", "awaited"])
def test_a_credential_of_azure_identity(server, monkeypatch, credential):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    assert of_azure(server, credential=credential)[0]["authorization"] == "Bearer of a credential"


def test_a_credential_that_obstore_does_not_know(server):
    with pytest.raises(NotForObstoreError, match="object"):
        azure.open_azure("az://box/f.zarr", {"account_name": "acc", "credential": object()})


@pytest.mark.parametrize("named", ["option", "environment"])
def test_an_anonymous_container(server, monkeypatch, named):
    if named == "environment":
        monkeypatch.setenv("AZURE_STORAGE_ANON", "true")
    headers, query = of_azure(server, **({"anon": True} if named == "option" else {}))
    assert "authorization" not in headers
    assert query == {}


def test_without_credentials_nothing_is_requested(server, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ANON", "false")
    caught(StoreAccessError, lambda: of_azure(server), "There are no credentials for az://box", "az login", "'anon'")
    assert server.seen == []


def test_the_machine_and_the_command_line_tool_are_the_last_resort(server, monkeypatch, tmp_path):
    monkeypatch.setattr(azure, "_METADATA_HOST", server.url[7:])
    server.documents["instance"] = {}
    store = azure.open_azure("az://box/f.zarr", {"account_name": "acc"}).store
    assert "use_azure_cli" not in store.config
    monkeypatch.setattr(azure, "_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(azure.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(StoreAccessError):
        azure.open_azure("az://box/f.zarr", {"account_name": "acc"})
    (tmp_path / "azureProfile.json").write_text("{}")
    assert azure.open_azure("az://box/f.zarr", {"account_name": "acc"}).store.config["use_azure_cli"] == "true"


def settings_of(url, **options):
    """Return the settings of obstore for a URL."""
    return azure.open_azure(url, {"anon": True, **options}).store.config


@pytest.mark.parametrize(
    ("url", "options", "account", "endpoint"),
    [
        ("az://box/f.zarr", {"account_name": "acc"}, "acc", None),
        ("abfs://box@acc.dfs.core.windows.net/f.zarr", {}, "acc", None),
        ("abfss://box@acc.blob.core.windows.net/f.zarr", {"account_name": "other"}, "acc", None),
        ("abfss://box@acc.dfs.core.chinacloudapi.cn/f", {}, "acc", "https://acc.blob.core.chinacloudapi.cn"),
        ("abfss://w@onelake.dfs.fabric.microsoft.com/f", {}, "onelake", "https://onelake.blob.fabric.microsoft.com"),
        ("az://box/f", {"account_name": "acc", "account_host": "acc.example.org"}, "acc", "https://acc.example.org"),
    ],
)
def test_an_account_and_its_address(server, url, options, account, endpoint):
    found = settings_of(url, **options)
    assert (found["account_name"], found.get("endpoint")) == (account, endpoint)
    assert found["container_name"] in ("box", "w")


@pytest.mark.parametrize(
    ("text", "account", "endpoint", "credential"),
    [
        (f"AccountName=acc;AccountKey={KEY}", "acc", None, {"access_key": KEY}),
        (f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net", "acc", None, {"access_key": KEY}),
        (
            f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn;",
            "acc",
            "https://acc.blob.core.chinacloudapi.cn",
            {"access_key": KEY},
        ),
        (
            "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=a%3D",
            "acc",
            "https://acc.blob.core.windows.net",
            {"sas_token": "sv=1&sig=a%3D"},
        ),
    ],
)
@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_connection_string(server, monkeypatch, text, account, endpoint, credential, named):
    if named == "environment":
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        assert (
            azure.open_azure("az://box/f.zarr", {"account_name": "acc", "anon": True}).store.credential_provider is None
        )
        options = {"anon": False}
    else:
        options = {"connection_string": text, "account_name": "other", "account_key": "other", "sas_token": "other"}
    store = azure.open_azure("az://box/f.zarr", options).store
    assert (store.config["account_name"], store.config.get("endpoint")) == (account, endpoint)
    assert store.credential_provider() == {**credential, "expires_at": None}


def test_a_connection_string_of_the_emulator(server):
    store = azure.open_azure("az://box/f.zarr", {"connection_string": "UseDevelopmentStorage=true"}).store
    assert store.config["use_emulator"] == "true"


def test_a_connection_string_of_another_account_is_not_used(server, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=acc;AccountKey={KEY}")
    caught(StoreAccessError, lambda: azure.open_azure("az://box/f.zarr", {"account_name": "other"}), "no credentials")
    assert settings_of("az://box/f.zarr", account_name="other")["account_name"] == "other"


def test_a_url_without_an_account(server):
    caught(QueryError, lambda: settings_of("az://box/f.zarr"), "No account is named", "AZURE_STORAGE_ACCOUNT_NAME")
    text = "AccountKey=abc"
    caught(QueryError, lambda: settings_of("az://box/f.zarr", connection_string=text), "names no account")


def test_time_limits_in_the_spelling_of_adlfs(server):
    store = azure.open_azure(
        "az://b/f", {"account_name": "a", "anon": True, "connection_timeout": 3, "read_timeout": 4}
    )
    assert {"connect_timeout": "3s", "read_timeout": "4s"}.items() <= {
        name: str(value).replace("0:00:0", "") + "s" if isinstance(value, timedelta) else value
        for name, value in store.store.client_options.items()
    }.items()


# Places, secrets


@pytest.mark.parametrize("url", ["gs://user:pw@bucket/f", "gs://bucket:80/f", "az://box:80/f", "abfs://box@host/f"])
def test_urls_that_obstore_does_not_read(server, url):
    with pytest.raises(NotForObstoreError, match="URL"):
        OPENERS[url.partition("://")[0]](
            url, {"anon": True, "account_name": "acc"} if url[0] == "a" else {"anon": True}
        )


def test_a_container_before_an_account_is_no_secret():
    url = "abfss://box@acc.dfs.core.windows.net/f.zarr"
    assert presentable(f"at {url}.") == f"at {url}."
    assert not holds_secrets(url, {"anon": True, "account_name": "acc", "account_host": "acc.example.org"})
    assert not holds_secrets("gs://bucket/f", {"token": "anon", "project": "p"})
    assert presentable("abfs://box:secret@acc/f") == "abfs://acc/f"


def test_secrets_of_a_connection_string_hide_no_address():
    text = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net"
    assert secrets_of("az://box/f", {"connection_string": text}) == [text, KEY]
    message = f"https://acc.blob.core.windows.net refuses {KEY}"
    assert presentable(message, secrets_of("az://box/f", {"connection_string": text})) == (
        "https://acc.blob.core.windows.net refuses ***"
    )


def test_a_key_in_a_connection_string_of_the_environment_is_hidden(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=account;AccountKey={KEY}")
    assert presentable(f"{KEY} of account") == "*** of account"


@CLOUD
def test_a_store_that_is_not_there(server, service):
    url = f"{service.schemes[0]}://bucket/none.zarr"
    server.documents.clear()
    options = (
        {"endpoint_url": server.url} if service is GCS else {"endpoint": server.url, "account_name": "a", "anon": True}
    )
    caught(StoreNotFoundError, lambda: rd.scan_zarr(url, storage_options=options | ONCE), url)


def test_another_environment_is_another_connection(server, monkeypatch):
    options = {"account_name": "acc"}
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    first = connect("az://box/f.zarr", options)
    assert connect("az://box/f.zarr", options) is first
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"another").decode())
    assert connect("az://box/f.zarr", options) is not first
