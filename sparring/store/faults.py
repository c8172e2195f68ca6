"""What boto3 raises, as one clear line without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from urllib3.exceptions import HTTPError

from sparring.errors import NotFoundError, StoreError

LOST = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    HTTPError,
    ConnectionError,
    TimeoutError,
)
"""The reply did not come: the request may have been carried out or not."""

_MOST = 300
_CREDENTIALS = "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and at the bucket's policy"
_SECRETS = re.compile(r"(?i)(//)[^/@\s]+@|(x-amz-[a-z-]+|signature|credential|token)=[^&\s]+")
_REFUSED = {
    "AccessDenied": "access is denied",
    "AccountProblem": "the account is blocked",
    "ExpiredToken": "the session token has ended",
    "ExpiredTokenException": "the session token has ended",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidToken": "the session token is not accepted",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "401": "access is denied",
    "403": "access is denied (wrong credentials or no permission)",
}
_OTHER = {
    "NoSuchBucket": ("the bucket does not exist", "make the bucket or correct the store's url"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set the clock"),
    "NotImplemented": ("the store does not know this operation", "use a store with conditional puts"),
    "501": ("the store does not know this operation", "use a store with conditional puts"),
    "QuotaExceeded": ("the store is full", "free some space"),
    "XMinioStorageFull": ("the store is full", "free some space"),
    "301": ("the bucket is in another region", "set AWS_REGION"),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_REGION"),
}


def status_of(error: BaseException) -> int:
    """HTTP status of the reply behind an error, 0 when there was none."""
    found = _client_error(error)
    return int(found.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if found else 0


def is_passing(error: BaseException) -> bool:
    """Whether asking again may help: no reply, an overloaded or failing server, a conflict with another request."""
    status = status_of(error)
    if status:
        return status in (408, 409, 412, 429) or (status >= 500 and status != 501) or _code(error) == "RequestTimeout"
    return any(isinstance(cause, LOST) for cause in _causes(error))


def explain(error: Exception, *, action: str, key: str, url: str) -> StoreError:
    """The StoreError (NotFoundError for a missing object) that says what failed, where, and what to do."""
    what = f"cannot {action} {key!r} in {url}"
    client = _client_error(error)
    if client is not None:
        return _explain_reply(client, what, key, url)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StoreError(f"{what}: no credentials", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if any(isinstance(cause, LOST) for cause in _causes(error)):
        return StoreError(f"{what}: no reply ({scrub(error)})", hint="look at AWS_ENDPOINT_URL and the network")
    return StoreError(f"{what}: {scrub(error)}")


def scrub(error: Exception) -> str:
    """One line of an error's text, cut, without credentials."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _SECRETS.sub(lambda match: (match[1] or f"{match[2]}=") + "…", text)[:_MOST]


def _explain_reply(error: ClientError, what: str, key: str, url: str) -> StoreError:
    code = _code(error)
    status = status_of(error)
    if code in _REFUSED or (status in (401, 403) and code not in _OTHER):
        return StoreError(f"{what}: {_REFUSED.get(code, 'access is denied')}", hint=_CREDENTIALS)
    if code in _OTHER:
        reason, hint = _OTHER[code]
        return StoreError(f"{what}: {reason}", hint=hint)
    if status == 404:
        return NotFoundError(f"no object {key!r} in the store ({url})")
    if status >= 500 or status == 429:
        return StoreError(f"{what}: the store keeps failing ({status} {code})", hint="try again later")
    return StoreError(f"{what}: {status} {code} ({scrub(error)})")


def _code(error: BaseException) -> str:
    found = _client_error(error)
    return str(found.response.get("Error", {}).get("Code", "")) if found else ""


def _client_error(error: BaseException) -> ClientError | None:
    """boto3's transfers wrap the reply in errors of their own."""
    return next((cause for cause in _causes(error) if isinstance(cause, ClientError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = getattr(error, "last_exception", None) or error.__cause__ or error.__context__
