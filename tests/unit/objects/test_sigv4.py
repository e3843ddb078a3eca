"""Our signatures are those that AWS's own client makes."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from comfypin.objects.aws_profile import S3Credentials
from comfypin.objects.s3 import _header
from comfypin.objects.sigv4 import S3Request, encoded_key, presigned_url, signed_headers

KEYS = ["a.png", "größe/猫 +&=~().png", "100%/#1?.png", "it's!*.png"]


def request_of(key: str, **changes: object) -> S3Request:
    facts: dict[str, object] = {
        "method": "PUT",
        "endpoint": "https://host.example:8443",
        "path": f"/bucket/{encoded_key(key)}",
        "query": {},
        "headers": {},
        "body_sha256": "ab" * 32,
    }
    return S3Request(**{**facts, **changes})  # type: ignore[arg-type]


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("token", [None, "session/token=="])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("query", [{}, {"uploads": ""}, {"partNumber": "7", "uploadId": "a/b+c=~"}])
def test_headers_are_signed_as_botocore_signs_them(key: str, query: dict[str, str], token: str | None) -> None:
    headers = {"Content-Type": "image/png", "x-amz-meta-release": _header("  größe  100% 猫 "), "x-amz-meta-a": "b c"}
    request = request_of(key, query=query, headers=headers)
    theirs = AWSRequest(method="PUT", url=request.url, headers=headers)
    S3SigV4Auth(Credentials("AKID", "s3cr3t", token), "s3", "eu-west-3").add_auth(theirs)
    keys = S3Credentials(access_key_id="AKID", secret_access_key="s3cr3t", session_token=token)
    request = replace(request, body_sha256=theirs.headers["X-Amz-Content-SHA256"])  # as it chose it
    ours = signed_headers(request, keys, region="eu-west-3", now=moment(theirs.context["timestamp"]))
    assert ours["Authorization"] == theirs.headers["Authorization"]


@pytest.mark.parametrize("token", [None, "session/token=="])
@pytest.mark.parametrize("key", KEYS)
def test_urls_are_signed_as_botocore_signs_them(key: str, token: str | None) -> None:
    request = request_of(key, method="GET")
    theirs = AWSRequest(method="GET", url=request.url)
    S3SigV4QueryAuth(Credentials("AKID", "s3cr3t", token), "s3", "auto", expires=60).add_auth(theirs)
    keys = S3Credentials(access_key_id="AKID", secret_access_key="s3cr3t", session_token=token)
    ours = presigned_url(request, keys, region="auto", ttl_s=60, now=moment(theirs.context["timestamp"]))
    assert urlsplit(ours).path == urlsplit(theirs.url).path
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(theirs.url).query)
