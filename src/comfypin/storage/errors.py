"""Failures of buckets and stores: each names the bucket or key, what the server said, and what to do about it.

No message holds a query string, a header or a body: signatures, session tokens and upload sessions live there.
"""

import re
from pathlib import PurePath
from typing import TypeVar

from comfypin.errors import ConfigError, StorageError, declare
from comfypin.installation import extra_command

# An id is copied into logs and results unchanged, so only harmless characters are accepted.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=/+-]{1,128}")
AnyStorageError = TypeVar("AnyStorageError", bound=StorageError)


def add_request_id(error: AnyStorageError, request_id: object) -> AnyStorageError:
    """Return the error with the service's request id, which its support asks for, if the service gave one."""
    if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):
        error.message = f"{error.message.removesuffix('.')} (request id {request_id})."
        error.args = (error.message,)
        error.facts["request_id"] = request_id
    return error


@declare
class CertificatesUnusable(ConfigError):
    """Raised if the file of certificates to trust holds none."""

    template = (
        "{path} (from AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE) holds no readable certificates; name a file of "
        "certificates in PEM, or a folder of such files."
    )
    path: str


@declare
class SdkMissing(ConfigError):
    """Raised if the client library of a store is not installed."""

    template = "{store} needs its client library, comfypin[{extra}]."
    command_hint = "To install it: {command}"
    store: str
    extra: str

    @property
    def command(self) -> str:
        """Return what to type."""
        return extra_command(self.extra)


class TransientStorageError(StorageError):
    """Base of the transient failures, the only ones that are retried."""


@declare
class StoreUnreachable(TransientStorageError):
    """Raised if the store sent no response, or not a whole one."""

    template = "{store} could not be reached ({reason}); {remedy}."
    store: str
    reason: str
    remedy: str = "check the endpoint and this machine's network"


@declare
class StoreTooSlow(StorageError):
    """Raised if the store did not respond before the deadline of the whole job or upload."""

    template = "{store} did not respond before the deadline; check that its address is that of a store."
    store: str


@declare
class ProxyRefused(StorageError):
    """Raised if the proxy between this machine and the store lets nothing through."""

    template = "The proxy {proxy} (from {variable}) does not let requests through to {store} ({reason}): {remedy}."
    proxy: str
    variable: str
    store: str
    reason: str
    remedy: str


@declare
class StoreBusy(TransientStorageError):
    """Raised if the store responds that it cannot serve now, or with something that no store sends."""

    template = "{store} cannot serve now (HTTP {status}{code_suffix}); try again later, or allow more retries."
    store: str
    status: int
    code: str = ""

    @property
    def code_suffix(self) -> str:
        """Return the store's error code after a comma, if there is one."""
        return f", {self.code}" if self.code else ""


@declare
class ChecksumMismatch(TransientStorageError):
    """Raised if the store holds other bytes than were sent, or says so."""

    template = "{uri} arrived damaged: its {kind} is {actual}, expected {expected}; run the upload again."
    uri: str
    kind: str
    expected: str
    actual: str


@declare
class NotStored(TransientStorageError):
    """Raised if the store confirmed an upload and has nothing under the key."""

    template = (
        "{uri} is missing, although the upload was confirmed with HTTP {status}; run the upload again, and check "
        "that no proxy answers in the store's place."
    )
    uri: str
    status: int


@declare
class CredentialsMissing(StorageError):
    """Raised if no credentials are set, and the platform gives none."""

    template = "There are no credentials for {store}: {remedy}."
    store: str
    remedy: str


@declare
class CredentialsRefused(StorageError):
    """Raised if the store does not know the credentials, or they have expired."""

    template = "{store} refused the credentials ({reason}): {remedy}."
    store: str
    reason: str
    remedy: str


@declare
class ClockSkewed(StorageError):
    """Raised if this machine's clock and the store's differ too much for signatures to be valid."""

    template = "{store} refused a request because this machine's clock is wrong; set the clock (for example with NTP)."
    store: str


@declare
class BucketMissing(StorageError):
    """Raised if the bucket does not exist at the endpoint."""

    template = "{store} does not exist at this endpoint; check {variable}, the endpoint and the region."
    store: str
    variable: str


@declare
class NotAStore(StorageError):
    """Raised if something else than a store responds at the endpoint."""

    template = (
        "The server at the endpoint of {store} {said} (HTTP {status}), so it is not a store; check {variable}, and "
        "any proxy between this machine and the store."
    )
    store: str
    status: int
    said: str
    variable: str


@declare
class PermissionMissing(StorageError):
    """Raised if the credentials are valid but do not allow the operation."""

    template = "The credentials may not {action} in {store}: {remedy}."
    store: str
    action: str
    remedy: str


@declare
class WrongRegion(StorageError):
    """Raised if the bucket is in another region; `expected` is which, if the store says it."""

    template = "{store} is not in region {region}: {advice}."
    store: str
    region: str
    expected: str | None = None

    @property
    def advice(self) -> str:
        """Return what to set."""
        if self.expected is None:
            return "set S3_REGION to the bucket's region"
        return f"it is in {self.expected}; set S3_REGION={self.expected}"


@declare
class PublicAccessImpossible(StorageError):
    """Raised if GCS_PUBLIC asks for what the bucket's access settings forbid."""

    template = (
        "GCS_PUBLIC cannot work on {store}: {reason}. Unset GCS_PUBLIC and either grant allUsers the role Storage "
        "Object Viewer on the bucket, or use GCS_SIGNED_URL_TTL."
    )
    store: str
    reason: str


@declare
class SigningImpossible(StorageError):
    """Raised if the credentials, or the store, cannot sign URLs."""

    template = "URLs of {store} cannot be signed: {reason}."
    store: str
    reason: str


@declare
class ObjectMissing(StorageError):
    """Raised if there is nothing under the key."""

    template = "There is no object {uri}; check the address."
    uri: str


@declare
class KeyInvalid(StorageError):
    """Raised if a key would leave the store, or if stores do not accept it."""

    template = "{key!r} is not a valid object key: {reason}."
    key: str
    reason: str


@declare
class PayloadUnreadable(StorageError):
    """Raised if the file to upload is gone, has changed, or cannot be read."""

    # A job's user knows the output's name; the folder is the server's own.
    template = "{file_name} cannot be uploaded: {reason}."
    path: str
    reason: str

    @property
    def file_name(self) -> str:
        """Return the name of the file without its folder."""
        return PurePath(self.path).name


@declare
class StoreFull(StorageError):
    """Raised if the folder that serves as a bucket cannot be written to."""

    template = "{uri} cannot be written ({reason}); check the folder's permissions and free space."
    uri: str
    reason: str


@declare
class StoreRefused(StorageError):
    """Raised if the store refused for a reason that no other error names."""

    template = "{store} refused to {action} (HTTP {status}{details})."
    store: str
    action: str
    status: int
    code: str
    reason: str

    @property
    def details(self) -> str:
        """Return the store's code and reason, if it gave any."""
        return "".join(f": {part}" for part in (self.code, self.reason) if part)


class ProviderError(Exception):
    """The cause of a storage error: what a provider's library raised, without the parts that may hold secrets."""
