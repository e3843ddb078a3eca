"""Signed requests to one bucket; the digest of a body is the caller's to know, because outputs are hashed once."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import NoReturn

from comfypin.errors import StorageError
from comfypin.errors.storage import ProviderSaid
from comfypin.storage.aws_profile import S3Credentials
from comfypin.storage.body import NOTHING, Body
from comfypin.storage.dial import Dial, unreached
from comfypin.storage.s3_errors import S3Place, answered, is_page
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.sigv4 import S3Request, encoded_key, presigned_url, signed_headers
from comfypin.storage.wire import Answer, Wire


class S3Http:
    """The requests of one bucket. Safe for threads."""

    def __init__(self, config: S3Settings, place: S3Place, keys: Callable[[], S3Credentials]) -> None:
        self._place = place
        self._keys = keys
        self._endpoint, self._base = address_of(config)
        proxy = config.proxies.to(self._endpoint)
        self._wire = Wire(Dial(self._endpoint, ca_bundle=config.ca_bundle, proxy=proxy, connect_to=config.connect_to))

    @property
    def name(self) -> str:
        """The bucket and where it is."""
        return self._place.name

    @property
    def is_encrypted(self) -> bool:
        """Whether the bytes travel under TLS, which notices every change to them."""
        return self._wire.is_encrypted

    def hurried(self) -> AbstractContextManager[None]:
        """Within, answers have to come soon."""
        return self._wire.hurried()

    def ask(
        self,
        method: str,
        key: str,
        *,
        action: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
    ) -> Answer:
        """Send the request and have the answer, which is a success. Raises `StorageError`."""
        answer = self.exchange(method, key, query=query, headers=headers, body=body)
        self.require_success(answer, key, action=action)
        return answer

    def exchange(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
    ) -> Answer:
        """Send the request and have the answer, whatever it is. Raises `StoreUnreachable`."""
        request = self._request(method, key, query or {}, headers or {}, body)
        try:
            return self._wire.exchange(method, request.target, self._signed(request), body)
        except OSError as exc:
            raise self._unreached(exc) from ProviderSaid(type(exc).__name__)

    def stream(
        self, key: str, *, headers: Mapping[str, str], chunk_bytes: int, action: str = "read"
    ) -> Generator[tuple[bool, bytes], None, None]:
        """GET an object: whether it is the range that was asked for, and each chunk, the first of them empty.

        Raises `StorageError`.
        """
        request = self._request("GET", key, {}, headers, NOTHING)
        try:
            with self._wire.sent("GET", request.target, self._signed(request)) as coming:
                if coming.status >= 300:
                    text = coming.whole()
                    self.refuse(Answer(status=coming.status, headers=coming.headers, data=text), key, action=action)
                # `rclone serve s3` answers 200 to a range, with the range.
                ranged = coming.status == HTTPStatus.PARTIAL_CONTENT or "content-range" in coming.headers
                yield ranged, b""
                for chunk in coming.chunks(chunk_bytes):
                    yield ranged, chunk
        except OSError as exc:
            raise self._unreached(exc) from ProviderSaid(type(exc).__name__)

    def require_success(self, answer: Answer, key: str, *, action: str) -> None:
        """Raises the error that the answer is, if it is one."""
        if answer.status >= 300 or is_page(answer.text[:200]):
            self.refuse(answer, key, action=action)

    def refuse(self, answer: Answer, key: str, *, action: str) -> NoReturn:
        """Raises the error that the answer is."""
        # S3 may begin with 200 and end with an error.
        status = answer.status if answer.status >= 300 or is_page(answer.text) else 500
        region = answer.headers.get("x-amz-bucket-region")
        raise answered(status, answer.text, place=self._place, action=action, uri=self.uri(key), region=region)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A presigned GET."""
        request = self._request("GET", key, {}, {}, NOTHING)
        return presigned_url(request, self._keys(), region=self._place.region, ttl_s=ttl_s)

    def _request(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body
    ) -> S3Request:
        return S3Request(
            method=method,
            endpoint=self._endpoint,
            path=f"{self._base}/{encoded_key(key)}",
            query=query,
            headers=headers,
            body_sha256=body.sha256,
        )

    def _signed(self, request: S3Request) -> dict[str, str]:
        return signed_headers(request, self._keys(), region=self._place.region)

    def _unreached(self, exc: OSError) -> StorageError:
        # The text of the original may quote a request; its kind is enough.
        return unreached(exc, store=self._place.name)

    def uri(self, key: str) -> str:
        """The object in words."""
        return f"s3://{self._place.bucket}/{key}"


def address_of(config: S3Settings) -> tuple[str, str]:
    """The server, and what stands before keys in paths: the endpoint's own path, and the bucket unless in the host."""
    bucket = str(config.bucket)
    # AWS wants virtual hosts, except where dots in the bucket's name would break TLS; others know paths best.
    on_aws = config.endpoint is None
    china = ".cn" if config.region.startswith("cn-") else ""
    endpoint = config.endpoint or f"https://s3.{config.region}.amazonaws.com{china}"
    virtual = config.addressing == "virtual" or (config.addressing == "auto" and on_aws and "." not in bucket)
    scheme, _, rest = endpoint.partition("://")
    host, slash, path = rest.partition("/")
    base = f"{slash}{path}"
    return (f"{scheme}://{bucket}.{host}", base) if virtual else (f"{scheme}://{host}", f"{base}/{encoded_key(bucket)}")
