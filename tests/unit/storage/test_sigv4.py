"""Our signatures are those that AWS's own client makes."""

from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from comfypin.storage.aws_profile import S3Credentials
from comfypin.storage.s3 import _header
from comfypin.storage.s3_http import address_of
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.sigv4 import S3Request, encoded_key, presigned_url, signed_headers
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, boto_client
from tests.support.scripted_server import answering_by

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


@pytest.mark.parametrize("base", ["", "/storage/v1/s3", "/storage/v1/s3/", "//a//b", "/ü/+&"])
def test_requests_beneath_a_path_are_those_of_boto3(base: str) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        seen.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        return 200, ""

    with answering_by(answer) as url:
        client = boto_client(f"{url}{base}")
        client.put_object(Bucket="pics", Key="größe/猫 +&=~().png", Body=b"x", ContentType="image/png")
        presigned = client.generate_presigned_url(
            "get_object", Params={"Bucket": "pics", "Key": "a b.png"}, ExpiresIn=60
        )
        environ = {"S3_BUCKET": "pics", "S3_ENDPOINT_URL": f"{url}{base}", "S3_REGION": "us-east-1"}
        config = S3Settings.from_variables(
            {**environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        )
    ((path, headers),) = seen
    assert config.credentials is not None
    endpoint, before = address_of(config)
    signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    request = S3Request(
        method="PUT",
        endpoint=endpoint,
        path=f"{before}/{encoded_key('größe/猫 +&=~().png')}",
        query={},
        headers={name: headers[name] for name in signed},
        body_sha256=headers["x-amz-content-sha256"],
    )
    ours = signed_headers(request, config.credentials, region="us-east-1", now=moment(headers["x-amz-date"]))
    assert (request.target, ours["Host"]) == (path, headers["host"])
    assert ours["Authorization"] == headers["authorization"]
    when = moment(parse_qs(urlsplit(presigned).query)["X-Amz-Date"][0])
    request = replace(request, method="GET", path=f"{before}/a%20b.png", headers={})
    mine = presigned_url(request, config.credentials, region="us-east-1", ttl_s=60, now=when)
    assert mine.partition("?")[0] == presigned.partition("?")[0]
    assert parse_qs(mine.partition("?")[2]) == parse_qs(presigned.partition("?")[2])


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
