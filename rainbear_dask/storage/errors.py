"""Translation of errors of stores, file systems and codecs into ours, which name a store and a remedy but no secret."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from rainbear_dask.dependencies import how_to_install
from rainbear_dask.exceptions import (
    MissingDependencyError,
    RainbearError,
    StoreAccessError,
    StoreError,
    StoreNotFoundError,
)
from rainbear_dask.redaction import presentable, reason, safe_cause
from rainbear_dask.storage.obstore import plain
from rainbear_dask.storage.requests import FetchError
from rainbear_dask.storage.services import HTTP, S3, service_of
from rainbear_dask.storage.sources import is_icechunk

CHECK_CREDENTIALS = "Check the credentials in `storage_options`, in the given store or session, or in the environment."
_REFUSAL = re.compile(
    "Credential|Unauth|PermissionDenied|Forbidden|Authenti|TokenRetrieval|RefreshError|ProfileNotFound"
)
_ABSENCE = re.compile(r"\b(NoSuchBucket|404 Not Found)\b")
_REFUSAL_CODES = re.compile(
    r"\b(ExpiredToken|TokenRefreshRequired|InvalidAccessKeyId|InvalidToken|SignatureDoesNotMatch|AccessDenied)\b"
    r"|status code: 40[13]\b|Invalid Access Key"  # obstore has no class for a listing that Azure or Google refuses
)
_METADATA_SERVICE = re.compile(  # where a machine in a cloud finds the keys of its role; other machines have none
    r"/latest/(?:api/token|meta-data)|169\.254\.169\.254|169\.254\.170\.2\b|fd00:ec2::254|metadata\.google\.internal"
)
_ICECHUNK_REFUSAL = re.compile(  # its errors have one class, and tell a refusal in their text alone
    "Forbidden|Unauthori[sz]ed|PermissionDenied|Unauthenticated|AuthenticationFailed|authorize the virtual"
)


@contextmanager
def translate_errors(label: str, find_secrets: Sequence[str] | Callable[[], Sequence[str]]) -> Iterator[None]:
    """Raise every error of a store or its file system as one of ours, without secrets.

    Parameters
    ----------
    label : str
        Name of the store in messages.
    find_secrets : sequence of str, or callable
        Texts that no message may show, or a function that returns them.

    Raises
    ------
    StoreAccessError
        If the store refuses access.
    StoreNotFoundError
        If there is no store, or nothing here can open it.
    StoreError
        In all other cases. Errors of ours pass with their own class.
    """
    try:
        yield
    except RainbearError as err:
        _clean(err, find_secrets() if callable(find_secrets) else find_secrets)
        raise
    except Exception as error:  # noqa: BLE001  codecs and file systems have no common error
        secrets = find_secrets() if callable(find_secrets) else find_secrets
        cause = cause_of(error)
        what, why = f"the Zarr store at {label}", reason(cause, secrets)
        if _METADATA_SERVICE.search(str(cause)):
            ours: StoreError = StoreAccessError(
                f"There are no credentials for {label}: nothing in the environment, and no role of a cloud machine. "
                "Give them to the store or in `storage_options`, or set them in the environment. Public data need "
                f"{(service_of(label) or S3).anonymous}."
            )
        elif is_refusal(cause):
            ours = StoreAccessError(f"The Zarr store at {label} refuses access: {why}. {CHECK_CREDENTIALS}")
        elif isinstance(cause, FileNotFoundError) or _ABSENCE.search(str(cause)):
            ours = StoreNotFoundError(f"No Zarr store at {label}: {why}. Check the path.")
        elif isinstance(cause, ImportError) or (_is_unknown(cause) and _extra_of(label)):
            extra = _extra_of(label)
            how = how_to_install(extra) if extra else "Install the package that it names."
            raise MissingDependencyError(f"Cannot open {what}: {why}. {how}") from safe_cause(cause, secrets)
        elif _is_unknown(cause):
            ours = StoreNotFoundError(
                f"The Zarr store at {label} has a protocol that fsspec does not know: {why}. Correct the address, or install its package."
            )
        else:
            ours = StoreError(f"Cannot read {what}: {why}. Check the address, and that the service answers.")
        raise ours from safe_cause(cause, secrets)


def _is_unknown(err: Exception) -> bool:
    return "Protocol not known" in str(err)


def _extra_of(label: str) -> str | None:
    """Return the extra that installs the missing package for an address, if there is one.

    The extras for Google and Azure install obstore alone. If it is there, the options need fsspec's own package.
    """
    service = service_of(label)
    if service is None or (service not in (S3, HTTP) and find_spec("obstore")):
        return None
    return service.extra


def _clean(ours: RainbearError, secrets: Sequence[str]) -> None:
    """Remove secrets from an error of ours that quotes another one, and from its traceback."""
    ours.args = (presentable(str(ours), secrets),)
    cause = ours.__cause__
    if cause is not None and safe_cause(cause, secrets) is None:
        ours.__cause__ = None
    if not ours.__suppress_context__ and safe_cause(ours.__context__, secrets) is None:
        ours.__suppress_context__ = True


def is_refusal(err: BaseException | None) -> bool:
    """Whether an error is about credentials, judged by names in botocore, google-auth, azure, obstore and Icechunk."""
    while err is not None:
        if isinstance(err, PermissionError) or getattr(err, "status", None) in (401, 403):
            return True
        text = str(err)
        if _REFUSAL.search(type(err).__name__) or _REFUSAL_CODES.search(text):
            return True
        if is_icechunk(err) and _ICECHUNK_REFUSAL.search(text):
            return True
        err = err.__cause__
    return False


def cause_of(err: Exception) -> Exception:
    """Return the error behind a failed request, with a short text."""
    return plain(err.__cause__ if isinstance(err, FetchError) and isinstance(err.__cause__, Exception) else err)
