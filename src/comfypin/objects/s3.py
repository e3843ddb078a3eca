"""Objects in a bucket behind the S3 protocol: AWS, Cloudflare R2, MinIO, RunPod volumes.

The bytes are carried by obstore's synchronous calls (its async ones abort the interpreter at exit). Requests are
counted because they cost money: one PUT an object, no listing, no HEAD before a PUT. Every body is signed with its
sha256, which servers check; the checksum headers of newer AWS clients are not sent, because R2 and others refuse them.
"""

import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, unquote

from comfypin.digest import CHUNK_BYTES
from comfypin.errors import StorageError
from comfypin.errors.storage import (
    ChecksumMismatch,
    CredentialsMissing,
    ObjectMissing,
    SdkMissing,
    SettingMissing,
    SigningImpossible,
)
from comfypin.objects.config import S3Config
from comfypin.objects.directory import open_payload, read_whole
from comfypin.objects.gate import ByteGate
from comfypin.objects.interface import Payload, StoredObject
from comfypin.objects.keys import joined_key
from comfypin.objects.paced import Paced
from comfypin.objects.retry import Retry
from comfypin.objects.s3_errors import S3Place, explained

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Config as ClientConfig
    from obstore.store import S3Store as Client

log = logging.getLogger(__name__)

MIB = 1 << 20
PART_BYTES = 16 * MIB  # one PUT up to here; above, equal parts of this size (R2 takes only equal ones)
PARTS_AT_ONCE = 3
MOST_PARTS = 10_000
# md5 costs 1.9 s a GiB, more than the upload itself; above this size the sha256 that signs each part must do.
ETAG_CHECKED_BYTES = 256 * MIB
IN_FLIGHT_BYTES = PARTS_AT_ONCE * PART_BYTES
_OPAQUE_AFTER = 3
_METADATA_SERVICE = ("169.254.169.254", 80)


