"""What stores answer becomes a sentence that says what to do, and holds no secret."""

import json
import logging
import re
import traceback
from pathlib import Path

import pytest

from comfypin.errors import StorageError
from comfypin.storage.errors import (
    BucketMissing,
    ClockSkewed,
    CredentialsMissing,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    PublicAccessImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    TransientStorageError,
    WrongRegion,
)
from comfypin.storage.gcs import GcsStore
from comfypin.storage.gcs_client import ONE_REQUEST_BYTES
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.interface import ObjectStore
from comfypin.storage.redaction import redact_secrets
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from tests.support.google_key import service_account
from tests.support.payloads import payload_of
from tests.support.scripted_server import answering

ONCE = StoreRetry(retries=0)
SECRET, TOKEN = "verySecretAccessKey0123", "verySecretSessionToken0123"


def s3_store(url: str, **environ: str) -> S3Store:
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    return S3Store(S3Settings.from_variables({"S3_BUCKET": "b", "S3_ENDPOINT_URL": url, **keys, **environ}), retry=ONCE)


def gcs_store(url: str, **environ: str) -> GcsStore:
    return GcsStore(
        GcsSettings.from_variables({"GCS_BUCKET": "b", "STORAGE_EMULATOR_HOST": url, **environ}), retry=ONCE
    )


def failure_of(store: ObjectStore, folder: Path) -> StorageError:
    with pytest.raises(StorageError) as caught:
        store.put("a.png", payload_of(folder / "f", b"x"))
    return caught.value


def xml(code: str, **tags: str) -> str:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Message": "No.", **tags}.items())
    return f'<?xml version="1.0"?><Error><Code>{code}</Code>{inner}</Error>'


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, xml("NoSuchBucket"), BucketMissing, "S3_BUCKET"),
        (404, "", BucketMissing, "endpoint"),
        (404, "<html>not here</html>", NotAStore, "web page.*S3_ENDPOINT_URL"),
        (403, "<!DOCTYPE html><title>Sign in</title>", NotAStore, "web page"),
        (200, "\n <HTML>Welcome</HTML>", NotAStore, "web page"),
        (302, "", NotAStore, "leads elsewhere.*S3_ENDPOINT_URL"),
        (413, "<html>too large</html>", StoreRefused, "HTTP 413"),
        (403, xml("AccessDenied"), PermissionMissing, r"grant s3:PutObject on b/\*"),
        (403, xml("QuotaExceeded"), StoreRefused, "HTTP 403: QuotaExceeded: No"),
        (403, xml("InvalidAccessKeyId"), CredentialsRefused, "AWS_ACCESS_KEY_ID"),
        (403, xml("SignatureDoesNotMatch"), CredentialsRefused, "secret key"),
        (400, xml("ExpiredToken"), CredentialsRefused, "expired.*renew"),
        (400, xml("InvalidToken"), CredentialsRefused, "session token"),
        (401, xml("Unauthorized"), CredentialsRefused, "not accepted"),
        (403, xml("RequestTimeTooSkewed"), ClockSkewed, "clock"),
        (400, xml("AuthorizationHeaderMalformed", Region="eu-west-3"), WrongRegion, "S3_REGION=eu-west-3"),
        (301, "", WrongRegion, "S3_REGION"),
        (503, xml("SlowDown"), StoreBusy, "SlowDown"),
        (500, "", StoreBusy, "HTTP 500"),
        (429, "", StoreBusy, "HTTP 429"),
        (400, xml("XAmzContentSHA256Mismatch"), StoreBusy, "SHA256"),
        (501, xml("NotImplemented"), StoreRefused, "HTTP 501: NotImplemented: No"),
    ],
)
def test_an_answer_of_s3_becomes_a_sentence(
    status: int, body: str, error: type[StorageError], words: str, tmp_path: Path
) -> None:
    with answering(status, body) as url:
        failure = failure_of(s3_store(url), tmp_path)
    assert type(failure) is error
    assert re.search(words, failure.message)


def google(message: str) -> str:
    return json.dumps({"error": {"code": 0, "message": message, "errors": [{"message": message}]}})


