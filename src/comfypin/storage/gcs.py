"""Objects in Google Cloud Storage, by its JSON API.

Small files go up in one request; large ones in one resumable session, which goes on where it broke. Both carry the
crc32c of the file, so that the server refuses other bytes, and the server's answer is compared once more.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO
from urllib.parse import quote

from comfypin.digest import CHUNK_BYTES
from comfypin.errors.storage import (
    ChecksumMismatch,
    PermissionMissing,
    PublicAccessImpossible,
    SettingMissing,
)
from comfypin.storage.body import FilePart, Framed, Text
from comfypin.storage.crc32c import Crc32c
from comfypin.storage.gcs_errors import RefusedRequest
from comfypin.storage.gcs_http import GcsHttp, facts_in
from comfypin.storage.gcs_keys import GcsKeys, quoted_path
from comfypin.storage.gcs_session import SessionUpload
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.keys import joined_key
from comfypin.storage.payload_file import open_payload, require_as_hashed
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.retry import Retry
from comfypin.storage.wire import Answer

log = logging.getLogger(__name__)

MIB = 1 << 20
WHOLE_BYTES = 8 * MIB  # one request up to here (and Google's own limit for it); a session above
_GOOGLE = "https://storage.googleapis.com"
_JSON = "application/json; charset=UTF-8"


class GcsStore:
    """A bucket, or the part of it below a prefix."""

    def __init__(self, config: GcsSettings, *, prefix: str = "", retry: Retry | None = None) -> None:
        if config.bucket is None:
            raise SettingMissing(variable="GCS_BUCKET", purpose="deliver to Google Cloud Storage")
        Crc32c()  # without its library there is no store
        redact_library_logs()
        self._name = config.bucket
        self._config = config
        self._prefix = prefix
        self._retry = retry or Retry(retries=config.retries, base_sleep_s=config.retry_base_sleep_s)
        self._keys = GcsKeys(config)
        self._http = GcsHttp(config.endpoint or _GOOGLE, config, self._keys)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file, and compare size and crc32c as the server has them."""
        full = joined_key(self._prefix, key)
        with open_payload(payload) as file:
            require_as_hashed(payload, file)
            upload = self._put_whole if payload.size_bytes <= WHOLE_BYTES else self._put_in_session
            facts = upload(full, payload, file)
        return StoredObject(
            key=key,
            size_bytes=payload.size_bytes,
            uri=self._uri(full),
            metadata=dict(payload.metadata),
            etag=facts.get("etag"),
        )

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata, in one request."""
        full = joined_key(self._prefix, key)

        def ask() -> StoredObject | None:
            with self._http.failures_named("read", self._uri(full)):
                answer = self._http.ask("GET", self._object(full))
                if answer.status == 404:
                    return None
                facts = facts_in(answer)
                size, metadata = str(facts.get("size", 0)), facts.get("metadata") or {}
                if not re.fullmatch(r"[0-9]{1,18}", size) or not isinstance(metadata, dict):
                    raise RefusedRequest(status=502, reason="the answer describes no object")
            return StoredObject(
                key=key,
                size_bytes=int(size),
                uri=self._uri(full),
                metadata=metadata,
                etag=facts.get("etag"),
            )

        return self._retry.call(ask, what=self._uri(full))

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The object's bytes, as they come, in chunks of up to 1 MiB."""
        full = joined_key(self._prefix, key)
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        with (
            self._http.failures_named("read", self._uri(full)),
            self._http.sent("GET", f"{self._object(full)}?alt=media", headers) as coming,
        ):
            if coming.status != (206 if offset else 200):
                data = coming.whole()
                raise RefusedRequest.of(Answer(status=coming.status, headers=coming.headers, data=data))
            yield from coming.chunks(CHUNK_BYTES)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A signed GET (version 4). Raises `SigningImpossible` where these are no service account's credentials."""
        path = quoted_path(self._name, joined_key(self._prefix, key))
        return self._keys.signed_url(self._http.endpoint, path, ttl_s=ttl_s)

    def check(self, *, below: str = "") -> None:
        """Make sure that the bucket is there, takes objects, and can have public ones if it must.

        Asks only; writes nothing. Raises `BucketMissing`, `PermissionMissing`, `PublicAccessImpossible`,
        `CredentialsRefused`, `StoreUnreachable`.
        """
        if self._config.validate:
            with self._http.hurried():
                self._retry.call(self._validate_once, what=f"gs://{self._name}")
        elif self._config.public:
            self.require_public_possible()

    def _validate_once(self) -> None:
        # Needs no permission of its own; bucket.get would, and roles that may only write do not have it.
        wanted = ["storage.objects.create", "storage.objects.delete"]
        url = self._http.api("/iam/testPermissions", {"permissions": wanted})
        with self._http.failures_named("look at", ""):
            facts = facts_in(self._http.ask("GET", url))
        granted = facts["permissions"] if isinstance(facts.get("permissions"), list) else []
        if "storage.objects.create" not in granted:
            raise PermissionMissing(
                store=f"gs://{self._name}",
                action="write objects",
                remedy="grant roles/storage.objectUser on the bucket",
            )
        if "storage.objects.delete" not in granted:
            log.warning(
                "objects cannot be replaced; a job that is run again will fail (roles/storage.objectUser can)",
                extra={"action": "gcs_not_replaceable", "bucket": self._name},
            )
        if self._config.public:
            self.require_public_possible()

    def require_public_possible(self) -> None:
        """Make sure that single objects can be public here. Raises `PublicAccessImpossible`, `StorageError`.

        Only a warning where these credentials may write and not look at the bucket: many roles that can are such.
        """
        try:
            with self._http.failures_named("read the access settings of", ""):
                bucket = facts_in(self._http.ask("GET", self._http.api("")))
        except PermissionMissing:
            log.warning(
                "whether objects can be public shows at the first upload only (storage.buckets.get is not granted)",
                extra={"action": "gcs_public_unknown", "bucket": self._name},
            )
            return
        settings = bucket.get("iamConfiguration", {})
        if settings.get("uniformBucketLevelAccess", {}).get("enabled"):
            raise PublicAccessImpossible(
                store=f"gs://{self._name}",
                reason="it has uniform bucket-level access, so single objects cannot be made public",
            )
        if settings.get("publicAccessPrevention") == "enforced":
            raise PublicAccessImpossible(store=f"gs://{self._name}", reason="it enforces public access prevention")

    def _put_whole(self, full: str, payload: Payload, file: BinaryIO) -> dict[str, Any]:
        part = FilePart(file.fileno(), offset=0, size_bytes=payload.size_bytes, path=str(payload.path))
        part.pace = payload.pace
        crc32c = Crc32c()
        part.add_to(crc32c)
        boundary = secrets.token_hex(16)
        described = json.dumps({**self._described(full, payload), "crc32c": crc32c.base64})
        body = Framed(
            f"--{boundary}\r\ncontent-type: {_JSON}\r\n\r\n{described}\r\n"
            f"--{boundary}\r\ncontent-type: {payload.media_type}\r\n\r\n".encode(),
            part,
            f"\r\n--{boundary}--".encode(),
        )
        url = self._http.api("/o", {"uploadType": "multipart", **self._acl}, upload=True)
        headers = {"Content-Type": f'multipart/related; boundary="{boundary}"'}

        def attempt() -> dict[str, Any]:
            with self._http.failures_named("write", self._uri(full)):
                facts = facts_in(self._http.ask("POST", url, headers=headers, body=body))
            self._confirm(full, payload, crc32c.base64, facts)
            return facts

        return self._retry.call(attempt, what=self._uri(full))

    def _put_in_session(self, full: str, payload: Payload, file: BinaryIO) -> dict[str, Any]:
        part = FilePart(file.fileno(), offset=0, size_bytes=payload.size_bytes, path=str(payload.path))
        crc32c = Crc32c()
        with ThreadPoolExecutor(1, thread_name_prefix="comfypin-crc32c") as pool:
            summed = pool.submit(part.add_to, crc32c)

            def sum_of_all() -> str:
                summed.result()
                return crc32c.base64

            try:
                return self._send_in_session(full, payload, file, sum_of_all)
            except BaseException:
                crc32c.give_up()
                raise

    def _send_in_session(
        self, full: str, payload: Payload, file: BinaryIO, crc32c: Callable[[], str]
    ) -> dict[str, Any]:
        def open_session() -> str:
            return self._session(full, payload)

        upload = SessionUpload(file, payload, http=self._http, open_session=open_session, crc32c=crc32c)

        def attempt() -> dict[str, Any]:
            with self._http.failures_named("write", self._uri(full)):
                facts = upload.go_on()
            try:
                self._confirm(full, payload, crc32c(), facts)
            except ChecksumMismatch:
                upload.begin_anew()
                raise
            return facts

        return self._retry.call(attempt, what=self._uri(full), progress=lambda: upload.received)

    def _session(self, full: str, payload: Payload) -> str:
        """The address of a new session."""
        url = self._http.api("/o", {"uploadType": "resumable", **self._acl}, upload=True)
        headers = {
            "Content-Type": _JSON,
            "X-Upload-Content-Type": payload.media_type,
            "X-Upload-Content-Length": str(payload.size_bytes),
        }
        body = Text(data=json.dumps(self._described(full, payload)).encode())
        answer = self._http.ask("POST", url, headers=headers, body=body)
        session = answer.headers.get("location", "")
        if answer.status not in {200, 201}:
            raise RefusedRequest.of(answer)
        # Never less safe than the endpoint itself.
        if not re.match(r"https://[\w.-]" if self._http.endpoint.startswith("https") else r"https?://[\w.-]", session):
            raise RefusedRequest(status=502, reason="the session has no address")
        return session

    def _confirm(self, full: str, payload: Payload, crc32c: str, facts: dict[str, Any]) -> None:
        if not self._config.validate:
            return
        for kind, expected in (("size", str(payload.size_bytes)), ("crc32c", crc32c)):
            if str(facts.get(kind)) != expected:
                raise ChecksumMismatch(uri=self._uri(full), kind=kind, expected=expected, actual=str(facts.get(kind)))

    def _described(self, full: str, payload: Payload) -> dict[str, Any]:
        return {"name": full, "contentType": payload.media_type, "metadata": dict(payload.metadata)}

    @property
    def _acl(self) -> dict[str, str]:
        return {"predefinedAcl": "publicRead"} if self._config.public else {}

    def _object(self, full: str) -> str:
        return self._http.api(f"/o/{quote(full, safe='')}")

    def _uri(self, full: str) -> str:
        return f"gs://{self._name}/{full}"


Settings = GcsSettings


def open_store(settings: GcsSettings, *, prefix: str = "") -> GcsStore:
    """The bucket that the settings name, or the part of it below a prefix."""
    return GcsStore(settings, prefix=prefix)