class S3Store:
    """A bucket, or the part of it below a prefix."""

    def __init__(self, config: S3Config, *, prefix: str = "", retry: Retry | None = None) -> None:
        if config.bucket is None:
            raise SettingMissing(variable="S3_BUCKET", purpose="deliver to S3 or R2")
        self._bucket = config.bucket
        self._prefix = prefix
        self._config = config
        self._place = S3Place(bucket=config.bucket, endpoint=config.endpoint, region=config.region)
        self._retry = retry or Retry(retries=config.retries)
        self._gate = ByteGate(IN_FLIGHT_BYTES)
        self._etags = _EtagTrust()
        self._once, self._parts = _clients(config, self._retry)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file: one request, or equal parts where it is large. Verified as the module says."""
        full = joined_key(self._prefix, key)
        upload = self._upload_parts if payload.size_bytes > PART_BYTES else self._upload_whole

        def attempt() -> str | None:
            with self._gate.hold(min(payload.size_bytes, IN_FLIGHT_BYTES)):
                return upload(full, payload)

        etag = self._retry.call(attempt, what=self._uri(full))
        return StoredObject(
            key=key, size_bytes=payload.size_bytes, uri=self._uri(full), metadata=dict(payload.metadata), etag=etag
        )

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata, in one HEAD."""
        import obstore

        full = joined_key(self._prefix, key)

        def ask() -> StoredObject | None:
            try:
                with self._failures_named("read", full):
                    found = obstore.get(self._once, full, options={"head": True})
            except ObjectMissing:
                return None
            return StoredObject(
                key=key,
                size_bytes=found.meta["size"],
                uri=self._uri(full),
                metadata=_decoded(found.attributes),
                etag=_bare(found.meta.get("e_tag")),
            )

        return self._retry.call(ask, what=self._uri(full))

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The object's bytes, as they come, in chunks of at least 1 MiB."""
        full = joined_key(self._prefix, key)
        with self._failures_named("read", full):
            found, skip = self._open_at(full, offset)
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                if len(chunk) > skip:
                    yield bytes(chunk)[skip:]
                skip = max(0, skip - len(chunk))

    def _open_at(self, full: str, offset: int) -> tuple["GetResult", int]:
        """The object from the offset, or from its beginning where the server has no ranges; the bytes to skip."""
        import obstore
        from obstore.exceptions import GenericError

        if offset:
            try:
                return obstore.get(self._once, full, options={"range": {"offset": offset}}), 0
            except GenericError as exc:
                # `rclone serve s3` answers 200 to a range, which obstore does not take.
                if "non-partial response" not in str(exc):
                    raise
        return obstore.get(self._once, full), offset

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A presigned GET (signature version 4)."""
        import obstore

        if self._place.is_runpod_volume:
            raise SigningImpossible(store=self._place.name, reason="RunPod's volumes have no presigned URLs")
        full = joined_key(self._prefix, key)
        with self._failures_named("sign for", full):
            return obstore.sign(self._once, "GET", full, timedelta(seconds=ttl_s))

    def _upload_whole(self, full: str, payload: Payload) -> str | None:
        import obstore

        with open_payload(payload) as file:
            data = read_whole(payload, file)
        if payload.pace is not None:
            payload.pace(len(data))
        with self._failures_named("write", full):
            result = obstore.put(self._once, full, data, use_multipart=False, attributes=_attributes(payload))
        etag = _bare(result["e_tag"])
        if self._etags.compared:
            expected = hashlib.md5(data, usedforsecurity=False).hexdigest()
            self._confirm(full, payload, etag, expected)
        return etag

    def _upload_parts(self, full: str, payload: Payload) -> str | None:
        part_bytes = part_size(payload.size_bytes)
        with open_payload(payload) as file:
            if payload.pace is None:
                etag = self._send_parts(full, payload, payload.path, part_bytes)  # read without Python
            else:
                paced = Paced(file, payload.pace)
                try:
                    etag = self._send_parts(full, payload, cast("BinaryIO", paced), part_bytes)
                except StorageError:
                    if paced.failure is not None:
                        raise paced.failure from None
                    raise
        self._confirm_size(full, payload)
        if self._etags.compared and payload.size_bytes <= ETAG_CHECKED_BYTES:
            self._confirm(full, payload, etag, etag_of_parts(payload.path, part_bytes))
        return etag

    def _send_parts(self, full: str, payload: Payload, source: Path | BinaryIO, part_bytes: int) -> str | None:
        import obstore

        with self._failures_named("write", full):
            result = obstore.put(
                self._parts,
                full,
                source,
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=PARTS_AT_ONCE,
                attributes=_attributes(payload),
            )
        return _bare(result["e_tag"])

    def _confirm_size(self, full: str, payload: Payload) -> None:
        """Ask the server for the size of what it joined: the one request beyond those that carry the bytes."""
        import obstore

        with self._failures_named("read", full):
            size = obstore.head(self._once, full)["size"]
        if size != payload.size_bytes:
            raise ChecksumMismatch(uri=self._uri(full), kind="size", expected=str(payload.size_bytes), actual=str(size))

    def _confirm(self, full: str, payload: Payload, etag: str | None, expected: str) -> None:
        """Compare the ETag with the md5 it usually is; where it differs, the bytes themselves decide.

        An ETag is no md5 on buckets with KMS keys, and on some servers never.
        """
        if etag == expected:
            self._etags.agreed()
            return
        actual = self._digest_as_stored(full)
        if actual != payload.sha256.hex:
            raise ChecksumMismatch(uri=self._uri(full), kind="sha256", expected=payload.sha256.hex, actual=actual)
        self._etags.differed(self._place.name)

    def _digest_as_stored(self, full: str) -> str:
        import obstore

        hasher = hashlib.sha256()
        with self._failures_named("read back", full):
            for chunk in obstore.get(self._once, full).stream(min_chunk_size=CHUNK_BYTES):
                hasher.update(memoryview(chunk))
        return hasher.hexdigest()

    def _uri(self, full: str) -> str:
        return f"s3://{self._bucket}/{full}"

    @contextmanager
    def _failures_named(self, action: str, full: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, ValueError, OSError) as exc:
            error, cause = explained(exc, place=self._place, action=action, uri=self._uri(full))
            # The original text may quote a signed request; its cleaned words are the cause.
            raise error from cause


class _EtagTrust:
    """Whether this server's ETags are md5 sums: no longer asked when several differed and none ever agreed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen_agreeing = False
        self._differing = 0

    @property
    def compared(self) -> bool:
        return self._seen_agreeing or self._differing < _OPAQUE_AFTER

    def agreed(self) -> None:
        self._seen_agreeing = True

    def differed(self, store: str) -> None:
        with self._lock:
            self._differing += 1
            if self._differing == _OPAQUE_AFTER and not self._seen_agreeing:
                log.info("etags are no checksums here", extra={"action": "etags_opaque", "store": store})


