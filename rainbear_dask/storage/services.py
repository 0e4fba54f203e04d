"""Services that store objects, as data: the options of their URLs, their environment, and how to read them anonymously.

Options have the spelling of the service's file system in fsspec, because users know it. Each has one of four kinds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OBSTORE_ONLY = frozenset({"client_options", "retry_config"})
"""Options of every store of obstore."""

_COMMON = frozenset(
    [
        *("asynchronous", "loop", "batch_size", "skip_instance_cache"),
        *("use_listings_cache", "listings_expiry_time", "max_paths"),
    ]
)
_NOT_FOR_READING = frozenset(
    ["block_size", "cache_options", "default_block_size", "default_cache_type", "default_fill_cache"]
)


@dataclass(frozen=True)
class Service:
    """A service, as the rest of the package has to know it.

    Parameters
    ----------
    schemes : tuple of str
        Schemes of its URLs.
    translated : frozenset of str
        Options that obstore has under another or the same name.
    ignored : frozenset of str
        Options of fsspec that obstore does not need: buffers, listings, event loops.
    fsspec_only : frozenset of str
        Options without an equivalent in obstore: with one of them, fsspec reads.
    obstore_only : frozenset of str
        Options that fsspec does not have.
    environment : tuple of str
        Beginnings of the environment variables that select credentials and endpoints.
    extra : str
        The extra that installs a library for the service.
    package : str
        The package that fsspec needs.
    anonymous : str
        How to read public objects.
    """

    schemes: tuple[str, ...]
    translated: frozenset[str]
    ignored: frozenset[str]
    fsspec_only: frozenset[str]
    obstore_only: frozenset[str]
    environment: tuple[str, ...]
    extra: str
    package: str
    anonymous: str

    @property
    def options(self) -> frozenset[str]:
        """All options, and `library`, which selects obstore or fsspec."""
        return self.translated | self.ignored | self.fsspec_only | self.obstore_only | {"library"}


S3 = Service(
    schemes=("s3", "s3a"),
    translated=frozenset(
        [
            *("anon", "key", "secret", "token", "profile", "endpoint_url", "region", "region_name", "requester_pays"),
            *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "client_kwargs", "config_kwargs"),
            *("connect_timeout", "read_timeout", "retries", "s3", "verify"),
        ]
    ),
    ignored=_COMMON - {"loop", "batch_size"} | {"cache_regions", "max_pool_connections", "use_ssl"},
    fsspec_only=frozenset(
        [
            *("s3_additional_kwargs", "session", "username", "password", "version_aware", "max_concurrency"),
            *("fixed_upload_size", "local_expiry_check", "session_vars", "event_hooks", "loop", "batch_size"),
            *("default_block_size", "default_cache_type", "default_fill_cache"),
        ]
    ),
    obstore_only=OBSTORE_ONLY,
    environment=("AWS_",),
    extra="s3",
    package="s3fs",
    anonymous="S3Store(..., skip_signature=True), or storage_options={'anon': True} with an s3:// URL",
)

HTTP = Service(
    schemes=("http", "https"),
    translated=frozenset({"headers", "client_kwargs"}),
    ignored=frozenset(),
    fsspec_only=_COMMON
    | {
        *("auth", "cookies", "params", "timeout", "proxy", "proxy_auth", "ssl", "trust_env", "allow_redirects"),
        *("get_client", "encoded", "simple_links", "same_scheme", "size_policy", "verify", "max_redirects"),
        *("block_size", "cache_type", "cache_options", "verify_ssl", "server_hostname", "ssl_context"),
    },
    obstore_only=OBSTORE_ONLY,
    environment=(),
    extra="http",
    package="aiohttp",
    anonymous="no credentials",
)

GCS = Service(
    schemes=("gs", "gcs"),
    translated=frozenset({"anon", "token", "project", "endpoint_url", "requester_pays"}),
    ignored=_COMMON
    | _NOT_FOR_READING
    | {"access", "cache_timeout", "check_connection", "consistency", "default_location", "secure_serialize"},
    fsspec_only=frozenset({"requests_timeout", "session_kwargs", "timeout", "version_aware"}),
    obstore_only=OBSTORE_ONLY
    | {
        *("application_credentials", "base_url", "bearer_token", "credential_provider", "service_account"),
        *("service_account_key", "skip_signature"),
    },
    environment=("GOOGLE_", "GCE_METADATA_", "CLOUDSDK_CONFIG", "STORAGE_EMULATOR_HOST"),
    extra="gcs",
    package="gcsfs",
    anonymous="GCSStore(..., skip_signature=True), or storage_options={'token': 'anon'} with a gs:// URL",
)

AZURE = Service(
    schemes=("az", "abfs", "abfss"),
    translated=frozenset(
        [
            *("account_name", "account_key", "account_host", "sas_token", "connection_string", "credential", "anon"),
            *("client_id", "client_secret", "tenant_id", "connection_timeout", "read_timeout"),
        ]
    ),
    ignored=_COMMON | _NOT_FOR_READING | {"assume_container_exists", "blocksize", "max_concurrency"},
    fsspec_only=frozenset({"location_mode", "request_session", "socket_timeout", "timeout", "version_aware"}),
    obstore_only=OBSTORE_ONLY
    | {
        *("authority_host", "credential_provider", "credential_type", "endpoint", "federated_token_file"),
        *("msi_endpoint", "msi_resource_id", "object_id", "sas_key", "skip_signature", "token", "use_azure_cli"),
        *("use_emulator", "use_fabric_endpoint"),
    },
    environment=("AZURE_", "IDENTITY_"),
    extra="azure",
    package="adlfs",
    anonymous="AzureStore(..., skip_signature=True), or storage_options={'anon': True} with an az:// URL",
)

SERVICES: Mapping[str, Service] = {scheme: service for service in (S3, HTTP, GCS, AZURE) for scheme in service.schemes}
"""Services by scheme of the URL. fsspec reads all other URLs, and checks their options itself."""

ENVIRONMENT = tuple(start for service in (S3, HTTP, GCS, AZURE) for start in service.environment)
"""Beginnings of the environment variables of all services."""


def scheme_of(url: str) -> str:
    """Return the scheme of a URL."""
    return url.partition("://")[0]


def service_of(url: str) -> Service | None:
    """Return the service of a URL; None if it has no table here, or chains several file systems."""
    return None if "::" in url else SERVICES.get(scheme_of(url))
