"""Each source of Google's credentials, against stand-ins on loopback; tokens go to Google's own address alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from comfypin.errors import ConfigError, StorageError
from comfypin.storage.errors import CredentialsMissing, CredentialsRefused, SigningImpossible
from comfypin.storage.gcs import GcsStore
from comfypin.storage.gcs_credentials import GoogleCredentials
from comfypin.storage.gcs_settings import GcsSettings
from tests.support.google_cloud import ACCOUNT, GoogleCloud, google_cloud
from tests.support.google_key import service_account
from tests.support.payloads import payload_of
from tests.support.scripted_server import answering_by

_KEY, _KEY_AS_JSON = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS_JSON"
_UPLOAD = "storage.googleapis.com /upload/storage/v1/b/b/o"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[GoogleCloud]:
    with google_cloud(tmp_path) as made:
        yield made


def authorized_user() -> dict[str, Any]:
    return {"type": "authorized_user", "client_id": "c", "client_secret": "s3cr3t", "refresh_token": "r3fr3sh"}


def external_account(folder: Path, **more: Any) -> dict[str, Any]:
    """Workload identity: a token of another platform in a file, which Google exchanges."""
    (folder / "subject").write_text("subject-token")
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(folder / "subject")},
        **more,
    }


def impersonated(source: dict[str, Any]) -> dict[str, Any]:
    url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    return {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": url,
        "source_credentials": source,
        "delegates": [],
    }


def info_of(source: str, folder: Path) -> dict[str, Any]:
    url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    match source:
        case "service account":
            return dict(json.loads(service_account(folder / "made.json").read_text()))
        case "authorized user":
            return authorized_user()
        case "workload identity":
            return external_account(folder)
        case "workload identity of an account":
            return external_account(folder, service_account_impersonation_url=url)
        case _:
            return impersonated(authorized_user())


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("service account", ["oauth2.googleapis.com"]),
        ("authorized user", ["oauth2.googleapis.com"]),
        ("workload identity", ["sts.googleapis.com"]),
        ("workload identity of an account", ["sts.googleapis.com", "iamcredentials.googleapis.com"]),
        ("impersonation", ["oauth2.googleapis.com", "iamcredentials.googleapis.com"]),
    ],
)
@pytest.mark.parametrize("place", ["file", "variable", "variable of its own"])
def test_every_source_uploads(cloud: GoogleCloud, tmp_path: Path, source: str, asked: list[str], place: str) -> None:
    text = json.dumps(info_of(source, tmp_path))
    (tmp_path / "key.json").write_text(text)
    named = {"file": {_KEY: str(tmp_path / "key.json")}, "variable": {_KEY: text}}.get(place, {_KEY_AS_JSON: text})
    store = GcsStore(GcsSettings.from_variables({**cloud.environ, **named}))
    for key in ("a", "b"):
        store.put(key, payload_of(tmp_path / "f", b"picture"))
    # Nobody is asked for the project, and a token serves more than one request.
    assert [line.partition(" ")[0] for line in cloud.asked] == [*asked, *["storage.googleapis.com"] * 2]
    assert cloud.objects == {"a": b"picture", "b": b"picture"}


@pytest.mark.parametrize("source", ["metadata server", "files of gcloud"])
def test_what_the_platform_lends_uploads(cloud: GoogleCloud, tmp_path: Path, source: str) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/a.png").write_bytes(b"picture")
    gcloud = tmp_path / "gcloud"
    gcloud.mkdir()
    if source != "metadata server":
        (gcloud / "application_default_credentials.json").write_text(json.dumps(external_account(tmp_path)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "GCS_"))}
    environ = {**kept, **cloud.environ, "CLOUDSDK_CONFIG": str(gcloud), "GCS_VALIDATE": "false"}
    command = [sys.executable, "-m", "tests.support.deliver_job", str(tmp_path / "outputs"), "job", "gcs"]
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert cloud.objects["comfy/outputs/job/a.png"] == b"picture"
    assert not [line for line in cloud.asked if "cloudresourcemanager" in line or "project" in line]


def test_a_token_that_is_not_accepted_any_more_is_renewed(cloud: GoogleCloud, tmp_path: Path) -> None:
    cloud.token_uses = 1
    environ = {**cloud.environ, _KEY_AS_JSON: json.dumps(authorized_user())}
    store = GcsStore(GcsSettings.from_variables(environ))
    for key in ("a", "b"):
        store.put(key, payload_of(tmp_path / "f", b"x"))
    tokens = "oauth2.googleapis.com /token"
    assert cloud.asked == [tokens, _UPLOAD, _UPLOAD, tokens, _UPLOAD]


def test_a_token_that_is_never_accepted_is_said_to_be_refused(cloud: GoogleCloud, tmp_path: Path) -> None:
    cloud.token_uses = 0
    store = GcsStore(GcsSettings.from_variables({**cloud.environ, _KEY: json.dumps(authorized_user())}))
    with pytest.raises(CredentialsRefused, match="not accepted"):
        store.put("a", payload_of(tmp_path / "f", b"x"))
    assert cloud.asked.count(_UPLOAD) == 3


@pytest.mark.parametrize("source", ["service account", "workload identity of an account"])
def test_urls_are_signed_by_the_key_or_by_googles_service(cloud: GoogleCloud, tmp_path: Path, source: str) -> None:
    environ = {**cloud.environ, _KEY: json.dumps(info_of(source, tmp_path))}
    url = GcsStore(GcsSettings.from_variables(environ)).signed_url("größe/a b.png", ttl_s=60)
    assert url.startswith(
        "https://storage.googleapis.com/b/gr%C3%B6%C3%9Fe/a%20b.png?X-Goog-Algorithm=GOOG4-RSA-SHA256"
    )
    assert f"X-Goog-Credential={ACCOUNT.replace('@', '%40')}%2F" in url
    if source == "service account":
        assert cloud.asked == []
    else:
        assert url.endswith(b"signed by Google".hex())


def test_a_users_own_credentials_sign_nothing(cloud: GoogleCloud) -> None:
    store = GcsStore(GcsSettings.from_variables({**cloud.environ, _KEY: json.dumps(authorized_user())}))
    with pytest.raises(SigningImpossible, match=_KEY):
        store.signed_url("a", ttl_s=60)


def test_an_emulator_without_a_key_signs_nothing() -> None:
    store = GcsStore(GcsSettings.from_variables({"GCS_BUCKET": "b", "STORAGE_EMULATOR_HOST": "127.0.0.1:1"}))
    with pytest.raises(SigningImpossible, match=_KEY):
        store.signed_url("a", ttl_s=60)


def test_a_session_at_another_address_is_given_no_token(cloud: GoogleCloud) -> None:
    seen: list[Any] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        seen.append(handler.headers["Authorization"])
        return 200, "{}"

    settings = GcsSettings.from_variables({**cloud.environ, _KEY: json.dumps(authorized_user())})
    with answering_by(answer) as own, answering_by(answer) as other:
        session = GoogleCredentials(settings).open_session(own)
        session.get(f"{own}/object")
        session.get(f"{other}/session?upload_id=x")
    assert seen == ["Bearer oauth2-0", None]


def test_the_variable_for_json_wins(tmp_path: Path) -> None:
    settings = GcsSettings.from_variables({_KEY: "/nothing/here.json", _KEY_AS_JSON: '{"type": "authorized_user"}'})
    assert (settings.credentials_file, settings.credentials_info) == (None, {"type": "authorized_user"})


@pytest.mark.parametrize("variable", [_KEY, _KEY_AS_JSON])
@pytest.mark.parametrize(
    "text",
    ['{"private_key": "hush"', '{"private_key": "hush"}', '{"type": "service_account", "private_key": "hush"}',
     '{"type": "external_account", "audience": "hush", "credential_source": 5}', '{"type": "hush-hush"}'],
)  # fmt: skip
def test_a_key_in_a_variable_that_is_none_is_refused_and_not_shown(variable: str, text: str) -> None:
    with pytest.raises((ConfigError, StorageError), match=variable) as caught:
        GcsStore(GcsSettings.from_variables({"GCS_BUCKET": "b", variable: text}))
    shown = f"{caught.value} {caught.value.to_json()} {caught.value.__cause__!r}"
    assert "hush" not in shown
    assert caught.value.__suppress_context__


def test_a_key_in_a_variable_is_in_no_repr() -> None:
    assert "hush" not in repr(GcsSettings.from_variables({_KEY: '{"type": "service_account", "private_key": "hush"}'}))


def test_json_that_is_no_object_is_no_key() -> None:
    with pytest.raises(ConfigError, match=_KEY_AS_JSON):
        GcsSettings.from_variables({_KEY_AS_JSON: "[1]"})


def test_no_credentials_anywhere_says_how_to_set_them(tmp_path: Path) -> None:
    program = (
        "from comfypin.storage.registry import KINDS; import os;"
        "kind = KINDS['gcs']; kind.open_store(kind.read_settings(os.environ))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "GCS_"))}
    nowhere = {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "GCS_BUCKET": "b", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, **nowhere},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert CredentialsMissing.__name__ in done.stderr
    assert f"set {_KEY} to the JSON file" in done.stderr