def part_size(size_bytes: int) -> int:
    """The size of all parts but the last one: 16 MiB, or more where 10,000 of them would not do."""
    wanted = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
    return -(-wanted // MIB) * MIB


def etag_of_parts(path: Path, part_bytes: int) -> str:
    """The ETag that S3 gives an object of such parts: the md5 of the parts' md5 sums, and their number."""
    whole = hashlib.md5(usedforsecurity=False)
    count = 0
    with path.open("rb", buffering=0) as file:
        part, left = hashlib.md5(usedforsecurity=False), part_bytes
        while chunk := file.read(min(CHUNK_BYTES, left)):
            part.update(chunk)
            left -= len(chunk)
            if left == 0:
                whole.update(part.digest())
                count += 1
                part, left = hashlib.md5(usedforsecurity=False), part_bytes
        if left < part_bytes:
            whole.update(part.digest())
            count += 1
    return f"{whole.hexdigest()}-{count}"


def _clients(config: S3Config, retry: Retry) -> tuple["Client", "Client"]:
    """Two clients: for single requests, which `Retry` repeats, and for parts, each of which obstore repeats itself."""
    try:
        from obstore.store import S3Store as Client
    except ImportError as exc:
        raise SdkMissing(store="S3", extra="s3") from exc

    settings, provider = _address(config), _provider(config)
    base = timedelta(seconds=max(retry.base_sleep_s, 0.001))

    def client(retries: int) -> "Client":
        return Client(
            config.bucket,
            config={**settings, "region": config.region},
            credential_provider=provider,
            # A part of 16 MiB must pass on a slow line too; the default of 30 s for a whole request is too short.
            client_options={"timeout": "300s", "connect_timeout": "10s", "allow_http": _is_plain(config)},
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(minutes=15),
                "backoff": {"init_backoff": base, "max_backoff": timedelta(seconds=60), "base": 2},
            },
        )

    return client(0), client(retry.retries)


def _is_plain(config: S3Config) -> bool:
    return config.endpoint is not None and config.endpoint.startswith("http://")


def _address(config: S3Config) -> "ClientConfig":
    bucket = str(config.bucket)
    # AWS wants virtual hosts, except where dots in the bucket's name would break TLS; others know paths best.
    on_aws = config.endpoint is None
    virtual = config.addressing == "virtual" or (config.addressing == "auto" and on_aws and "." not in bucket)
    address: ClientConfig = {"virtual_hosted_style_request": virtual}
    if config.endpoint is not None:
        scheme, _, host = config.endpoint.partition("://")
        # This setting, because a variable of the same meaning would win over plain `endpoint`.
        address["aws_endpoint_url_s3"] = f"{scheme}://{bucket}.{host}" if virtual else config.endpoint
    return address


def _provider(config: S3Config):  # type: ignore[no-untyped-def]  # obstore's Protocol exists for type checkers only
    """Hand the keys over as a whole: obstore would mix a session token from the environment into others' keys."""
    keys = config.credentials
    if keys is None:
        if not config.platform_credentials and not (config.endpoint is None and _instance_answers()):
            raise CredentialsMissing(
                store=f"s3://{config.bucket}",
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or RunPod's "
                "BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY",
            )
        return None
    return lambda: {
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
        "token": keys.session_token,
        "expires_at": None,
    }


def _instance_answers() -> bool:
    """Whether there is a metadata service to ask for a role's keys: asking in vain takes obstore three minutes."""
    try:
        socket.create_connection(_METADATA_SERVICE, timeout=1).close()
    except OSError:
        return False
    return True


def _attributes(payload: Payload) -> dict[str, str]:
    # Headers are ASCII; other characters travel as percent codes, and come back as what they were.
    encoded = {name: quote(value, safe=" !#$&'()*+,/:;=?@[]^_`{|}~\"<>\\") for name, value in payload.metadata.items()}
    return {**encoded, "Content-Type": payload.media_type}


def _decoded(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: unquote(value) for name, value in attributes.items() if not re.match(r"[A-Z]", name)}


def _bare(etag: str | None) -> str | None:
    return etag.removeprefix("W/").strip('"') if etag else None
