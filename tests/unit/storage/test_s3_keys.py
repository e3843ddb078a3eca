"""Keys that platforms lend, from servers that speak as theirs do."""

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from comfypin.errors.storage import CredentialsMissing
from comfypin.storage.s3_keys import KeySource
from comfypin.storage.s3_settings import S3Settings
from tests.support.scripted_server import answering_by


def lent(name: str, minutes: float) -> str:
    until = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"AccessKeyId": name, "SecretAccessKey": "s", "Token": "t", "Expiration": until})


def config_of(**environ: str) -> S3Settings:
    return S3Settings.from_variables({"S3_BUCKET": "b", **environ})


def test_a_container_lends_keys_against_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        asked_well = (handler.path, handler.headers["Authorization"]) == ("/v1/keys", "sesame")
        return (200, lent("lent", 60)) if asked_well else (403, "")

    with answering_by(answer) as url:
        source = KeySource(
            config_of(
                AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{url}/v1/keys",
                AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "token"),
            )
        )
        keys = source()
    assert (keys.access_key_id, keys.secret_access_key, keys.session_token) == ("lent", "s", "t")


@pytest.mark.parametrize("minutes", [60, 3, -5])
def test_keys_are_asked_for_once_while_they_are_good(minutes: float) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        asked.append(handler.path)
        return 200, lent(str(len(asked)), minutes)

    with answering_by(answer) as url:
        source = KeySource(config_of(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{url}/k"))
        assert [source().access_key_id for _ in range(3)] == ["1"] * 3
    assert len(asked) == 1


def test_a_role_is_lent_against_the_token_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("eyJ.jwt")
    forms = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        forms.append(parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
        inner = "<AccessKeyId>role</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        return 200, f"<Credentials>{inner}<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>"

    with answering_by(answer) as url:
        source = KeySource(
            config_of(
                AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
                AWS_ROLE_ARN="arn:aws:iam::1:role/r",
                AWS_ENDPOINT_URL_STS=url,
            )
        )
        assert source().access_key_id == "role"
    assert (forms[0]["WebIdentityToken"], forms[0]["RoleArn"]) == (["eyJ.jwt"], ["arn:aws:iam::1:role/r"])


def test_an_instance_lends_its_roles_keys() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        if handler.command == "PUT":
            return 200, "v2-token"
        if handler.headers["X-aws-ec2-metadata-token"] != "v2-token":
            return 401, ""
        return 200, lent("instance", 60) if handler.path.endswith("/my-role") else "my-role"

    with answering_by(answer) as url:
        assert KeySource(config_of(), metadata_service=url)().access_key_id == "instance"


def test_a_machine_without_any_names_the_variables() -> None:
    with answering_by(lambda handler: (404, "")) as url, pytest.raises(CredentialsMissing, match="AWS_ACCESS_KEY_ID"):
        KeySource(config_of(), metadata_service=url)


def test_a_platform_that_does_not_answer_is_said() -> None:
    source = KeySource(config_of(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1/k"))
    with pytest.raises(CredentialsMissing, match="could not be had"):
        source()
