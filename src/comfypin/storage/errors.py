"""Failures of buckets and stores: each names the bucket or key, what the server said, and what to do about it.

No message holds a query string, a header or a body: signatures, session tokens and upload sessions live there.
"""

import re
from typing import TypeVar

from comfypin.errors import ConfigError, StorageError

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=/+-]{1,128}")
E = TypeVar("E", bound=StorageError)


def add_request_id(error: E, request_id: object) -> E:
    """The error with the id of the service's own that its support asks for, if the service gave one."""
    if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):
        error.message = f"{error.message.removesuffix('.')} (request id {request_id})."
        error.args = (error.message,)
        error.facts["request_id"] = request_id
    return error


class CertificatesUnusable(ConfigError):
    """The file of certificates to trust holds none."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path}, which AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE names, holds no certificates in PEM that can be read.",
            path=path,
        )


class SdkMissing(ConfigError):
    """The client library of a store is not installed."""

    def __init__(self, *, store: str, extra: str) -> None:
        super().__init__(
            f"Delivery to {store} needs its client library: install comfypin[{extra}].", store=store, extra=extra
        )


class TransientStorageError(StorageError):
    """A failure that may pass: the only kind that is tried again."""


class StoreUnreachable(TransientStorageError):
    """Nothing, or nothing whole, came back from the store."""

    def __init__(
        self, *, store: str, reason: str, remedy: str = "check the endpoint and this machine's network"
    ) -> None:
        super().__init__(f"{store} could not be reached ({reason}); {remedy}.", store=store, reason=reason)


class StoreTooSlow(StorageError):
    """A store did not answer within the time that there was for all of it."""

    def __init__(self, *, store: str) -> None:
        super().__init__(
            f"{store} did not answer in the time that there was; check that its address is that of a store.",
            store=store,
        )


class ProxyRefused(StorageError):
    """The proxy on the way to the store lets nothing through."""

    def __init__(self, *, proxy: str, variable: str, store: str, reason: str, remedy: str) -> None:
        super().__init__(
            f"The proxy {proxy}, which {variable} names, refuses to lead to {store} ({reason}): {remedy}.",
            proxy=proxy,
            store=store,
            reason=reason,
        )


class StoreBusy(TransientStorageError):
    """The store answered that it cannot serve now."""

    def __init__(self, *, store: str, status: int, code: str = "") -> None:
        named = f" {code}" if code else ""
        super().__init__(
            f"{store} cannot serve now (HTTP {status}{named}); try again later, or allow more retries.",
            store=store,
            status=status,
            code=code,
        )


class ChecksumMismatch(TransientStorageError):
    """The store holds, or says that it holds, other bytes than were sent."""

    def __init__(self, *, uri: str, kind: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{uri} arrived damaged: its {kind} is {actual}, {expected} was sent; the upload does not count.",
            uri=uri,
            kind=kind,
            expected=expected,
            actual=actual,
        )


class NotStored(TransientStorageError):
    """The store answered that all is well, and has nothing under the key."""

    def __init__(self, *, uri: str, status: int) -> None:
        super().__init__(
            f"{uri} is not there, although the upload was answered with HTTP {status}; the upload does not count.",
            uri=uri,
            status=status,
        )


class CredentialsMissing(StorageError):
    """No credentials were found where the platform usually has them."""

    def __init__(self, *, store: str, remedy: str) -> None:
        super().__init__(f"There are no credentials for {store}: {remedy}.", store=store)


class CredentialsRefused(StorageError):
    """The store knows no such credentials, or they have expired."""

    def __init__(self, *, store: str, reason: str, remedy: str) -> None:
        super().__init__(f"{store} refused the credentials ({reason}): {remedy}.", store=store, reason=reason)


class ClockSkewed(StorageError):
    """This machine's clock and the store's differ too much for signatures to be valid."""

    def __init__(self, *, store: str) -> None:
        super().__init__(
            f"{store} refused a request because this machine's clock is wrong; set the clock (for example with NTP).",
            store=store,
        )


class BucketMissing(StorageError):
    """The bucket does not exist where it was looked for."""

    def __init__(self, *, store: str, variable: str) -> None:
        super().__init__(
            f"{store} does not exist at this endpoint; check {variable}, the endpoint and the region.", store=store
        )


class NotAStore(StorageError):
    """What answers at the endpoint is something else."""

    def __init__(self, *, store: str, status: int, said: str, variable: str) -> None:
        super().__init__(
            f"What answers for {store} {said} (HTTP {status}), as no such store does; check {variable}, and whether "
            "something stands before the store.",
            store=store,
            status=status,
        )


class PermissionMissing(StorageError):
    """The credentials are good, and not for this."""

    def __init__(self, *, store: str, action: str, remedy: str) -> None:
        super().__init__(f"The credentials may not {action} in {store}: {remedy}.", store=store, action=action)


class WrongRegion(StorageError):
    """The bucket lives elsewhere."""

    def __init__(self, *, store: str, region: str, expected: str | None = None) -> None:
        where = f"it is in {expected}; set S3_REGION={expected}" if expected else "set S3_REGION to the bucket's region"
        super().__init__(f"{store} is not in region {region}: {where}.", store=store, region=region, expected=expected)
        self.expected = expected


class PublicAccessImpossible(StorageError):
    """GCS_PUBLIC asks for what the bucket's access settings exclude."""

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(
            f"GCS_PUBLIC cannot work on {store}: {reason}. Unset GCS_PUBLIC and either grant allUsers the role "
            "Storage Object Viewer on the bucket, or use GCS_SIGNED_URL_TTL.",
            store=store,
            reason=reason,
        )


class SigningImpossible(StorageError):
    """These credentials, or this store, cannot sign URLs."""

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(f"URLs of {store} cannot be signed: {reason}.", store=store, reason=reason)


class ObjectMissing(StorageError):
    """There is nothing under the key."""

    def __init__(self, *, uri: str) -> None:
        super().__init__(f"There is no object {uri}.", uri=uri)


class KeyInvalid(StorageError):
    """A key would leave the store, or is one that stores do not take."""

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"{key!r} is no key for an object: {reason}.", key=key, reason=reason)


class PayloadUnreadable(StorageError):
    """The file to be uploaded went away, changed, or cannot be read."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path} cannot be uploaded: {reason}.", path=path, reason=reason)


class StoreFull(StorageError):
    """The folder that stands for a bucket cannot be written to."""

    def __init__(self, *, uri: str, reason: str) -> None:
        super().__init__(f"{uri} cannot be written: {reason}.", uri=uri, reason=reason)


class StoreRefused(StorageError):
    """The store refused for a reason that has no sentence of its own."""

    def __init__(self, *, store: str, action: str, status: int, code: str, reason: str) -> None:
        said = ": ".join(part for part in (code, reason) if part)
        super().__init__(
            f"{store} refused to {action} (HTTP {status}{': ' + said if said else ''}).",
            store=store,
            action=action,
            status=status,
            code=code,
        )


class ProviderError(Exception):
    """What a provider's library said, without the parts that may hold secrets."""