@pytest.mark.parametrize(
    ("status", "message", "error", "words"),
    [
        (404, "The specified bucket does not exist.", BucketMissing, "GCS_BUCKET"),
        (403, "x does not have storage.objects.create access", PermissionMissing, r"roles/storage\.objectUser"),
        (401, "Invalid Credentials", CredentialsRefused, "GOOGLE_APPLICATION_CREDENTIALS"),
        (400, "Cannot use ACL API with uniform bucket-level access.", PublicAccessImpossible, "GCS_PUBLIC"),
        (412, "public access prevention is enforced", PublicAccessImpossible, "GCS_SIGNED_URL_TTL"),
        (429, "rate limit", StoreBusy, "HTTP 429"),
        (503, "later", StoreBusy, "HTTP 503"),
        (418, "teapot", StoreRefused, "HTTP 418.*teapot"),
    ],
)
def test_an_answer_of_gcs_becomes_a_sentence(
    status: int, message: str, error: type[StorageError], words: str, tmp_path: Path
) -> None:
    with answering(status, google(message), {"Content-Type": "application/json"}) as url:
        failure = failure_of(gcs_store(url), tmp_path)
    assert type(failure) is error
    assert re.search(words, failure.message)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"error": "invalid_grant", "error_description": "Invalid JWT: Token must be a short-lived token (60 minutes) "
          "and in a reasonable timeframe."}, ClockSkewed),
        ({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, CredentialsRefused),
        ({"error": "invalid_grant", "error_description": "account not found"}, CredentialsRefused),
    ],
)  # fmt: skip
def test_a_token_that_google_refuses_is_explained(
    said: dict[str, str], error: type[StorageError], tmp_path: Path
) -> None:
    with answering(400, json.dumps(said), {"Content-Type": "application/json"}) as url:
        key_file = service_account(tmp_path / "key.json", token_uri=f"{url}/token")
        store = GcsStore(
            GcsSettings.from_variables({"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}), retry=ONCE
        )
        assert type(failure_of(store, tmp_path)) is error


@pytest.mark.parametrize(("status", "body"), [(500, "{}"), (200, "<html>Log in</html>")])
def test_a_token_service_that_cannot_serve_is_no_fault_of_the_credentials(
    status: int, body: str, tmp_path: Path
) -> None:
    with answering(status, body, {"Content-Type": "application/json"}) as url:
        key_file = service_account(tmp_path / "key.json", token_uri=f"{url}/token")
        environ = {"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}
        failure = failure_of(GcsStore(GcsSettings.from_variables(environ), retry=ONCE), tmp_path)
    assert isinstance(failure, StoreUnreachable)


def test_a_web_site_is_found_out_before_the_job() -> None:
    with answering(200, "<html>Welcome</html>") as url, pytest.raises(NotAStore, match="S3_ENDPOINT_URL"):
        s3_store(url).check()


def test_an_endpoint_without_tls_is_said(tmp_path: Path) -> None:
    with answering(200, "") as url:
        failure = failure_of(s3_store(url.replace("http://", "https://")), tmp_path)
    assert "does not speak TLS" in failure.message


def test_an_endpoint_whose_name_is_not_known_is_said(tmp_path: Path) -> None:
    failure = failure_of(s3_store("http://no-such-host.invalid"), tmp_path)
    assert isinstance(failure, StoreUnreachable)


def test_reading_what_is_not_there_names_the_object() -> None:
    with answering(404, xml("NoSuchKey")) as url, pytest.raises(ObjectMissing, match="s3://b/a"):
        list(s3_store(url).read("a"))


def test_no_keys_anywhere_names_the_variables() -> None:
    config = S3Settings.from_variables({"S3_BUCKET": "b", "S3_ENDPOINT_URL": "http://127.0.0.1:1"})
    with pytest.raises(CredentialsMissing, match="AWS_ACCESS_KEY_ID"):
        S3Store(config)


@pytest.mark.parametrize("content", [None, "no json", "{}"])
def test_a_key_file_that_is_none_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    config = GcsSettings.from_variables({"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    with pytest.raises(CredentialsMissing, match=r"GOOGLE_APPLICATION_CREDENTIALS names .*key\.json"):
        GcsStore(config)


def test_what_a_refusal_quotes_of_a_signed_request_is_not_passed_on(tmp_path: Path) -> None:
    quoted = xml("SignatureDoesNotMatch", CanonicalRequest=f"PUT x-amz-security-token:{TOKEN}", StringToSign=TOKEN)
    with answering(403, quoted) as url:
        failure = failure_of(s3_store(url), tmp_path)
    shown = "".join(traceback.format_exception(failure)) + str(failure.to_json())
    assert TOKEN not in shown
    assert SECRET not in shown


def test_no_secret_and_no_signed_url_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session = "http://{host}/upload/storage/v1/b/b/o?uploadType=resumable&upload_id=sEcReTuPlOaDiD"
    with answering(503, xml("SlowDown"), {"Location": session}) as url:
        key_file = service_account(tmp_path / "key.json")
        s3, gcs = s3_store(url), gcs_store(url, GOOGLE_APPLICATION_CREDENTIALS=str(key_file))
        signed = [s3.signed_url("a", ttl_s=60), gcs.signed_url("a", ttl_s=60)]
        failure_of(s3, tmp_path)
        failure_of(gcs, tmp_path)
    for secret in (SECRET, TOKEN, *(url.partition("Signature=")[2][:40] for url in signed)):
        assert secret
        assert secret not in caplog.text


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404])
def test_a_page_where_google_should_be_is_said_to_be_one(tmp_path: Path, status: int) -> None:
    page = "<!DOCTYPE html>\n<html><body>\nThe company's rules</body></html>"
    with answering(status, page, {"Location": "https://login.example"}) as url:
        failure = failure_of(gcs_store(url), tmp_path)
    assert isinstance(failure, NotAStore)
    assert "\n" not in failure.message


@pytest.mark.parametrize("answer", ["[]", "nothing", "[" * 5000, '{"size": "x"}', '{"size": 1, "metadata": 5}'])
def test_an_answer_that_describes_no_object_is_none(answer: str) -> None:
    with answering(200, answer) as url, pytest.raises(StoreBusy):
        gcs_store(url).head("a")
    with answering(200, '{"permissions": 5}') as url, pytest.raises(PermissionMissing):
        gcs_store(url).check()


@pytest.mark.parametrize("location", ["https://[", "//host/x", "/x", "ftp://host/x", "x"])
def test_an_upload_session_without_an_address_is_none(tmp_path: Path, location: str) -> None:
    with answering(200, "{}", {"Location": location}) as url, pytest.raises(TransientStorageError):
        gcs_store(url).put("a", payload_of(tmp_path / "f", bytes(ONE_REQUEST_BYTES + 1)))


def test_the_address_of_an_upload_session_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    payload = payload_of(tmp_path / "f", bytes(9 << 20))
    with answering(200, "{}") as inner:
        location = f"{inner}/upload?upload_id=sEcReTuPlOaDiD"
        with answering(200, "{}", {"Location": location}) as url, pytest.raises(StorageError) as caught:
            gcs_store(url).put("a", payload)
    assert "arrived damaged" in caught.value.message  # what the session answered
    assert "sEcReTuPlOaDiD" not in caplog.text + "".join(traceback.format_exception(caught.value))


def test_a_repr_shows_no_secret() -> None:
    environ = {
        "S3_BUCKET": "b",
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
    }
    shown = repr(S3Settings.from_variables(environ))
    assert SECRET not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /b/a?X-Amz-Signature=abc&x=1 HTTP/1.1", "GET /b/a?X-Amz-Signature=***&x=1 HTTP/1.1"),
        ("PUT /o?upload_id=a-b_c HTTP/1.1", "PUT /o?upload_id=*** HTTP/1.1"),
        ("Authorization: Bearer ya29.abc", "Authorization: Bearer ***"),
        ("nothing to hide=1", "nothing to hide=1"),
    ],
)
def test_redaction(text: str, clean: str) -> None:
    assert redact_secrets(text) == clean
