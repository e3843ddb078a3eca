"""Signed URLs are those that Google's own client makes; tokens go to Google's address alone."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from google.cloud.storage import _signing
from google.oauth2 import service_account as google_service_account

from comfypin.errors.storage import SigningImpossible
from comfypin.storage.gcs_http import GcsHttp
from comfypin.storage.gcs_keys import GcsKeys, quoted_path
from comfypin.storage.gcs_settings import GcsSettings
from tests.support.google_key import service_account
from tests.support.scripted_server import answering_by

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def keys_of(folder: Path, **environ: str) -> GcsKeys:
    key_file = service_account(folder / "key.json")
    return GcsKeys(
        GcsSettings.from_variables({"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file), **environ})
    )


@pytest.mark.parametrize("key", ["a.png", "größe/猫 +&=~().png", "100%/#1?.png", "it's!*.png"])
def test_urls_are_signed_as_googles_client_signs_them(tmp_path: Path, key: str) -> None:
    ours = keys_of(tmp_path).signed_url("https://storage.googleapis.com", quoted_path("b", key), ttl_s=60, now=NOW)
    theirs = _signing.generate_signed_url_v4(
        google_service_account.Credentials.from_service_account_file(str(tmp_path / "key.json")),
        resource=quoted_path("b", key),
        expiration=timedelta(seconds=60),
        method="GET",
        _request_timestamp=NOW.strftime("%Y%m%dT%H%M%SZ"),
    )
    assert ours == theirs


def test_an_emulator_without_a_key_file_signs_nothing() -> None:
    keys = GcsKeys(GcsSettings.from_variables({"GCS_BUCKET": "b", "STORAGE_EMULATOR_HOST": "127.0.0.1:1"}))
    with pytest.raises(SigningImpossible, match="GOOGLE_APPLICATION_CREDENTIALS"):
        keys.signed_url("http://127.0.0.1:1", "/b/a", ttl_s=60)


class Numbered(GcsKeys):
    """Gives a token with a number, another one after each renewal."""

    def __init__(self) -> None:
        self.number = 1

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.number}"}

    def renew(self) -> bool:
        self.number += 1
        return True


def test_a_token_that_is_not_accepted_any_more_is_renewed_once() -> None:
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        seen.append(handler.headers["Authorization"])
        return (200, "{}") if len(seen) == 2 else (401, "{}")

    with answering_by(answer) as url:
        http = GcsHttp(url, GcsSettings(bucket="b"), Numbered())
        assert http.ask("GET", http.api("")).status == 200
        assert http.ask("GET", http.api("")).status == 401
    assert seen == ["Bearer 1", "Bearer 2", "Bearer 2", "Bearer 3"]


def test_a_session_at_another_address_is_given_no_token() -> None:
    seen: list[Any] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        seen.append(handler.headers["Authorization"])
        return 200, "{}"

    with answering_by(answer) as url:
        GcsHttp("https://storage.googleapis.com", GcsSettings(bucket="b"), Numbered()).ask(
            "GET", f"{url}/session?upload_id=x"
        )
    assert seen == [None]


def test_tokens_come_from_the_credentials_and_are_kept(tmp_path: Path) -> None:
    fetched: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        fetched.append(handler.path)
        return 200, '{"access_token": "t0k3n", "expires_in": 3600, "token_type": "Bearer"}'

    with answering_by(answer) as url:
        key_file = service_account(tmp_path / "key.json", token_uri=f"{url}/token")
        keys = GcsKeys(GcsSettings.from_variables({"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}))
        given = [keys.headers("GET", "https://storage.googleapis.com/storage/v1/b/b") for _ in range(3)]
    assert {headers.get("Authorization") or headers.get("authorization") for headers in given} == {"Bearer t0k3n"}
    assert fetched == ["/token"]
