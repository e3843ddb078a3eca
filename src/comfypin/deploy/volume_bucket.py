"""A network volume through its S3 API: the few requests that RunPod's gateway has, each signed, none presigned.

Its limits: an object in one request stays below 500 MB, parts have 5 MB to 500 MB, there is no DeleteObjects.
https://docs.runpod.io/storage/s3-api
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import urllib3

from comfypin.errors.deploy import UploadGone
from comfypin.errors.storage import (
    BucketMissing,
    ChecksumMismatch,
    CredentialsRefused,
    ObjectMissing,
    StoreRefused,
    StoreUnreachable,
)
from comfypin.storage.aws_profile import S3Credentials
from comfypin.storage.retry import Retry
from comfypin.storage.s3_errors import S3Place, answered
from comfypin.storage.sigv4 import S3Request, encoded_key, signed_headers

_MD5 = re.compile(r"[0-9a-f]{32}")
# Joining the parts of a large object takes RunPod's gateway minutes.
_JOIN_TIMEOUT_S = 900.0
_TIMEOUT_S = 120.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object or a part that the volume has."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload in parts that was begun and not ended, and when (as the server writes it)."""

    key: str
    upload_id: str = field(repr=False)
    begun: str = ""


class VolumeBucket:
    """One volume. Safe for threads."""

    def __init__(
        self,
        place: S3Place,
        keys: S3Credentials,
        *,
        retry: Retry | None = None,
        pool: urllib3.PoolManager | None = None,
    ) -> None:
        self._place = place
        self._endpoint = str(place.endpoint).rstrip("/")
        self._keys = keys
        self._retry = retry or Retry(retries=5)
        self._pool = pool or urllib3.PoolManager(retries=False, maxsize=16)

    @property
    def name(self) -> str:
        """The volume in words."""
        return self._place.name

    # -- objects

    def head(self, key: str) -> Stored | None:
        """An object's size and etag, or None."""
        try:
            answer = self._ask("HEAD", key, action="read")
        except ObjectMissing:
            return None
        size = int(answer.headers.get("Content-Length") or 0)
        return Stored(key=key, size_bytes=size, etag=_bare(answer.headers.get("ETag", "")))

    def get(self, key: str) -> bytes | None:
        """A small object's bytes, or None."""
        try:
            return self._ask("GET", key, action="read").data
        except ObjectMissing:
            return None

    def sha256(self, key: str) -> str:
        """The digest of an object's bytes, all of them read."""

        def read() -> str:
            hasher = hashlib.sha256()
            answer = self._send(self._request("GET", key), b"", preload=False)
            try:
                self._refuse(answer, "read", key, answer.data.decode(errors="replace") if answer.status >= 300 else "")
                for chunk in answer.stream(_CHUNK_BYTES):
                    hasher.update(chunk)
            except urllib3.exceptions.HTTPError as exc:
                raise StoreUnreachable(store=self.name, reason=type(exc).__name__) from exc
            finally:
                answer.release_conn()
            return hasher.hexdigest()

        return self._retry.call(read, what=self._uri(key))

    def put(self, key: str, body: bytes) -> None:
        """Write an object in one request, whole or not at all."""
        answer = self._ask("PUT", key, body=body, action="write")
        self._confirm(key, body, answer.headers.get("ETag", ""))

    def delete(self, key: str) -> None:
        """Remove one object; one that is gone is fine."""
        try:
            self._ask("DELETE", key, action="delete")
        except ObjectMissing:
            return

    def objects(self, prefix: str) -> Iterator[Stored]:
        """All objects whose keys begin so."""
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            text = self._ask("GET", "", query=query, action="list").data.decode()
            for item in _items("Contents", text):
                yield Stored(key=_tag("Key", item), size_bytes=int(_tag("Size", item)), etag=_bare(_tag("ETag", item)))
            token = _tag("NextContinuationToken", text)
            if _tag("IsTruncated", text) != "true" or not token:
                return

    # -- uploads in parts

    def begin(self, key: str) -> str:
        """Begin an upload in parts; its id."""
        text = self._ask("POST", key, query={"uploads": ""}, action="write").data.decode()
        upload_id = _tag("UploadId", text)
        if not upload_id:
            raise StoreRefused(
                store=self.name, action=f"begin {key}", status=200, code="", reason="the answer holds no upload id"
            )
        return upload_id

    def uploads(self, prefix: str) -> list[Upload]:
        """Uploads that were begun and not ended, of keys that begin so; none where the server does not list them."""
        try:
            text = self._ask("GET", "", query={"uploads": "", "prefix": prefix}, action="list").data.decode()
        except StoreRefused as refused:
            if refused.facts["status"] in (400, 405, 501):
                return []
            raise
        found = [
            Upload(key=_tag("Key", item), upload_id=_tag("UploadId", item), begun=_tag("Initiated", item))
            for item in _items("Upload", text)
        ]
        return [upload for upload in found if upload.key.startswith(prefix)]

    def parts(self, key: str, upload_id: str) -> dict[int, Stored]:
        """The parts that are there, by number. Raises `UploadGone`."""
        found: dict[int, Stored] = {}
        marker = ""
        while True:
            query = {"uploadId": upload_id, **({"part-number-marker": marker} if marker else {})}
            text = self._ask("GET", key, query=query, action="list parts of").data.decode()
            for item in _items("Part", text):
                etag = _bare(_tag("ETag", item))
                found[int(_tag("PartNumber", item))] = Stored(key=key, size_bytes=int(_tag("Size", item)), etag=etag)
            following = _tag("NextPartNumberMarker", text)
            if _tag("IsTruncated", text) != "true" or following in ("", marker):
                return found
            marker = following

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Send a part; its etag. Raises `UploadGone`."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._ask("PUT", key, query=query, body=body, action="write")
        etag = answer.headers.get("ETag", "")
        self._confirm(key, body, etag)
        return _bare(etag)

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Join the parts into the object. Raises `UploadGone`, also where an earlier answer to this was lost."""
        parts = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{etag}"</ETag></Part>'
            for number, etag in sorted(etags.items())
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = {"uploadId": upload_id}
        answer = self._ask("POST", key, query=query, body=body, action="join", timeout_s=_JOIN_TIMEOUT_S)
        # S3 may begin with 200 and end with an error.
        text = answer.data.decode(errors="replace")
        if "<Error>" in text:
            raise answered(500, text, place=self._place, action="join", uri=self._uri(key))

    def abort(self, key: str, upload_id: str) -> None:
        """Give up an upload and its parts."""
        try:
            self._ask("DELETE", key, query={"uploadId": upload_id}, action="delete")
        except (ObjectMissing, UploadGone):
            return

    # -- inside

    def _ask(
        self,
        method: str,
        key: str,
        *,
        action: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = _TIMEOUT_S,
    ) -> urllib3.BaseHTTPResponse:
        def once() -> urllib3.BaseHTTPResponse:
            answer = self._send(self._request(method, key, query or {}, body), body, timeout_s=timeout_s)
            self._refuse(answer, action, key, answer.data[:4096].decode(errors="replace"))
            return answer

        return self._retry.call(once, what=self._uri(key))

    def _request(self, method: str, key: str, query: Mapping[str, str] | None = None, body: bytes = b"") -> S3Request:
        path = f"/{encoded_key(self._place.bucket)}" + (f"/{encoded_key(key)}" if key else "")
        headers = {}
        if body:
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        return S3Request(
            method=method,
            endpoint=self._endpoint,
            path=path,
            query=query or {},
            headers=headers,
            body_sha256=hashlib.sha256(body).hexdigest(),
        )

    def _send(
        self, request: S3Request, body: bytes, *, preload: bool = True, timeout_s: float = _TIMEOUT_S
    ) -> urllib3.BaseHTTPResponse:
        headers = signed_headers(request, self._keys, region=self._place.region)
        try:
            return self._pool.request(
                request.method,
                request.url,
                body=body if request.method in ("PUT", "POST") else None,
                headers=headers,
                redirect=False,
                preload_content=preload,
                timeout=urllib3.Timeout(connect=10, read=timeout_s),
            )
        except urllib3.exceptions.HTTPError as exc:
            raise StoreUnreachable(store=self.name, reason=type(exc).__name__) from exc

    def _refuse(self, answer: urllib3.BaseHTTPResponse, action: str, key: str, text: str) -> None:
        if answer.status < 300:
            return
        if "<Code>NoSuchUpload<" in text:
            raise UploadGone(uri=self._uri(key))
        if answer.status == 404 and "<Code>NoSuchBucket<" not in text:
            raise ObjectMissing(uri=self._uri(key))
        error = answered(answer.status, text, place=self._place, action=action, uri=self._uri(key))
        if isinstance(error, CredentialsRefused):
            remedy = "check RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY (console, Settings, S3 API Keys)"
            raise CredentialsRefused(store=self.name, reason=str(error.facts["reason"]), remedy=remedy)
        if isinstance(error, BucketMissing):
            raise BucketMissing(store=self.name, variable="the volume's data centre")
        raise error

    def _confirm(self, key: str, body: bytes, etag: str) -> None:
        """Where the etag is an md5, it has to be that of what was sent."""
        bare = _bare(etag)
        sent = md5_of(body)
        if _MD5.fullmatch(bare) and bare != sent:
            raise ChecksumMismatch(uri=self._uri(key), kind="md5", expected=sent, actual=bare)

    def _uri(self, key: str) -> str:
        return f"s3://{self._place.bucket}/{key}"


def md5_of(body: bytes) -> str:
    """The md5 that S3 servers give as the etag of one request's bytes."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def same_part(there: Stored, body: bytes) -> bool:
    """Whether a part that is there holds these bytes: its size, and its md5 where the etag is one."""
    return there.size_bytes == len(body) and (not _MD5.fullmatch(there.etag) or there.etag == md5_of(body))


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _items(name: str, text: str) -> list[str]:
    return re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)


def _tag(name: str, text: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return html.unescape(found[1].strip()) if found else ""
