"""Signs requests to S3 as AWS Signature Version 4 says: the headers and the sha256 of the body, never the address.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Ours, because the clients we
have cannot resume an upload in parts that another process began.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Keys:
    """A pair of keys, in no repr."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Request:
    """A request before it is signed. `path` is already percent-encoded; `query` is not."""

    method: str
    endpoint: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def url(self) -> str:
        """The address, its query in the order in which it is signed."""
        query = canonical_query(self.query)
        return f"{self.endpoint}{self.path}" + (f"?{query}" if query else "")


def encoded_key(key: str) -> str:
    """A key as it stands in a path."""
    return quote(key, safe="/-_.~")


def canonical_query(query: Mapping[str, str]) -> str:
    """The query's names and values, encoded and sorted."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def signed_headers(request: S3Request, keys: S3Keys, *, region: str, now: datetime | None = None) -> dict[str, str]:
    """The request's headers with those that prove who sends it, and which bytes."""
    when = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{when[:8]}/{region}/s3/aws4_request"
    body_sha256 = hashlib.sha256(request.body).hexdigest()
    headers = {
        **request.headers,
        "Host": urlsplit(request.endpoint).netloc,
        "x-amz-content-sha256": body_sha256,
        "x-amz-date": when,
    }
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    names = ";".join(sorted(lowered))
    canonical = "\n".join(
        [
            request.method,
            request.path,
            canonical_query(request.query),
            *(f"{name}:{lowered[name]}" for name in sorted(lowered)),
            "",
            names,
            body_sha256,
        ]
    )
    to_sign = "\n".join([_ALGORITHM, when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{keys.access_key_id}/{scope}"
    headers["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers
