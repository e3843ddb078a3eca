"""Signs requests to S3 as AWS Signature Version 4 says: in headers, or in an address that anybody may open.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. The digest of the body is
the caller's to know: outputs are hashed once, when they are spooled.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote, urlsplit

from comfypin.storage.aws_profile import S3Credentials
from comfypin.storage.body import SHA256_OF_NOTHING

UNSIGNED = "UNSIGNED-PAYLOAD"  # for bodies that TLS protects
_ALGORITHM = "AWS4-HMAC-SHA256"
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Request:
    """A request before it is signed. `path` is already percent-encoded; `query` is not."""

    method: str
    endpoint: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body_sha256: str = SHA256_OF_NOTHING

    @property
    def target(self) -> str:
        """Path and query, the query in the order in which it is signed."""
        query = canonical_query(self.query)
        return self.path + (f"?{query}" if query else "")

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.endpoint}{self.target}"

    @property
    def host(self) -> str:
        """The endpoint's host, and its port where it is not the usual one."""
        return urlsplit(self.endpoint).netloc


def encoded_key(key: str) -> str:
    """A key as it stands in a path."""
    return quote(key, safe="/-_.~")


def canonical_query(query: Mapping[str, str]) -> str:
    """The query's names and values, encoded and sorted."""
    if not query:
        return ""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def signed_headers(
    request: S3Request, keys: S3Credentials, *, region: str, now: datetime | None = None
) -> dict[str, str]:
    """The request's headers with those that prove who sends it, and which bytes."""
    when = _timestamp(now)
    headers = {
        **request.headers,
        "Host": request.host,
        "x-amz-content-sha256": request.body_sha256,
        "x-amz-date": when,
        **({"x-amz-security-token": keys.session_token} if keys.session_token else {}),
    }
    signed = sorted({name.lower(): value.strip() for name, value in headers.items()}.items())
    signature = _signature(request, request.query, signed, keys, region=region, when=when)
    credential = f"{keys.access_key_id}/{_scope(when, region)}"
    proof = f"Credential={credential}, SignedHeaders={_names(signed)}, Signature={signature}"
    headers["Authorization"] = f"{_ALGORITHM} {proof}"
    return headers


def presigned_url(
    request: S3Request, keys: S3Credentials, *, region: str, ttl_s: int, now: datetime | None = None
) -> str:
    """An address that lets anybody make this request for `ttl_s` seconds. Never logged."""
    when = _timestamp(now)
    query = {
        **request.query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{_scope(when, region)}",
        "X-Amz-Date": when,
        "X-Amz-Expires": str(ttl_s),
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": keys.session_token} if keys.session_token else {}),
    }
    signature = _signature(request, query, [("host", request.host)], keys, region=region, when=when, body=UNSIGNED)
    return f"{request.endpoint}{request.path}?{canonical_query(query)}&X-Amz-Signature={signature}"


def _timestamp(now: datetime | None) -> str:
    return now.strftime(_TIME) if now else _time_text(int(time.time()))


@lru_cache(maxsize=8)
def _time_text(second: int) -> str:
    return time.strftime(_TIME, time.gmtime(second))


def _scope(when: str, region: str) -> str:
    return f"{when[:8]}/{region}/s3/aws4_request"


def _signature(
    request: S3Request,
    query: Mapping[str, str],
    headers: Sequence[tuple[str, str]],
    keys: S3Credentials,
    *,
    region: str,
    when: str,
    body: str | None = None,
) -> str:
    """The signature; `headers` are sorted, with names in lower case."""
    canonical = "\n".join(
        [
            request.method,
            request.path,
            canonical_query(query),
            *[f"{name}:{value}" for name, value in headers],
            "",
            _names(headers),
            body or request.body_sha256,
        ]
    )
    scope = _scope(when, region)
    to_sign = "\n".join([_ALGORITHM, when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    return hmac.digest(_signing_key(keys.secret_access_key, scope), to_sign.encode(), "sha256").hex()


def _names(headers: Sequence[tuple[str, str]]) -> str:
    return ";".join([name for name, _ in headers])


@lru_cache(maxsize=8)
def _signing_key(secret: str, scope: str) -> bytes:
    """The key of a day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
